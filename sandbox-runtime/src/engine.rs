//! What all engines that speak Docker's API have in common.
//!
//! Invariant: every call has a deadline, and nothing goes on after its future is dropped.

mod attach;
mod connect;
mod create;
mod delete;
mod dial;
mod endpoint;
mod error;
mod gvisor;
mod images;
mod list;
mod ownership;
mod podman;
mod probe;
mod product;
mod quota;
mod raw;
mod runtime;
mod sharing;
mod ssh;
mod state;
mod tls;
mod upload;

use std::time::Duration;

use bollard::Docker;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder, StartContainerOptions,
};
use sandbox_core::{
    ContainerId, ContainerState, Error, ErrorKind, FileSystem, Ownership, Result, RuntimeInfo, Signal, Transport,
    Wiring,
};
use sandbox_policy::{Capabilities, Control, Isolation, SandboxSpec};

pub(crate) use connect::connect;
pub use endpoint::{Endpoint, SshEndpoint, TcpEndpoint};
use error::{Answer, within};
use gvisor::Gvisor;
pub(crate) use gvisor::{limits_of, processes_around};
use ownership::Ids;
pub(crate) use product::Product;
pub(crate) use runtime::runtime_of_an_engine;

/// An engine that was connected to and looked at.
#[derive(Debug)]
pub(crate) struct Engine {
    product: Product,
    docker: Docker,
    endpoint: Endpoint,
    info: RuntimeInfo,
    ids: Ids,
    capabilities: Capabilities,
    /// How guests are spoken to.
    transport: Transport,
    /// gVisor as the engine knows it, and whether sandboxes run on it.
    gvisor: Gvisor,
    isolation: Isolation,
    /// Whether it sees this machine's files.
    file_system: FileSystem,
    /// The capabilities of a container from which nothing is dropped, without `CAP_`.
    granted: Vec<String>,
    /// The machine's architecture, in the words that images use: `amd64`.
    architecture: String,
}

impl Engine {
    /// Returns the product that answers.
    pub(crate) fn product(&self) -> Product {
        self.product
    }

    /// Returns what the engine is.
    pub(crate) fn info(&self) -> &RuntimeInfo {
        &self.info
    }

    /// Returns what the engine enforces.
    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Returns how guests are spoken to.
    pub(crate) fn transport(&self) -> Transport {
        self.transport
    }

    /// Returns whether the engine sees this machine's files.
    pub(crate) fn file_system(&self) -> FileSystem {
        self.file_system
    }

    /// Says whom a user of the host is inside.
    pub(crate) fn ownership(&self, owner: (u32, u32)) -> Ownership {
        self.ids.ownership(&self.info, owner)
    }

    /// Speaks to guests over the engine's own connection from now on.
    pub(crate) fn relay(&mut self) {
        self.transport = Transport::Relay;
    }

    /// Returns what stands between containers and the host's kernel.
    pub(crate) fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Runs containers on gVisor from now on, which passes no descriptor out.
    pub(crate) fn isolate(&mut self) {
        self.capabilities = self.gvisor.capabilities(&self.capabilities);
        self.isolation = Isolation::Gvisor;
        self.relay();
    }

    /// gVisor, where containers run on it.
    fn with_gvisor(&self) -> Option<&Gvisor> {
        (self.isolation == Isolation::Gvisor).then_some(&self.gvisor)
    }

    /// Makes a container.
    pub(crate) async fn create(&self, spec: &SandboxSpec, wiring: &Wiring) -> Result<ContainerId> {
        let made = match self.product {
            Product::Docker => self.create_by_docker(spec, wiring).await,
            Product::Podman => {
                let keeps = wiring.root != (self.info.root_uid, self.info.root_gid);
                let users = if keeps { podman::Users::Kept } else { podman::Users::Engines };
                let how = podman::How { transport: self.transport, isolation: self.isolation, users };
                podman::create(&self.endpoint, spec, wiring, how).await
            }
        };
        made.map_err(|answer| {
            let is_about_a_path = answer.status() == Some(400) || answer.message().contains(NO_FILE);
            let error = answer.into_error();
            if is_about_a_path { error.with_hint(create::HINT) } else { error }
        })
    }

