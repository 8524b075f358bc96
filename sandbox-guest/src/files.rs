//! Requests about files, carried out as the agent, so that the kernel decides what may be touched.

mod remove;
mod transfer;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fchmod, fstat, mkdir, openat, stat, statat};
use rustix::io::Errno;
use rustix::process::geteuid;
use sandbox_guest::wire::{Entry, EntryKind, Failure, FailureKind, MAX_ENTRIES, Reply, Request, Summary};

use crate::agent::{Refusal, as_agent, become_agent};
use crate::control::Control;
use crate::failure::{failed, failure, invalid, printable};
use crate::init::Guest;
use crate::sys;

/// The longest path, in bytes (`PATH_MAX` with its final NUL, `path_resolution(7)`).
const MAX_PATH: usize = 4096;

/// The permission bits of a directory that everybody may write, as those of `/tmp`.
const EVERYBODYS: u32 = 0o1777;

/// The permission bits of an entry, with set-id and sticky.
const MODE_BITS: u32 = 0o7777;

/// Answers a request about files.
pub(crate) fn run(guest: &Guest, request: Request, mut control: Control, streams: Vec<OwnedFd>) {
    // A pipe that nobody reads is an error here, as every other one.
    sys::ignore_signal(libc::SIGPIPE);
    // What the host places is container root's, so that the agent cannot change it, and what is root's only root can share.
    let is_roots = matches!(request, Request::Place { .. } | Request::Share { .. });
    let became = if is_roots { Ok(()) } else { become_agent(&guest.setup) };
    let answer = match became {
        Ok(()) => serve(guest, request, &mut control, streams),
        Err(Refusal::Limits(error)) => Err(failed("limits could not be set", &error)),
        Err(Refusal::Privileges(error)) => Err(failed("privileges could not be dropped", &error)),
    };
    // A host that does not take the answer has gone.
    let _ = control.send(&answer.unwrap_or_else(Reply::Failed));
}

fn serve(guest: &Guest, request: Request, control: &mut Control, streams: Vec<OwnedFd>) -> Result<Reply, Failure> {
    let stream = || streams.into_iter().next().ok_or_else(|| invalid("no pipe passed, 1 is needed"));
    match request {
        Request::List { path } => list(checked(&path)?, control).map(Reply::Done),
        Request::MakeDirectory { path } => {
            let entries = make_directories(checked(&path)?)?;
            Ok(Reply::Done(Summary { entries, ..Summary::default() }))
        }
        Request::Pack { path } => transfer::pack(checked(&path)?, control, stream()?).map(Reply::Done),
        Request::Place { path, mode } => {
            let path = checked(&path)?;
            place_above(path)?;
            transfer::write(path, mode, control, stream()?).map(Reply::Done)
        }
        Request::Read { path } => transfer::read(checked(&path)?, control, stream()?).map(Reply::Done),
        Request::Remove { path } => remove::remove(checked(&path)?, control).map(Reply::Done),
        Request::Share { path } => share(guest, checked(&path)?).map(|()| Reply::Done(Summary::default())),
        Request::Stat { path } => {
            let path = checked(&path)?;
            let found = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| refused(path, error))?;
            Ok(Reply::Entry(entry(last_name(path).unwrap_or(b"/"), &found)))
        }
        Request::Unpack { path } => transfer::unpack(checked(&path)?, control, stream()?).map(Reply::Done),
        Request::Write { path, mode } => transfer::write(checked(&path)?, mode, control, stream()?).map(Reply::Done),
        Request::Attest | Request::Exec(_) | Request::Listen(_) => Err(invalid("not a request about files")),
    }
}

/// Checks that a path can be one, and does not depend on where this process happens to be.
fn checked(path: &[u8]) -> Result<&[u8], Failure> {
    let wrong = if !path.starts_with(b"/") {
        "a relative path, an absolute one is needed"
    } else if path.contains(&0) {
        "a path with a NUL, which no path may have"
    } else if path.len() >= MAX_PATH {
        "a path of 4096 bytes or more, at most 4095 are allowed"
    } else {
        return Ok(path);
    };
    Err(invalid(format!("path \"{}\": {wrong}", printable(path))))
}

/// The last name of a path; none if the path ends in no name of its own.
fn last_name(path: &[u8]) -> Option<&[u8]> {
    let name = path.split(|&byte| byte == b'/').rfind(|name| !name.is_empty())?;
    (name != b"." && name != b"..").then_some(name)
}

/// Splits a path into its directory and its last name.
fn split(path: &[u8]) -> Result<(&[u8], &[u8]), Failure> {
    let Some(name) = last_name(path) else {
        return Err(invalid(format!("path \"{}\": the name of an entry is needed", printable(path))));
    };
    let end = path.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    Ok((&path[..end - name.len()], name))
}

