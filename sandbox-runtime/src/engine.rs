//! What all engines that speak Docker's API have in common.
//!
//! Invariant: every call has a deadline, and nothing goes on after its future is dropped.

mod connect;
mod create;
mod delete;
mod error;
mod images;
mod list;
mod probe;
mod quota;
mod state;

use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder, StartContainerOptions,
};
use sandbox_core::{ContainerId, ContainerState, Error, ErrorKind, Result, RuntimeInfo, Signal, Wiring};
use sandbox_policy::{Capabilities, Control, SandboxSpec};

pub use connect::Endpoint;
pub(crate) use connect::connect;
use error::{Answer, within};

/// An engine that was connected to and looked at.
#[derive(Debug)]
pub(crate) struct Engine {
    docker: Docker,
    endpoint: Endpoint,
    info: RuntimeInfo,
    capabilities: Capabilities,
    /// The machine's architecture, in the words that images use: `amd64`.
    architecture: String,
}

impl Engine {
    /// Returns what the engine is.
    pub(crate) fn info(&self) -> &RuntimeInfo {
        &self.info
    }

    /// Returns what the engine enforces.
    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Makes a container.
    pub(crate) async fn create(&self, spec: &SandboxSpec, wiring: &Wiring) -> Result<ContainerId> {
        create::write_hosts(&wiring.guest_directory).await?;
        let quota = if self.capabilities.is_enforced(Control::Disk) { create::Quota::Set } else { create::Quota::None };
        let body = create::body(spec, wiring, quota)?;
        let options = CreateContainerOptionsBuilder::new().name(&wiring.container_name()).build();
        let made =
            within(&self.endpoint, CREATE, "create the container", self.docker.create_container(Some(options), body));
        match made.await {
            Ok(made) => Ok(ContainerId::new(made.id)),
            Err(answer) if answer.status() == Some(400) => Err(answer.into_error().with_hint(create::HINT)),
            Err(answer) => Err(answer.into_error()),
        }
    }

    /// Starts a container.
    pub(crate) async fn start(&self, container: &ContainerId) -> Result<()> {
        let started = self.docker.start_container(container.as_str(), None::<StartContainerOptions>);
        within(&self.endpoint, START, "start the container", started).await.map_err(Answer::into_error)
    }

    /// Says what a container does and how it is set.
    pub(crate) async fn state(&self, container: &ContainerId) -> Result<ContainerState> {
        let inspected = self.docker.inspect_container(container.as_str(), None::<InspectContainerOptions>);
        match within(&self.endpoint, INSPECT, "inspect the container", inspected).await {
            Ok(inspected) => state::state(inspected),
            Err(answer) if answer.status() == Some(404) => Ok(state::gone()),
            Err(answer) => Err(answer.into_error()),
        }
    }

    /// Sends a signal to a container's first process.
    pub(crate) async fn kill(&self, container: &ContainerId, signal: Signal) -> Result<()> {
        let name = match signal {
            Signal::Kill => "SIGKILL",
            Signal::Terminate => "SIGTERM",
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    format!("signal {signal:?} is not known to this engine"),
                ));
            }
        };
        let options = KillContainerOptionsBuilder::new().signal(name).build();
        let killed = self.docker.kill_container(container.as_str(), Some(options));
        match within(&self.endpoint, KILL, "signal the container", killed).await {
            Ok(()) => Ok(()),
            // Not there, or not running.
            Err(answer) if matches!(answer.status(), Some(404 | 409)) => Ok(()),
            Err(answer) => Err(answer.into_error()),
        }
    }
}

/// What connecting may take, until the engine has said who it is.
const CONNECT: Duration = Duration::from_secs(5);
/// What making a container may take: a busy disk is slow.
const CREATE: Duration = Duration::from_mins(1);
/// What starting a container may take.
const START: Duration = Duration::from_mins(1);
/// What looking at something may take.
const INSPECT: Duration = Duration::from_secs(10);
/// What sending a signal may take.
const KILL: Duration = Duration::from_secs(10);
/// What one request to remove may take, which the engine answers when it has removed.
const REMOVE: Duration = Duration::from_secs(30);
/// How long a container that is being removed may be seen after that.
const GONE: Duration = Duration::from_secs(30);
/// How long a transfer of an image may make no progress.
const STALL: Duration = Duration::from_mins(1);
