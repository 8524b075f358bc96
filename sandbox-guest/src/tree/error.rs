//! Why a tree did not travel.

use std::error::Error;
use std::{fmt, io};

/// The longest path in a message, in characters.
const MAX_SHOWN: usize = 200;

/// Why a tree did not travel, and at which path. It is found inside an [`io::Error`] by [`TreeError::of`].
#[derive(Debug)]
pub struct TreeError {
    kind: TreeErrorKind,
    path: String,
    source: Option<io::Error>,
}

/// The kinds of [`TreeError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TreeErrorKind {
    /// A path that is empty or too long, or has a name that no entry may have.
    BadPath,
    /// A link that is absolute, or leads outside the tree.
    EscapingLink,
    /// Something of another kind, or a link, is where an entry belongs.
    InTheWay,
    /// The kernel refused; the source says why.
    Io,
    /// Bytes that are no tree stream.
    Malformed,
    /// A directory that no record has made.
    MissingParent,
    /// More entries than allowed.
    TooManyEntries,
    /// More bytes of content than allowed.
    TooMuchContent,
    /// A tree deeper than [`MAX_DEPTH`](super::MAX_DEPTH) directories.
    TooDeep,
    /// The stream ended before its end record.
    Truncated,
}

impl TreeError {
    pub(super) fn new(kind: TreeErrorKind, path: &[u8]) -> Self {
        Self { kind, path: shown(path), source: None }
    }

    pub(super) fn io(path: &[u8], source: impl Into<io::Error>) -> Self {
        Self { kind: TreeErrorKind::Io, path: shown(path), source: Some(source.into()) }
    }

    /// Finds the tree error inside an error of [`pack`](super::pack) or [`unpack`](super::unpack); there is none if the
    /// stream itself failed.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// The kind.
    pub fn kind(&self) -> TreeErrorKind {
        self.kind
    }

    /// The path below the root, escaped, and cut after 200 characters.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The kernel's error number, if it refused.
    pub fn errno(&self) -> Option<i32> {
        self.source.as_ref()?.raw_os_error()
    }
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            TreeErrorKind::BadPath => "not a path that an entry may have",
            TreeErrorKind::EscapingLink => "a link that is absolute or leads outside the tree",
            TreeErrorKind::InTheWay => "something of another kind is in the way",
            TreeErrorKind::Io => "could not be moved",
            TreeErrorKind::Malformed => "not a tree stream",
            TreeErrorKind::MissingParent => "its directory is not in the tree",
            TreeErrorKind::TooManyEntries => "more entries than allowed",
            TreeErrorKind::TooMuchContent => "more content than allowed",
            TreeErrorKind::TooDeep => "deeper than 128 directories",
            TreeErrorKind::Truncated => "the stream ended too early",
        };
        write!(f, "entry \"{}\": {what}", self.path)
    }
}

impl Error for TreeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

impl From<TreeError> for io::Error {
    fn from(error: TreeError) -> Self {
        let kind = match error.kind {
            TreeErrorKind::Io => error.source.as_ref().map_or(io::ErrorKind::Other, io::Error::kind),
            TreeErrorKind::InTheWay => io::ErrorKind::AlreadyExists,
            TreeErrorKind::TooManyEntries | TreeErrorKind::TooMuchContent => io::ErrorKind::QuotaExceeded,
            TreeErrorKind::Truncated => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}

fn shown(path: &[u8]) -> String {
    let mut text = path[..path.len().min(MAX_SHOWN)].escape_ascii().to_string();
    text.truncate(MAX_SHOWN);
    text
}
