//! Samples, their medians, and the table that holds them against the figures to reach.

use std::fmt;
use std::time::Duration;

/// What one contender did, time after time.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds a time, as milliseconds.
    pub fn push(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1_000.0);
    }

    /// Adds a figure in the row's own unit.
    pub fn push_figure(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// Adds a rate: so many millions of something in this time, each second.
    pub fn push_rate(&mut self, amount: f64, time: Duration) {
        self.0.push(amount / time.as_secs_f64());
    }

    /// The middle of what was added; `None` if nothing was.
    pub fn median(&self) -> Option<f64> {
        self.at(50)
    }

    /// What so many hundredths of the samples do not exceed.
    pub fn at(&self, hundredths: usize) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get((sorted.len() * hundredths / 100).min(sorted.len().saturating_sub(1))).copied()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What a row's figures count.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "each is printed as it is called")]
#[expect(clippy::exhaustive_enums, reason = "these are all the units there are rows for")]
pub enum Unit {
    FilesPerSecond,
    Mebibytes,
    MegabytesPerSecond,
    Milliseconds,
}

/// A figure to reach, for the median.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "these are all the targets there are")]
pub enum Target {
    /// Not more than this, in the row's unit.
    AtMost(f64),
    /// Not more than so many times what the `docker` command takes.
    AtMostTimesDocker(f64),
    /// Not less than so many times what a bare process does.
    AtLeastTimesBare(f64),
    /// Not less than so many times what the `docker` command does.
    AtLeastTimesDocker(f64),
}

/// One figure, and everybody's.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was done.
    pub figure: &'static str,
    /// What is counted.
    pub unit: Unit,
    /// In a sandbox.
    pub ours: Samples,
    /// Through the engine's API.
    pub raw: Samples,
    /// By the `docker` command.
    pub docker: Samples,
    /// By a bare process.
    pub bare: Samples,
    /// What is to be reached.
    pub targets: &'static [Target],
}

impl Row {
    /// Begins a row.
    pub fn new(figure: &'static str, unit: Unit, targets: &'static [Target]) -> Self {
        let [ours, raw, docker, bare] = [const { Samples(Vec::new()) }; 4];
        Self { figure, unit, ours, raw, docker, bare, targets }
    }

    fn meets(&self, target: Target) -> Option<bool> {
        let ours = self.ours.median()?;
        Some(match target {
            Target::AtMost(most) => ours <= most,
            Target::AtMostTimesDocker(times) => ours <= times * self.docker.median()?,
            Target::AtLeastTimesBare(times) => ours >= times * self.bare.median()?,
            Target::AtLeastTimesDocker(times) => ours >= times * self.docker.median()?,
        })
    }

    fn cells(&self) -> [String; 9] {
        let number = |figure: Option<f64>| figure.map_or_else(|| "–".to_owned(), shown);
        let against = |rival: &Samples| {
            let ratio = self.ours.median().zip(rival.median()).map(|(ours, rival)| ours / rival);
            let rival = number(rival.median());
            ratio.map_or(rival.clone(), |ratio| format!("{rival} (×{ratio:.3})"))
        };
        let targets: Vec<String> = self.targets.iter().map(ToString::to_string).collect();
        let verdicts: Vec<&str> = self
            .targets
            .iter()
            .map(|target| match self.meets(*target) {
                None => "not measured",
                Some(true) => "met",
                Some(false) => "MISSED",
            })
            .collect();
        [
            format!("{} ({})", self.figure, self.unit),
            self.ours.len().to_string(),
            number(self.ours.median()),
            number(self.ours.at(99)),
            against(&self.raw),
            against(&self.docker),
            against(&self.bare),
            targets.join("; "),
            verdicts.join("; "),
        ]
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FilesPerSecond => "files/s",
            Self::Mebibytes => "MiB",
            Self::MegabytesPerSecond => "MB/s",
            Self::Milliseconds => "ms",
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtMostTimesDocker(times) => write!(f, "≤ {times} × docker"),
            Self::AtLeastTimesBare(times) => write!(f, "≥ {times} × bare"),
            Self::AtLeastTimesDocker(times) => write!(f, "≥ {times} × docker"),
        }
    }
}

/// Prints rows as a table, with each rival's median and how many times it ours is.
#[expect(clippy::print_stdout, reason = "printing is what a report is for")]
pub fn print(rows: &[Row]) {
    let head = ["figure", "n", "ours p50", "p99", "API", "docker", "bare", "to reach", "verdict"].map(str::to_owned);
    let lines: Vec<[String; 9]> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    for line in &lines {
        let cells = line.iter().enumerate().map(|(column, cell)| {
            let width = lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
            format!("{cell:width$}")
        });
        println!("{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
}

fn shown(figure: f64) -> String {
    match figure {
        0.0..10.0 => format!("{figure:.2}"),
        10.0..100.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(figures: &[f64]) -> Samples {
        Samples(figures.to_vec())
    }

    #[test]
    fn the_middle_is_found_whatever_the_order() {
        assert_eq!(samples(&[]).median(), None);
        assert_eq!(samples(&[3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(samples(&[3.0, 1.0, 2.0]).at(99), Some(3.0));
    }

    #[test]
    fn a_row_says_what_it_missed() {
        let targets = &[Target::AtMost(3.0), Target::AtMostTimesDocker(0.05), Target::AtLeastTimesBare(0.8)];
        let mut row = Row::new("exec", Unit::Milliseconds, targets);
        row.ours = samples(&[4.0]);
        row.docker = samples(&[100.0]);
        assert_eq!(row.cells()[8], "MISSED; met; not measured");
        assert_eq!(row.cells()[5], "100 (×0.040)");
    }
}
