//! Processor shares, in thousandths, so that no float decides anything.

use std::fmt;
use std::str::FromStr;

use crate::ParseError;
use crate::parse::string_form;

/// Holds a number of processors, in thousandths, at least 0.001.
///
/// Written as a decimal with at most three places: `2`, `0.5`, `1.25`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuCount(u32);

impl CpuCount {
    /// Makes a count of whole processors.
    ///
    /// # Errors
    /// Zero, or more than 4,000,000.
    pub fn whole(count: u32) -> Result<Self, ParseError> {
        count.to_string().parse()
    }

    /// Makes a count from thousandths of a processor.
    ///
    /// # Errors
    /// Zero, or more than 4,000,000,000.
    pub fn from_millis(millis: u32) -> Result<Self, ParseError> {
        if millis == 0 || millis > MAX_MILLIS {
            let given = Self(millis).to_string();
            return Err(ParseError::new(KIND, &given, FORM));
        }
        Ok(Self(millis))
    }

    /// Makes the count of the presets, which is known to be valid.
    pub(crate) const fn two() -> Self {
        Self(2_000)
    }

    /// Makes the least count that the kernel can be told of.
    pub(crate) const fn hundredth() -> Self {
        Self(10)
    }

    /// Returns the count in thousandths of a processor.
    pub const fn millis(self) -> u32 {
        self.0
    }

    /// Returns the count in billionths of a processor, as the Docker Engine API's `NanoCpus` takes
    /// it (<https://docs.docker.com/reference/api/engine/>).
    pub fn nanos(self) -> u64 {
        u64::from(self.0) * 1_000_000
    }
}

impl fmt::Display for CpuCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1_000, self.0 % 1_000);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let places = format!("{rest:03}");
        write!(f, "{whole}.{}", places.trim_end_matches('0'))
    }
}

impl FromStr for CpuCount {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_millis(text).map(Self).ok_or_else(|| ParseError::new(KIND, text, FORM))
    }
}

string_form!(CpuCount);

fn parse_millis(text: &str) -> Option<u32> {
    let (whole, places) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !is_digits(whole) || !is_digits(places) || places.len() > 3 {
        return None;
    }
    let whole: u32 = whole.parse().ok()?;
    let places: u32 = format!("{places:0<3}").parse().ok()?;
    whole.checked_mul(1_000)?.checked_add(places).filter(|millis| (1..=MAX_MILLIS).contains(millis))
}

const KIND: &str = "a number of CPUs";
const FORM: &str = "write a number above 0 and at most 4000000, with at most three decimals, such as 2 or 0.5";
const MAX_MILLIS: u32 = 4_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_exactly() {
        for (text, millis, printed) in [
            ("2", 2_000, "2"),
            ("2.0", 2_000, "2"),
            ("0.5", 500, "0.5"),
            ("1.25", 1_250, "1.25"),
            ("0.001", 1, "0.001"),
            ("4000000", 4_000_000_000, "4000000"),
        ] {
            let count: CpuCount = text.parse().unwrap();
            assert_eq!((count.millis(), count.to_string().as_str()), (millis, printed));
        }
        assert_eq!(CpuCount::two().nanos(), 2_000_000_000);
        assert_eq!(CpuCount::whole(2).unwrap(), CpuCount::two());
    }

    #[test]
    fn refuses_what_is_no_positive_decimal() {
        for text in [
            "",
            "0",
            "0.0",
            "-1",
            "+1",
            "NaN",
            "nan",
            "inf",
            "1e3",
            "0.0001",
            "1.2345",
            ".5",
            "1.",
            "1.2.3",
            "4000000.001",
            "99999999999",
            "1 ",
            "٣",
        ] {
            assert!(text.parse::<CpuCount>().is_err(), "{text}");
        }
        assert!(CpuCount::from_millis(0).is_err());
        assert!(CpuCount::whole(u32::MAX).is_err());
    }
}
