//! From a directory to a stream.

use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat, fstat, openat, readlinkat, seek, statat};
use rustix::io::Errno;

use super::format::{
    HOLE, Header, Kind, MAGIC, MAX_CHUNK, MODE_BITS, PREFIX, Record, names, stays_inside, write_record,
};
use super::{Limits, MAX_DEPTH, TreeError, TreeErrorKind};
use crate::wire::{MAX_ENTRIES, SkipReason, Skipped, Summary};

/// How many bytes of names a summary holds, so that it fits a frame beside what else it says.
const MAX_SKIPPED_NAMES: usize = 128 << 10;

/// Bytes of a block, as stat(2) counts them.
const BLOCK: u64 = 512;

/// Sends everything below a directory, in the order of names. Links are sent and never followed; what cannot travel is left
/// out and listed in the summary. A file or directory that vanishes meanwhile is as if it had never been.
///
/// # Errors
/// Those of the stream, and a [`TreeError`] where the tree is over its limits, too deep, or fails to be read.
pub fn pack(directory: impl AsFd, out: impl Write, limits: &Limits) -> io::Result<Summary> {
    pack_selected(directory, out, limits, |_| true)
}

/// As [`pack`], and sends only what is wanted. A directory that is not wanted is not entered.
///
/// # Errors
/// As [`pack`].
pub fn pack_selected(
    directory: impl AsFd,
    out: impl Write,
    limits: &Limits,
    wanted: impl FnMut(&Candidate<'_>) -> bool,
) -> io::Result<Summary> {
    let mut packer = Packer::new(out, *limits)?;
    packer.walk(open_directory(&directory, b".").map_err(|error| TreeError::io(b"", error))?, wanted)?;
    packer.finish()
}

/// An entry that may be sent.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Candidate<'a> {
    /// The directory that it is in.
    pub parent: BorrowedFd<'a>,
    /// Its path below the root.
    pub path: &'a [u8],
    /// What it is.
    pub kind: FileType,
}

/// Sends one regular file as a tree of one entry.
///
/// # Errors
/// As [`pack`]; also if `name` may not be an entry's, or `file` is not a regular file.
pub fn pack_file(name: &[u8], file: impl AsFd, out: impl Write, limits: &Limits) -> io::Result<Summary> {
    if names(name)?.len() != 1 {
        return Err(TreeError::new(TreeErrorKind::BadPath, name).into());
    }
    let mut packer = Packer::new(out, *limits)?;
    packer.path = name.to_vec();
    let found = fstat(&file).map_err(|error| TreeError::io(name, error))?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(TreeError::io(name, Errno::INVAL).into());
    }
    packer.send_file(file, &found)?;
    packer.finish()
}

struct Packer<W: Write> {
    out: BufWriter<W>,
    limits: Limits,
    summary: Summary,
    named: usize,
    path: Vec<u8>,
    chunk: Vec<u8>,
}

/// A directory on the way: the names in it that are still to come.
struct Level {
    directory: OwnedFd,
    names: std::vec::IntoIter<(Vec<u8>, FileType)>,
    /// The length of its path.
    path: usize,
}

