//! `down`: takes sandboxes down, and returns when they are gone.

use std::io;

use sandbox_core::{ErrorKind, Liveness, Owner, Runtime, SandboxId};
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
    config.screen.answer(&down, || down.down.iter().map(|id| format!("{id}\n")).collect())?;
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
        Err(failure) if failure.is(ErrorKind::SandboxGone) => remove_orphan(config, id).await,
        Err(failure) => Err(failure),
    }
}

async fn remove_orphan(config: &Config, id: SandboxId) -> Result<()> {
    let directory = config.run_root.of(id);
    let owner = std::fs::read_to_string(directory.join("owner")).ok().and_then(|text| text.parse::<Owner>().ok());
    let refuse = |why: String| {
        let failure = Failure::new(ErrorKind::Denied, format!("sandbox {} is kept: {why}", id.short()));
        Err(failure.with_hint("only what is provably held by nobody is removed from outside"))
    };
    match owner.as_ref().map(Owner::liveness) {
        Some(Liveness::Gone) => {}
        Some(Liveness::Alive) => {
            let pid = owner.map_or(0, |owner| owner.pid);
            return refuse(format!("process {pid} holds it, and answers nobody; if it is still starting, try again"));
        }
        Some(Liveness::Unknown) | None => return refuse("who holds it cannot be told from here".to_owned()),
    }
    let runtime = config.connect().await?;
    for container in runtime.list().await?.into_iter().filter(|container| container.sandbox == id) {
        runtime.delete(&container.container).await?;
    }
    match std::fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::io(format!("cannot remove {}", directory.display()), error))
        }
        _ => Ok(()),
    }
}

#[derive(Debug, Serialize)]
struct Down {
    down: Vec<SandboxId>,
}
