//! The records of a stream, and what may stand in them.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::{MAX_DEPTH, MAX_NAME, MAX_PATH, TreeError, TreeErrorKind};

/// What every stream begins with; the last byte is the version.
pub(super) const MAGIC: [u8; 8] = *b"sbxtree\x02";

/// Stands in the place of a chunk's length before a hole, whose own length in bytes follows in eight bytes.
pub(super) const HOLE: u32 = u32::MAX;

/// The largest record, in bytes: two paths and change.
pub(super) const MAX_RECORD: usize = 2 * MAX_PATH + 64;

/// The largest chunk of content, in bytes.
pub(super) const MAX_CHUNK: usize = 256 << 10;

/// The bytes of a length.
pub(super) const PREFIX: usize = 4;

/// The permission bits that travel.
pub(super) const MODE_BITS: u32 = 0o777;

/// A record of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Record {
    /// An entry; a file's content follows.
    Entry(Header),
    /// The end, with the number of entries before it.
    End { entries: u64 },
}

/// What is said of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    /// Its path below the root.
    pub(super) path: Vec<u8>,
    /// What it is.
    pub(super) kind: Kind,
    /// Its permission bits.
    pub(super) mode: u32,
    /// When its content last changed: seconds since 1970, and nanoseconds.
    pub(super) modified: (i64, u32),
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// A directory.
    Directory,
    /// A regular file; its size as it was opened, in bytes. What follows may be more or less.
    File { size: u64 },
    /// A symbolic link and where it leads.
    Symlink { target: Vec<u8> },
}

/// Writes a record.
pub(super) fn write_record(out: &mut impl Write, record: &Record) -> io::Result<()> {
    let bytes = postcard::to_extend(record, vec![0; PREFIX])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let length = u32::try_from(bytes.len() - PREFIX).map_err(io::Error::other)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&bytes[PREFIX..])
}

/// Reads a record; `path` is the last entry's, for the error.
pub(super) fn read_record(input: &mut impl Read, path: &[u8]) -> io::Result<Record> {
    let malformed = || TreeError::new(TreeErrorKind::Malformed, path);
    let length = read_length(input, path)?;
    if length == 0 || length > MAX_RECORD {
        return Err(malformed().into());
    }
    let mut bytes = vec![0; length];
    read_exact(input, &mut bytes, path)?;
    match postcard::take_from_bytes(&bytes) {
        Ok((record, [])) => Ok(record),
        _ => Err(malformed().into()),
    }
}

/// Reads a length.
pub(super) fn read_length(input: &mut impl Read, path: &[u8]) -> io::Result<usize> {
    let mut prefix = [0; PREFIX];
    read_exact(input, &mut prefix, path)?;
    Ok(u32::from_le_bytes(prefix) as usize)
}

/// Reads the length of a hole.
pub(super) fn read_hole(input: &mut impl Read, path: &[u8]) -> io::Result<u64> {
    let mut length = [0; 8];
    read_exact(input, &mut length, path)?;
    Ok(u64::from_le_bytes(length))
}

/// Fills a buffer, or tells that the stream was cut.
pub(super) fn read_exact(input: &mut impl Read, buffer: &mut [u8], path: &[u8]) -> io::Result<()> {
    input.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => TreeError::new(TreeErrorKind::Truncated, path).into(),
        _ => error,
    })
}

/// Splits a path into names that may be looked up one by one.
pub(super) fn names(path: &[u8]) -> Result<Vec<&[u8]>, TreeError> {
    let bad = || TreeError::new(TreeErrorKind::BadPath, path);
    if path.len() > MAX_PATH {
        return Err(bad());
    }
    let names: Vec<&[u8]> = path.split(|&byte| byte == b'/').collect();
    let allowed = |name: &&[u8]| {
        !name.is_empty() && *name != b"." && *name != b".." && name.len() <= MAX_NAME && !name.contains(&0)
    };
    if !names.iter().all(allowed) {
        return Err(bad());
    }
    if names.len() > MAX_DEPTH {
        return Err(TreeError::new(TreeErrorKind::TooDeep, path));
    }
    Ok(names)
}

/// Whether a link in a directory `depth` below the root leads nowhere but inside, whatever other such links are on its
/// way. It may climb only before its first name: behind a name, which may itself be a link, `..` leads who knows where.
pub(super) fn stays_inside(target: &[u8], depth: usize) -> bool {
    if target.is_empty() || target.len() >= MAX_PATH || target.starts_with(b"/") || target.contains(&0) {
        return false;
    }
    let mut climbed = 0;
    let mut named = false;
    for name in target.split(|&byte| byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." if named || climbed == depth => return false,
            b".." => climbed += 1,
            _ => named = true,
        }
    }
    true
}
