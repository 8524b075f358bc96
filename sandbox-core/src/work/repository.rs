//! A repository of the host that work comes back to.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::git::{self, ObjectId, QUICK};
use crate::{Error, ErrorKind, Result};

/// A repository of the host. It is read and given new references; its checkout is never touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRepository {
    /// The directory that git calls `$GIT_COMMON_DIR`.
    pub(super) directory: PathBuf,
    /// The one that it calls `$GIT_DIR`, which differs in a linked worktree.
    pub(super) own: PathBuf,
}

/// A directory of the host that an agent may write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// The directory.
    pub directory: PathBuf,
    /// The parts of it that the agent does not see, relative to it.
    pub covered: Vec<PathBuf>,
}

impl Exposed {
    /// Whether the agent could write to a path, or to what lies in it.
    pub(crate) fn reaches(&self, path: &Path) -> bool {
        let is_covered = || self.covered.iter().any(|part| path.starts_with(self.directory.join(part)));
        self.directory.starts_with(path) || path.starts_with(&self.directory) && !is_covered()
    }
}

impl HostRepository {
    /// Opens the repository that a path lies in, or is. `exposed` is what an agent may write to.
    ///
    /// # Errors
    /// `NotFound` where there is none, `Denied` where an agent could have written it.
    pub fn open(path: impl AsRef<Path>, exposed: &[Exposed]) -> Result<Self> {
        let path = path.as_ref();
        let absolute =
            path.canonicalize().map_err(|error| Error::io(format!("cannot open {}", path.display()), error))?;
        let (place, own) = absolute.ancestors().find_map(found).transpose()?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("{} lies in no git repository", path.display()))
                .with_hint("name the repository that the work is for, or make one with `git init`")
        })?;
        let directory = common(&own)?;
        for checked in [&place, &directory, &own] {
            if let Some(Exposed { directory: shared, .. }) = exposed.iter().find(|exposed| exposed.reaches(checked)) {
                let message = format!(
                    "{} lies in {}, which the agent may write: git there would start what the agent names",
                    checked.display(),
                    shared.display()
                );
                return Err(Error::new(ErrorKind::Denied, message)
                    .with_hint("bring the work to another repository, such as a clone that no sandbox mounts"));
            }
        }
        Ok(Self { directory, own })
    }

    /// Opens the repository that a directory holds itself, to read it.
    pub(crate) fn of(directory: &Path) -> Result<Self> {
        let none = || Error::new(ErrorKind::NotFound, format!("{} holds no git repository", directory.display()));
        // One without a checkout has none to bring in.
        let (_, own) = found(directory).transpose()?.filter(|(place, _)| *place != directory).ok_or_else(none)?;
        Ok(Self { directory: common(&own)?, own })
    }

    /// Where its objects lie.
    pub(super) fn objects(&self) -> PathBuf {
        self.directory.join("objects")
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The hash that it names objects by.
    pub(super) async fn format(&self) -> Result<String> {
        let command = git::git(&self.own, ["rev-parse", "--show-object-format"]);
        let said = git::run(command, None, QUICK).await?.content("git cannot use the host's repository")?;
        Ok(git::line(&said))
    }

    /// The commit that is checked out, if there is any.
    pub(super) async fn head(&self) -> Result<Option<ObjectId>> {
        self.commit("HEAD").await
    }

    /// The commit that a reference leads to, if there is any.
    pub(super) async fn commit(&self, reference: &str) -> Result<Option<ObjectId>> {
        let asked = format!("{reference}^{{commit}}");
        let command = git::git(&self.own, ["rev-parse", "--verify", "--quiet", "--end-of-options", &asked]);
        let said = git::run(command, None, QUICK).await?;
        match said.code {
            Some(1) => Ok(None),
            _ => ObjectId::parse(&said.content("git cannot use the host's repository")?).map(Some),
        }
    }

    /// Commits that it has for certain: those of its branches and of earlier work.
    pub(super) async fn commits(&self, most: usize) -> Result<Vec<ObjectId>> {
        let count = format!("--count={most}");
        let order = "--sort=-committerdate";
        let places = ["refs/heads", "refs/sandbox"];
        let arguments = ["for-each-ref", order, &count, "--format=%(objectname)"].into_iter().chain(places);
        let said = git::run(git::git(&self.own, arguments), None, QUICK).await?;
        let said = said.content("git cannot list the host's branches")?;
        let mut commits = said.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let mut commits: Vec<ObjectId> = commits.by_ref().map(ObjectId::parse).collect::<Result<_>>()?;
        commits.extend(self.head().await?);
        commits.sort();
        commits.dedup();
        Ok(commits)
    }

    /// Takes a commit, and all that it needs, out of a quarantine.
    pub(super) async fn fetch_from(
        &self,
        quarantine: &Path,
        tip: &ObjectId,
        reference: &str,
        within: Duration,
    ) -> Result<()> {
        let refspec = format!("+{}:{reference}", super::quarantine::WORK);
        let mut command = git::git(
            &self.own,
            [
                "fetch",
                "--quiet",
                "--no-tags",
                "--no-write-fetch-head",
                "--no-recurse-submodules",
                "--no-auto-maintenance",
            ],
        );
        command.arg("--").arg(quarantine).arg(&refspec);
        git::run(command, None, within).await?.content("git cannot take the work over")?;
        let landed = git::git(&self.own, ["rev-parse", "--verify", "--quiet", reference]);
        let landed = git::run(landed, None, QUICK).await?.content("git cannot find the work that it took over")?;
        if ObjectId::parse(&landed)? == *tip {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Io, format!("{reference} is not what was to land")))
    }
}

/// A repository's place, and what git calls its `$GIT_DIR`.
type Found = (PathBuf, PathBuf);

/// The repository that a directory is or holds, told as git does (gitrepository-layout(5)), without asking git.
fn found(directory: &Path) -> Option<Result<Found>> {
    let dot = directory.join(".git");
    let is_repository = |path: &Path| path.join("HEAD").exists() && path.join("objects").is_dir();
    if dot.is_file() {
        let text = match pointer(&dot) {
            Ok(text) => text?,
            Err(error) => return Some(Err(error)),
        };
        let own = text.trim_end().strip_prefix("gitdir: ").map(|path| named(directory, path))?;
        return Some(own.map(|own| (dot, own)));
    }
    let own = [dot, directory.to_owned()].into_iter().find(|path| is_repository(path))?;
    Some(named(directory, &own).map(|found| (own, found)))
}

/// The directory that the worktrees of a repository have in common.
fn common(own: &Path) -> Result<PathBuf> {
    match pointer(&own.join("commondir"))? {
        Some(text) => named(own, text.trim_end()),
        None => Ok(own.to_owned()),
    }
}

/// Reads a file that names a directory, if there is one; an agent may have made it as long as it likes.
fn pointer(path: &Path) -> Result<Option<String>> {
    let failed = |error| Error::io(format!("cannot read {}", path.display()), error);
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let mut text = String::new();
    let length = file.take(MAX_POINTER + 1).read_to_string(&mut text).map_err(failed)?;
    if length as u64 > MAX_POINTER {
        let message = format!("{} has more than {MAX_POINTER} bytes, and is to name one directory", path.display());
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    Ok(Some(text))
}

fn named(from: &Path, path: impl AsRef<Path>) -> Result<PathBuf> {
    let path = from.join(path);
    path.canonicalize().map_err(|error| Error::io(format!("cannot open {}", path.display()), error))
}

/// The longest path that Linux takes, and what stands around it (`path_resolution(7)`).
const MAX_POINTER: u64 = 4096 + 64;

#[cfg(test)]
mod tests;
