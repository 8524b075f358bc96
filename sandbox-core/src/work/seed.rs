//! A repository inside, made from the objects of the host's.
//!
//! Nothing of the host's repository comes along but the commits of its `HEAD` and what they need: no setting, hook, remote or
//! other branch. The host's git packs them in a bare repository that only sees the objects, so that no setting counts that
//! somebody may have left beside them; git inside takes the pack as the agent.

use std::path::Path;

use sandbox_policy::Branch;

use super::git::{self, QUICK};
use super::quarantine::Quarantine;
use super::{ANSWER, HostRepository, MAX_SAID};
use crate::{Error, ErrorKind, Guest, Result, Status, TransferLimits};

/// Makes a repository of a directory inside, whose files are left as they are. Where no git is inside, there is none.
/// `room` is a directory of the host's own.
pub(crate) async fn seed(
    guest: &Guest,
    from: &HostRepository,
    to: &Path,
    room: &Path,
    limits: TransferLimits,
) -> Result<()> {
    let inside = Seeding { guest, to };
    let format = format!("--object-format={}", from.format().await?);
    let branch = from.branch().await?;
    let name = branch.as_ref().map_or("main", Branch::as_str);
    let initial = format!("--initial-branch={name}");
    match inside.run(&["init", "--quiet", "--template=", &format, &initial], limits).await {
        Err(error) if error.kind() == ErrorKind::CommandNotFound => return Ok(()),
        done => done?,
    }
    let Some(tip) = from.head().await? else { return Ok(()) };
    let own = to.join(".git");
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
    let path = own.join(format!("objects/pack/pack-{tip}.pack"));
    let sending = async {
        let lost = || Error::new(ErrorKind::Io, "git on the host has no pipes");
        let (mut stdin, pack) = (stdin.ok_or_else(lost)?, pack.ok_or_else(lost)?);
        // Git that does not read to the end says why.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stdin, tip.pack_request(&[]).as_bytes()).await;
        drop(stdin);
        guest.write_from(&path, 0o444, pack).await
    };
    let (said, sent) = git::ended(&mut child, limits.deadline, sending).await?;
    said.content("git on the host cannot pack the repository")?;
    sent?;

    let path = path.to_string_lossy();
    inside.run(&["index-pack", &path], limits).await?;
    let update: &[&str] = match branch {
        Some(_) => &["update-ref", "HEAD", tip.as_str()],
        None => &["update-ref", "--no-deref", "HEAD", tip.as_str()],
    };
    inside.run(update, limits).await?;
    // The index becomes that of the commit; what differs on the host differs inside.
    inside.run(&["reset", "--quiet", "--mixed"], limits).await
}

struct Seeding<'a> {
    guest: &'a Guest,
    to: &'a Path,
}

impl Seeding<'_> {
    async fn run(&self, arguments: &[&str], limits: TransferLimits) -> Result<()> {
        let deadline = limits.deadline.max(ANSWER);
        let command = self.guest.command("git").args(arguments).directory(self.to);
        let command = command.env("GIT_TERMINAL_PROMPT", "0").env("LC_ALL", "C").output_limit(MAX_SAID);
        let output = command.deadline(deadline).output().await?;
        if output.exit.timed_out {
            return Err(Error::deadline("git inside", deadline));
        }
        if output.exit.status == Status::Code(0) {
            return Ok(());
        }
        let (verb, said) = (arguments.first().copied().unwrap_or_default(), git::line(&output.stderr));
        Err(Error::new(ErrorKind::InvalidInput, format!("git {verb} inside failed: {said}")))
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
    fn shallow(&self) -> Result<Option<Vec<u8>>> {
        match std::fs::read(self.directory.join("shallow")) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("cannot read which commits of the host's repository have no parents", error)),
        }
    }
}
