//! `down`: takes sandboxes down, and returns when they are gone.

use std::io;
use std::time::{Duration, Instant};

use sandbox_core::{ErrorKind, Liveness, Owner, SandboxId};
use serde::Serialize;

use crate::args::DownArgs;
use crate::client;
use crate::config::Config;
use crate::failure::{Failure, Result};

pub(super) async fn run(config: &Config, arguments: DownArgs) -> Result<u8> {
    let known = config.run_root.sandboxes()?;
    let ids = if arguments.all {
        known
    } else {
        arguments.ids.iter().map(|id| client::matching(&known, id)).collect::<Result<Vec<_>>>()?
    };
    let mut down = Down { down: Vec::new() };
    let mut failures = Vec::new();
    for id in ids {
        match take_down(config, id).await {
            Ok(()) => down.down.push(id),
            Err(failure) => failures.push(failure),
        }
    }
    config.screen.answer(&down, || down.down.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let Some(last) = failures.pop() else { return Ok(0) };
    for failure in &failures {
        config.screen.fail(failure);
    }
    Err(last)
}

/// Asks the holder; where it has been killed, removes what it left.
async fn take_down(config: &Config, id: SandboxId) -> Result<()> {
    let directory = config.run_root.of(id);
    match client::down(&config.run_root, id).await {
        Ok(()) => Ok(()),
        // It ended by itself meanwhile.
        Err(_) if !directory.exists() => Ok(()),
        // It does not answer, or broke off in the middle: was it killed?
        Err(failure) if failure.is(ErrorKind::SandboxGone) || failure.is(ErrorKind::Io) => {
            remove_orphan(config, id, failure).await
        }
        Err(failure) => Err(failure),
    }
}

/// Removes a sandbox whose holder is provably gone; `unheard` says what asking it came to.
async fn remove_orphan(config: &Config, id: SandboxId, unheard: Failure) -> Result<()> {
    let directory = config.run_root.of(id);
    let owner = client::owner(&config.run_root, id);
    match liveness(owner.as_ref()).await {
        Some(Liveness::Gone) => {}
        Some(Liveness::Alive) => {
            let pid = owner.map_or(0, |owner| owner.pid);
            return Err(unheard.with_hint(format!("process {pid} holds it; if it is still starting, try again")));
        }
        Some(Liveness::Unknown) | None => {
            return Err(unheard.with_hint("who holds it cannot be told from here, so it is kept"));
        }
    }
    for runtime in config.connect_all().await? {
        for container in runtime.list().await?.into_iter().filter(|container| container.sandbox == id) {
            runtime.delete(&container.container).await?;
        }
    }
    match std::fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::io(format!("cannot remove {}", directory.display()), error))
        }
        _ => Ok(()),
    }
}

/// What is known of an owner; one that has just been killed may take a moment to be gone.
async fn liveness(owner: Option<&Owner>) -> Option<Liveness> {
    let deadline = Instant::now() + DYING;
    loop {
        let liveness = owner?.liveness();
        if liveness != Liveness::Alive || Instant::now() >= deadline {
            return Some(liveness);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// How long a process may take to die, once its sockets are closed.
const DYING: Duration = Duration::from_secs(2);

const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Debug, Serialize)]
struct Down {
    down: Vec<SandboxId>,
}
