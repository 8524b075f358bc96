//! Seam 1: the engine.
//!
//! A runtime knows the verbs of a container's life and nothing else. It is handed a [`SandboxSpec`], which only a
//! policy can make, and it never sees the policy. What a sandbox does once it runs goes through its guest, so exec,
//! files and terminals are no business of an engine.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use async_trait::async_trait;
use sandbox_guest::wire::CgroupLimits;
use sandbox_policy::{Capabilities, ImageRef, Isolation, SandboxSpec};
use serde::Serialize;

use crate::{Agent, Blank, Cover, Error, ErrorKind, Events, Owner, Ownership, Result, SandboxId};

/// An engine that makes containers.
#[async_trait]
pub trait Runtime: fmt::Debug + Send + Sync + 'static {
    /// What the engine is.
    fn info(&self) -> &RuntimeInfo;

    /// What the engine enforces, found out once when it was connected to.
    fn capabilities(&self) -> &Capabilities;

    /// The guest's program for the engine's machine: a static executable.
    fn guest(&self) -> &[u8];

    /// How the guest is spoken to.
    fn transport(&self) -> Transport {
        Transport::Socket
    }

    /// What stands between its containers and the host's kernel.
    fn isolation(&self) -> Isolation {
        Isolation::Standard
    }

    /// Whether the engine sees this machine's files.
    fn file_system(&self) -> FileSystem {
        FileSystem::Shared
    }

    /// Whether a tree of this machine's can lie below what a container writes.
    fn underlays(&self) -> Underlays {
        Underlays::Unsupported
    }

    /// Whom a user of this machine is inside, with a group, where a directory of that user's is mounted.
    fn ownership(&self, owner: (u32, u32)) -> Ownership {
        Ownership::shifted(self.info(), owner)
    }

    /// Opens the stream that is the standard input and output of a container's first process, before it is started; only
    /// where the transport is [`Transport::Relay`]. Dropping it ends the guest.
    ///
    /// # Errors
    /// One of the engine's.
    async fn attach(&self, container: &ContainerId) -> Result<OwnedFd> {
        Err(Error::new(ErrorKind::Engine, format!("this engine gives no stream to container {container}")))
    }

    /// Finds the image, or pulls it where the spec allows that; says what the name means now.
    ///
    /// # Errors
    /// `ImageMissing`, `ImageInvalid` or one of the engine's.
    async fn resolve(&self, spec: &SandboxSpec, events: &Events) -> Result<Image>;

    /// Makes the container, which does not run yet.
    ///
    /// # Errors
    /// One of the engine's; then nothing was made, or what was made carries the id as a label.
    async fn create(&self, spec: &SandboxSpec, wiring: &Wiring) -> Result<ContainerId>;

    /// Starts the container.
    ///
    /// # Errors
    /// One of the engine's.
    async fn start(&self, container: &ContainerId) -> Result<()>;

    /// Says what the container does, and which settings are in force in the engine's eyes.
    ///
    /// # Errors
    /// One of the engine's; a container that is gone is a state, not an error.
    async fn state(&self, container: &ContainerId) -> Result<ContainerState>;

    /// Sends a signal to the container's first process.
    ///
    /// # Errors
    /// One of the engine's; a container that does not run is none.
    async fn kill(&self, container: &ContainerId, signal: Signal) -> Result<()>;

    /// Removes the container. `Ok` means that it is gone, also where it was gone before.
    ///
    /// # Errors
    /// One of the engine's.
    async fn delete(&self, container: &ContainerId) -> Result<()>;

    /// Lists all containers that carry the labels of a sandbox, running or not.
    ///
    /// # Errors
    /// One of the engine's.
    async fn list(&self) -> Result<Vec<ContainerSummary>>;
}

/// How a guest is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Transport {
    /// Over one stream of bytes, the guest's standard input and output, where descriptors cannot be passed.
    Relay,
    /// Over a socket in a directory that host and guest share.
    Socket,
}

/// Whether an engine sees this machine's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FileSystem {
    /// It does not: nothing can be mounted, and the guest is sent to it.
    Apart,
    /// It does, under the same paths.
    Shared,
}

/// Whether a tree of this machine's can lie below what a container writes, so that it need not be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Underlays {
    /// It can, as [`Wiring::underlay`] says, where the root file system is writable.
    Offered,
    /// It cannot.
    Unsupported,
}

/// A tree of the host's that appears inside as the agent's own. What is written goes into the container's own layer; the tree is
/// never written to, and others may have it below theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// The directory on the host.
    pub source: PathBuf,
    /// Where it appears inside.
    pub target: PathBuf,
}

/// What an engine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuntimeInfo {
    /// Its name, for people: `docker`, `podman`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The version of its interface that is spoken.
    pub api: String,
    /// Where it listens.
    pub endpoint: String,
    /// The user id on the host that is root inside a container.
    pub root_uid: u32,
    /// The group id on the host that is root's inside a container.
    pub root_gid: u32,
}

