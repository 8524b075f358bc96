//! Work that comes back: commits out of a sandbox, into a repository of the host.
//!
//! Git inside makes a pack, as the agent. On the host, git takes it into a *quarantine*: a bare repository of the host's
//! own, without a setting, a hook or a checkout, in which every object and every link is checked. Only what has passed
//! there is fetched on, under `refs/sandbox/`. Git on the host never runs in a directory that an agent could write: its
//! `.git` names programs (`core.fsmonitor`, `diff.external`, filters, hooks) that the host's git would start (git(1),
//! "Security").

mod checkout;
mod git;
mod mirror;
mod quarantine;
mod remote;
mod repository;
mod room;
mod seed;

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use sandbox_policy::Branch;
use tokio::io::AsyncWrite;

pub(crate) use checkout::Checkout;
pub(crate) use mirror::Asked;
pub use mirror::{MirrorLimits, Mirrors};
pub use remote::MirrorProxy;
pub use repository::{Exposed, HostRepository};
pub(crate) use seed::{Place, Seed, seed};

use crate::{Error, ErrorKind, Exit, Guest, Output, Result, SandboxId, Status, Stdin};
use git::ObjectId;
use quarantine::Quarantine;

/// How long git inside may take to answer what costs it little.
const ANSWER: Duration = Duration::from_mins(1);

/// Bytes that git inside may say beside a pack.
const MAX_SAID: usize = 256 << 10;

/// The most commits that the host tells the sandbox that it has already.
const MAX_KNOWN: usize = 1000;

/// How much may come back at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkLimits {
    /// Bytes of the pack.
    pub bytes: u64,
    /// Time for all of it.
    pub deadline: Duration,
}

impl Default for WorkLimits {
    /// 1 GiB, ten minutes.
    fn default() -> Self {
        Self { bytes: 1 << 30, deadline: Duration::from_mins(10) }
    }
}

/// How text that was written inside is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is nothing between them")]
pub enum Rendering {
    /// As it is, for programs.
    Raw,
    /// With control characters escaped, so that a terminal shows them and obeys none.
    Shown,
}

/// A commit, as it says of itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Commit {
    /// Its id.
    pub id: String,
    /// The name of its author.
    pub author: String,
    /// The first line of its message.
    pub subject: String,
}

/// Commits that have come out of a sandbox and passed every check. They lie in quarantine until they are
/// [landed](Self::land); dropping this removes them.
///
/// ```no_run
/// # async fn example(sandbox: sandbox_core::Sandbox) -> sandbox_core::Result<()> {
/// use sandbox_core::{HostRepository, Work, WorkLimits};
///
/// let repository = HostRepository::open("/srv/checkouts/widget", &[])?;
/// let work = Work::fetch(sandbox.guest(), "/home/agent/widget", "HEAD", &repository, WorkLimits::default()).await?;
/// for commit in work.commits(100).await? {
///     println!("{} {}", commit.id, commit.subject);
/// }
/// println!("landed as {}", work.land(sandbox.id()).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Work {
    quarantine: Quarantine,
    repository: HostRepository,
    tip: ObjectId,
    /// What the host's own `HEAD` and the work have in common.
    base: Option<ObjectId>,
    name: String,
    within: Duration,
}

impl Work {
    /// Brings the commits of a revision out of a repository inside, those that the host lacks.
    ///
    /// # Errors
    /// `NotFound` if there is no such repository or revision inside, `CommandNotFound` if there is no git inside,
    /// `InvalidInput` if what came is malformed, incomplete or forbidden, `Exhausted` if it is too much,
    /// `DeadlineExceeded`.
    pub async fn fetch(
        guest: &Guest,
        directory: impl AsRef<Path>,
        revision: &str,
        into: &HostRepository,
        limits: WorkLimits,
    ) -> Result<Self> {
        let inside = Inside { guest, directory: directory.as_ref() };
        let fetching = async {
            let tip = inside.resolve(revision).await?;
            let name = inside.name(revision).await?;
            let known = inside.known(into.commits(MAX_KNOWN).await?).await?;
            let quarantine = Quarantine::new(into).await?;
            let wanted = tip.pack_request(&known);
            let command = inside.git(["pack-objects", "--revs", "--stdout", "--delta-base-offset", "--quiet"]);
            let pack = command.stdin(Stdin::Bytes(wanted.into_bytes())).spawn().await?;
            quarantine.take(pack, limits).await?;
            quarantine.verify(&tip, &known, limits.deadline).await?;
            let base = match into.head().await? {
                Some(head) => quarantine.common(&head, &tip).await?,
                None => None,
            };
            Ok(Self { quarantine, repository: into.clone(), tip, base, name, within: limits.deadline })
        };
        tokio::time::timeout(limits.deadline, fetching)
            .await
            .unwrap_or_else(|_| Err(Error::deadline("bringing work out of the sandbox", limits.deadline)))
    }

