//! Lengths of time in whole seconds, written with one unit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::ParseError;
use crate::parse::string_form;

/// Holds a length of time in whole seconds, at most about 136 years.
///
/// Written as an integer and one of `s`, `m`, `h`, `d`; printed in the largest unit that is exact.
/// The bound keeps an addition to a clock's reading from overflowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u32);

impl Span {
    /// Makes a span of seconds.
    pub const fn seconds(count: u32) -> Self {
        Self(count)
    }

    /// Makes a span of minutes.
    pub const fn minutes(count: u16) -> Self {
        Self(count as u32 * 60)
    }

    /// Makes a span of hours.
    pub const fn hours(count: u16) -> Self {
        Self(count as u32 * 3_600)
    }

    /// Returns the number of seconds.
    pub const fn as_seconds(self) -> u32 {
        self.0
    }

    /// Returns the span as a duration.
    pub const fn as_duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.as_duration()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, seconds) = UNITS
            .into_iter()
            .rev()
            .find(|(_, seconds)| self.0 != 0 && self.0.is_multiple_of(*seconds))
            .unwrap_or(("s", 1));
        write!(f, "{}{unit}", self.0 / seconds)
    }
}

impl FromStr for Span {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let scale = UNITS.into_iter().find_map(|(name, scale)| (name == unit).then_some(scale));
        let (false, Some(scale)) = (number.is_empty(), scale) else {
            return Err(ParseError::new(KIND, text, FORM));
        };
        number
            .parse::<u32>()
            .ok()
            .and_then(|number| number.checked_mul(scale))
            .map(Self)
            .ok_or_else(|| ParseError::new(KIND, text, format!("write at most {}s", u32::MAX)))
    }
}

string_form!(Span);

const KIND: &str = "a length of time";
const FORM: &str = "write an integer and one of s, m, h, d, such as 90s or 8h";
const UNITS: [(&str, u32); 4] = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        for (text, seconds, printed) in [
            ("0s", 0, "0s"),
            ("90s", 90, "90s"),
            ("30m", 1_800, "30m"),
            ("60m", 3_600, "1h"),
            ("8h", 28_800, "8h"),
            ("30d", 2_592_000, "30d"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.as_seconds(), span.to_string().as_str()), (seconds, printed));
        }
        assert_eq!(Span::hours(8), Span::minutes(480));
        assert_eq!(Duration::from(Span::seconds(3)), Duration::from_secs(3));
    }

    #[test]
    fn refuses_other_forms() {
        for text in ["", "8", "h", "8H", "1h30m", "1.5h", "-1s", "8 h", "8hours", "NaN", "4294967296s", "49711d"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
