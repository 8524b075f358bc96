//! The name of a policy, as it stands in reports and in the audit.

use std::fmt;
use std::str::FromStr;

use crate::ParseError;
use crate::parse::string_form;

/// Names the source of a policy: 1 to 64 letters, digits and `. _ - / @ + :` and inner spaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName(String);

impl PolicyName {
    /// Makes a name that is known to be valid.
    pub(crate) fn known(name: &'static str) -> Self {
        Self(name.to_owned())
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PolicyName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/@+: ".contains(&byte);
        if (1..=64).contains(&text.len()) && text.bytes().all(is_allowed) && text.trim() == text {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseError::new(KIND, text, FORM))
    }
}

string_form!(PolicyName);

const KIND: &str = "a policy name";
const FORM: &str = "write 1 to 64 of A-Z a-z 0-9 . _ - / @ + : and inner spaces";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_could_pass_for_a_meet_or_a_quote() {
        for text in ["", " a", "a ", "a ∧ b", "a\"b", "a\\b", "a\nb"] {
            assert!(text.parse::<PolicyName>().is_err(), "{text:?}");
        }
        assert!("a".repeat(65).parse::<PolicyName>().is_err());
        assert_eq!("ci/x 2".parse::<PolicyName>().unwrap().to_string(), "ci/x 2");
    }
}