    /// Its last commit.
    pub fn tip(&self) -> &str {
        self.tip.as_str()
    }

    /// Its branch, or `HEAD` where it has none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lists the commits that the host's `HEAD` does not have, the newest first, and no more than so many.
    ///
    /// # Errors
    /// `Io` if git fails.
    pub async fn commits(&self, most: usize) -> Result<Vec<Commit>> {
        self.quarantine.commits(&self.tip, self.base.as_ref(), most).await
    }

    /// Writes what the work changes, against what it has in common with the host's `HEAD`.
    ///
    /// # Errors
    /// `Io` if git or the writer fails.
    pub async fn diff(&self, to: impl AsyncWrite + Unpin, rendering: Rendering) -> Result<()> {
        self.quarantine.diff(&self.tip, self.base.as_ref(), to, rendering, self.within).await
    }

    /// Writes the commits as mails that `git am` reads; merges are left out.
    ///
    /// # Errors
    /// As [`diff`](Self::diff).
    pub async fn patch(&self, to: impl AsyncWrite + Unpin, rendering: Rendering) -> Result<()> {
        self.quarantine.patch(&self.tip, self.base.as_ref(), to, rendering, self.within).await
    }

    /// Lets the host's repository have the commits, as `refs/sandbox/ID/NAME`; an earlier one of that name is moved. No
    /// branch, no index and no file of a checkout is touched. Returns the reference's name.
    ///
    /// # Errors
    /// `Io` if git fails.
    pub async fn land(self, sandbox: SandboxId) -> Result<String> {
        let reference = format!("refs/sandbox/{sandbox}/{}", self.name);
        self.repository.fetch_from(self.quarantine.path(), &self.tip, &reference, self.within).await?;
        Ok(reference)
    }
}

/// A repository inside, and git as the agent. Nothing that it says is believed.
struct Inside<'a> {
    guest: &'a Guest,
    directory: &'a Path,
}

impl Inside<'_> {
    fn git<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> crate::Command {
        let command = self.guest.command("git").args(arguments).directory(self.directory);
        // An agent's own settings may call for a terminal or a lock; it would be waited for in vain.
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_OPTIONAL_LOCKS", "0").env("LC_ALL", "C").output_limit(MAX_SAID)
    }

    async fn ask<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>, input: Stdin) -> Result<Output> {
        let output = self.git(arguments).stdin(input).deadline(ANSWER).output().await?;
        let Exit { status, timed_out, .. } = output.exit;
        if timed_out {
            return Err(Error::deadline("git inside", ANSWER));
        }
        if status == Status::Code(128) && output.stdout.is_empty() {
            let directory = self.directory.display();
            let said = git::line(&output.stderr);
            return Err(Error::new(ErrorKind::NotFound, format!("{directory} inside holds no repository: {said}"))
                .with_hint("name the directory inside that holds it"));
        }
        Ok(output)
    }

    async fn resolve(&self, revision: &str) -> Result<ObjectId> {
        let asked = format!("{revision}^{{commit}}");
        let output = self.ask(["rev-parse", "--verify", "--quiet", "--end-of-options", &asked], Stdin::Null).await?;
        if output.exit.status != Status::Code(0) {
            let message = format!("there is no commit {revision:?} inside");
            return Err(Error::new(ErrorKind::NotFound, message).with_hint("name a branch, a tag or a commit's id"));
        }
        ObjectId::parse(&output.stdout)
    }

    /// Under which name the work is kept: the branch that was asked for, or the one that is checked out.
    async fn name(&self, revision: &str) -> Result<String> {
        if revision != "HEAD" {
            return Ok(revision.parse::<Branch>().map_or_else(|_| "HEAD".to_owned(), |branch| branch.to_string()));
        }
        let output = self.ask(["symbolic-ref", "--quiet", "--short", "HEAD"], Stdin::Null).await?;
        let said = String::from_utf8_lossy(&output.stdout);
        Ok(said.trim_end().parse::<Branch>().map_or_else(|_| "HEAD".to_owned(), |branch| branch.to_string()))
    }

    /// Which of these commits are known inside, so that they need not come back.
    async fn known(&self, commits: Vec<ObjectId>) -> Result<Vec<ObjectId>> {
        let asked = commits.iter().fold(String::new(), |asked, id| asked + id.as_str() + "\n");
        let format = "--batch-check=%(objectname) %(objecttype)";
        let output = self.ask(["cat-file", format], Stdin::Bytes(asked.into_bytes())).await?;
        let said = String::from_utf8_lossy(&output.stdout);
        let inside: std::collections::BTreeSet<&str> =
            said.lines().filter_map(|line| line.strip_suffix(" commit")).collect();
        // What is said of a commit that nobody asked for does not count.
        Ok(commits.into_iter().filter(|id| inside.contains(id.as_str())).collect())
    }
}

#[cfg(test)]
mod tests;
