//! A repository inside, made from the objects of one of the host's.
//!
//! Nothing of the host's repository comes along but the commits that are asked for and what they need: no setting, hook, remote
//! or other branch. The host's git packs them in a bare repository that only sees the objects, so that no setting counts that
//! somebody may have left beside them; git inside takes the pack as the agent, and checks it out where nothing lies yet.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sandbox_policy::{AgentUser, Branch};
use tokio::io::{AsyncRead, BufReader};

use super::checkout::Checkout;
use super::git::{self, ObjectId, QUICK};
use super::quarantine::Quarantine;
use super::{ANSWER, HostRepository, MAX_SAID};
use crate::guest::Kept;
use crate::{Error, ErrorKind, Exit, Guest, Output, Result, Status, Stdin, TransferLimits};

/// What a repository inside is made from.
#[derive(Debug)]
pub(crate) struct Seed {
    repository: HostRepository,
    /// The branch that is checked out; with none, a commit is.
    branch: Option<Branch>,
    /// The commit that is checked out, if there is any.
    start: Option<ObjectId>,
    origin: Option<Origin>,
    files: Files,
    /// What lies below the workspace, where anything does.
    checkout: Option<Checkout>,
    /// Keeps others from changing a mirror meanwhile.
    _lock: Option<File>,
}

/// The server that a repository is from.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) url: String,
    /// Where its branches stood.
    pub(super) tips: BTreeMap<Branch, ObjectId>,
    pub(super) default: Option<Branch>,
}

/// What becomes of the files beside the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Files {
    /// They are those of the commit.
    CheckedOut,
    /// They are there, and stay as they are.
    Kept,
}

impl Seed {
    /// For a directory whose files have been copied.
    pub(crate) async fn beside(repository: &HostRepository) -> Result<Self> {
        let (branch, start) = (repository.branch().await?, repository.head().await?);
        let (repository, files) = (repository.clone(), Files::Kept);
        Ok(Self { repository, branch, start, origin: None, files, checkout: None, _lock: None })
    }

    /// A branch of a repository of this machine, which starts at its `HEAD` if it is new.
    pub(super) async fn local(repository: &HostRepository, branch: Option<&Branch>) -> Result<Self> {
        let found = match branch {
            Some(branch) => repository.commit(&branch.reference()).await?,
            None => None,
        };
        let start = match found {
            Some(found) => found,
            None => repository.head().await?.ok_or_else(|| {
                Error::new(ErrorKind::NotFound, format!("{} has no commit yet", repository.directory().display()))
            })?,
        };
        let branch = match branch {
            Some(branch) => Some(branch.clone()),
            None => repository.branch().await?,
        };
        let (repository, files, start) = (repository.clone(), Files::CheckedOut, Some(start));
        Ok(Self { repository, branch, start, origin: None, files, checkout: None, _lock: None })
    }

    /// A branch of a server's repository.
    pub(super) fn mirrored(
        (repository, lock): (HostRepository, File),
        branch: Branch,
        start: ObjectId,
        origin: Origin,
        checkout: Option<Checkout>,
    ) -> Self {
        let (branch, start, origin, files) = (Some(branch), Some(start), Some(origin), Files::CheckedOut);
        // What lies below a workspace needs no mirror any more.
        let lock = checkout.is_none().then_some(lock);
        Self { repository, branch, start, origin, files, checkout, _lock: lock }
    }

    /// What lies below the workspace, where anything does.
    pub(crate) fn checkout(&self) -> Option<&Checkout> {
        self.checkout.as_ref()
    }
}

/// Where a repository inside is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// The directory whose files it holds.
    pub(crate) to: &'a Path,
    /// What becomes its `$GIT_DIR`.
    pub(crate) own: &'a Path,
    /// The files in it that are nobody's, and that no commit is to have.
    pub(crate) ignored: &'a [PathBuf],
    /// Whose it is.
    pub(crate) agent: AgentUser,
}

