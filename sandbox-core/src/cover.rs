//! Keeps parts of a mounted workspace from being changed, also those that are not there yet, and others from being seen at all.
//!
//! What is *protected* is mounted over itself, read-only. What is *covered* has something of the sandbox's own mounted over it: a
//! directory an empty one, a file an empty one that nobody writes, and a `.git` that is a file one that names a repository of the
//! sandbox's own. What does not exist gets a *placeholder* on the host, empty and marked by its mode, so that there is something to
//! mount over. A mount point can neither be renamed nor removed inside, and neither can its parents, which are mount points for
//! that reason alone.
//!
//! Sandboxes may share a workspace, and whoever removes a placeholder on the host removes what others have mounted on it
//! (rmdir(2) in another mount namespace). So each holds a shared lock (flock(2)) on what it covers, and only who can have the
//! exclusive one removes it. The run directory names the placeholders before they are made, so that whoever cleans up after a
//! killed process finds them.

mod workspace;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use sandbox_policy::{Access, ByteSize, CoverPath, SandboxSpec};
use workspace::{Workspace, is_placeholder};

use crate::{Error, Result};

/// A part of the workspace that has something mounted over it: itself, or a file that stands in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cover {
    /// The directory or file on the host.
    pub source: PathBuf,
    /// The part, inside.
    pub target: PathBuf,
    /// What may be done with it.
    pub access: Access,
}

/// An empty directory of the sandbox's own that is mounted inside. It is the agent's to write and goes with the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blank {
    /// Where it is mounted, inside.
    pub target: PathBuf,
    /// Bytes that it holds at most, where it does not count for the limit of the container's own layer.
    pub size: ByteSize,
}

/// All that is mounted over a workspace.
#[derive(Debug, Default)]
pub(crate) struct Laid {
    /// What shows a part of the host, parents first.
    pub(crate) covers: Vec<Cover>,
    /// What hides a part of the host; nothing is mounted below one.
    pub(crate) blanks: Vec<Blank>,
    /// Where a repository inside takes the place of the host's, if there is one to take the place of.
    pub(crate) repository: Option<Repository>,
}

/// A repository of the sandbox's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repository {
    /// Its `$GIT_DIR`, inside.
    pub(crate) own: PathBuf,
    /// The files that are in the workspace only so that nobody makes them.
    pub(crate) ignored: Vec<PathBuf>,
}

/// The locks on what a sandbox covers; they go with it.
#[derive(Debug, Default)]
pub(crate) struct Held(Vec<OwnedFd>);

/// What becomes of a part of the workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// It is the sandbox's own.
    Covered,
    /// It stays as it is, and stays where it is.
    Parent,
    /// It is not changed.
    Protected,
}

/// Prepares what is mounted over the workspace. Placeholders are named in a file, and the files that stand in the place of others
/// are made in a directory that the sandbox can see.
///
/// # Errors
/// `InvalidInput` for a link or a special file where something is to be protected or covered; those of the host's system.
pub(crate) fn lay(spec: &SandboxSpec, record: &Path, files: &Path) -> Result<(Laid, Held)> {
    let mounted =
        spec.workspace().and_then(|workspace| workspace.mounted().map(|(host, access)| (workspace, host, access)));
    let Some((workspace, host, access)) = mounted else { return Ok(Default::default()) };
    let size = spec.limits().memory.min(spec.limits().disk);
    let parts = plan(spec.workspace_protected(), spec.workspace_covered());
    Laying { host: host.as_path(), guest: workspace.guest.as_path(), access, size, files }.lay(parts, record)
}

struct Laying<'a> {
    host: &'a Path,
    guest: &'a Path,
    access: Access,
    size: ByteSize,
    files: &'a Path,
}

