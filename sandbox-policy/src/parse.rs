//! The one error of every parsed type, and the traits that each of them shares.
//!
//! Invariant: what was given is shown clipped and escaped, so that a hostile text can neither flood
//! a log nor move a cursor.

use std::fmt;

/// Tells why a text is not a valid value of a type.
///
/// It names what was given (clipped to 80 characters and escaped) and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub struct ParseError {
    field: Option<String>,
    kind: &'static str,
    given: String,
    allowed: String,
}

impl ParseError {
    /// Makes an error: `given` is not `kind` (with its article), `allowed` says what would be.
    pub(crate) fn new(kind: &'static str, given: &str, allowed: impl Into<String>) -> Self {
        Self { field: None, kind, given: clip(given), allowed: allowed.into() }
    }

    /// Names the field that the value was meant for.
    #[must_use]
    pub fn in_field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Returns the field that the value was meant for, where it is known.
    pub fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// Returns what the value should have been, with its article: `a byte size`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Returns what was given, clipped and escaped.
    pub fn given(&self) -> &str {
        &self.given
    }

    /// Returns what is allowed, as advice: `write an integer and one of B, KiB, MiB, GiB, TiB`.
    pub fn allowed(&self) -> &str {
        &self.allowed
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = &self.field {
            write!(f, "{field} ")?;
        }
        write!(f, "\"{}\" is not {}: {}", self.given, self.kind, self.allowed)
    }
}

/// Escapes control and other invisible characters, and cuts after [`MAX_SHOWN`] characters.
pub(crate) fn clip(text: &str) -> String {
    let mut shown = String::new();
    let mut length = 0;
    for character in text.chars() {
        let escaped = character.escape_debug();
        length += escaped.len();
        if length > MAX_SHOWN {
            shown.push('…');
            break;
        }
        shown.extend(escaped);
    }
    shown
}

/// Implements `TryFrom<&str>`, `TryFrom<String>`, `Serialize` and `Deserialize` as a string for a
/// type that has `Display` and `FromStr<Err = ParseError>`.
macro_rules! string_form {
    ($type:ty) => {
        impl TryFrom<&str> for $type {
            type Error = $crate::ParseError;

            fn try_from(text: &str) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl TryFrom<String> for $type {
            type Error = $crate::ParseError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Defines a fieldless enum whose variants are words: `ALL`, `as_str`, `Display`, `FromStr`, serde.
macro_rules! words {
    (
        $(#[$meta:meta])*
        $name:ident is $kind:literal {
            $($(#[$variant_meta:meta])* $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl $name {
            /// Lists every variant, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the word that stands for the variant in documents and in output.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::ParseError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::ParseError::new(
                        $kind,
                        text,
                        concat!("write one of", $(" ", $word),+),
                    )),
                }
            }
        }

        $crate::parse::string_form!($name);
    };
}

pub(crate) use {string_form, words};

/// The most characters of a given text that an error shows.
const MAX_SHOWN: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_field_given_and_allowed() {
        let error = ParseError::new("a byte size", "1Gi", "write B or KiB").in_field("memory");
        assert_eq!(error.to_string(), "memory \"1Gi\" is not a byte size: write B or KiB");
        assert_eq!(error.field(), Some("memory"));
    }

    #[test]
    fn clips_and_escapes() {
        assert_eq!(clip("a\u{1b}[31m\n\u{202e}"), "a\\u{1b}[31m\\n\\u{202e}");
        let long = clip(&"x".repeat(5_000));
        assert_eq!(long.chars().count(), MAX_SHOWN + 1);
        assert!(long.ends_with('…'));
    }
}
