//! Filling a workspace that lies in the container's own layer, before anything of the agent's runs.
//!
//! The content goes through the guest, which writes it as the agent; so it counts for the disk limit, ends with the container,
//! and comes to engines that share no file system with this machine as well.

mod ignored;

use std::path::Path;
use std::time::Duration;

use sandbox_policy::{AgentUser, CloneSource, Control, GuestPath, RootFilesystem, SandboxSpec, WorkspaceSource};

use crate::cover::{Blank, Repository};
use crate::work::{Asked, Place, Seed, seed};
use crate::{
    Error, ErrorKind, Event, Events, Exposed, Guest, HostRepository, Mirrors, Result, Token, TokenProvider,
    TransferLimits, Underlays,
};
use ignored::Ignored;

/// Finds what a workspace is cloned from, where it is one that is cloned, before anything is made for the sandbox.
/// `exposed` is what an agent may write to.
pub(crate) async fn find(
    spec: &SandboxSpec,
    mirrors: Option<&Mirrors>,
    tokens: Option<(&dyn TokenProvider, &Token)>,
    exposed: &[Exposed],
    underlays: Underlays,
    events: &Events,
) -> Result<Option<Seed>> {
    let Some(workspace) = spec.workspace() else { return Ok(None) };
    let WorkspaceSource::Clone { source, history } = &workspace.source else { return Ok(None) };
    // A read-only root has memory for its workspace. A home must be the agent's before anything is mounted in it.
    let is_layer = spec.root() == RootFilesystem::Writable && !workspace.guest.as_path().starts_with("/home");
    let below = (underlays == Underlays::Offered && is_layer).then(|| spec.limits().disk.bytes());
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
        below,
    };
    asked.find(mirrors, events).await.map(Some)
}

/// What a repository inside is made of.
#[derive(Debug)]
pub(crate) struct Brought<'a> {
    /// What a workspace is cloned from, where it is one that is cloned.
    pub(crate) cloned: Option<Seed>,
    /// What is mounted over parts of a workspace for the agent to write.
    pub(crate) blanks: &'a [Blank],
    /// Where a mounted workspace has its own, in the place of the host's.
    pub(crate) own: Option<&'a Repository>,
    /// Whose it is.
    pub(crate) agent: AgentUser,
}

/// Fills the workspace, where it is one that is filled.
/// `room` is a directory of the host's own, gone with the sandbox.
pub(crate) async fn fill(
    guest: &Guest,
    spec: &SandboxSpec,
    Brought { cloned, blanks, own, agent }: Brought<'_>,
    events: &Events,
    room: &Path,
) -> Result<()> {
    let Some(workspace) = spec.workspace() else { return Ok(()) };
    let target = workspace.guest.as_path();
    let limits = TransferLimits { bytes: spec.limits().disk.bytes(), ..TransferLimits::default() };
    let within = target.join(".git");
    let place = Place { to: target, own: &within, ignored: &[], agent };
    // Some engines mount it for root, with the mode of what lies below it.
    if spec.required().contains(&Control::HostFilesystem) {
        for blank in blanks {
            guest.share(&blank.target).await?;
        }
    }
    if workspace.is_in_layer() {
        events.announce(Event::WorkspacePreparing { target: workspace.guest.to_string() })?;
    }
    if let Some(cloned) = cloned {
        if cloned.checkout().is_none() {
            guest.make_directory(target).await?;
        }
        return seed(guest, &cloned, place, room, limits).await;
    }
    let bring = async |host: &Path, place| {
        // What only looks like a repository has no commits to bring.
        let Ok(repository) = HostRepository::of(host) else { return Ok(()) };
        let seeding = async { seed(guest, &Seed::beside(&repository).await?, place, room, limits).await };
        seeding.await.map_err(|error| into_repository(error, host))
    };
    match (&workspace.source, own) {
        (WorkspaceSource::Copy { host }, _) => {
            let host = host.as_path();
            let failed = |error| into_workspace(error, host, &workspace.guest);
            guest.make_directory(target).await.map_err(failed)?;
            let mut ignored = Ignored::around(host);
            let copying =
                guest.upload_wanted(host, target.as_os_str(), limits, move |candidate| !ignored.holds(candidate));
            // Neither needs what the other brings.
            let (copied, brought) = tokio::join!(copying, bring(host, place));
            copied.map_err(failed)?;
            brought
        }
        (WorkspaceSource::Bind { host, .. }, Some(Repository { own, ignored })) => {
            bring(host.as_path(), Place { own, ignored, ..place }).await
        }
        _ => Ok(()),
    }
}

/// Lets git inside work in a directory whose owner on the host may be somebody else than the agent, and in one that an engine gives to
/// root (git-config(1), `safe.directory`): the repository there is the sandbox's own.
pub(crate) fn trusted(spec: &SandboxSpec) -> Vec<(String, String)> {
    let Some(workspace) = spec.workspace() else { return Vec::new() };
    let variables = [("COUNT", "1"), ("KEY_0", "safe.directory"), ("VALUE_0", workspace.guest.as_str())];
    variables.map(|(name, value)| (format!("GIT_CONFIG_{name}"), value.to_owned())).into()
}

fn into_repository(error: Error, host: &Path) -> Error {
    let hint = if error.kind() == ErrorKind::Exhausted {
        "allow more memory and a larger disk, or clone less of the repository"
    } else {
        "the agent must be able to enter the workspace; or leave `.git/` out of the policy's workspace-covered"
    };
    Error::new(error.kind(), format!("the repository of the workspace {} could not be brought in", host.display()))
        .with_source(error)
        .with_hint(hint)
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
