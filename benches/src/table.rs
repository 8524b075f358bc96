//! Rows of figures, each with its rivals', and the table that holds them against what is to be reached.

use std::fmt;

use crate::Samples;

/// What a row's figures count.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "each is printed as it is called")]
#[expect(clippy::exhaustive_enums, reason = "these are all the units there are rows for")]
pub enum Unit {
    FilesPerSecond,
    Kibibytes,
    Mebibytes,
    MegabytesPerSecond,
    Milliseconds,
    PerSecond,
}

/// A figure to reach, for the median.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_enums, reason = "these are all the targets there are")]
pub enum Target {
    /// Not more than this, in the row's unit.
    AtMost(f64),
    /// Not more than so much above what a rival takes, in the row's unit.
    AtMostAbove(f64, &'static str),
    /// Not more than so many times what a rival takes.
    AtMostTimes(f64, &'static str),
    /// Not less than so many times what a rival does.
    AtLeastTimes(f64, &'static str),
}

/// One figure, and everybody's.
#[derive(Clone, Debug)]
pub struct Row {
    figure: String,
    unit: Unit,
    ours: Samples,
    rivals: Vec<(&'static str, Samples)>,
    targets: &'static [Target],
    load: f64,
}

impl Row {
    /// Begins a row; its rivals come as they are measured.
    pub fn new(figure: impl Into<String>, unit: Unit, targets: &'static [Target]) -> Self {
        Self { figure: figure.into(), unit, ours: Samples::default(), rivals: Vec::new(), targets, load: 0.0 }
    }

    /// What a contender did, which is [`OURS`] or a rival's name.
    pub fn of(&mut self, contender: &'static str) -> &mut Samples {
        if contender == OURS {
            return &mut self.ours;
        }
        let at = self.rivals.iter().position(|(name, _)| *name == contender).unwrap_or_else(|| {
            self.rivals.push((contender, Samples::default()));
            self.rivals.len() - 1
        });
        &mut self.rivals[at].1
    }

    /// Notes what else the machine had to do meanwhile.
    pub fn set_load(&mut self, load: f64) {
        self.load = load;
    }

    fn rival(&self, name: &str) -> Option<f64> {
        self.rivals.iter().find(|(rival, _)| *rival == name)?.1.median()
    }

    fn meets(&self, target: Target) -> Option<bool> {
        let ours = self.ours.median()?;
        Some(match target {
            Target::AtMost(most) => ours <= most,
            Target::AtMostAbove(more, rival) => ours <= self.rival(rival)? + more,
            Target::AtMostTimes(times, rival) => ours <= times * self.rival(rival)?,
            Target::AtLeastTimes(times, rival) => ours >= times * self.rival(rival)?,
        })
    }

    fn cells(&self, rivals: &[&str]) -> Vec<String> {
        let number = |figure: Option<f64>| figure.map_or_else(|| "–".to_owned(), shown);
        let against = |rival: Option<f64>| {
            let ratio = self.ours.median().zip(rival).map(|(ours, rival)| ours / rival);
            let rival = number(rival);
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
        let mut cells = vec![
            format!("{} ({})", self.figure, self.unit),
            self.ours.len().to_string(),
            number(self.ours.median()),
            number(self.ours.at(99)),
        ];
        cells.extend(rivals.iter().map(|rival| against(self.rival(rival))));
        cells.extend([format!("{:.1}", self.load), targets.join("; "), verdicts.join("; ")]);
        cells
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FilesPerSecond => "files/s",
            Self::Kibibytes => "KiB",
            Self::Mebibytes => "MiB",
            Self::MegabytesPerSecond => "MB/s",
            Self::Milliseconds => "ms",
            Self::PerSecond => "a second",
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtMostAbove(more, rival) => write!(f, "≤ {rival} + {more}"),
            Self::AtMostTimes(times, rival) => write!(f, "≤ {times:.3} × {rival}"),
            Self::AtLeastTimes(times, rival) => write!(f, "≥ {times} × {rival}"),
        }
    }
}

/// Prints the rows of one group as a table, with each rival's median and how many times it ours is.
#[expect(clippy::print_stdout, reason = "printing is what a report is for")]
pub fn print(group: &str, rows: &[Row]) {
    let mut rivals: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| &row.rivals) {
        if !rivals.contains(name) {
            rivals.push(name);
        }
    }
    let head = [&[group, "n", "ours p50", "p99"][..], &rivals, &["load", "to reach", "verdict"]].concat();
    let head = head.into_iter().map(str::to_owned).collect();
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(rows.iter().map(|row| row.cells(&rivals))).collect();
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
        0.0..1.0 => format!("{figure:.4}"),
        1.0..10.0 => format!("{figure:.2}"),
        10.0..100.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}

/// The contender whose figures are held against the others'.
pub const OURS: &str = "ours";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_it_missed() {
        let targets = &[
            Target::AtMost(3.0),
            Target::AtMostTimes(0.05, "docker"),
            Target::AtLeastTimes(0.8, "bare"),
            Target::AtMostAbove(0.5, "docker"),
        ];
        let mut row = Row::new("exec", Unit::Milliseconds, targets);
        row.of(OURS).push_figure(4.0);
        row.of("docker").push_figure(100.0);
        row.set_load(1.25);
        let cells = row.cells(&["docker", "bare"]);
        assert_eq!(cells[4..], ["100 (×0.040)", "–", "1.2", cells[7].as_str(), "MISSED; met; not measured; met"]);
    }
}
