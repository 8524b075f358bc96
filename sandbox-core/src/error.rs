//! The crate's one error.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use sandbox_policy::{PolicyError, Violation};

/// The result of whatever a sandbox does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says what went wrong: a [kind](ErrorKind) for code, a message for people, a hint for the one who can mend it.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    /// What could not be undone after the failure.
    residue: Vec<Error>,
}

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// What is in force differs from what was asked.
    Attestation,
    /// The program does not exist inside.
    CommandNotFound,
    /// The program exists inside and cannot be run.
    CommandNotRunnable,
    /// Something did not happen in time.
    DeadlineExceeded,
    /// The kernel or the engine forbids it.
    Denied,
    /// The engine answered with an error.
    Engine,
    /// There is no engine to speak to.
    EngineUnavailable,
    /// The audit sink refused an event, so its effect did not happen.
    EventRefused,
    /// The disk, memory, or another bounded thing is used up.
    Exhausted,
    /// The guest broke off or broke its protocol.
    Guest,
    /// The image cannot be used.
    ImageInvalid,
    /// The image is not there.
    ImageMissing,
    /// An argument makes no sense.
    InvalidInput,
    /// An operation of the host's system failed.
    Io,
    /// A file or sandbox does not exist.
    NotFound,
    /// The policy refuses the request, or cannot be enforced.
    Policy,
    /// Something was left behind that should be gone.
    Residue,
    /// The sandbox is gone.
    SandboxGone,
    /// The credentials cannot be had, or not be revoked.
    Token,
    /// The workspace does not exist or is not a directory.
    WorkspaceMissing,
    /// The workspace belongs to somebody whom the agent cannot be.
    WorkspaceOwner,
}

impl Error {
    /// Makes an error of a kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { inner: Box::new(Inner { kind, message: message.into(), hint: None, source: None, residue: Vec::new() }) }
    }

    /// Makes the error of an operation on the host's system, whose kind follows from the cause.
    pub fn io(message: impl Into<String>, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            std::io::ErrorKind::QuotaExceeded
            | std::io::ErrorKind::StorageFull
            | std::io::ErrorKind::OutOfMemory
            | std::io::ErrorKind::FileTooLarge => ErrorKind::Exhausted,
            std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput => ErrorKind::InvalidInput,
            _ => ErrorKind::Io,
        };
        Self::new(kind, message).with_source(source)
    }

    /// Makes the error of a wait that ended without what it waited for.
    pub fn deadline(what: impl fmt::Display, after: Duration) -> Self {
        Self::new(ErrorKind::DeadlineExceeded, format!("{what} did not happen within {after:?}"))
    }

    /// Adds what the reader can do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// Adds what could not be undone after this failure.
    #[must_use]
    pub fn with_residue(mut self, residue: Vec<Error>) -> Self {
        self.inner.residue.extend(residue);
        self
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }

    /// What could not be undone after this failure; a reaper will find it.
    pub fn residue(&self) -> &[Error] {
        &self.inner.residue
    }

    /// Every violation, where the policy refused the request.
    pub fn violations(&self) -> &[Violation] {
        self.inner
            .source
            .as_deref()
            .and_then(|source| source.downcast_ref::<PolicyError>())
            .map_or(&[], PolicyError::violations)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, message, hint, source, residue } = &*self.inner;
        f.debug_struct("Error")
            .field("kind", kind)
            .field("message", message)
            .field("hint", hint)
            .field("source", source)
            .field("residue", residue)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}

impl From<PolicyError> for Error {
    fn from(error: PolicyError) -> Self {
        Self::new(ErrorKind::Policy, "the policy refuses this sandbox").with_source(error)
    }
}
