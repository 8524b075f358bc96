//! What a placeholder looks like.

use crate::ParseError;

/// Tells what a placeholder looks like, so that a program takes it for what it expects: how it begins, and how long it is.
/// Nothing of the secret goes into it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct PlaceholderShape {
    prefix: String,
    length: u16,
}

impl PlaceholderShape {
    /// Makes a shape.
    ///
    /// # Errors
    /// A prefix of other than at most 64 letters, digits and `. _ -`, or a length that leaves fewer than 24 characters to
    /// chance or is above 512.
    pub fn new(prefix: &str, length: u16) -> Result<Self, ParseError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if prefix.len() > MAX_PREFIX || !prefix.bytes().all(is_allowed) {
            return Err(ParseError::new("a placeholder's prefix", prefix, "write at most 64 of A-Z a-z 0-9 . _ -"));
        }
        if usize::from(length) < prefix.len() + RANDOM || length > MAX_LENGTH {
            let allowed = format!("write a whole number from {} to {MAX_LENGTH}", prefix.len() + RANDOM);
            return Err(ParseError::new("a placeholder's length", &length.to_string(), allowed));
        }
        Ok(Self { prefix: prefix.to_owned(), length })
    }

    /// Returns how it begins.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Returns its length in characters.
    pub fn length(&self) -> u16 {
        self.length
    }
}

impl Default for PlaceholderShape {
    /// 40 characters of chance.
    fn default() -> Self {
        Self { prefix: String::new(), length: 40 }
    }
}

const MAX_PREFIX: usize = 64;
const MAX_LENGTH: u16 = 512;
const RANDOM: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_is_left_to_chance() {
        assert!(PlaceholderShape::new("sk-", 27).is_ok() && PlaceholderShape::new("sk-", 26).is_err());
        assert!(PlaceholderShape::new("", 513).is_err() && PlaceholderShape::new("a b", 99).is_err());
        assert!(PlaceholderShape::new(&"a".repeat(65), 512).is_err());
    }
}
