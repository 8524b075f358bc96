//! Filling a workspace that lies in the container's own layer, before anything of the agent's runs.
//!
//! The content goes through the guest, which writes it as the agent; so it counts for the disk limit, ends with the container,
//! and comes to engines that share no file system with this machine as well.

mod ignored;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sandbox_policy::{CloneSource, GuestPath, SandboxSpec, WorkspaceSource};

use crate::work::{Asked, Seed, seed};
use crate::{
    Error, ErrorKind, Event, Events, Guest, HostRepository, Mirrors, Result, Token, TokenProvider, TransferLimits,
};
use ignored::Ignored;

/// Finds what a workspace is cloned from, where it is one that is cloned, before anything is made for the sandbox.
/// `exposed` are directories that an agent may write to.
pub(crate) async fn find(
    spec: &SandboxSpec,
    mirrors: Option<&Mirrors>,
    tokens: Option<(&dyn TokenProvider, &Token)>,
    exposed: &[PathBuf],
    events: &Events,
) -> Result<Option<Seed>> {
    let Some(WorkspaceSource::Clone { source, history }) = spec.workspace().map(|workspace| &workspace.source) else {
        return Ok(None);
    };
    // A token opens the repository that it was made for, at the server that it was made at, and no other is shown it.
    let tokens = tokens.filter(|(_, token)| match source {
        CloneSource::Local(_) => false,
        CloneSource::Remote(remote) => token.opens(remote),
    });
    let number = match tokens {
        Some((provider, token)) => {
            let asking = provider.repository_number(token);
            tokio::time::timeout(ASK_WITHIN, asking)
                .await
                .unwrap_or_else(|_| Err(Error::deadline("asking which repository it is", ASK_WITHIN)))?
        }
        None => None,
    };
    let asked = Asked {
        source,
        history: *history,
        branch: spec.branch(),
        decision: spec.clone_decision(),
        token: tokens.map(|(_, token)| token),
        number,
        exposed,
    };
    asked.find(mirrors, events).await.map(Some)
}

/// Fills the workspace, where it is one that is filled.
/// `room` is a directory of the host's own, gone with the sandbox.
pub(crate) async fn fill(
    guest: &Guest,
    spec: &SandboxSpec,
    found: Option<Seed>,
    events: &Events,
    room: &Path,
) -> Result<()> {
    let Some(workspace) = spec.workspace().filter(|workspace| workspace.is_in_layer()) else { return Ok(()) };
    let target = workspace.guest.as_path();
    events.announce(Event::WorkspacePreparing { target: workspace.guest.to_string() })?;
    let limits = TransferLimits { bytes: spec.limits().disk.bytes(), ..TransferLimits::default() };
    if let Some(found) = found {
        guest.make_directory(target).await?;
        return seed(guest, &found, target, room, limits).await;
    }
    let WorkspaceSource::Copy { host } = &workspace.source else { return Ok(()) };
    let mut ignored = Ignored::around(host.as_path());
    guest
        .upload_wanted(host.as_path(), target.as_os_str(), limits, move |candidate| !ignored.holds(candidate))
        .await
        .map_err(|error| into_workspace(error, host.as_path(), &workspace.guest))?;
    if host.as_path().join(".git").symlink_metadata().is_err() {
        return Ok(());
    }
    // What only looks like a repository has no commits to bring.
    let Ok(repository) = HostRepository::open(host.as_path(), &[]) else { return Ok(()) };
    seed(guest, &Seed::beside(&repository).await?, target, room, limits).await
}

fn into_workspace(error: Error, host: &Path, guest: &GuestPath) -> Error {
    let hint = if error.kind() == ErrorKind::Exhausted {
        "leave out what is large by `.gitignore`, or allow a larger disk".to_owned()
    } else {
        format!("if the image has files of its own at {guest}, name another place: `SandboxBuilder::workspace_at`")
    };
    Error::new(error.kind(), format!("workspace {} could not be copied", host.display()))
        .with_source(error)
        .with_hint(hint)
}

/// How long whoever gives out tokens may take to say which repository one is for.
const ASK_WITHIN: Duration = Duration::from_mins(2);
