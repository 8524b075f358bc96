//! What was measured, time after time, and its middle.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_found_whatever_the_order() {
        let samples = |figures: &[f64]| Samples(figures.to_vec());
        assert_eq!(samples(&[]).median(), None);
        assert_eq!(samples(&[3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(samples(&[3.0, 1.0, 2.0]).at(99), Some(3.0));
    }
}
