//! Unpacks an archive of a root file system that nobody vouches for.
//!
//! Invariants: nothing is touched outside the directory, whatever links the archive makes; no file gains its user
//! privilege; no device is made; what is read and made is bounded.

use std::cell::Cell;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, chownat, fchmod, fchown,
    futimens, linkat, mkdirat, openat, openat2, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use sandbox_core::{Error, ErrorKind, Result};
use tar::{Archive, EntryType, Header};

use super::identities::LENGTH;
use super::removal::remove;

/// Who the files belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owners {
    /// The one who unpacks.
    Caller,
    /// Those that the archive names.
    Kept,
}

/// What names that start with `.wh.` mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whiteouts {
    /// That something of the layers below is gone
    /// (<https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts>).
    Applied,
    /// Nothing: they are names like others.
    Kept,
}

/// Unpacks an archive into a directory that is there.
pub(super) fn unpack(archive: impl Read, directory: &Path, owners: Owners, whiteouts: Whiteouts) -> Result<()> {
    let root = openat(CWD, directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::io(format!("cannot open {}", directory.display()), error.into()))?;
    let tree = Tree { root, owners };
    let allowance = Rc::new(Cell::new(MAX_HEADERS));
    let mut archive = Archive::new(Metered { inner: archive, allowance: Rc::clone(&allowance) });
    let mut left = MAX_BYTES;
    let mut made_here = HashSet::new();
    let entries = archive.entries().map_err(unreadable)?;
    for (index, entry) in entries.enumerate() {
        let mut entry = entry.map_err(unreadable)?;
        allowance.set(u64::MAX);
        if index >= MAX_ENTRIES {
            return Err(invalid(format!("more than {MAX_ENTRIES} entries")));
        }
        let path = plain(&entry.path_bytes())?;
        left = left.checked_sub(entry.size()).ok_or_else(|| invalid(format!("more than {MAX_BYTES} bytes")))?;
        if let (Whiteouts::Applied, Some(name)) = (whiteouts, path.file_name()) {
            if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
                let parent = path.parent().unwrap_or(Path::new(""));
                tree.hide(parent, hidden, &made_here)
                    .map_err(|error| Error::io(format!("cannot apply {} of the archive", path.display()), error))?;
                rest_of(&mut entry, &allowance)?;
                continue;
            }
            made_here.extend(path.ancestors().map(Path::to_owned));
        }
        let link = entry.link_name_bytes().map(std::borrow::Cow::into_owned);
        let header = entry.header().clone();
        let made = tree.add(&path, &header, link.as_deref(), &mut entry)?;
        made.map_err(|error| Error::io(format!("cannot unpack {} of the archive", path.display()), error))?;
        rest_of(&mut entry, &allowance)?;
    }
    Ok(())
}

/// Whether an archive is one of an image in layers, and not of a file system.
pub(super) fn holds_layers(archive: impl Read) -> Result<bool> {
    let allowance = Rc::new(Cell::new(MAX_HEADERS));
    let mut archive = Archive::new(Metered { inner: archive, allowance: Rc::clone(&allowance) });
    for entry in archive.entries().map_err(unreadable)?.take(MAX_ENTRIES) {
        let mut entry = entry.map_err(unreadable)?;
        allowance.set(u64::MAX);
        let path = plain(&entry.path_bytes())?;
        if [Path::new("manifest.json"), Path::new("index.json"), Path::new("oci-layout")].contains(&path.as_path()) {
            return Ok(true);
        }
        rest_of(&mut entry, &allowance)?;
    }
    Ok(false)
}

/// Reads what is left of an entry's content; what follows is the headers of the next one.
fn rest_of(entry: &mut impl Read, allowance: &Cell<u64>) -> Result<()> {
    io::copy(entry, &mut io::sink()).map_err(unreadable)?;
    allowance.set(MAX_HEADERS);
    Ok(())
}

