//! Requests that move content over a pipe.
//!
//! Each wait for the pipe is a wait for the control as well, so that a host which has gone ends what it began, even if
//! somebody still holds the other end of the pipe.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fchmod, fstat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, fcntl_setpipe_size, splice};
use sandbox_guest::tree::{self, Limits, TreeError, TreeErrorKind, temporary_name};
use sandbox_guest::wire::{Command, Failure, FailureKind, Summary};

use super::{last_name, make_directories, open_directory, refused, split, wrong_kind};
use crate::control::Control;
use crate::failure::{failed, failure, kind_of, printable};

/// How much is moved at once, in bytes; also the size that pipes are given where the kernel allows it.
const CHUNK: usize = 1 << 20;

/// The permission bits that a written file may have.
const MODE_BITS: u32 = 0o777;

/// Sends a regular file.
pub(super) fn read(path: &[u8], control: &Control, pipe: OwnedFd) -> Result<Summary, Failure> {
    let file = open_file(path)?;
    let pipe = Pipe::new(pipe, control).map_err(|error| failed("pipe", &error))?;
    let bytes = pipe.fill_from(&file).map_err(|error| refused(path, error))?;
    Ok(Summary { entries: 1, bytes, ..Summary::default() })
}

/// Receives a file beside its place, and puts it there once the host says that all of it has come.
pub(super) fn write(path: &[u8], mode: u32, control: &mut Control, pipe: OwnedFd) -> Result<Summary, Failure> {
    let (parent, name) = split(path)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = openat(CWD, parent, flags, Mode::empty()).map_err(|error| refused(path, error))?;
    if path.ends_with(b"/")
        || statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Directory)
    {
        return Err(wrong_kind(path, "file", Errno::ISDIR));
    }
    let temporary = temporary_name().map_err(|error| refused(path, error))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&parent, &temporary, flags, Mode::RUSR | Mode::WUSR).map_err(|error| refused(path, error))?;
    let received = receive(&file, mode, control, pipe)
        .and_then(|bytes| Ok(renameat(&parent, &temporary, &parent, name).map(|()| bytes)?));
    match received {
        Ok(bytes) => Ok(Summary { entries: 1, bytes, ..Summary::default() }),
        Err(error) => {
            // The first error is the one to tell.
            let _ = unlinkat(&parent, &temporary, AtFlags::empty());
            Err(refused(path, error))
        }
    }
}

fn receive(file: &OwnedFd, mode: u32, control: &mut Control, pipe: OwnedFd) -> io::Result<u64> {
    let bytes = Pipe::new(pipe, control)?.drain_to(file)?;
    committed(control)?;
    fchmod(file, Mode::from_raw_mode(mode & MODE_BITS))?;
    Ok(bytes)
}

/// Sends what is below a directory, or one file.
pub(super) fn pack(path: &[u8], control: &Control, pipe: OwnedFd) -> Result<Summary, Failure> {
    let pipe = Pipe::new(pipe, control).map_err(|error| failed("pipe", &error))?;
    let sent = match open_directory(path) {
        Ok(directory) => tree::pack(directory, pipe, &Limits::NONE),
        Err(error) if error.errno == libc::ENOTDIR => {
            let file = open_file(path)?;
            tree::pack_file(last_name(path).unwrap_or(b"file"), file, pipe, &Limits::NONE)
        }
        Err(error) => return Err(error),
    };
    sent.map_err(|error| explain(path, &error))
}

/// Receives a tree into a directory.
pub(super) fn unpack(path: &[u8], control: &mut Control, pipe: OwnedFd) -> Result<Summary, Failure> {
    make_directories(path)?;
    let root = open_directory(path)?;
    let pipe = Pipe::new(pipe, control).map_err(|error| failed("pipe", &error))?;
    let summary = tree::unpack(pipe, root.as_fd(), &Limits::NONE).map_err(|error| explain(path, &error))?;
    committed(control).map_err(|error| refused(path, error))?;
    Ok(summary)
}

