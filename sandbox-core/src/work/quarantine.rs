//! Where work is checked before any repository of the host has it.

use std::io;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncWrite;

use super::git::{self, ObjectId, QUICK};
use super::{Commit, HostRepository, Rendering, WorkLimits};
use crate::guest::Kept;
use crate::{Error, ErrorKind, Liveness, Owner, Process, Result, Status};

/// The reference that holds the work in quarantine.
pub(super) const WORK: &str = "refs/heads/work";

/// Bytes of what git inside complains of that are kept.
const MAX_COMPLAINT: usize = 64 << 10;

/// How the names of quarantines begin that lie beside objects.
const PREFIX: &str = "sandbox-quarantine-";

/// Removes the quarantines of processes that are provably gone.
fn sweep(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.rsplit_once(','));
        let owner = owner.and_then(|(owner, _)| owner.replace(',', " ").parse::<Owner>().ok());
        if owner.is_some_and(|owner| owner.liveness() == Liveness::Gone) {
            // Who shares the repository may have made it, or be removing it too; a link is removed and not followed.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// A bare repository with nothing in it but what came, and with a view of the host's objects. It goes away when dropped.
#[derive(Debug)]
pub(super) struct Quarantine {
    directory: TempDir,
}

impl Quarantine {
    /// Makes one beside the objects of the repository that the work is for.
    pub(super) async fn new(host: &HostRepository) -> Result<Self> {
        let failed = |error| Error::io("cannot make a quarantine", error);
        sweep(host.directory()).map_err(failed)?;
        // Its name says whose it is, since a killed process removes nothing.
        let prefix = format!("{PREFIX}{},", Owner::current()?.to_string().replace(' ', ","));
        Self::of(host, tempfile::Builder::new().prefix(&prefix).tempdir_in(host.directory()).map_err(failed)?).await
    }

    /// Makes one in a directory of the host's own, for a repository that is only read.
    pub(super) async fn within(room: &Path, host: &HostRepository) -> Result<Self> {
        let failed = |error| Error::io("cannot make a quarantine", error);
        Self::of(host, tempfile::Builder::new().prefix("quarantine-").tempdir_in(room).map_err(failed)?).await
    }

    async fn of(host: &HostRepository, directory: TempDir) -> Result<Self> {
        let failed = |error| Error::io("cannot make a quarantine", error);
        let objects = host.objects();
        if objects.as_os_str().as_encoded_bytes().contains(&b'\n') {
            let message = "the host's repository has a line feed in its path, which git cannot be told";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let format = format!("--object-format={}", host.format().await?);
        let made = git::git(directory.path(), ["init", "--quiet", "--bare", "--template=", &format]);
        git::run(made, None, QUICK).await?.content("git cannot make a quarantine")?;
        let alternates = directory.path().join("objects/info");
        std::fs::create_dir_all(&alternates).map_err(failed)?;
        let line = [objects.as_os_str().as_encoded_bytes(), b"\n"].concat();
        std::fs::write(alternates.join("alternates"), line).map_err(failed)?;
        Ok(Self { directory })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Takes the pack that a program inside writes. Every object is checked as it comes.
    pub(super) async fn take(&self, mut program: Process, limits: WorkLimits) -> Result<()> {
        let mut child = git::spawn(&mut self.index_pack(limits))?;
        let Some(mut stdin) = child.stdin.take() else {
            return Err(Error::new(ErrorKind::Io, "git has no standard input"));
        };
        let mut complaint = Kept::new(MAX_COMPLAINT);
        let copying = async {
            let exit = program.copy_output(&mut stdin, &mut complaint).await;
            drop(stdin);
            exit
        };
        let (said, exit) = git::ended(&mut child, limits.deadline, copying).await?;
        if let Ok(exit) = &exit
            && exit.status != Status::Code(0)
        {
            let why = git::line(&complaint.bytes);
            return Err(Error::new(ErrorKind::InvalidInput, format!("git inside could not pack the work: {why}")));
        }
        Self::accepted(&said, limits)?;
        exit.map(|_| ())
    }

    /// Takes a pack that is at hand.
    #[cfg(test)]
    async fn take_bytes(&self, pack: &[u8], limits: WorkLimits) -> Result<()> {
        let said = git::run(self.index_pack(limits), Some(pack), limits.deadline).await?;
        Self::accepted(&said, limits)
    }

    fn index_pack(&self, limits: WorkLimits) -> tokio::process::Command {
        let most = format!("--max-input-size={}", limits.bytes);
        let mut command = git::git(self.path(), ["index-pack", "--stdin", "--strict", &most]);
        command.stdin(std::process::Stdio::piped());
        command
    }

    fn accepted(said: &git::Said, limits: WorkLimits) -> Result<()> {
        match said.code {
            Some(0) => Ok(()),
            _ if said.complains_of("exceeds maximum allowed size") => {
                let message = format!("the work is more than {} bytes", limits.bytes);
                Err(Error::new(ErrorKind::Exhausted, message).with_hint("allow more, if that is what you expect"))
            }
            _ => Err(said.failed(ErrorKind::InvalidInput, "git refuses what came")),
        }
    }

    /// Sees that nothing is missing between the work and what the host has, and gives the work its name.
    pub(super) async fn verify(&self, tip: &ObjectId, known: &[ObjectId], within: Duration) -> Result<()> {
        let mut arguments = vec!["rev-list", "--objects", "--quiet", tip.as_str(), "--not"];
        arguments.extend(known.iter().map(ObjectId::as_str));
        let said = git::run(git::git(self.path(), arguments), None, within).await?;
        if said.code != Some(0) {
            return Err(said.failed(ErrorKind::InvalidInput, "the work is incomplete"));
        }
        let name = git::git(self.path(), ["update-ref", WORK, tip.as_str()]);
        let said = git::run(name, None, QUICK).await?;
        if said.code == Some(0) { Ok(()) } else { Err(said.failed(ErrorKind::InvalidInput, "the work is no commit")) }
    }

    /// What two commits have in common.
    pub(super) async fn common(&self, one: &ObjectId, other: &ObjectId) -> Result<Option<ObjectId>> {
        let command = git::git(self.path(), ["merge-base", one.as_str(), other.as_str()]);
        let said = git::run(command, None, QUICK).await?;
        match said.code {
            Some(1) => Ok(None),
            _ => ObjectId::parse(&said.content("git cannot compare the work with the host's")?).map(Some),
        }
    }

    pub(super) async fn commits(&self, tip: &ObjectId, base: Option<&ObjectId>, most: usize) -> Result<Vec<Commit>> {
        let count = format!("--max-count={most}");
        let mut arguments = vec!["log", "-z", "--no-show-signature", "--no-mailmap", "--format=%H%n%an%n%s", &count];
        arguments.push(tip.as_str());
        let excluded = base.map(|base| format!("^{base}"));
        arguments.extend(excluded.as_deref());
        let said =
            git::run(git::git(self.path(), arguments), None, QUICK).await?.content("git cannot list the work")?;
        let records = said.split(|byte| *byte == 0).filter(|record| !record.is_empty());
        Ok(records.map(commit).collect())
    }

    pub(super) async fn diff(
        &self,
        tip: &ObjectId,
        base: Option<&ObjectId>,
        to: impl AsyncWrite + Unpin,
        rendering: Rendering,
        within: Duration,
    ) -> Result<()> {
        let nothing = self.nothing().await?;
        let base = base.unwrap_or(&nothing);
        let arguments = ["diff", "--no-ext-diff", "--no-textconv", "--no-color", base.as_str(), tip.as_str(), "--"];
        git::pass_on(git::git(self.path(), arguments), to, rendering, within).await
    }

    pub(super) async fn patch(
        &self,
        tip: &ObjectId,
        base: Option<&ObjectId>,
        to: impl AsyncWrite + Unpin,
        rendering: Rendering,
        within: Duration,
    ) -> Result<()> {
        let range = base.map_or_else(|| tip.to_string(), |base| format!("{base}..{tip}"));
        let mut arguments =
            vec!["format-patch", "--stdout", "--no-ext-diff", "--no-textconv", "--no-color", "--no-signature"];
        if base.is_none() {
            arguments.push("--root");
        }
        arguments.extend([range.as_str(), "--"]);
        git::pass_on(git::git(self.path(), arguments), to, rendering, within).await
    }

    /// The empty tree, which is what work that shares nothing with the host is compared with.
    async fn nothing(&self) -> Result<ObjectId> {
        let command = git::git(self.path(), ["hash-object", "-t", "tree", "-w", "--stdin"]);
        ObjectId::parse(&git::run(command, Some(b""), QUICK).await?.content("git cannot write to the quarantine")?)
    }
}

fn commit(record: &[u8]) -> Commit {
    let text = String::from_utf8_lossy(record);
    let mut lines = text.splitn(3, '\n').map(|line| String::from_utf8_lossy(&git::shown(line.as_bytes())).into_owned());
    let mut next = || lines.next().unwrap_or_default();
    Commit { id: next(), author: next(), subject: next() }
}

#[cfg(test)]
mod tests;
