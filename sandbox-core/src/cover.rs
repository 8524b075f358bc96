//! Keeps parts of a mounted workspace from being changed, also those that are not there yet.
//!
//! What exists is mounted over itself, read-only. What does not gets a *placeholder* on the host, empty and marked by its mode, so
//! that there is something to mount over itself. A mount point can neither be renamed nor removed inside, and neither can its
//! parents, which are mount points for that reason alone.
//!
//! Sandboxes may share a workspace, and whoever removes a placeholder on the host removes what others have mounted on it
//! (rmdir(2) in another mount namespace). So each holds a shared lock (flock(2)) on what it covers, and only who can have the
//! exclusive one removes it. The run directory names the placeholders before they are made, so that whoever cleans up after a
//! killed process finds them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, ResolveFlags, Stat, fchmod, flock, fstat, mkdirat, openat,
    openat2, statat, unlinkat,
};
use rustix::io::Errno;
use sandbox_policy::{Access, CoverPath};

use crate::{Error, ErrorKind, Result};

/// A part of the workspace that is mounted over itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cover {
    /// The directory or file on the host.
    pub source: PathBuf,
    /// The same, inside.
    pub target: PathBuf,
    /// What may be done with it.
    pub access: Access,
}

/// The locks on what a sandbox covers; they go with it.
#[derive(Debug, Default)]
pub(crate) struct Held(Vec<OwnedFd>);

/// Prepares what is mounted over the workspace, parents first. Placeholders are named in a file of the run directory.
///
/// # Errors
/// `InvalidInput` for a link or a special file where something is to be protected; those of the host's system.
pub(crate) fn lay(
    host: &Path,
    guest: &Path,
    protected: &BTreeSet<CoverPath>,
    record: &Path,
) -> Result<(Vec<Cover>, Held)> {
    let workspace = Workspace::open(host)?;
    let paths: BTreeSet<&Path> = protected.iter().map(CoverPath::as_path).collect();
    let outermost = |path: &CoverPath| path.as_path().ancestors().skip(1).all(|parent| !paths.contains(parent));
    // In this order, a directory comes before what lies in it.
    let mut wanted: BTreeMap<PathBuf, (Access, FileType)> = BTreeMap::new();
    for path in protected.iter().filter(|path| outermost(path)) {
        let parents = path.as_path().ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty());
        for parent in parents {
            wanted.entry(parent.to_owned()).or_insert((Access::ReadWrite, FileType::Directory));
        }
        let kind = if path.is_directory() { FileType::Directory } else { FileType::RegularFile };
        wanted.insert(path.as_path().to_owned(), (Access::ReadOnly, kind));
    }
    let mut ours = Vec::new();
    for path in wanted.keys() {
        if workspace.look(path)?.is_none_or(|found| is_placeholder(&found)) {
            ours.push(path.as_path());
        }
    }
    remember(record, host, &ours).map_err(|error| Error::io("cannot write the run directory", error))?;
    let mut held = Held::default();
    for (path, (_, kind)) in &wanted {
        held.0.extend(workspace.hold(path, *kind)?);
    }
    let covers = wanted.into_iter().map(|(path, (access, _))| Cover {
        source: host.join(&path),
        target: guest.join(&path),
        access,
    });
    Ok((covers.collect(), held))
}

/// Removes the placeholders that a file of a run directory names: those that are still empty, and that no other sandbox covers.
pub(crate) fn clear(record: &Path) -> Result<()> {
    let text = match fs::read(record) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(format!("cannot read {}", record.display()), error)),
    };
    let mut names =
        text.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(|name| Path::new(OsStr::from_bytes(name)));
    // A workspace that is gone holds nothing.
    if let Some(workspace) = names.next().and_then(|host| Workspace::open(host).ok()) {
        let paths: Vec<&Path> = names.collect();
        for path in paths.into_iter().rev() {
            workspace.remove(path)?;
        }
    }
    Ok(())
}

struct Workspace {
    path: PathBuf,
    root: OwnedFd,
}

impl Workspace {
    fn open(path: &Path) -> Result<Self> {
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
    fn look(&self, path: &Path) -> Result<Option<Stat>> {
        let found = match self.find(path, OFlags::PATH) {
            Err(Errno::NOENT) => return Ok(None),
            found => found.and_then(fstat).map_err(|error| self.error(path, error))?,
        };
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory | FileType::RegularFile => Ok(Some(found)),
            kind => {
                let message = format!(
                    "workspace {}/{} is {kind:?}, which cannot be protected",
                    self.path.display(),
                    path.display()
                );
                Err(Error::new(ErrorKind::InvalidInput, message).with_hint(HINT))
            }
        }
    }

