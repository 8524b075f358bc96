//! The name of a credential, by which whoever holds the secret knows it.

use std::fmt;
use std::str::FromStr;

use crate::ParseError;
use crate::parse::string_form;

/// Names a credential: 1 to 64 small letters, digits and inner `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CredentialName(String);

impl CredentialName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CredentialName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_framed = !text.starts_with('-') && !text.ends_with('-');
        if (1..=64).contains(&text.len()) && text.bytes().all(is_allowed) && is_framed {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseError::new(KIND, text, FORM))
    }
}

string_form!(CredentialName);

const KIND: &str = "a credential's name";
const FORM: &str = "write 1 to 64 of a-z 0-9 and inner -";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!("model-2".parse::<CredentialName>().unwrap().to_string(), "model-2");
        for text in ["", "-a", "a-", "A", "a b", "a/b", "a=b", &"a".repeat(65)] {
            assert!(text.parse::<CredentialName>().is_err(), "{text:?}");
        }
    }
}
