//! In which place of a request a secret may stand.

use std::fmt;
use std::str::FromStr;

use crate::ParseError;
use crate::parse::string_form;

/// Tells in which place of a request a secret may stand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "a gateway must know each of them")]
pub enum Placement {
    /// As the password of basic authentication (RFC 7617).
    Basic {
        /// The user.
        user: BasicUser,
    },
    /// In a header: as its whole value, or after one word and a space, as in `Bearer …`.
    Header {
        /// The header.
        name: HeaderField,
    },
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { user } => write!(f, "basic {user}"),
            Self::Header { name } => write!(f, "header {name}"),
        }
    }
}

/// Names a header in small letters (RFC 9110, section 5.6.2); none of those that frame a request or route it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeaderField(String);

/// Names the user of basic authentication: 1 to 128 visible ASCII characters without `:`, quotes and backslashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BasicUser(String);

impl HeaderField {
    /// Returns the name, in small letters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl BasicUser {
    /// Returns the user.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HeaderField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for BasicUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HeaderField {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.to_ascii_lowercase();
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if !(1..=64).contains(&name.len()) || !name.bytes().all(is_allowed) {
            return Err(ParseError::new(HEADER_KIND, text, "write 1 to 64 letters, digits, - and _"));
        }
        if FRAMING.contains(&name.as_str()) || name.starts_with("proxy-") {
            return Err(ParseError::new(HEADER_KIND, text, "it frames or routes requests: write another"));
        }
        Ok(Self(name))
    }
}

impl FromStr for BasicUser {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b":\"\\".contains(&byte);
        if (1..=128).contains(&text.len()) && text.bytes().all(is_allowed) {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseError::new(USER_KIND, text, "write 1 to 128 visible ASCII characters without : \" \\"))
    }
}

string_form!(HeaderField);
string_form!(BasicUser);

const HEADER_KIND: &str = "a header for a secret";
const USER_KIND: &str = "a user for basic authentication";
const FRAMING: [&str; 10] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "te",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_frame_a_request_hold_no_secret() {
        assert_eq!("X-Api-Key".parse::<HeaderField>().unwrap().as_str(), "x-api-key");
        for text in ["", "a b", "a:b", "a\r\n", "Host", "content-length", "Proxy-Authorization", ":authority"] {
            assert!(text.parse::<HeaderField>().is_err(), "{text:?}");
        }
        assert!("a:b".parse::<BasicUser>().is_err() && "a\"".parse::<BasicUser>().is_err());
        assert_eq!("__token__".parse::<BasicUser>().unwrap().as_str(), "__token__");
    }
}