    /// Makes sure that a part of it is there, and stays for as long as what is returned.
    fn hold(&self, path: &Path, kind: FileType) -> Result<Option<OwnedFd>> {
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

    fn remove(&self, path: &Path) -> Result<()> {
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
            let message =
                format!("workspace {} is or lies behind a symbolic link, and cannot be protected", place.display());
            return Error::new(ErrorKind::InvalidInput, message).with_hint(HINT);
        }
        Error::io(format!("cannot protect {} of the workspace", place.display()), error.into()).with_hint(HINT)
    }
}

/// Writes down what may be ours before any of it is made.
fn remember(record: &Path, host: &Path, paths: &[&Path]) -> io::Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let mut text = host.as_os_str().as_bytes().to_vec();
    for path in paths {
        text.push(0);
        text.extend(path.as_os_str().as_bytes());
    }
    let file = File::create_new(record)?;
    io::Write::write_all(&mut &file, &text)?;
    file.sync_data()
}

/// Whether something is what this module makes, and still as it made it; whether a directory is empty, its removal finds out.
fn is_placeholder(found: &Stat) -> bool {
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

/// The modes of placeholders, which nobody else uses: sticky, and not to be written.
const MARK_DIRECTORY: u32 = 0o1555;
const MARK_FILE: u32 = 0o1444;
const MAX_ATTEMPTS: u32 = 1_000;
const HINT: &str =
    "mount it read-only, put a plain file or directory there, or leave it out of the policy's workspace-protected";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn protected(paths: &[&str]) -> BTreeSet<CoverPath> {
        paths.iter().map(|path| path.parse().unwrap()).collect()
    }

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            fs::create_dir(place.workspace()).unwrap();
            place
        }

        fn workspace(&self) -> PathBuf {
            self.0.path().canonicalize().unwrap().join("w")
        }

        fn record(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn lay(&self, name: &str, paths: &[&str]) -> Result<(Vec<Cover>, Held)> {
            lay(&self.workspace(), Path::new("/workspace"), &protected(paths), &self.record(name))
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<String> = fs::read_dir(self.workspace())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    #[test]
    fn what_is_missing_gets_a_placeholder_that_goes_again() {
        let place = Place::new();
        fs::write(place.workspace().join(".envrc"), "x").unwrap();
        let (covers, held) = place.lay("a", &[".vscode/", ".envrc", ".mcp.json", "a/b/c"]).unwrap();
        let seen: Vec<_> = covers.iter().map(|cover| (cover.target.to_str().unwrap(), cover.access)).collect();
        assert_eq!(
            seen,
            [
                ("/workspace/.envrc", Access::ReadOnly),
                ("/workspace/.mcp.json", Access::ReadOnly),
                ("/workspace/.vscode", Access::ReadOnly),
                ("/workspace/a", Access::ReadWrite),
                ("/workspace/a/b", Access::ReadWrite),
                ("/workspace/a/b/c", Access::ReadOnly),
            ]
        );
        assert_eq!(place.names(), [".envrc", ".mcp.json", ".vscode", "a"]);
        drop(held);
        clear(&place.record("a")).unwrap();
        assert_eq!(place.names(), [".envrc"]);
        assert_eq!(fs::read(place.workspace().join(".envrc")).unwrap(), b"x");
        clear(&place.record("a")).unwrap();
        clear(&place.record("never")).unwrap();
    }

    #[test]
    fn a_placeholder_stays_until_the_last_sandbox_has_gone() {
        let place = Place::new();
        let (_, first) = place.lay("a", &[".vscode/"]).unwrap();
        let (_, second) = place.lay("b", &[".vscode/"]).unwrap();
        drop(first);
        clear(&place.record("a")).unwrap();
        assert_eq!(place.names(), [".vscode"]);
        drop(second);
        clear(&place.record("b")).unwrap();
        assert_eq!(place.names(), Vec::<String>::new());
    }

    #[test]
    fn what_is_somebody_elses_stays() {
        let place = Place::new();
        fs::create_dir(place.workspace().join(".claude")).unwrap();
        let (_, held) = place.lay("a", &[".claude/", ".vscode/", ".mcp.json"]).unwrap();
        drop(held);
        let used = place.workspace().join(".vscode");
        fs::set_permissions(&used, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(place.workspace().join(".mcp.json"), fs::Permissions::from_mode(0o644)).unwrap();
        clear(&place.record("a")).unwrap();
        assert_eq!(place.names(), [".claude", ".mcp.json", ".vscode"]);
    }

    #[test]
    fn a_link_is_refused_and_nothing_is_made_behind_it() {
        let place = Place::new();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), place.workspace().join(".vscode")).unwrap();
        for paths in [&[".vscode/"], &[".vscode/x"], &[".vscode/x/y"]] {
            let error = place.lay("a", paths).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.hint().is_some());
        }
        rustix::fs::mknodat(CWD, place.workspace().join(".envrc"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert_eq!(place.lay("a", &[".envrc"]).unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(!place.record("a").exists());
    }
}
