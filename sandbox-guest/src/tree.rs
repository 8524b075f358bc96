//! Whole trees of files as one stream, packed and unpacked with neither side trusting the other.
//!
//! A stream is a magic number, then records, then an end record that counts them, so that a stream which was cut is
//! never taken for a whole one. A record is four bytes of length, little-endian, and that many bytes of postcard; a file's
//! content follows its record in chunks, each with four bytes of length before it, the last one empty. In the place of a chunk, a
//! hole of a sparse file is told by its length alone; it counts as content all the same.
//!
//! The invariant of [`unpack`]: whatever the stream says and whatever is in the root already, nothing outside the root is
//! made, changed or read, and no link that the stream made leads outside. Parents are opened one name at a
//! time and never through a link; a link may climb only at its start, and only as far as it is deep, so that links which
//! are followed one after another stay inside as well.

mod error;
mod format;
mod pack;
mod unpack;

pub use error::{TreeError, TreeErrorKind};
pub use pack::{Candidate, pack, pack_file, pack_selected};
pub use unpack::unpack;

use std::io;

/// How deep a tree may be, in directories.
pub const MAX_DEPTH: usize = 128;

/// The longest path below a root, in bytes (`PATH_MAX`, `path_resolution(7)`).
pub const MAX_PATH: usize = 4096;

/// The longest name, in bytes (`NAME_MAX`).
pub const MAX_NAME: usize = 255;

/// What a stream may hold at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries: files, directories and links.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
}

impl Limits {
    /// No limit: for a side that the file system or a control group already bounds.
    pub const NONE: Self = Self { entries: u64::MAX, bytes: u64::MAX };
}

/// Makes up a name for a file that is not complete yet.
///
/// # Errors
/// Those of `getrandom(2)`.
pub fn temporary_name() -> io::Result<String> {
    let mut random = [0; 8];
    // So few bytes come whole, or not at all (getrandom(2)).
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(format!(".sandbox-{:016x}", u64::from_le_bytes(random)))
}

#[cfg(test)]
mod tests;