impl<W: Write> Packer<W> {
    fn new(out: W, limits: Limits) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(MAX_CHUNK, out);
        out.write_all(&MAGIC)?;
        let chunk = vec![0; PREFIX + MAX_CHUNK];
        Ok(Self { out, limits, summary: Summary::default(), named: 0, path: Vec::new(), chunk })
    }

    fn finish(mut self) -> io::Result<Summary> {
        write_record(&mut self.out, &Record::End { entries: self.summary.entries })?;
        self.out.flush()?;
        Ok(self.summary)
    }

    fn walk(&mut self, root: OwnedFd, mut wanted: impl FnMut(&Candidate<'_>) -> bool) -> io::Result<()> {
        let names = self.list(&root)?;
        let mut levels = vec![Level { directory: root, names, path: 0 }];
        loop {
            let depth = levels.len();
            let Some(level) = levels.last_mut() else { return Ok(()) };
            self.path.truncate(level.path);
            let Some((name, kind)) = level.names.next() else {
                levels.pop();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            if let Some(directory) = self.visit(&level.directory, (&name, kind), depth - 1, &mut wanted)? {
                let names = self.list(&directory)?;
                levels.push(Level { directory, names, path: self.path.len() });
            }
        }
    }

    /// Sends one entry; gives a directory that is to be entered.
    fn visit(
        &mut self,
        parent: &OwnedFd,
        (name, kind): (&[u8], FileType),
        depth: usize,
        wanted: &mut impl FnMut(&Candidate<'_>) -> bool,
    ) -> io::Result<Option<OwnedFd>> {
        names(&self.path)?;
        let look = || statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
        let kind = match kind {
            // Some file systems do not tell (readdir(3)).
            FileType::Unknown => match self.passable(look())? {
                Some(found) => FileType::from_raw_mode(found.st_mode),
                None => return Ok(None),
            },
            told => told,
        };
        if !wanted(&Candidate { parent: parent.as_fd(), path: &self.path, kind }) {
            return Ok(None);
        }
        match kind {
            FileType::Directory => {
                if depth + 1 >= MAX_DEPTH {
                    return Err(TreeError::new(TreeErrorKind::TooDeep, &self.path).into());
                }
                let Some(directory) = self.passable(open_directory(parent, name))? else { return Ok(None) };
                let Some(found) = self.passable(fstat(&directory))? else { return Ok(None) };
                self.send(Kind::Directory, &found)?;
                Ok(Some(directory))
            }
            FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                let Some(file) = self.passable(openat(parent, name, flags, Mode::empty()))? else { return Ok(None) };
                let Some(found) = self.passable(fstat(&file))? else { return Ok(None) };
                if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile {
                    self.send_file(file, &found)?;
                } else {
                    self.skip(SkipReason::Special);
                }
                Ok(None)
            }
            FileType::Symlink => {
                let Some(found) = self.passable(look())? else { return Ok(None) };
                let Some(target) = self.passable(readlinkat(parent, name, Vec::new()))? else { return Ok(None) };
                let target = target.into_bytes();
                if stays_inside(&target, depth) {
                    self.send(Kind::Symlink { target }, &found)?;
                } else {
                    self.skip(SkipReason::EscapingLink);
                }
                Ok(None)
            }
            _ => {
                self.skip(SkipReason::Special);
                Ok(None)
            }
        }
    }

    /// Gives what was found, or nothing if it has vanished or may not be read.
    fn passable<T>(&mut self, result: rustix::io::Result<T>) -> io::Result<Option<T>> {
        match result {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            // Exchanged for a link or another kind since it was looked at.
            Err(Errno::ACCESS | Errno::PERM | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => {
                self.skip(SkipReason::Unreadable);
                Ok(None)
            }
            Err(error) => Err(TreeError::io(&self.path, error).into()),
        }
    }

    fn skip(&mut self, why: SkipReason) {
        self.summary.skipped_entries += 1;
        self.named += self.path.len();
        if self.summary.skipped.len() < MAX_ENTRIES && self.named <= MAX_SKIPPED_NAMES {
            self.summary.skipped.push(Skipped { path: self.path.clone(), why });
        }
    }

    fn send(&mut self, kind: Kind, found: &Stat) -> io::Result<()> {
        if self.summary.entries >= self.limits.entries {
            return Err(TreeError::new(TreeErrorKind::TooManyEntries, &self.path).into());
        }
        self.summary.entries += 1;
        let nanoseconds = u32::try_from(found.st_mtime_nsec).unwrap_or(0);
        let header = Header {
            path: self.path.clone(),
            kind,
            mode: found.st_mode & MODE_BITS,
            modified: (found.st_mtime, nanoseconds),
        };
        write_record(&mut self.out, &Record::Entry(header))
    }

    fn send_file(&mut self, file: impl AsFd, found: &Stat) -> io::Result<()> {
        let size = u64::try_from(found.st_size).unwrap_or(0);
        self.send(Kind::File { size }, found)?;
        let taken = u64::try_from(found.st_blocks).unwrap_or(0).saturating_mul(BLOCK);
        if taken >= size {
            // What says that it is empty may hold something all the same, as in proc(5). What grows meanwhile is cut.
            self.send_content(&file, if size == 0 { u64::MAX } else { size })?;
        } else {
            self.send_parts(&file, size)?;
        }
        self.out.write_all(&[0; PREFIX])
    }

    /// Sends what lies between the holes, and tells of the holes (lseek(2)).
    fn send_parts(&mut self, file: impl AsFd, size: u64) -> io::Result<()> {
        let mut at = 0;
        while at < size {
            let failed = |error| TreeError::io(&self.path, error);
            let data = match seek(&file, SeekFrom::Data(at)) {
                Ok(data) => data.min(size),
                Err(Errno::NXIO) => size,
                Err(error) => return Err(failed(error).into()),
            };
            let end = if data < size { seek(&file, SeekFrom::Hole(data)).map_err(failed)?.min(size) } else { size };
            if data < size {
                seek(&file, SeekFrom::Start(data)).map_err(failed)?;
            }
            if data > at {
                self.count(data - at)?;
                self.out.write_all(&HOLE.to_le_bytes())?;
                self.out.write_all(&(data - at).to_le_bytes())?;
            }
            let sent = self.send_content(&file, end - data)?;
            if sent < end - data {
                // It has been cut meanwhile.
                return Ok(());
            }
            at = end;
        }
        Ok(())
    }

    /// Sends at most so much of what comes next in a file; gives how much that was.
    fn send_content(&mut self, file: impl AsFd, most: u64) -> io::Result<u64> {
        let mut sent = 0;
        while sent < most {
            let room = usize::try_from(most - sent).unwrap_or(usize::MAX).min(MAX_CHUNK);
            let target = &mut self.chunk[PREFIX..PREFIX + room];
            let length = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut *target))
                .map_err(|error| TreeError::io(&self.path, error))?;
            if length == 0 {
                break;
            }
            self.count(length as u64)?;
            let prefix = u32::try_from(length).map_err(io::Error::other)?;
            self.chunk[..PREFIX].copy_from_slice(&prefix.to_le_bytes());
            self.out.write_all(&self.chunk[..PREFIX + length])?;
            sent += length as u64;
        }
        Ok(sent)
    }

    fn count(&mut self, bytes: u64) -> io::Result<()> {
        self.summary.bytes = self.summary.bytes.saturating_add(bytes);
        if self.summary.bytes > self.limits.bytes {
            return Err(TreeError::new(TreeErrorKind::TooMuchContent, &self.path).into());
        }
        Ok(())
    }

    /// Lists a directory in the order of its names; never more of them than may still be sent.
    fn list(&mut self, directory: &OwnedFd) -> io::Result<std::vec::IntoIter<(Vec<u8>, FileType)>> {
        let room = self.limits.entries.saturating_sub(self.summary.entries);
        let mut names = Vec::new();
        let failed = |error| TreeError::io(&self.path, error);
        for entry in Dir::read_from(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if names.len() as u64 >= room.saturating_add(MAX_ENTRIES as u64) {
                return Err(TreeError::new(TreeErrorKind::TooManyEntries, &self.path).into());
            }
            names.push((name.to_vec(), entry.file_type()));
        }
        names.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(names.into_iter())
    }
}

fn open_directory(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}
