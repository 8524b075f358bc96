//! Environment variables of a sandbox: names that no loader obeys, values that are never shown.

use std::fmt;
use std::str::FromStr;

use crate::ParseError;
use crate::parse::string_form;

/// Names an environment variable: a letter or `_`, then letters, digits and `_`, at most 255 bytes.
///
/// What the dynamic loader or the C library takes code or tunables from is refused, so that no
/// variable can change what a program inside is
/// (<https://man7.org/linux/man-pages/man8/ld.so.8.html>).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvName(String);

/// Holds the value of an environment variable, which may be private.
///
/// It has no NUL and at most 130,560 bytes, so that with its name it fits what
/// `execve` takes (<https://man7.org/linux/man-pages/man2/execve.2.html>, `MAX_ARG_STRLEN`).
/// Neither `Debug` nor an error shows it, and it has no `Display` and no `Serialize`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnvValue(String);

impl EnvName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl EnvValue {
    /// Returns the value.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EnvName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EnvValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnvValue({} bytes)", self.0.len())
    }
}

impl FromStr for EnvName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_start = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
        if !text.as_bytes().first().is_some_and(is_start)
            || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            || text.len() > MAX_NAME_BYTES
        {
            return Err(ParseError::new(NAME_KIND, text, NAME_FORM));
        }
        if text.starts_with("LD_") || LOADER_NAMES.contains(&text) {
            return Err(ParseError::new(NAME_KIND, text, LOADER_RULE));
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for EnvValue {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let shown = format!("{} bytes", text.len());
        if text.len() > MAX_VALUE_BYTES {
            return Err(ParseError::new(VALUE_KIND, &shown, "write at most 130560 bytes"));
        }
        if text.contains('\0') {
            return Err(ParseError::new(VALUE_KIND, &shown, "it must not contain a NUL byte"));
        }
        Ok(Self(text.to_owned()))
    }
}

string_form!(EnvName);

impl TryFrom<String> for EnvValue {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl<'de> serde::Deserialize<'de> for EnvValue {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

const NAME_KIND: &str = "an environment variable's name";
const NAME_FORM: &str = "write a letter or _, then letters, digits and _, at most 255 characters in all";
const LOADER_RULE: &str = "LD_*, GCONV_PATH and GLIBC_TUNABLES are refused, since they change how programs are loaded";
const VALUE_KIND: &str = "an environment variable's value";
const MAX_NAME_BYTES: usize = 255;
const MAX_VALUE_BYTES: usize = 128 * 1024 - 512;
const LOADER_NAMES: [&str; 2] = ["GCONV_PATH", "GLIBC_TUNABLES"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for text in ["A", "_", "a_1", "PATH", "OLD_LD_", "LDX"] {
            assert_eq!(text.parse::<EnvName>().unwrap().to_string(), text);
        }
        for text in ["", "1A", "A-B", "A=B", "é", "A B", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_", "GLIBC_TUNABLES"] {
            assert!(text.parse::<EnvName>().is_err(), "{text}");
        }
        assert!("A".repeat(256).parse::<EnvName>().is_err());
    }

    #[test]
    fn a_value_is_never_shown() {
        let value: EnvValue = "hunter2".parse().unwrap();
        assert_eq!(value.as_str(), "hunter2");
        assert_eq!(format!("{value:?}"), "EnvValue(7 bytes)");
        let error = "hunter2\0".parse::<EnvValue>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        assert!("x".repeat(MAX_VALUE_BYTES).parse::<EnvValue>().is_ok());
        assert!("x".repeat(MAX_VALUE_BYTES + 1).parse::<EnvValue>().is_err());
    }
}