/// An archive whose headers have an end. Long names and extended headers are held in memory as a whole, and an archive
/// that is compressed may claim any number of bytes for them (pax(1)).
struct Metered<R> {
    inner: R,
    /// Bytes that may be read until the next entry is reached.
    allowance: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.allowance.get();
        let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if length == 0 && !buffer.is_empty() {
            let message = format!("the headers of an entry are larger than {MAX_HEADERS} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let length = self.inner.read(&mut buffer[..length])?;
        if left != u64::MAX {
            self.allowance.set(left.saturating_sub(length as u64));
        }
        Ok(length)
    }
}

/// A tree that is being unpacked.
struct Tree {
    root: OwnedFd,
    owners: Owners,
}

impl Tree {
    /// Adds an entry. The outer error is the archive's, the inner one the system's.
    fn add(
        &self,
        path: &Path,
        header: &Header,
        link: Option<&[u8]>,
        content: &mut impl Read,
    ) -> Result<io::Result<()>> {
        let kind = header.entry_type();
        let attributes = Attributes::of(path, header, self.owners)?;
        let link = || link.ok_or_else(|| invalid(format!("{} is a link to nothing", path.display())));
        Ok(match kind {
            EntryType::Directory => self.directory(path, &attributes),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => self.file(path, &attributes, content),
            EntryType::Symlink => self.symlink(path, &attributes, link()?),
            EntryType::Link => self.hard_link(path, &plain(link()?)?),
            // Devices are the host's, and a pipe without its makers is nothing.
            _ => Ok(()),
        })
    }

    /// Removes something of the layers below: a name, or all of a directory that this layer has not made.
    fn hide(&self, parent: &Path, hidden: &[u8], made_here: &HashSet<PathBuf>) -> io::Result<()> {
        let directory = match openat2(&self.root, shown(parent), DIRECTORY, Mode::empty(), WITHIN) {
            Ok(directory) => directory,
            // Nothing is there to be hidden.
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if hidden != OPAQUE {
            return match hidden {
                b"" | b"." | b".." => Err(Errno::INVAL.into()),
                name => remove(&below(&directory, OsStr::from_bytes(name))),
            };
        }
        for entry in std::fs::read_dir(below(&directory, OsStr::new(".")))? {
            let name = entry?.file_name();
            if !made_here.contains(&parent.join(&name)) {
                remove(&below(&directory, &name))?;
            }
        }
        Ok(())
    }

    fn directory(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        let made = match self.parent(path)? {
            None => self.root.as_fd().try_clone_to_owned()?,
            Some((parent, name)) => {
                match mkdirat(&parent, name, Mode::RWXU) {
                    Err(Errno::EXIST) if is_directory(&parent, name)? => {}
                    Err(Errno::EXIST) => {
                        unlinkat(&parent, name, AtFlags::empty())?;
                        mkdirat(&parent, name, Mode::RWXU)?;
                    }
                    made => made?,
                }
                openat(
                    &parent,
                    name,
                    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                    Mode::empty(),
                )?
            }
        };
        attributes.apply(made.as_fd())
    }

    fn file(&self, path: &Path, attributes: &Attributes, content: &mut impl Read) -> io::Result<()> {
        let (parent, name) = self.make_room(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)?);
        io::copy(content, &mut file)?;
        attributes.apply(file.as_fd())
    }

    fn symlink(&self, path: &Path, attributes: &Attributes, target: &[u8]) -> io::Result<()> {
        let (parent, name) = self.make_room(path)?;
        symlinkat(target, &parent, name)?;
        match attributes.owner {
            Some((uid, gid)) => Ok(chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?),
            None => Ok(()),
        }
    }

    fn hard_link(&self, path: &Path, target: &Path) -> io::Result<()> {
        if path == target {
            return Ok(());
        }
        let (from, from_name) = self.parent(target)?.ok_or(Errno::ISDIR)?;
        let (parent, name) = self.make_room(path)?;
        Ok(linkat(&from, from_name, &parent, name, AtFlags::empty())?)
    }

    /// The directory that an entry goes to, and its name there; `None` for the root itself. Links on the way are followed
    /// as they would be if the tree were the root directory (openat2(2), `RESOLVE_IN_ROOT`).
    fn parent<'a>(&self, path: &'a Path) -> io::Result<Option<(OwnedFd, &'a OsStr)>> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        Ok(Some((self.open(parent)?, name)))
    }