/// An image that is present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Image {
    /// The name that was asked for.
    pub reference: ImageRef,
    /// The engine's id of its content; this is what runs, whatever the name means later.
    pub id: String,
    /// The user that it runs as, as its configuration says it: a name or a number, perhaps with `:` and a group
    /// (<https://github.com/opencontainers/image-spec/blob/main/config.md>, at `User`).
    pub user: Option<String>,
}

/// The engine's id of a container.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ContainerId(String);

impl ContainerId {
    /// Wraps what the engine calls it.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as the engine prints it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What joins a container to its sandbox.
#[derive(Clone, Debug)]
pub struct Wiring {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// The process that owns it, for the reaper.
    pub owner: Owner,
    /// The image that was resolved.
    pub image: Image,
    /// Whom the agent runs as.
    pub agent: Agent,
    /// The user and the group on the host that are root's inside.
    pub root: (u32, u32),
    /// The directory on the host that holds the guest and its socket; it is mounted read-only at
    /// [`GUEST_DIRECTORY`](sandbox_guest::wire::GUEST_DIRECTORY), where the file system is shared.
    pub guest_directory: PathBuf,
    /// What is mounted over the workspace, in this order.
    pub covers: Vec<Cover>,
    /// Empty directories of the sandbox's own, mounted after that.
    pub blanks: Vec<Blank>,
    /// What lies below the workspace; only where the runtime [offers](Runtime::underlays) it.
    pub underlay: Option<Underlay>,
    /// Whether the engine sees that directory; where it does not, it is sent the guest.
    pub file_system: FileSystem,
}

impl Wiring {
    /// The name of the container: the same for one sandbox always, so that it can be found after a failed call.
    pub fn container_name(&self) -> String {
        format!("sandbox-{}", self.sandbox)
    }

    /// The labels that every container of ours carries.
    pub fn labels(&self) -> [(&'static str, String); 2] {
        [(LABEL_SANDBOX, self.sandbox.to_string()), (LABEL_OWNER, self.owner.to_string())]
    }
}

/// The label that holds the [`SandboxId`].
pub const LABEL_SANDBOX: &str = "dev.sandbox.id";

/// The label that holds the [`Owner`].
pub const LABEL_OWNER: &str = "dev.sandbox.owner";

/// What a container does, and how the engine says it is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContainerState {
    /// What it does.
    pub status: ContainerStatus,
    /// The process id of its first process, in the host's numbering.
    pub pid: Option<u32>,
    /// What the engine says is in force.
    pub settings: EffectiveSettings,
}

/// What a container does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ContainerStatus {
    /// It was made and not started.
    Created,
    /// It ended.
    Exited,
    /// There is no such container.
    Gone,
    /// It runs.
    Running,
}

/// What an engine says is in force; `None` where it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EffectiveSettings {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together.
    pub memory_and_swap: Option<u64>,
    /// Thousandths of a CPU.
    pub milli_cpus: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// What stands between the container and the host's kernel.
    pub isolation: Option<Isolation>,
    /// The limits of the control group around the container, as the host's own kernel has them; only where none can be seen
    /// inside.
    pub cgroup: Option<CgroupLimits>,
    /// Users of the container as the host's own kernel maps them: inside, outside, how many; only where the engine has a user
    /// namespace around them, since inside that one's ids are seen.
    pub users: Option<Vec<(u32, u32, u32)>>,
    /// Bytes that the container's own layer may hold.
    pub disk: Option<u64>,
    /// Whether the root file system is read-only.
    pub readonly_rootfs: Option<Setting>,
    /// Whether privilege cannot be gained.
    pub no_new_privileges: Option<Setting>,
    /// Whether every host namespace and privilege is kept out: not privileged, no host PID, IPC or network.
    pub isolated: Option<Setting>,
    /// Whether a network was kept from it.
    pub no_network: Option<Setting>,
    /// Capabilities that were added after all were dropped, without `CAP_`, sorted.
    pub capabilities: Option<Vec<String>>,
    /// Host paths that are mounted, with their targets, sorted by target.
    pub binds: Option<Vec<Bind>>,
    /// Where something of the container's own is mounted that holds nothing of the host's, sorted.
    pub blanks: Option<Vec<PathBuf>>,
    /// Where a tree of the host's lies below what the container writes, sorted.
    pub underlays: Option<Vec<PathBuf>>,
}

/// A switch in an engine's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "a switch has two positions")]
pub enum Setting {
    /// It is off.
    Off,
    /// It is on.
    On,
}

impl From<bool> for Setting {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

/// A host path that is mounted in a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Bind {
    /// Where it appears inside.
    pub target: PathBuf,
    /// What appears there.
    pub source: PathBuf,
    /// Whether it can be written.
    pub writable: bool,
}

/// A container of ours, as the engine lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ContainerSummary {
    /// The engine's id.
    pub container: ContainerId,
    /// The sandbox's.
    pub sandbox: SandboxId,
    /// Who owns it; `None` if the label makes no sense.
    pub owner: Option<Owner>,
    /// The image, as the engine prints it.
    pub image: String,
    /// What it does.
    pub status: ContainerStatus,
    /// Seconds since 1970 at which it was made.
    pub created: i64,
}

/// The signals that end a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signal {
    /// `SIGKILL`.
    Kill,
    /// `SIGTERM`.
    Terminate,
}
