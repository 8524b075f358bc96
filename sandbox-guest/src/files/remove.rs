//! Removes a file, a link or a whole directory. No link is followed, and a directory is entered by its descriptor.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use sandbox_guest::wire::{Failure, Summary};

use super::transfer::still_wanted;
use super::{refused, split};
use crate::control::Control;
use crate::failure::failed;

/// How many names of one directory are held at a time.
const BATCH: usize = 1024;

/// A directory that is being emptied.
struct Level {
    name: CString,
    directory: OwnedFd,
    names: Vec<CString>,
}

/// Removes what a path names.
pub(super) fn remove(path: &[u8], control: &Control) -> Result<Summary, Failure> {
    let (parent, name) = split(path)?;
    let name = CString::new(name).map_err(|error| refused(path, error))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = openat(CWD, parent, flags, Mode::empty()).map_err(|error| refused(path, error))?;
    let mut removal = Removal { parent, levels: Vec::new(), removed: 0 };
    removal.unlink(name).map_err(|error| refused(path, error))?;
    while !removal.levels.is_empty() {
        still_wanted(control).map_err(|error| failed("removal was given up", &error))?;
        removal.empty_some().map_err(|error| refused(path, error))?;
    }
    Ok(Summary { entries: removal.removed, ..Summary::default() })
}

/// How far a removal has come.
struct Removal {
    parent: OwnedFd,
    /// The directories on the way, each in the one before it.
    levels: Vec<Level>,
    removed: u64,
}

impl Removal {
    fn here(&self) -> BorrowedFd<'_> {
        self.levels.last().map_or(self.parent.as_fd(), |level| level.directory.as_fd())
    }

    /// Removes some names of the innermost directory, or enters one of them, or removes it if it has none.
    fn empty_some(&mut self) -> rustix::io::Result<()> {
        let depth = self.levels.len();
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        if level.names.is_empty() {
            level.names = names(&level.directory)?;
        }
        let mut names = std::mem::take(&mut level.names);
        if names.is_empty()
            && let Some(level) = self.levels.pop()
        {
            self.removed += 1;
            return unlinkat(self.here(), &level.name, AtFlags::REMOVEDIR);
        }
        while let Some(name) = names.pop() {
            self.unlink(name)?;
            if self.levels.len() > depth {
                break;
            }
        }
        if let Some(level) = self.levels.get_mut(depth - 1) {
            level.names = names;
        }
        Ok(())
    }

    /// Removes one name, or enters it if it is a directory.
    fn unlink(&mut self, name: CString) -> rustix::io::Result<()> {
        match unlinkat(self.here(), &name, AtFlags::empty()) {
            Ok(()) => self.removed += 1,
            // Within a tree somebody else may be removing, too.
            Err(Errno::NOENT) if !self.levels.is_empty() => {}
            Err(error @ (Errno::ISDIR | Errno::PERM)) => {
                let directory = open(self.here(), &name).map_err(|opening| match opening {
                    Errno::NOTDIR | Errno::LOOP => error,
                    opening => opening,
                })?;
                self.levels.push(Level { name, directory, names: Vec::new() });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

fn open(parent: impl AsFd, name: &CString) -> rustix::io::Result<OwnedFd> {
    openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Reads some names of a directory.
fn names(directory: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            names.push(name.to_owned());
        }
        if names.len() == BATCH {
            break;
        }
    }
    Ok(names)
}