/// Makes a repository of a directory inside. Where no git is inside, there is none, and that is an error where files were to
/// come by it. `room` is a directory of the host's own.
pub(crate) async fn seed(
    guest: &Guest,
    seed: &Seed,
    place: Place<'_>,
    room: &Path,
    limits: TransferLimits,
) -> Result<()> {
    let Place { to, own, ignored, agent } = place;
    let Seed { repository: from, branch, start, origin, files, checkout, _lock } = seed;
    if let (Some(checkout), Some(branch), Some(start), Some(origin)) = (checkout, branch, start, origin) {
        return settle(guest, own, checkout, agent, origin.repository(branch, start)).await;
    }
    let inside = Seeding { guest, to, limits };
    let format = format!("--object-format={}", from.format().await?);
    let name = branch.as_ref().map_or("main", Branch::as_str);
    let initial = format!("--initial-branch={name}");
    let place = format!("--git-dir={}", own.to_string_lossy());
    let tree = format!("--work-tree={}", to.to_string_lossy());
    // Where it lies elsewhere, it must say whose it is.
    let named: &[&str] = if own.starts_with(to) { &[] } else { &[&place, &tree] };
    let init = ["init", "--quiet", "--template=", &format, &initial];
    match inside.run(&[named, &init].concat()).await {
        Err(error) if error.kind() == ErrorKind::CommandNotFound && *files == Files::Kept => return Ok(()),
        Err(error) if error.kind() == ErrorKind::CommandNotFound => {
            return Err(error.with_hint("a clone is checked out by git inside: use an image that has it"));
        }
        done => done?,
    }
    if !ignored.is_empty() {
        let list: String = ignored.iter().map(|path| pattern(&path.to_string_lossy())).collect();
        guest.make_directory(own.join("info")).await?;
        guest.write(own.join("info/exclude"), list).await?;
    }
    let Some(tip) = start else { return Ok(()) };
    let bare = Quarantine::within(room, from).await?;
    if let Some(shallow) = from.shallow()? {
        let failed = |error| Error::io("cannot make a quarantine", error);
        std::fs::write(bare.path().join("shallow"), &shallow).map_err(failed)?;
        guest.write(own.join("shallow"), shallow).await?;
    }

    let arguments = ["pack-objects", "--revs", "--stdout", "--delta-base-offset", "--quiet"];
    let mut command = git::git(bare.path(), arguments);
    command.stdin(std::process::Stdio::piped());
    let mut child = git::spawn(&mut command)?;
    let (stdin, pack) = (child.stdin.take(), child.stdout.take());
    let tips = origin.iter().flat_map(|origin| origin.tips.values());
    let wanted = tips.fold(tip.pack_request(&[]), |wanted, tip| wanted + tip.as_str() + "\n");
    let sending = async {
        let lost = || Error::new(ErrorKind::Io, "git on the host has no pipes");
        let (mut stdin, pack) = (stdin.ok_or_else(lost)?, pack.ok_or_else(lost)?);
        // Git that does not read to the end says why.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stdin, wanted.as_bytes()).await;
        drop(stdin);
        inside.index(pack).await
    };
    let (said, sent) = git::ended(&mut child, limits.deadline, sending).await?;
    said.content("git on the host cannot pack the repository")?;
    sent?;

    if let Some(origin) = origin {
        inside.follow(origin, branch.as_ref()).await?;
    }
    let update: &[&str] = match branch {
        Some(_) => &["update-ref", "HEAD", tip.as_str()],
        None => &["update-ref", "--no-deref", "HEAD", tip.as_str()],
    };
    inside.run(update).await?;
    match files {
        // The index becomes that of the commit; what differs on the host differs inside. Git looks at the files when it needs them, and they
        // need not be there yet.
        Files::Kept => inside.run(&["read-tree", "HEAD"]).await,
        Files::CheckedOut => inside.run(&["-c", "checkout.workers=0", "reset", "--quiet", "--hard"]).await,
    }
}

/// Makes a repository of what lies below the workspace: the files that make it this sandbox's.
async fn settle(
    guest: &Guest,
    own: &Path,
    checkout: &Checkout,
    agent: AgentUser,
    files: Vec<(&'static str, String)>,
) -> Result<()> {
    let one_by_one = async {
        for (name, content) in files {
            guest.write(own.join(name), content).await?;
        }
        Ok(())
    };
    let index = async { guest.write(own.join("index"), checkout.index(agent.uid(), agent.gid()).await?).await };
    tokio::try_join!(index, one_by_one).map(|_| ())
}

impl Origin {
    /// What a repository that was cloned from here holds beside objects and index (gitrepository-layout(5)).
    fn repository(&self, branch: &Branch, start: &ObjectId) -> Vec<(&'static str, String)> {
        let Self { url, tips, default } = self;
        let core = "repositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true";
        let fetch = "+refs/heads/*:refs/remotes/origin/*";
        let mut config = format!("[core]\n\t{core}\n[remote \"origin\"]\n\turl = {url}\n\tfetch = {fetch}\n");
        if tips.contains_key(branch) {
            let name = branch.as_str().replace('\\', "\\\\").replace('"', "\\\"");
            let merge = branch.reference();
            config = format!("{config}[branch \"{name}\"]\n\tremote = origin\n\tmerge = {merge}\n");
        }
        let mut references: Vec<String> =
            tips.iter().map(|(branch, id)| format!("refs/remotes/origin/{branch} {id}")).collect();
        references.push(format!("{} {start}", branch.reference()));
        references.sort();
        let packed = references
            .iter()
            .filter_map(|line| line.split_once(' '))
            .fold("# pack-refs with: peeled fully-peeled sorted \n".to_owned(), |text, (name, id)| {
                text + id + " " + name + "\n"
            });
        let mut files =
            vec![("config", config), ("packed-refs", packed), ("HEAD", format!("ref: {}\n", branch.reference()))];
        files.extend(
            default
                .as_ref()
                .map(|default| ("refs/remotes/origin/HEAD", format!("ref: refs/remotes/origin/{default}\n"))),
        );
        files
    }
}

/// A line of a list of what is ignored that means one path alone (gitignore(5)).
fn pattern(path: &str) -> String {
    let escaped = path.chars().flat_map(|c| ["*?[\\ ".contains(c).then_some('\\'), Some(c)]).flatten();
    std::iter::once('/').chain(escaped).chain(['\n']).collect()
}

struct Seeding<'a> {
    guest: &'a Guest,
    to: &'a Path,
    limits: TransferLimits,
}

