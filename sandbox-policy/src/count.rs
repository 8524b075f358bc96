//! Counts of processes and of open files: whole numbers above zero.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use crate::ParseError;

/// Defines a count that is never zero: `new`, `get`, `Display`, `FromStr`, serde as a number.
macro_rules! count {
    ($(#[$meta:meta])* $name:ident is $kind:literal) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "u32", into = "u32")]
        pub struct $name(NonZeroU32);

        impl $name {
            /// Makes a count.
            ///
            /// # Errors
            /// Zero.
            pub fn new(count: u32) -> Result<Self, ParseError> {
                NonZeroU32::new(count).map(Self).ok_or_else(|| ParseError::new($kind, "0", FORM))
            }

            /// Returns the count, above zero.
            pub const fn get(self) -> u32 {
                self.0.get()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                if !text.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(ParseError::new($kind, text, FORM));
                }
                text.parse().map(Self).map_err(|_| ParseError::new($kind, text, FORM))
            }
        }

        impl TryFrom<u32> for $name {
            type Error = ParseError;

            fn try_from(count: u32) -> Result<Self, Self::Error> {
                Self::new(count)
            }
        }

        impl From<$name> for u32 {
            fn from(count: $name) -> Self {
                count.get()
            }
        }
    };
}

/// Lets presets count, without a chance to fail.
macro_rules! preset {
    ($($name:ident)*) => {
        $(impl $name {
            /// Makes the count of a preset, given as one less.
            pub(crate) const fn above(less_one: u16) -> Self {
                Self(NonZeroU32::MIN.saturating_add(less_one as u32))
            }
        })*
    };
}

count! {
    /// Holds how many commits of a history come along, at least one.
    CloneDepth is "a number of commits"
}

count! {
    /// Holds how many processes and threads a sandbox may have at once, at least one.
    ProcessCount is "a number of processes"
}

count! {
    /// Holds how many files one process of a sandbox may have open at once, at least one.
    OpenFiles is "a number of open files"
}

preset! { OpenFiles ProcessCount }

const FORM: &str = "write a whole number from 1 to 4294967295";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints() {
        for text in ["1", "512", "4294967295"] {
            assert_eq!(text.parse::<ProcessCount>().unwrap().to_string(), text);
        }
        assert_eq!("007".parse::<OpenFiles>().unwrap().get(), 7);
        assert_eq!(ProcessCount::above(511).get(), 512);
    }

    #[test]
    fn refuses_what_is_no_count() {
        for text in ["", "0", "-1", "+1", "1.5", "NaN", "4294967296", "1k", " 1"] {
            let error = text.parse::<OpenFiles>().unwrap_err();
            assert!(error.to_string().ends_with(FORM), "{error}");
        }
        assert!(serde_json::from_str::<ProcessCount>("0").is_err());
    }
}
