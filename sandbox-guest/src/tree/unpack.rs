//! From a stream to a directory. Everything that is read here may be the work of an attacker.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, futimens, mkdirat, openat, renameat, symlinkat,
    unlinkat, utimensat,
};
use rustix::io::Errno;

use super::format::{
    HOLE, Header, Kind, MAGIC, MAX_CHUNK, MODE_BITS, Record, names, read_exact, read_hole, read_length, read_record,
    stays_inside,
};
use super::{Limits, TreeError, TreeErrorKind, temporary_name};
use crate::wire::Summary;

/// Makes below a directory what a stream says. A file or link that exists is replaced, a directory that exists is kept
/// as it is; nothing is written through a link or into a file that was there before.
///
/// # Errors
/// Those of the stream, and a [`TreeError`] where the stream is over its limits, malformed, cut, or leads outside, and
/// where the file system refuses. What was made until then stays.
pub fn unpack(input: impl Read, root: BorrowedFd<'_>, limits: &Limits) -> io::Result<Summary> {
    let mut input = BufReader::with_capacity(64 << 10, input);
    let mut magic = [0; MAGIC.len()];
    read_exact(&mut input, &mut magic, b"")?;
    if magic != MAGIC {
        return Err(TreeError::new(TreeErrorKind::Malformed, b"").into());
    }
    let mut unpacker =
        Unpacker { root, limits: *limits, summary: Summary::default(), open: Vec::new(), chunk: vec![0; MAX_CHUNK] };
    let mut last = Vec::new();
    loop {
        match read_record(&mut input, &last)? {
            Record::Entry(header) => {
                unpacker.make(&mut input, &header)?;
                last = header.path;
            }
            Record::End { entries } if entries == unpacker.summary.entries => {
                unpacker.close_to(0)?;
                return Ok(unpacker.summary);
            }
            Record::End { .. } => return Err(TreeError::new(TreeErrorKind::Malformed, &last).into()),
        }
    }
}

struct Unpacker<'r> {
    root: BorrowedFd<'r>,
    limits: Limits,
    summary: Summary,
    /// The directories from the root to the last entry, each in the one before it.
    open: Vec<Open>,
    chunk: Vec<u8>,
}

/// A directory that is open.
struct Open {
    name: Vec<u8>,
    directory: OwnedFd,
    /// What it gets when nothing more is put into it, if it was made here.
    finish: Option<(Mode, Timestamps)>,
}

