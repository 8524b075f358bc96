//! Byte sizes: an exact number of bytes, written with one binary unit.
//!
//! Invariant: at most `i64::MAX` bytes, since engines take signed numbers.

use std::fmt;
use std::str::FromStr;

use crate::ParseError;
use crate::parse::string_form;

/// Holds a number of bytes, at most `i64::MAX`.
///
/// Written as an integer and one of `B`, `KiB`, `MiB`, `GiB`, `TiB`; printed in the largest unit
/// that is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// Makes a size of `count` bytes.
    ///
    /// # Errors
    /// More than `i64::MAX` bytes.
    pub fn from_bytes(count: u64) -> Result<Self, ParseError> {
        if count > MAX_BYTES {
            return Err(too_large(&format!("{count}B")));
        }
        Ok(Self(count))
    }

    /// Makes a size of `count` times 1,024 bytes.
    pub const fn kib(count: u32) -> Self {
        Self((count as u64) << 10)
    }

    /// Makes a size of `count` times 1,048,576 bytes.
    pub const fn mib(count: u32) -> Self {
        Self((count as u64) << 20)
    }

    /// Makes a size of `count` times 1,073,741,824 bytes.
    pub const fn gib(count: u32) -> Self {
        Self((count as u64) << 30)
    }

    /// Returns the number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Returns a quarter of the size, rounded down.
    pub(crate) const fn quarter(self) -> Self {
        Self(self.0 / 4)
    }

    /// Returns what each of several has in whole pages, and never nothing, which to a memory file system would be no limit
    /// (tmpfs(5), `size`).
    pub(crate) fn share(self, among: usize) -> Self {
        let among = u64::try_from(among).unwrap_or(u64::MAX).max(1);
        Self((self.0 / among / PAGE * PAGE).max(PAGE))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, shift) = UNITS
            .into_iter()
            .rev()
            .find(|(_, shift)| self.0 != 0 && self.0.trailing_zeros() >= *shift)
            .unwrap_or(("B", 0));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

impl FromStr for ByteSize {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let shift = UNITS.into_iter().find_map(|(name, shift)| (name == unit).then_some(shift));
        let (false, Some(shift)) = (number.is_empty(), shift) else {
            return Err(ParseError::new(KIND, text, FORM));
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(1 << shift))
            .filter(|bytes| *bytes <= MAX_BYTES)
            .map(Self)
            .ok_or_else(|| too_large(text))
    }
}

string_form!(ByteSize);

fn too_large(given: &str) -> ParseError {
    ParseError::new(KIND, given, format!("write at most {MAX_BYTES}B"))
}

const KIND: &str = "a byte size";
const FORM: &str = "write an integer and one of B, KiB, MiB, GiB, TiB";
const MAX_BYTES: u64 = i64::MAX as u64;
/// Bytes of a page.
const PAGE: u64 = 4_096;
const UNITS: [(&str, u32); 5] = [("B", 0), ("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_unit_and_prints_the_largest_exact_one() {
        for (text, bytes, printed) in [
            ("0B", 0, "0B"),
            ("0GiB", 0, "0B"),
            ("1023B", 1023, "1023B"),
            ("1024B", 1024, "1KiB"),
            ("1536MiB", 1536 << 20, "1536MiB"),
            ("2048GiB", 2 << 40, "2TiB"),
            ("9223372036854775807B", i64::MAX.unsigned_abs(), "9223372036854775807B"),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.bytes(), bytes, "{text}");
            assert_eq!(size.to_string(), printed);
        }
        assert_eq!(ByteSize::gib(4).to_string(), "4GiB");
        assert_eq!(ByteSize::gib(u32::MAX).bytes(), u64::from(u32::MAX) << 30);
    }

    #[test]
    fn refuses_other_units_fractions_and_signs() {
        for text in [
            "", "1", "GiB", "1Gi", "1G", "1GB", "1gib", "-1GiB", "+1GiB", "1.5GiB", "1 GiB", " 1GiB", "1GiB ", "NaN",
            "inf", "1_000B", "0x10B", "１GiB", "1PiB",
        ] {
            let error = text.parse::<ByteSize>().unwrap_err();
            assert!(error.to_string().ends_with(FORM), "{error}");
        }
    }

    #[test]
    fn refuses_what_an_engine_cannot_hold() {
        for text in ["9223372036854775808B", "8388608TiB", "99999999999999999999999TiB"] {
            let error = text.parse::<ByteSize>().unwrap_err();
            assert!(error.allowed().contains("9223372036854775807B"), "{error}");
        }
        assert!(ByteSize::from_bytes(u64::MAX).is_err());
        assert_eq!(ByteSize::from_bytes(5).unwrap().bytes(), 5);
    }
}
