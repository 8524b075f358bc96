//! How other commands reach the process that holds a sandbox.

use std::io;
use std::path::Path;
use std::time::Duration;

use sandbox_core::{Command, ErrorKind, Guest, Owner, RunRoot, SandboxId};
use sandbox_runtime::LedgerEntry;
use tokio::net::UnixStream;

use crate::failure::{Failure, Result};
use crate::inspection::Inspection;
use crate::outward::Reloaded;
use crate::protocol::{Answer, Ask, Attached, SOCKET, receive, send};

/// How long a holder may take to answer what costs it nothing.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long a holder may take to take a sandbox down: each step of it has a deadline of its own.
const DOWN_WITHIN: Duration = Duration::from_mins(5);

/// The least of an id that names a sandbox.
const MIN_PREFIX: usize = 4;

/// Finds the one of these sandboxes whose id begins like this.
pub(crate) fn matching(sandboxes: &[SandboxId], prefix: &str) -> Result<SandboxId> {
    let prefix = prefix.to_ascii_lowercase();
    let hexadecimal = prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !hexadecimal || !(MIN_PREFIX..=32).contains(&prefix.len()) {
        let message = format!("{prefix:?} is no sandbox id");
        return Err(Failure::new(ErrorKind::InvalidInput, message)
            .with_hint(format!("give {MIN_PREFIX} to 32 hexadecimal digits; `sandbox ls` lists the ids")));
    }
    let found: Vec<&SandboxId> = sandboxes.iter().filter(|id| id.to_string().starts_with(&prefix)).collect();
    match found[..] {
        [id] => Ok(*id),
        [] => Err(Failure::new(ErrorKind::NotFound, format!("there is no sandbox {prefix}"))
            .with_hint("`sandbox ls` lists the sandboxes")),
        _ => {
            let ids: Vec<String> = found.iter().map(|id| id.short()).collect();
            Err(Failure::new(
                ErrorKind::InvalidInput,
                format!("{} sandboxes have ids that begin with {prefix}", ids.len()),
            )
            .with_hint(format!("give more digits: {}", ids.join(", "))))
        }
    }
}

/// Who holds a sandbox, as its run directory says.
pub(crate) fn owner(root: &RunRoot, id: SandboxId) -> Option<Owner> {
    std::fs::read_to_string(root.of(id).join("owner")).ok()?.parse().ok()
}

/// A sandbox's guest, reached through its holder.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) id: SandboxId,
    pub(crate) guest: Guest,
    pub(crate) attached: Attached,
}

impl Attachment {
    /// Finds the sandbox of an id's beginning below the run root, and attaches to it.
    pub(crate) async fn to(root: &RunRoot, prefix: &str) -> Result<Self> {
        let id = matching(&root.sandboxes()?, prefix)?;
        let (stream, answer) = ask(root, id, Ask::Attach, ANSWER_WITHIN).await?;
        let Answer::Attached(attached) = answer else { return Err(unexpected(id)) };
        let stream = stream.into_std().map_err(|error| Failure::io("cannot use the holder's socket", error))?;
        Ok(Self { id, guest: Guest::attach(stream)?, attached })
    }

    /// Prepares a program as the sandbox's own commands are: in the workspace, with the sandbox's variables.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let command = self.guest.command(program);
        let command = match &self.attached.directory {
            Some(directory) => command.directory(directory),
            None => command,
        };
        command.envs(self.attached.environment.iter().map(|(name, value)| (name, value)))
    }
}

/// Asks for a sandbox's report.
pub(crate) async fn inspect(root: &RunRoot, id: SandboxId) -> Result<Inspection> {
    match ask(root, id, Ask::Inspect, ANSWER_WITHIN).await? {
        (_, Answer::Inspected(json)) => serde_json::from_str(&json).map_err(|error| unexpected(id).with_cause(error)),
        _ => Err(unexpected(id)),
    }
}