/// Tells why a tree did not travel.
fn explain(path: &[u8], error: &io::Error) -> Failure {
    let Some(inner) = TreeError::of(error) else {
        return refused(path, io::Error::new(error.kind(), error.to_string()));
    };
    let errno = inner.errno().unwrap_or(0);
    let kind = match inner.kind() {
        TreeErrorKind::Io => kind_of(errno),
        TreeErrorKind::InTheWay => FailureKind::WrongKind,
        TreeErrorKind::TooManyEntries | TreeErrorKind::TooMuchContent => FailureKind::Exhausted,
        _ => FailureKind::Invalid,
    };
    let cause = if errno == 0 { String::new() } else { format!(": {}", io::Error::from_raw_os_error(errno)) };
    failure(kind, errno, format!("path \"{}\": {inner}{cause}", printable(path)))
}

/// Opens a regular file and nothing else: a named pipe would wait for a writer, a device might act.
fn open_file(path: &[u8]) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::empty()).map_err(|error| match error {
        Errno::NXIO | Errno::NODEV => wrong_kind(path, "file", error),
        error => refused(path, error),
    })?;
    let found = fstat(&file).map_err(|error| refused(path, error))?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => Ok(file),
        FileType::Directory => Err(wrong_kind(path, "file", Errno::ISDIR)),
        _ => Err(wrong_kind(path, "file", Errno::INVAL)),
    }
}

/// Waits until the host says that all has been written.
fn committed(control: &mut Control) -> io::Result<()> {
    loop {
        match control.wait()? {
            Command::Commit => return Ok(()),
            Command::Kill => return Err(gone()),
            Command::Resize(_) | Command::Signal(_) => {}
        }
    }
}

/// Fails if the host has gone.
pub(super) fn still_wanted(control: &Control) -> io::Result<()> {
    // Asks for no event: what has ended is told unasked (poll(2)).
    let mut ready = [PollFd::new(control, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::io::retry_on_intr(|| poll(&mut ready, Some(&now)))? {
        0 => Ok(()),
        _ => Err(gone()),
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the host gave it up")
}

/// The guest's end of a pipe, and the control beside it.
struct Pipe<'c> {
    end: OwnedFd,
    control: BorrowedFd<'c>,
}

impl<'c> Pipe<'c> {
    fn new(end: OwnedFd, control: &'c Control) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&end, true)?;
        // What the kernel allows a user in all may be used up; a smaller pipe works as well.
        let _ = fcntl_setpipe_size(&end, CHUNK);
        Ok(Self { end, control: control.as_fd() })
    }

    /// Waits for the pipe, for as long as the host is there.
    fn wait(&self, wanted: PollFlags) -> io::Result<()> {
        let mut ready = [PollFd::new(&self.end, wanted), PollFd::new(&self.control, PollFlags::empty())];
        rustix::io::retry_on_intr(|| poll(&mut ready, None))?;
        if ready[1].revents().is_empty() { Ok(()) } else { Err(gone()) }
    }

    /// Moves a file's bytes into the pipe, by reference where the file system can (splice(2)).
    fn fill_from(mut self, file: &OwnedFd) -> io::Result<u64> {
        let mut total = 0;
        loop {
            self.wait(PollFlags::OUT)?;
            match splice(file, None, &self.end, None, CHUNK, SpliceFlags::NONBLOCK) {
                Ok(0) => return Ok(total),
                Ok(length) => total += length as u64,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::INVAL) => return Ok(total + copy(&mut io_file(file)?, &mut self)?),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Moves the pipe's bytes into a file until the pipe ends.
    fn drain_to(mut self, file: &OwnedFd) -> io::Result<u64> {
        let mut total = 0;
        loop {
            self.wait(PollFlags::IN)?;
            match splice(&self.end, None, file, None, CHUNK, SpliceFlags::MOVE | SpliceFlags::NONBLOCK) {
                Ok(0) => return Ok(total),
                Ok(length) => total += length as u64,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(Errno::INVAL) => return Ok(total + copy(&mut self, &mut io_file(file)?)?),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Moves bytes by hand; a failed call is told as it is.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut total = 0;
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(total);
        }
        to.write_all(&buffer[..length])?;
        total += length as u64;
    }
}

fn io_file(file: &OwnedFd) -> io::Result<std::fs::File> {
    Ok(file.try_clone()?.into())
}

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wait(PollFlags::IN)?;
            match rustix::io::read(&self.end, &mut *buffer) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        loop {
            self.wait(PollFlags::OUT)?;
            match rustix::io::write(&self.end, buffer) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
