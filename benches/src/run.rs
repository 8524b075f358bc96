//! What of a report is asked for, and the rows that come of it.

use crate::{Result, Row};

/// Which figures are to be measured, and how thoroughly.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Groups, by their names; all where there is none.
    pub groups: Vec<String>,
    /// Parts of figures' names; all figures where there is none.
    pub figures: Vec<String>,
    /// How much is done for each figure.
    pub effort: Effort,
}

/// How much is done for each figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is nothing between them")]
pub enum Effort {
    /// Enough for a median.
    #[default]
    Measured,
    /// Just enough to see that everything works. The figures mean nothing.
    Tried,
}

impl Run {
    /// Reads the words of a command line.
    ///
    /// # Errors
    /// For an option that there is not, or a group that there is not.
    pub fn parse(words: impl IntoIterator<Item = String>, groups: &[&str]) -> Result<Self> {
        let mut run = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                // Which cargo adds.
                "--bench" => {}
                "--only" => {
                    let group = words.next().unwrap_or_default();
                    if !groups.contains(&group.as_str()) {
                        return Err(format!("--only takes one of {}, not {group:?}", groups.join(", ")).into());
                    }
                    run.groups.push(group);
                }
                "--test" => run.effort = Effort::Tried,
                option if option.starts_with('-') => {
                    return Err(format!("there is --only GROUP and --test, and no {option}").into());
                }
                _ => run.figures.push(word),
            }
        }
        Ok(run)
    }

    /// Whether a group is asked for.
    pub fn wants_group(&self, group: &str) -> bool {
        self.groups.is_empty() || self.groups.iter().any(|wanted| wanted == group)
    }

    /// Whether a figure is asked for.
    pub fn wants(&self, figure: &str) -> bool {
        self.figures.is_empty() || self.figures.iter().any(|part| figure.contains(part.as_str()))
    }

    /// How often something is done that is done so often for a median.
    pub fn times(&self, measured: usize) -> usize {
        match self.effort {
            Effort::Measured => measured,
            Effort::Tried => measured.min(2),
        }
    }

    /// Adds the rows of a figure that is asked for, with the load of the machine beside them.
    ///
    /// # Errors
    /// Those of the work, with the figure's name before them.
    pub fn figure(&self, name: &str, rows: &mut Vec<Row>, work: impl FnOnce() -> Result<Vec<Row>>) -> Result<()> {
        if !self.wants(name) {
            return Ok(());
        }
        let before = load()?;
        let mut measured = work().map_err(|error| {
            let causes =
                std::iter::successors(error.source(), |cause| cause.source()).map(|cause| format!(": {cause}"));
            format!("{name}: {error}{}", causes.collect::<String>())
        })?;
        let between = f64::midpoint(before, load()?);
        for row in &mut measured {
            row.set_load(between);
        }
        rows.append(&mut measured);
        Ok(())
    }
}

/// How many programs want to run, over the last minute (`proc_loadavg(5)`); the measured ones are among them.
fn load() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Run> {
        Run::parse(line.split_whitespace().map(str::to_owned), &["engine", "egress"])
    }

    #[test]
    fn what_is_asked_for_is_told_from_the_rest() {
        let all = run("--bench").unwrap();
        assert!(all.wants_group("engine") && all.wants("exec") && all.times(24) == 24);
        let some = run("--only egress tunnel --test --bench").unwrap();
        assert!(some.wants_group("egress") && !some.wants_group("engine"));
        assert!(some.wants("100 MB by a tunnel") && !some.wants("exec") && some.times(24) == 2);
    }

    #[test]
    fn what_there_is_not_is_refused() {
        assert!(run("--only nothing").is_err() && run("--only").is_err() && run("--quick").is_err());
    }
}