impl Unpacker<'_> {
    fn make(&mut self, input: &mut impl Read, header: &Header) -> io::Result<()> {
        let path = header.path.as_slice();
        if self.summary.entries >= self.limits.entries {
            return Err(TreeError::new(TreeErrorKind::TooManyEntries, path).into());
        }
        self.summary.entries += 1;
        let names = names(path)?;
        let Some((&name, parents)) = names.split_last() else {
            return Err(TreeError::new(TreeErrorKind::BadPath, path).into());
        };
        self.enter(parents, path)?;
        match &header.kind {
            Kind::Directory => self.make_directory(name, header),
            Kind::File { size } => self.make_file(input, name, *size, header),
            Kind::Symlink { target } => self.make_link(name, target, parents.len(), header),
        }
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.open.last().map_or(self.root, |open| open.directory.as_fd())
    }

    /// Makes the open directories those of a path, opening by name and never through a link.
    fn enter(&mut self, parents: &[&[u8]], path: &[u8]) -> io::Result<()> {
        let common = self.open.iter().zip(parents).take_while(|(open, name)| open.name == **name).count();
        self.close_to(common)?;
        for name in &parents[common..] {
            let directory = open_directory(self.here(), name).map_err(|error| match error {
                Errno::NOENT => TreeError::new(TreeErrorKind::MissingParent, path),
                Errno::NOTDIR | Errno::LOOP => TreeError::new(TreeErrorKind::InTheWay, path),
                error => TreeError::io(path, error),
            })?;
            self.open.push(Open { name: name.to_vec(), directory, finish: None });
        }
        Ok(())
    }

    /// Closes directories until so many are left, and gives each its mode and time.
    fn close_to(&mut self, depth: usize) -> io::Result<()> {
        while self.open.len() > depth {
            if let Some(Open { name, directory, finish: Some((mode, times)) }) = self.open.pop() {
                fchmod(&directory, mode)
                    .and_then(|()| futimens(&directory, &times))
                    .map_err(|error| TreeError::io(&name, error))?;
            }
        }
        Ok(())
    }

    fn make_directory(&mut self, name: &[u8], header: &Header) -> io::Result<()> {
        let failed = |error| TreeError::io(&header.path, error);
        let made = match mkdirat(self.here(), name, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(failed(error).into()),
        };
        let directory = open_directory(self.here(), name).map_err(|error| match error {
            Errno::NOTDIR | Errno::LOOP => TreeError::new(TreeErrorKind::InTheWay, &header.path),
            error => failed(error),
        })?;
        let finish = made.then(|| (mode(header), times(header)));
        self.open.push(Open { name: name.to_vec(), directory, finish });
        Ok(())
    }

    fn make_file(&mut self, input: &mut impl Read, name: &[u8], size: u64, header: &Header) -> io::Result<()> {
        let path = header.path.as_slice();
        let failed = |error| TreeError::io(path, error);
        if self.summary.bytes.saturating_add(size) > self.limits.bytes {
            return Err(TreeError::new(TreeErrorKind::TooMuchContent, path).into());
        }
        let (file, temporary) = match create(self.here(), name) {
            Ok(file) => (file, None),
            Err(Errno::EXIST) => {
                let temporary = temporary_name()?;
                (create(self.here(), temporary.as_bytes()).map_err(failed)?, Some(temporary))
            }
            Err(error) => return Err(failed(error).into()),
        };
        let made = temporary.as_deref().map_or(name, str::as_bytes);
        let done = self
            .fill(input, file, header)
            .and_then(|()| if temporary.is_some() { self.replace(made, name, path) } else { Ok(()) });
        if done.is_err() {
            // Half a file must not look like a whole one; the first error is the one to tell.
            let _ = unlinkat(self.here(), made, AtFlags::empty());
        }
        done
    }

    fn fill(&mut self, input: &mut impl Read, file: OwnedFd, header: &Header) -> io::Result<()> {
        let path = header.path.as_slice();
        let mut file = File::from(file);
        let (mut hole, mut at) = (0_u64, 0_u64);
        loop {
            let length = read_length(input, path)?;
            if length == 0 {
                break;
            }
            if length == HOLE as usize {
                let length = read_hole(input, path)?;
                self.count(length, path)?;
                (hole, at) = (hole.saturating_add(length), at.saturating_add(length));
                continue;
            }
            if length > MAX_CHUNK {
                return Err(TreeError::new(TreeErrorKind::Malformed, path).into());
            }
            self.count(length as u64, path)?;
            let chunk = &mut self.chunk[..length];
            read_exact(input, chunk, path)?;
            if hole > 0 {
                hole = 0;
                file.seek(io::SeekFrom::Start(at)).map_err(|error| TreeError::io(path, error))?;
            }
            file.write_all(chunk).map_err(|error| TreeError::io(path, error))?;
            at = at.saturating_add(length as u64);
        }
        if hole > 0 {
            file.set_len(at).map_err(|error| TreeError::io(path, error))?;
        }
        fchmod(&file, mode(header))
            .and_then(|()| futimens(&file, &times(header)))
            .map_err(|error| TreeError::io(path, error).into())
    }

    fn count(&mut self, bytes: u64, path: &[u8]) -> io::Result<()> {
        self.summary.bytes = self.summary.bytes.saturating_add(bytes);
        if self.summary.bytes > self.limits.bytes {
            return Err(TreeError::new(TreeErrorKind::TooMuchContent, path).into());
        }
        Ok(())
    }

    fn make_link(&mut self, name: &[u8], target: &[u8], depth: usize, header: &Header) -> io::Result<()> {
        let path = header.path.as_slice();
        let failed = |error| TreeError::io(path, error);
        if !stays_inside(target, depth) {
            return Err(TreeError::new(TreeErrorKind::EscapingLink, path).into());
        }
        match symlinkat(target, self.here(), name) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let temporary = temporary_name()?;
                symlinkat(target, self.here(), &temporary).map_err(failed)?;
                if let Err(error) = self.replace(temporary.as_bytes(), name, path) {
                    // The first error is the one to tell.
                    let _ = unlinkat(self.here(), &temporary, AtFlags::empty());
                    return Err(error);
                }
            }
            Err(error) => return Err(failed(error).into()),
        }
        utimensat(self.here(), name, &times(header), AtFlags::SYMLINK_NOFOLLOW).map_err(|error| failed(error).into())
    }

    /// Puts a complete entry in the place of what is there, unless that is a directory.
    fn replace(&self, from: &[u8], to: &[u8], path: &[u8]) -> io::Result<()> {
        renameat(self.here(), from, self.here(), to).map_err(|error| {
            let error = match error {
                Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST => TreeError::new(TreeErrorKind::InTheWay, path),
                error => TreeError::io(path, error),
            };
            error.into()
        })
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn create(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
}

fn mode(header: &Header) -> Mode {
    Mode::from_raw_mode(header.mode & MODE_BITS)
}

fn times(header: &Header) -> Timestamps {
    let (seconds, nanoseconds) = header.modified;
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        // The kernel takes certain greater values for orders (utimensat(2)).
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.min(999_999_999).into() },
    }
}