    fn open(&self, path: &Path) -> io::Result<OwnedFd> {
        match openat2(&self.root, shown(path), DIRECTORY, Mode::empty(), WITHIN) {
            // Archives may leave directories out.
            Err(Errno::NOENT) => {
                let (parent, name) = self.parent(path)?.ok_or(Errno::NOENT)?;
                mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                Ok(openat2(&self.root, shown(path), DIRECTORY, Mode::empty(), WITHIN)?)
            }
            opened => Ok(opened?),
        }
    }

    /// As [`Self::parent`], with nothing by that name there.
    fn make_room<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (parent, name) = self.parent(path)?.ok_or(Errno::ISDIR)?;
        match unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok((parent, name)),
            // A layer may put a file where one below has a directory.
            Err(Errno::ISDIR | Errno::PERM) => {
                remove(&below(&parent, name))?;
                Ok((parent, name))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What opens a place in the tree, without being able to read it.
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What keeps every link within the tree.
const WITHIN: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// The path as the kernel takes it, which has no empty one.
fn shown(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

/// A name in a directory that is open, as a path.
fn below(directory: &OwnedFd, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name)
}

fn is_directory(parent: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    let found = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(found.st_mode) == FileType::Directory)
}

/// What an entry says of itself.
struct Attributes {
    owner: Option<(Uid, Gid)>,
    mode: Mode,
    modified: i64,
}

impl Attributes {
    fn of(path: &Path, header: &Header, owners: Owners) -> Result<Self> {
        let wrong = |error: io::Error| invalid(format!("{}: {error}", path.display()));
        let id = |field: &str, value: io::Result<u64>| -> Result<u32> {
            let value = value.map_err(wrong)?;
            u32::try_from(value).ok().filter(|id| *id < LENGTH).ok_or_else(|| {
                invalid(format!("{} has {field} {value}, ids up to {} are allowed", path.display(), LENGTH - 1))
            })
        };
        let owner = match owners {
            Owners::Caller => None,
            Owners::Kept => Some((Uid::from_raw(id("user", header.uid())?), Gid::from_raw(id("group", header.gid())?))),
        };
        Ok(Self {
            owner,
            // Neither of the bits that let a program run as its owner.
            mode: Mode::from_raw_mode(header.mode().map_err(wrong)? & 0o1777),
            modified: header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0),
        })
    }

    fn apply(&self, made: BorrowedFd<'_>) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner {
            fchown(made, Some(uid), Some(gid))?;
        }
        fchmod(made, self.mode)?;
        let time = Timespec { tv_sec: self.modified, tv_nsec: 0 };
        Ok(futimens(made, &Timestamps { last_access: time, last_modification: time })?)
    }
}

/// The path below the root, without anything that climbs.
fn plain(path: &[u8]) -> Result<PathBuf> {
    let shown = Path::new(OsStr::from_bytes(path));
    if path.len() > MAX_PATH || path.contains(&0) {
        return Err(invalid(format!("a path of {} bytes, at most {MAX_PATH} and no NUL are allowed", path.len())));
    }
    let mut plain = PathBuf::new();
    for component in shown.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(invalid(format!("{} leaves the archive", shown.display())));
            }
        }
    }
    Ok(plain)
}

fn invalid(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::ImageInvalid, format!("the archive cannot be an image: {what}"))
}

fn unreadable(error: io::Error) -> Error {
    Error::new(ErrorKind::ImageInvalid, "the archive cannot be read as tar")
        .with_hint("give a plain tar archive of a root file system, not a compressed one")
        .with_source(error)
}

/// What the names of whiteouts start with, and what follows it in one that speaks of a whole directory.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..opq";

/// The longest path: what the kernel takes (`path_resolution(7)`).
const MAX_PATH: usize = 4096;
/// The most bytes between the content of one entry and that of the next: names and attributes.
const MAX_HEADERS: u64 = 1 << 20;
/// The most entries of an archive.
const MAX_ENTRIES: usize = 4_000_000;
/// The most bytes of an archive's files.
const MAX_BYTES: u64 = 256 << 30;

#[cfg(test)]
mod tests;
