//! What is wrong with a document, and where.

use std::fmt;

use crate::ParseError;
use crate::parse::clip;

/// Tells the first thing that is wrong with a policy's document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct DocumentError {
    line: usize,
    column: usize,
    key: Option<String>,
    message: String,
}

impl DocumentError {
    /// Makes an error at a byte offset of the text; the message has no key in it.
    pub(super) fn new(text: &str, offset: usize, key: Option<String>, message: String) -> Self {
        let offset = text.floor_char_boundary(offset);
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or("").chars().count() + 1,
            key,
            message,
        }
    }

    /// Makes an error from a value that does not parse.
    pub(super) fn value(text: &str, offset: usize, key: String, error: &ParseError) -> Self {
        Self::new(text, offset, Some(key), error.to_string())
    }

    /// Makes an error from what the TOML parser says.
    pub(super) fn syntax(text: &str, error: &toml::de::Error) -> Self {
        let span = error.span().unwrap_or(0..0);
        let given = text.get(span.clone()).unwrap_or("");
        if error.message() == DUPLICATE {
            let section = enclosing_section(text, span.start);
            let message = "is given twice: write it once".to_owned();
            return Self::new(text, span.start, Some(clip(&format!("{section}{given}"))), message);
        }
        let mut message = String::from("not TOML: ");
        message.push_str(&clip(error.message()));
        if !given.is_empty() {
            message = format!("\"{}\" is {message}", clip(given));
        }
        Self::new(text, span.start, None, message)
    }

    /// Returns the line, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Returns the column in characters, from 1.
    pub fn column(&self) -> usize {
        self.column
    }

    /// Returns the path of the key, `limits.memory`; none where the text is not TOML at all.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        if let Some(key) = &self.key {
            write!(f, "{key} ")?;
        }
        f.write_str(&self.message)
    }
}

/// Returns the name of the section that an offset lies in and a dot, or nothing.
fn enclosing_section(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or("");
    let header = before.lines().rev().find_map(|line| line.trim().strip_prefix('['));
    header.and_then(|header| header.split_once(']')).map_or_else(String::new, |(name, _)| format!("{}.", name.trim()))
}

/// What the TOML parser says of a key that is there twice.
const DUPLICATE: &str = "duplicate key";