impl Seeding<'_> {
    async fn run(&self, arguments: &[&str]) -> Result<()> {
        self.feed(arguments, Stdin::Null).await
    }

    fn git(&self, arguments: &[&str], input: Stdin) -> crate::Command {
        let command = self.guest.command("git").args(arguments).directory(self.to).stdin(input);
        let command = command.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C").output_limit(MAX_SAID);
        command.deadline(self.deadline())
    }

    fn deadline(&self) -> Duration {
        self.limits.deadline.max(ANSWER)
    }

    async fn feed(&self, arguments: &[&str], input: Stdin) -> Result<()> {
        let Output { exit, stderr, .. } = self.git(arguments, input).output().await?;
        let mut words = arguments.iter().filter(|argument| !argument.starts_with('-') && !argument.contains('='));
        self.done(words.next().copied().unwrap_or_default(), exit, &stderr)
    }

    /// Has git inside index a pack while it comes.
    async fn index(&self, pack: impl AsyncRead + Unpin) -> Result<()> {
        let mut process = self.git(&["index-pack", "--stdin"], Stdin::Pipe).spawn().await?;
        let mut stdin = process.take_stdin();
        let (mut stdout, mut stderr) = (Kept::new(MAX_SAID), Kept::new(MAX_SAID));
        let feeding = async {
            let mut pack = BufReader::with_capacity(CHUNK, pack);
            if let Some(stdin) = &mut stdin {
                // Git that does not read to the end says why.
                let _ = tokio::io::copy_buf(&mut pack, stdin).await;
            }
            drop(stdin);
        };
        let ((), exit) = tokio::join!(feeding, process.copy_output(&mut stdout, &mut stderr));
        self.done("index-pack", exit?, &stderr.bytes)
    }

    fn done(&self, verb: &str, exit: Exit, stderr: &[u8]) -> Result<()> {
        if exit.timed_out {
            return Err(Error::deadline("git inside", self.deadline()));
        }
        if exit.status == Status::Code(0) {
            return Ok(());
        }
        let said = git::line(stderr);
        Err(Error::new(ErrorKind::InvalidInput, format!("git {verb} inside failed: {said}")))
    }

    /// Names the server as `origin`, without any credential, with its branches where they stood.
    async fn follow(&self, origin: &Origin, branch: Option<&Branch>) -> Result<()> {
        let Origin { url, tips, default } = origin;
        self.run(&["remote", "add", "origin", url]).await?;
        let updates = tips.iter().fold(String::new(), |updates, (branch, id)| {
            updates + &format!("update refs/remotes/origin/{branch} {id}\n")
        });
        self.feed(&["update-ref", "--stdin"], Stdin::Bytes(updates.into_bytes())).await?;
        if let Some(default) = default {
            let target = format!("refs/remotes/origin/{default}");
            self.run(&["symbolic-ref", "refs/remotes/origin/HEAD", &target]).await?;
        }
        let Some(branch) = branch.filter(|branch| tips.contains_key(branch)) else { return Ok(()) };
        self.run(&["config", &format!("branch.{branch}.remote"), "origin"]).await?;
        self.run(&["config", &format!("branch.{branch}.merge"), &branch.reference()]).await
    }
}

impl HostRepository {
    /// The branch that is checked out, if one is whose name can be kept.
    async fn branch(&self) -> Result<Option<Branch>> {
        let command = git::git(&self.own, ["symbolic-ref", "--quiet", "--short", "HEAD"]);
        let said = git::run(command, None, QUICK).await?;
        Ok(String::from_utf8_lossy(&said.stdout).trim_end().parse().ok())
    }

    /// Which commits have no parents here, though they say so (gitrepository-layout(5)).
    pub(super) fn shallow(&self) -> Result<Option<Vec<u8>>> {
        match std::fs::read(self.directory.join("shallow")) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("cannot read which commits of the host's repository have no parents", error)),
        }
    }
}

/// Bytes of a pack that are moved at once.
const CHUNK: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_one_path() {
        assert_eq!(pattern(".envrc"), "/.envrc\n");
        assert_eq!(pattern("a b/*[x]? "), "/a\\ b/\\*\\[x]\\?\\ \n");
    }
}
