//! An error as it leaves the command: whatever went wrong, in the words and the order in which it is told.

use std::error::Error as StdError;
use std::fmt;
use std::ops::{Deref, DerefMut};

use sandbox_core::{Error, ErrorKind};
use sandbox_policy::{PolicyError, Violation};
use serde::{Deserialize, Serialize};

/// What went wrong, for people and for JSON. It travels from a supervisor to `up` as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Failure(Box<Told>);

/// What there is to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Told {
    /// A word for code: `image-missing`.
    pub(crate) kind: String,
    /// What went wrong.
    pub(crate) message: String,
    /// Why, nearest cause first.
    pub(crate) caused_by: Vec<String>,
    /// What to do about it.
    pub(crate) hint: Option<String>,
    /// Every reason, where a policy refused.
    pub(crate) violations: Vec<Violation>,
    /// What was left behind.
    pub(crate) residue: Vec<String>,
}

/// What a verb comes to.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Told {
            kind: word(kind),
            message: message.into(),
            caused_by: Vec::new(),
            hint: None,
            violations: Vec::new(),
            residue: Vec::new(),
        }))
    }

    pub(crate) fn io(message: impl Into<String>, cause: std::io::Error) -> Self {
        Error::io(message, cause).into()
    }

    #[must_use]
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    #[must_use]
    pub(crate) fn with_cause(mut self, cause: impl fmt::Display) -> Self {
        self.caused_by.push(cause.to_string());
        self
    }

    pub(crate) fn is(&self, kind: ErrorKind) -> bool {
        self.kind == word(kind)
    }

    /// Makes the failure of an output that nobody reads any more; it is told to nobody either.
    pub(crate) fn unheard() -> Self {
        let mut failure = Self::new(ErrorKind::Io, "nobody reads the output");
        UNHEARD.clone_into(&mut failure.kind);
        failure
    }

    pub(crate) fn is_unheard(&self) -> bool {
        self.kind == UNHEARD
    }
}

impl Deref for Failure {
    type Target = Told;

    fn deref(&self) -> &Told {
        &self.0
    }
}

impl DerefMut for Failure {
    fn deref_mut(&mut self) -> &mut Told {
        &mut self.0
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let violations = error.violations().to_vec();
        let mut failure = Self::new(error.kind(), error.to_string());
        failure.hint = error.hint().map(str::to_owned);
        failure.residue = error.residue().iter().map(|left| chain(left).join(": ")).collect();
        if violations.is_empty() {
            failure.caused_by = chain(&error).split_off(1);
        } else {
            failure.violations = violations;
            if let Some(refusal) = error.source().and_then(|source| source.downcast_ref::<PolicyError>()) {
                failure.message = format!("policy {} refuses this sandbox", refusal.policy_name());
            }
        }
        failure
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::unheard(),
            _ => Self::io("cannot write the output", error),
        }
    }
}

/// An error and its causes, each in its own words.
fn chain(error: &(dyn StdError + 'static)) -> Vec<String> {
    let mut words = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        words.push(cause.to_string());
        next = cause.source();
    }
    words
}

/// The kind's name, in the way of JSON keys.
fn word(kind: ErrorKind) -> String {
    let mut word = String::new();
    for character in format!("{kind:?}").chars() {
        if character.is_ascii_uppercase() && !word.is_empty() {
            word.push('-');
        }
        word.push(character.to_ascii_lowercase());
    }
    word
}

const UNHEARD: &str = "broken-pipe";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_causes_in_order_and_kinds_as_words() {
        let cause = std::io::Error::other("disk on fire");
        let failure = Failure::from(Error::io("cannot write", cause).with_hint("use another"));
        assert_eq!(failure.kind, "io");
        assert_eq!(failure.caused_by, ["disk on fire"]);
        assert_eq!(failure.hint.as_deref(), Some("use another"));
        assert!(Failure::new(ErrorKind::CommandNotFound, "").is(ErrorKind::CommandNotFound));
        assert_eq!(word(ErrorKind::CommandNotFound), "command-not-found");
    }

    #[test]
    fn an_output_that_nobody_reads_is_told_to_nobody() {
        assert!(Failure::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe)).is_unheard());
        assert!(!Failure::from(std::io::Error::from(std::io::ErrorKind::StorageFull)).is_unheard());
    }
}
