//! Finds what a killed process left behind, and removes it.
//!
//! The engine's labels are the truth. A container is removed only when its owner is provably gone; one whose owner cannot
//! be told from here is kept and named.

use serde::Serialize;

use crate::run_directory::RunDirectory;
use crate::{ContainerSummary, Liveness, Result, RunRoot, Runtime, SandboxId};

/// What a reaper did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reaped {
    /// Sandboxes of which a container or a run directory was removed.
    pub removed: Vec<SandboxId>,
    /// Sandboxes that were kept.
    pub kept: Vec<Kept>,
}

/// A sandbox that was kept, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// What is known of its owner, or what went wrong.
    pub why: String,
}

/// Removes the containers and run directories of sandboxes whose owner is gone.
///
/// A run directory whose container is gone is removed as well, once its own owner is.
///
/// # Errors
/// Those of listing; what cannot be removed is kept, with the reason.
pub async fn reap(runtime: &dyn Runtime, root: &RunRoot) -> Result<Reaped> {
    let mut reaped = Reaped::default();
    let containers = runtime.list().await?;
    for container in &containers {
        match judge(container) {
            Liveness::Gone => match remove(runtime, root, container).await {
                Ok(()) => reaped.removed.push(container.sandbox),
                Err(error) => reaped.kept.push(Kept { sandbox: container.sandbox, why: error.to_string() }),
            },
            Liveness::Alive => reaped.kept.push(kept(container, "its owner runs")),
            Liveness::Unknown => reaped.kept.push(kept(container, "its owner cannot be told from here")),
        }
    }
    for sandbox in root.sandboxes()? {
        if containers.iter().any(|container| container.sandbox == sandbox) {
            continue;
        }
        let directory = RunDirectory::named(root, sandbox);
        match directory.owner().map(|owner| owner.liveness()) {
            Some(Liveness::Gone) => {
                directory.remove()?;
                reaped.removed.push(sandbox);
            }
            Some(Liveness::Alive) => {}
            Some(Liveness::Unknown) | None => {
                let why = "its run directory names no owner that can be told from here".to_owned();
                reaped.kept.push(Kept { sandbox, why });
            }
        }
    }
    Ok(reaped)
}

fn judge(container: &ContainerSummary) -> Liveness {
    container.owner.as_ref().map_or(Liveness::Unknown, crate::Owner::liveness)
}

fn kept(container: &ContainerSummary, why: &str) -> Kept {
    Kept { sandbox: container.sandbox, why: why.to_owned() }
}

async fn remove(runtime: &dyn Runtime, root: &RunRoot, container: &ContainerSummary) -> Result<()> {
    runtime.delete(&container.container).await?;
    RunDirectory::named(root, container.sandbox).remove()
}
