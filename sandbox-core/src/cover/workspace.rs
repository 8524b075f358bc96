//! The host's directory in which things are covered: looked at, filled up and cleaned without following any link.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, ResolveFlags, Stat, fchmod, flock, fstat, mkdirat, openat,
    openat2, statat, unlinkat,
};
use rustix::io::Errno;

use crate::{Error, ErrorKind, Result};

/// A workspace of the host.
pub(super) struct Workspace {
    path: PathBuf,
    root: OwnedFd,
}

impl Workspace {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
            .map_err(|error| Error::io(format!("cannot open the workspace {}", path.display()), error.into()))?;
        Ok(Self { path: path.to_owned(), root })
    }

    /// Opens a part of it, and follows no link.
    fn find(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// Looks at a part of it; none where it does not exist.
    pub(super) fn look(&self, path: &Path) -> Result<Option<Stat>> {
        let found = match self.find(path, OFlags::PATH) {
            Err(Errno::NOENT) => return Ok(None),
            found => found.and_then(fstat).map_err(|error| self.error(path, error))?,
        };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory | FileType::RegularFile => Ok(Some(found)),
            kind => {
                let message = format!(
                    "workspace {}/{} is {kind:?}, which cannot be protected or covered",
                    self.path.display(),
                    path.display()
                );
                Err(Error::new(ErrorKind::InvalidInput, message).with_hint(HINT))
            }
        }
    }

    /// Makes sure that a part of it is there, and stays for as long as what is returned.
    pub(super) fn hold(&self, path: &Path, kind: FileType) -> Result<Option<OwnedFd>> {
        for _ in 0..MAX_ATTEMPTS {
            let Some(found) = self.look(path)? else {
                match self.make(path, kind) {
                    Ok(()) | Err(Errno::EXIST) => continue,
                    Err(error) => return Err(self.error(path, error)),
                }
            };
            let file = match self.find(path, OFlags::RDONLY | OFlags::NONBLOCK) {
                Ok(file) => file,
                // Another's, and no placeholder of ours.
                Err(Errno::ACCESS) => return Ok(None),
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(self.error(path, error)),
            };
            // Whoever has the other lock is about to remove it, and what was removed meanwhile is no longer that.
            let locked = flock(&file, FlockOperation::NonBlockingLockShared).is_ok();
            if locked && self.look(path)?.is_some_and(|now| is_same(&now, &found)) {
                return Ok(Some(file));
            }
            std::thread::yield_now();
        }
        let message = format!("workspace {}/{} comes and goes", self.path.display(), path.display());
        Err(Error::new(ErrorKind::Io, message).with_hint("another program makes and removes it: wait until it is done"))
    }

    fn make(&self, path: &Path, kind: FileType) -> Result<(), Errno> {
        let (parent, name) = self.parent(path)?;
        if kind == FileType::Directory {
            mkdirat(&parent, name, Mode::from_raw_mode(MARK_DIRECTORY))?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            return fchmod(openat(&parent, name, flags, Mode::empty())?, Mode::from_raw_mode(MARK_DIRECTORY));
        }
        let flags = OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fchmod(openat(&parent, name, flags, Mode::from_raw_mode(0o400))?, Mode::from_raw_mode(MARK_FILE))
    }

    pub(super) fn remove(&self, path: &Path) -> Result<()> {
        let Ok(file) = self.find(path, OFlags::RDONLY | OFlags::NONBLOCK) else { return Ok(()) };
        let Ok(found) = fstat(&file) else { return Ok(()) };
        if !is_placeholder(&found) || flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(());
        }
        let (parent, name) = self.parent(path).map_err(|error| self.error(path, error))?;
        if !statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|now| is_same(&now, &found)) {
            return Ok(());
        }
        let is_directory = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match unlinkat(&parent, name, flags) {
            // Somebody has put something in it, and it is theirs now.
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => Ok(()),
            Err(error) => Err(self.error(path, error)),
        }
    }

    fn parent<'a>(&self, path: &'a Path) -> Result<(OwnedFd, &'a OsStr), Errno> {
        let (parent, name) = path.parent().zip(path.file_name()).ok_or(Errno::INVAL)?;
        Ok((self.find(parent, OFlags::PATH | OFlags::DIRECTORY)?, name))
    }

    fn error(&self, path: &Path, error: Errno) -> Error {
        let place = self.path.join(path);
        if error == Errno::LOOP {
            let message = format!(
                "workspace {} is or lies behind a symbolic link, and cannot be protected or covered",
                place.display()
            );
            return Error::new(ErrorKind::InvalidInput, message).with_hint(HINT);
        }
        Error::io(format!("cannot protect or cover {} of the workspace", place.display()), error.into()).with_hint(HINT)
    }
}

/// Whether something is what is made here, and still as it made it; whether a directory is empty, its removal finds out.
pub(super) fn is_placeholder(found: &Stat) -> bool {
    let mode = Mode::from_raw_mode(found.st_mode).as_raw_mode() & 0o7777;
    let is_marked = match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory => mode == MARK_DIRECTORY,
        FileType::RegularFile => mode == MARK_FILE && found.st_size == 0,
        _ => false,
    };
    is_marked && found.st_uid == rustix::process::geteuid().as_raw()
}

fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// The modes of placeholders, which nobody else uses. That of a directory becomes that of what runc mounts there, and lets its owner write.
const MARK_DIRECTORY: u32 = 0o1755;
const MARK_FILE: u32 = 0o1444;
const MAX_ATTEMPTS: u32 = 1_000;
const HINT: &str =
    "put a plain file or directory there, or leave it out of the policy's workspace-protected and workspace-covered";