/// Tells that the kernel refused something about a path.
fn refused(path: &[u8], error: impl Into<io::Error>) -> Failure {
    failed(&format!("path \"{}\"", printable(path)), &error.into())
}

/// Tells that an entry is of another kind than the request needs.
fn wrong_kind(path: &[u8], needed: &str, errno: Errno) -> Failure {
    let text = format!("path \"{}\": not a {needed}", printable(path));
    failure(FailureKind::WrongKind, errno.raw_os_error(), text)
}

fn entry(name: &[u8], found: &Stat) -> Entry {
    let kind = match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => EntryKind::Directory,
        FileType::RegularFile => EntryKind::File,
        FileType::Symlink => EntryKind::Symlink,
        _ => EntryKind::Special,
    };
    let size = if kind == EntryKind::File { u64::try_from(found.st_size).unwrap_or(0) } else { 0 };
    Entry { name: name.to_vec(), kind, mode: found.st_mode & MODE_BITS, size, modified: found.st_mtime }
}

fn open_directory(path: &[u8]) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|error| refused(path, error))
}

/// Sends the entries of a directory as they come, and waits where the host is slower.
fn list(path: &[u8], control: &Control) -> Result<Summary, Failure> {
    let directory = open_directory(path)?;
    let mut summary = Summary::default();
    let mut entries = Vec::new();
    let send = |entries: &mut Vec<Entry>| {
        let full = std::mem::take(entries);
        control.send(&Reply::Entries(full)).map_err(|error| failed("entries could not be sent", &error))
    };
    for found in Dir::read_from(&directory).map_err(|error| refused(path, error))? {
        let found = found.map_err(|error| refused(path, error))?;
        let name = found.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => entries.push(entry(name, &found)),
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(refused(path, error)),
        }
        summary.entries += 1;
        if entries.len() == MAX_ENTRIES {
            send(&mut entries)?;
        }
    }
    if !entries.is_empty() {
        send(&mut entries)?;
    }
    Ok(summary)
}

/// Lets everybody write a directory that is this process's own.
fn share(guest: &Guest, path: &[u8]) -> Result<(), Failure> {
    const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
    // The workspace around it may be its owner's alone, and root has no capability that would let it through.
    let find = || Ok(openat(CWD, path, DIRECTORY | OFlags::PATH, Mode::empty())?);
    let shared = as_agent(guest.setup.agent, find).and_then(|directory| {
        if fstat(&directory)?.st_uid != geteuid().as_raw() {
            return Ok(());
        }
        let own = openat(&directory, ".", DIRECTORY | OFlags::RDONLY, Mode::empty())?;
        Ok(fchmod(own, Mode::from_raw_mode(EVERYBODYS))?)
    });
    shared.map_err(|error| refused(path, error))
}

/// Makes the directories above a file, which nobody but container root may write.
fn place_above(path: &[u8]) -> Result<(), Failure> {
    let above = std::path::Path::new(std::ffi::OsStr::from_bytes(path)).parent();
    above.map_or(Ok(()), |above| {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(above);
        made.map_err(|error| refused(path, error))
    })
}

/// Makes a directory and those above it; gives how many were missing.
fn make_directories(path: &[u8]) -> Result<u64, Failure> {
    let mut made = 0;
    let ends = path.iter().enumerate().skip(1).filter(|&(_, &byte)| byte == b'/').map(|(at, _)| at);
    for end in ends.chain([path.len()]) {
        match mkdir(&path[..end], Mode::RWXU | Mode::RWXG | Mode::RWXO) {
            Ok(()) => made += 1,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(refused(&path[..end], error)),
        }
    }
    let found = stat(path).map_err(|error| refused(path, error))?;
    if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
        Ok(made)
    } else {
        Err(wrong_kind(path, "directory", Errno::NOTDIR))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_absolute_and_bounded() {
        assert!(checked(b"/a/../b").is_ok());
        for path in [&b""[..], b"a", b"./a", b"/a\0b", &[b'/'; MAX_PATH]] {
            assert_eq!(checked(path).unwrap_err().kind, FailureKind::Invalid);
        }
    }

    #[test]
    fn a_path_splits_before_its_last_name() {
        assert_eq!(split(b"/a/b").unwrap(), (&b"/a/"[..], &b"b"[..]));
        assert_eq!(split(b"/a//b//").unwrap(), (&b"/a//"[..], &b"b"[..]));
        assert_eq!(split(b"/a").unwrap(), (&b"/"[..], &b"a"[..]));
        for path in [&b"/"[..], b"//", b"/a/.", b"/a/.."] {
            assert!(split(path).is_err(), "{}", path.escape_ascii());
        }
    }
}