    async fn create_by_docker(&self, spec: &SandboxSpec, wiring: &Wiring) -> Result<ContainerId, Answer> {
        let is_apart = wiring.file_system == FileSystem::Apart;
        if !is_apart {
            create::write_hosts(&wiring.guest_directory).await?;
        }
        let quota = if self.capabilities.is_enforced(Control::Disk) { create::Quota::Set } else { create::Quota::None };
        let body = create::body(spec, wiring, quota, self.transport, self.with_gvisor())?;
        let options = CreateContainerOptionsBuilder::new().name(&wiring.container_name()).build();
        let made = self.docker.create_container(Some(options), body);
        let made = within(&self.endpoint, CREATE, "create the container", made).await?;
        let container = ContainerId::new(made.id);
        if is_apart {
            self.upload(&container, crate::guest_program()).await?;
        }
        Ok(container)
    }

    /// Starts a container.
    pub(crate) async fn start(&self, container: &ContainerId) -> Result<()> {
        let started = self.docker.start_container(container.as_str(), None::<StartContainerOptions>);
        within(&self.endpoint, START, "start the container", started).await.map_err(Answer::into_error)
    }

    /// Says what a container does and how it is set.
    pub(crate) async fn state(&self, container: &ContainerId) -> Result<ContainerState> {
        match self.inspect(container).await {
            Ok(inspected) => {
                let mut state = state::state(inspected, self.product, &self.granted, self.gvisor.runtime())?;
                if self.isolation == Isolation::Gvisor {
                    // The engine's limit is there for gVisor's own threads; what counts inside is asked there.
                    state.settings.pids = None;
                    state.settings.cgroup = Some(limits_of(container, state.pid));
                }
                state.settings.users = self.ids.seen_from_here(state.pid);
                Ok(state)
            }
            Err(answer) if answer.status() == Some(404) => Ok(state::gone()),
            Err(answer) => Err(answer.into_error()),
        }
    }

    async fn inspect(&self, container: &ContainerId) -> Result<ContainerInspectResponse, Answer> {
        let what = "inspect the container";
        match self.product {
            Product::Docker => {
                let inspected = self.docker.inspect_container(container.as_str(), None::<InspectContainerOptions>);
                within(&self.endpoint, INSPECT, what, inspected).await
            }
            Product::Podman => podman::inspect(&self.endpoint, what, container, self.isolation).await,
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
            Err(answer)
                if self.product == Product::Podman && NOT_RUNNING.iter().any(|why| answer.message().contains(why)) =>
            {
                Ok(())
            }
            Err(answer) => Err(answer.into_error()),
        }
    }
}

/// What a missing source of a mount is called by Podman, which answers 500 to everything.
const NO_FILE: &str = "no such file or directory";
/// What Podman answers, with 500, to whoever signals a container that has ended, or that goes away meanwhile
/// (<https://github.com/containers/podman/blob/v4.3.1/libpod/define/errors.go>, `ErrCtrStateInvalid`, `ErrNoSuchCtr`).
const NOT_RUNNING: [&str; 2] = ["container state improper", "no such container"];

/// What making a container may take: a busy disk is slow.
const CREATE: Duration = Duration::from_mins(1);
/// What starting a container may take.
const START: Duration = Duration::from_mins(1);
/// What looking at something may take.
const INSPECT: Duration = Duration::from_secs(10);
/// What sending a signal may take.
const KILL: Duration = Duration::from_secs(10);
/// How long a container that was told to end may take before it is killed.
const END: Duration = Duration::from_secs(10);
/// What one request to remove may take, which the engine answers when it has removed.
const REMOVE: Duration = Duration::from_secs(30);
/// How long a container that is being removed may be seen after that.
const GONE: Duration = Duration::from_secs(30);
/// How long a transfer of an image may make no progress.
const STALL: Duration = Duration::from_mins(1);