/// Asks where a sandbox went.
pub(crate) async fn egress(root: &RunRoot, id: SandboxId) -> Result<Vec<LedgerEntry>> {
    match ask(root, id, Ask::Egress, ANSWER_WITHIN).await? {
        (_, Answer::Egress(json)) => serde_json::from_str(&json).map_err(|error| unexpected(id).with_cause(error)),
        _ => Err(unexpected(id)),
    }
}

/// Asks that a sandbox be held to what its policy says by now.
pub(crate) async fn reload(root: &RunRoot, id: SandboxId) -> Result<Reloaded> {
    match ask(root, id, Ask::Reload, ANSWER_WITHIN).await? {
        (_, Answer::Reloaded(json)) => serde_json::from_str(&json).map_err(|error| unexpected(id).with_cause(error)),
        _ => Err(unexpected(id)),
    }
}

/// Asks that a sandbox be taken down, and waits until it is gone.
pub(crate) async fn down(root: &RunRoot, id: SandboxId) -> Result<()> {
    match ask(root, id, Ask::Down, DOWN_WITHIN).await? {
        (_, Answer::Down) => Ok(()),
        _ => Err(unexpected(id)),
    }
}

async fn ask(root: &RunRoot, id: SandboxId, ask: Ask, within: Duration) -> Result<(UnixStream, Answer)> {
    let path = root.of(id).join(SOCKET);
    let asking = async {
        let stream = UnixStream::connect(&path).await.map_err(|error| unreachable(id, &path, &error))?;
        let broken = |error| Failure::io(format!("the process that holds {} broke off", id.short()), error);
        send(&stream, &ask).await.map_err(broken)?;
        match receive::<Answer>(&stream).await.map_err(broken)? {
            Some((Answer::Failed(json), _)) => {
                Err(serde_json::from_str::<Failure>(&json).unwrap_or_else(|_| unexpected(id)))
            }
            Some((answer, _)) => Ok((stream, answer)),
            None => Err(broken(io::ErrorKind::UnexpectedEof.into())),
        }
    };
    tokio::time::timeout(within, asking).await.unwrap_or_else(|_| {
        let message = format!("the process that holds {} does not answer", id.short());
        Err(Failure::new(ErrorKind::DeadlineExceeded, message))
    })
}

fn unreachable(id: SandboxId, path: &Path, error: &io::Error) -> Failure {
    let refused = matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound);
    let message = format!("sandbox {} is held by no process that answers", id.short());
    let failure = Failure::new(if refused { ErrorKind::SandboxGone } else { ErrorKind::Io }, message);
    failure.with_cause(format!("{}: {error}", path.display())).with_hint(
        "if it is still starting, try again; if its process was killed, `sandbox cleanup` removes what is left",
    )
}

fn unexpected(id: SandboxId) -> Failure {
    let message = format!("the process that holds {} answered out of turn", id.short());
    Failure::new(ErrorKind::Io, message).with_hint("is it of another version of this command?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unique_beginning_names_a_sandbox() {
        let id = |text: &str| text.parse::<SandboxId>().unwrap();
        let all = [id("abcd0000000000000000000000000001"), id("abcd1000000000000000000000000002")];
        assert_eq!(matching(&all, "abcd1").unwrap(), all[1]);
        assert_eq!(matching(&all, "ABCD0").unwrap(), all[0]);
        assert_eq!(matching(&all, &all[0].to_string()).unwrap(), all[0]);
        assert!(matching(&all, "abcd").unwrap_err().hint.as_ref().unwrap().contains("abcd10000000"));
        assert!(matching(&all, "ffff").unwrap_err().is(ErrorKind::NotFound));
        for bad in ["", "abc", "../.", "abcdefgh", &"a".repeat(33)] {
            assert!(matching(&all, bad).unwrap_err().is(ErrorKind::InvalidInput), "{bad}");
        }
    }
}
