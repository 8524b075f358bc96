//! gVisor without an engine: its program `runsc` runs what a launch has gathered (<https://gvisor.dev/docs/>).
//!
//! The container's layer, its control groups and its ids are the same as without it. What is inside is gVisor's own, so limits are
//! read from the groups around it, and what it was told from what it keeps of the container.

mod configuration;
mod state;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sandbox_core::{ContainerId, Error, Result};
use sandbox_policy::{Capabilities, Control, Support};

use super::Machine;
use super::identities::Ids;
use super::probe::unsupported;

pub(super) use configuration::bundle;
pub(super) use state::settings;

/// gVisor, by its program.
#[derive(Debug)]
pub(super) struct Gvisor {
    program: PathBuf,
    capabilities: Capabilities,
    /// The far ends of streams of containers that are not started yet.
    streams: Mutex<HashMap<ContainerId, OwnedFd>>,
}

impl Gvisor {
    /// Takes a program, and reports on each control on a machine that enforces these without it.
    pub(super) fn new(program: PathBuf, machine: &Machine) -> Self {
        let isolation = match std::fs::metadata(&program) {
            _ if matches!(machine.ids, Ids::Own { .. }) => {
                unsupported("gVisor without an engine is started by root", "run as root, or use an engine with gVisor")
            }
            Ok(data) if data.is_file() && data.permissions().mode() & 0o111 != 0 => {
                by(&format!("gVisor, {}", program.display()))
            }
            _ => unsupported(&format!("there is no program {}", program.display()), INSTALL),
        };
        Self { capabilities: capabilities(&machine.capabilities, isolation), program, streams: Mutex::default() }
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    pub(super) fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Makes the stream that is to be a container's standard input and output.
    pub(super) fn attach(&self, container: &ContainerId) -> Result<OwnedFd> {
        let pair = UnixStream::pair();
        let (ours, theirs) = pair.map_err(|error| Error::io("cannot make a stream to the container", error))?;
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.insert(container.clone(), theirs.into());
        Ok(ours.into())
    }

    /// Gives out the far end of a container's stream, once.
    pub(super) fn take(&self, container: &ContainerId) -> Option<OwnedFd> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).remove(container)
    }
}

fn capabilities(machine: &Capabilities, isolation: Support) -> Capabilities {
    let limit = |control: Control| match machine.get(control) {
        Some(support @ Support::Unsupported { .. }) => support.clone(),
        _ => by("the control group around gVisor, which ends with the sandbox where too much is taken"),
    };
    machine
        .clone()
        .with(Control::Isolation, isolation)
        .with(Control::Cpu, limit(Control::Cpu))
        .with(Control::Memory, limit(Control::Memory))
        .with(Control::Pids, by("gVisor's own pids controller"))
        .with(Control::Seccomp, by("gVisor, which applies the profile to what runs inside"))
}

fn by(what: &str) -> Support {
    Support::Enforced { by: what.to_owned() }
}

/// Where gVisor keeps what it knows of a container, in the container's directory.
pub(super) const KEPT: &str = "runsc";

/// What a container is called there, where there is no other.
const NAME: &str = "s";

const INSTALL: &str =
    "install gVisor as in https://gvisor.dev/docs/user_guide/install/, or name the path of its program";
