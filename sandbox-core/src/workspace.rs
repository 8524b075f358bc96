//! Filling a workspace that lies in the container's own layer, before anything of the agent's runs.
//!
//! The content goes through the guest, which writes it as the agent; so it counts for the disk limit, ends with the container,
//! and comes to engines that share no file system with this machine as well.

mod ignored;

use std::path::Path;

use sandbox_policy::{GuestPath, SandboxSpec, WorkspaceSource};

use crate::work::seed;
use crate::{Error, ErrorKind, Event, Events, Guest, HostRepository, Result, TransferLimits};
use ignored::Ignored;

/// Fills the workspace, where it is one that is filled.
/// `room` is a directory of the host's own, gone with the sandbox.
pub(crate) async fn fill(guest: &Guest, spec: &SandboxSpec, events: &Events, room: &Path) -> Result<()> {
    let Some(workspace) = spec.workspace() else { return Ok(()) };
    let WorkspaceSource::Copy { host } = &workspace.source else { return Ok(()) };
    let target = workspace.guest.as_path();
    events.announce(Event::WorkspacePreparing { target: workspace.guest.to_string() })?;
    let limits = TransferLimits { bytes: spec.limits().disk.bytes(), ..TransferLimits::default() };
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
    seed(guest, &repository, target, room, limits).await
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