impl Laying<'_> {
    fn lay(&self, mut parts: BTreeMap<PathBuf, (Part, FileType)>, record: &Path) -> Result<(Laid, Held)> {
        let workspace = Workspace::open(self.host)?;
        let mut ours = Vec::new();
        let mut absent = BTreeSet::new();
        for path in parts.keys() {
            let found = workspace.look(path)?;
            if found.is_none() {
                absent.insert(path.clone());
            }
            if found.is_none_or(|found| is_placeholder(&found)) {
                ours.push(path.clone());
            }
        }
        // What cannot be written need not be kept from being made.
        if self.access == Access::ReadOnly {
            parts.retain(|path, (part, _)| *part == Part::Covered && !absent.contains(path));
            ours.retain(|path| parts.contains_key(path));
        }
        remember(record, self.host, &ours).map_err(|error| Error::io("cannot write the run directory", error))?;
        let (mut laid, mut held, mut own_git) = (Laid::default(), Held::default(), None);
        let files = |(path, (_, kind)): (&PathBuf, &(Part, FileType))| {
            (*kind == FileType::RegularFile && ours.contains(path)).then(|| path.clone())
        };
        let ignored = parts.iter().filter_map(files).collect();
        for (path, (part, kind)) in parts {
            held.0.extend(workspace.hold(&path, kind)?);
            let kind = workspace.look(&path)?.map_or(kind, |found| FileType::from_raw_mode(found.st_mode));
            let is_repository = path == Path::new(GIT) && !ours.contains(&path);
            let own = |access| Cover { source: self.host.join(&path), target: self.guest.join(&path), access };
            match part {
                Part::Parent => laid.covers.push(own(Access::ReadWrite)),
                Part::Protected => laid.covers.push(own(Access::ReadOnly)),
                Part::Covered if kind == FileType::Directory => {
                    let target = self.guest.join(&path);
                    own_git = own_git.or_else(|| is_repository.then(|| target.clone()));
                    laid.blanks.push(Blank { target, size: self.size });
                }
                Part::Covered if is_repository => {
                    let source = self.write(POINTER, format!("gitdir: {GIT_DIRECTORY}\n").as_bytes())?;
                    laid.covers.push(Cover { source, ..own(Access::ReadOnly) });
                    laid.blanks.push(Blank { target: GIT_DIRECTORY.into(), size: self.size });
                    own_git = Some(GIT_DIRECTORY.into());
                }
                Part::Covered => {
                    let source = self.write(NOTHING, b"")?;
                    laid.covers.push(Cover { source, ..own(Access::ReadOnly) });
                }
            }
        }
        laid.repository = own_git.map(|own| Repository { own, ignored });
        Ok((laid, held))
    }

    /// Writes a file that takes the place of another; everybody may read it.
    fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.files.join(name);
        let write = || -> io::Result<()> {
            let mut options = fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.write_all(content)?;
            file.set_permissions(fs::Permissions::from_mode(0o444))
        };
        if !path.exists() {
            write().map_err(|error| Error::io("cannot write the run directory", error))?;
        }
        Ok(path)
    }
}

/// Says what becomes of which part, and what is made where there is none. In this order, a directory comes before what lies in it.
fn plan(protected: &BTreeSet<CoverPath>, covered: &BTreeSet<CoverPath>) -> BTreeMap<PathBuf, (Part, FileType)> {
    let names = |paths: &BTreeSet<CoverPath>| -> BTreeSet<PathBuf> {
        paths.iter().map(|path| path.as_path().to_owned()).collect()
    };
    let (read_only, hidden) = (names(protected), names(covered));
    let lies_in = |path: &Path, among: &BTreeSet<PathBuf>| path.ancestors().any(|above| among.contains(above));
    let parent_lies_in = |path: &CoverPath, among| path.as_path().parent().is_some_and(|parent| lies_in(parent, among));
    // What is not seen needs no other protection.
    let protected =
        protected.iter().filter(|path| !lies_in(path.as_path(), &hidden) && !parent_lies_in(path, &read_only));
    let covered = covered.iter().filter(|path| !parent_lies_in(path, &hidden));
    let mut parts = BTreeMap::new();
    let all = protected.map(|path| (path, Part::Protected)).chain(covered.map(|path| (path, Part::Covered)));
    for (path, part) in all {
        let parents = path.as_path().ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty());
        for parent in parents.filter(|parent| !lies_in(parent, &read_only)) {
            parts.entry(parent.to_owned()).or_insert((Part::Parent, FileType::Directory));
        }
        let kind = if path.is_directory() { FileType::Directory } else { FileType::RegularFile };
        parts.insert(path.as_path().to_owned(), (part, kind));
    }
    parts
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

/// Writes down what may be ours before any of it is made.
fn remember(record: &Path, host: &Path, paths: &[PathBuf]) -> io::Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    let mut text = host.as_os_str().as_bytes().to_vec();
    for path in paths {
        text.push(0);
        text.extend(path.as_os_str().as_bytes());
    }
    let file = File::create_new(record)?;
    (&file).write_all(&text)?;
    file.sync_data()
}

/// The part of a workspace that makes it a repository (gitrepository-layout(5)).
const GIT: &str = ".git";
/// Where a repository inside lies whose `.git` can only be a file. No workspace lies there.
const GIT_DIRECTORY: &str = "/.sandbox-git";
/// The files beside the guest that take the place of others.
const POINTER: &str = "covered-git";
const NOTHING: &str = "covered";

#[cfg(test)]
mod tests;
