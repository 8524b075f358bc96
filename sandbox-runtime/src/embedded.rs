//! Sandboxes without an engine: namespaces, control groups, an overlay and the guest, by direct system calls.
//!
//! Invariant: nothing of a container outlives its process 1 but entries in control groups and in the state directory,
//! which its name leads to; so whoever comes later can remove what a killed process left behind.

mod archive;
mod cgroups;
mod create;
mod delete;
mod disk;
mod filter;
mod frames;
mod gvisor;
mod host;
mod identities;
mod images;
mod launch;
mod list;
mod mountinfo;
mod probe;
mod process;
mod pull;
mod record;
mod registry;
mod removal;
mod start;
mod state;
mod store;
mod tried;
mod unpack;
mod user;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use rustix::process::Signal as ProcessSignal;
use sandbox_core::{
    ContainerId, ContainerState, ContainerSummary, Error, ErrorKind, Events, Image, Ownership, Result, Runtime,
    RuntimeInfo, Signal, Transport, Underlays, Wiring,
};
use sandbox_policy::{Capabilities, ImageRef, Isolation, PullRule, SandboxSpec};

use crate::guest_program;
use cgroups::Cgroups;
use gvisor::Gvisor;
pub use host::HOST_IMAGE;
use host::HostImage;
use identities::{FIRST, Ids};
use launch::Launcher;
use registry::Anonymous;
pub use registry::{RegistryAccess, RegistryAccount};
use store::Store;
use tried::Circumstances;

/// How the embedded runtime works.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbeddedOptions {
    /// Where it keeps images and containers; it is made with mode 0700 if it is missing. Two runtimes may share it.
    pub state: PathBuf,
    /// The host's id for root inside. This one and the 65,535 after it should be nobody else's. Whoever is not root has no
    /// range to give: there the agent is the caller, in a user namespace with nobody else.
    pub first_id: u32,
    /// Registries that are spoken to without TLS, as `HOST:PORT`; each must be on this machine's loopback.
    pub plain_http: Vec<String>,
    /// How it finds out what the machine enforces.
    pub trial: Trial,
}

/// How a runtime finds out what the machine enforces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trial {
    /// A container is made, and what could not be had is left out.
    #[default]
    Anew,
    /// What an earlier trial of the same user has shown is taken for true, if nothing has changed that it may depend on: the
    /// kernel and its boot, this program, the user's ids, the control groups, the tools. A start that fails forgets it. Each
    /// sandbox reads back what is in force in either case.
    Remembered,
}

impl EmbeddedOptions {
    /// Keeps everything in a directory, and takes ids that no system hands out.
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self { state: state.into(), first_id: FIRST, plain_http: Vec::new(), trial: Trial::default() }
    }
}

/// Runs sandboxes with nothing but the kernel.
///
/// The image `host` is always there: the machine's own `/usr`, and of its `/etc` the few files that programs need, below a
/// layer of the sandbox's own. No home, no key and no account of the machine is in it; but what lies in `/usr` is
/// readable, so nothing secret may lie there. Other images are imported, and kept in the state directory.
///
/// ```no_run
/// # async fn example() -> sandbox_core::Result<()> {
/// use sandbox_core::Runtime as _;
/// use sandbox_runtime::{EmbeddedOptions, EmbeddedRuntime};
///
/// let runtime = EmbeddedRuntime::connect(EmbeddedOptions::new("/var/lib/sandbox")).await?;
/// let archive = std::fs::File::open("debian.tar").map_err(|error| sandbox_core::Error::io("no archive", error))?;
/// runtime.import_rootfs(archive, &"debian:12".parse().unwrap()).await?;
/// for (control, support) in runtime.capabilities().iter() {
///     println!("{control}: {support:?}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct EmbeddedRuntime {
    machine: Arc<Machine>,
    plain_http: Vec<String>,
    access: Arc<dyn RegistryAccess>,
    gvisor: Option<Arc<Gvisor>>,
}

impl EmbeddedRuntime {
    /// Finds out what the machine enforces, by making a container once, unless an earlier one is remembered.
    ///
    /// # Errors
    /// `EngineUnavailable` where no container can be made, with the step that failed; `Denied` or `Io` where the state
    /// directory cannot be used; `InvalidInput` for options that are not allowed.
    pub async fn connect(options: EmbeddedOptions) -> Result<Self> {
        let EmbeddedOptions { state, first_id, plain_http, trial } = options;
        if let Some(registry) = plain_http.iter().find(|registry| !is_loopback(registry)) {
            let message = format!("registry {registry:?} may not be used without TLS: only one on loopback may");
            return Err(Error::new(ErrorKind::InvalidInput, message).with_hint("write it as 127.0.0.1:PORT"));
        }
        let ids = Ids::choose(first_id)?;
        let machine = blocking(move || probe::probe(Store::open(&state)?, ids, guest_program(), trial)).await?;
        Ok(Self { machine: Arc::new(machine), plain_http, access: Arc::new(Anonymous), gvisor: None })
    }

    /// Asks somebody for accounts at registries and for their authorities; without, images are fetched as anybody may.
    #[must_use]
    pub fn with_registry_access(self, access: impl RegistryAccess) -> Self {
        Self { access: Arc::new(access), ..self }
    }

    /// Runs sandboxes on gVisor, a kernel of their own, by its program `runsc` at a path. Where that is not there, or the caller is
    /// not root, [`Control::Isolation`](sandbox_policy::Control::Isolation) is reported as unsupported, and nothing is started.
    ///
    /// Guests are spoken to over their standard streams, and the other controls are reported anew.
    #[must_use]
    pub fn with_gvisor(self, runsc: impl Into<PathBuf>) -> Self {
        let gvisor = Gvisor::new(runsc.into(), &self.machine);
        Self { gvisor: Some(Arc::new(gvisor)), ..self }
    }

    /// Makes an image of a tar archive that holds a root file system. Programs that would gain their owner's privilege
    /// lose that, and devices are left out.
    ///
    /// # Errors
    /// `InvalidInput` for a reference with a digest or an id; `ImageInvalid` for what is no archive, or one that reaches
    /// beyond itself; those of the host's system.
    pub async fn import_rootfs(&self, archive: impl Read + Send + 'static, reference: &ImageRef) -> Result<Image> {
        let (machine, reference) = (Arc::clone(&self.machine), reference.clone());
        blocking(move || machine.import_rootfs(archive, &reference)).await
    }

    /// Takes an image out of an archive that `docker save` made, or that holds an OCI layout, and gives it a name. Its layers
    /// are checked against the digests that it names, and may be compressed with gzip or zstd.
    ///
    /// # Errors
    /// As [`Self::import_rootfs`]; `ImageInvalid` also for an archive of several images, or of another architecture.
    pub async fn import_archive(&self, archive: impl Read + Send + 'static, reference: &ImageRef) -> Result<Image> {
        let (machine, reference) = (Arc::clone(&self.machine), reference.clone());
        blocking(move || machine.import_archive(archive, &reference)).await
    }

    /// As [`Self::import_archive`], from the directory of an OCI layout
    /// (<https://github.com/opencontainers/image-spec/blob/main/image-layout.md>).
    ///
    /// # Errors
    /// As [`Self::import_archive`].
    pub async fn import_layout(&self, directory: impl Into<PathBuf>, reference: &ImageRef) -> Result<Image> {
        let (machine, directory, reference) = (Arc::clone(&self.machine), directory.into(), reference.clone());
        blocking(move || machine.import_layout(&directory, &reference)).await
    }

    /// Takes an image out of whatever a path holds: an OCI layout, an archive of one, one that `docker save` made, or one of
    /// a root file system; archives may be compressed with gzip or zstd.
    ///
    /// # Errors
    /// As [`Self::import_archive`].
    pub async fn import(&self, path: impl Into<PathBuf>, reference: &ImageRef) -> Result<Image> {
        let (machine, path, reference) = (Arc::clone(&self.machine), path.into(), reference.clone());
        blocking(move || machine.import(&path, &reference)).await
    }

    /// Does something with the machine on a thread that may wait.
    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&Machine) -> Result<T> + Send + 'static) -> Result<T> {
        let machine = Arc::clone(&self.machine);
        blocking(move || work(&machine)).await
    }
}

/// The machine that was looked at.
#[derive(Debug)]
struct Machine {
    store: Store,
    ids: Ids,
    info: RuntimeInfo,
    capabilities: Capabilities,
    launcher: Launcher,
    host: HostImage,
    /// The control groups that containers are made with.
    cgroups: Cgroups,
    /// All that there are, in which an earlier runtime may have left something.
    every_cgroup: Cgroups,
    /// What its trial depends on.
    circumstances: Circumstances,
}

/// Whether a registry is one of this machine: an address of loopback, since names lead where others say.
fn is_loopback(registry: &str) -> bool {
    registry.parse::<std::net::SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}

/// Runs what waits for the kernel where that holds nobody up. It is not broken off, and always comes to its end.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, "the runtime is shutting down")))
}

#[async_trait]
impl Runtime for EmbeddedRuntime {
    fn info(&self) -> &RuntimeInfo {
        &self.machine.info
    }

    fn capabilities(&self) -> &Capabilities {
        self.gvisor.as_ref().map_or(&self.machine.capabilities, |gvisor| gvisor.capabilities())
    }

    fn guest(&self) -> &[u8] {
        guest_program()
    }

    fn underlays(&self) -> Underlays {
        if self.gvisor.is_some() { Underlays::Unsupported } else { Underlays::Offered }
    }

    fn transport(&self) -> Transport {
        if self.gvisor.is_some() { Transport::Relay } else { Transport::Socket }
    }

    fn isolation(&self) -> Isolation {
        if self.gvisor.is_some() { Isolation::Gvisor } else { Isolation::Standard }
    }

    async fn attach(&self, container: &ContainerId) -> Result<OwnedFd> {
        match &self.gvisor {
            Some(gvisor) => gvisor.attach(container),
            None => Err(Error::new(ErrorKind::Engine, format!("container {container} is spoken to over its socket"))),
        }
    }

    fn ownership(&self, owner: (u32, u32)) -> Ownership {
        self.machine.ids.ownership(owner)
    }

    async fn resolve(&self, spec: &SandboxSpec, events: &Events) -> Result<Image> {
        let (reference, pull) = (spec.image().clone(), spec.pull());
        let asked = spec.clone();
        match self.with(move |machine| machine.resolve(&asked)).await {
            Err(error) if error.kind() == ErrorKind::ImageMissing && pull == PullRule::IfMissing => {
                if reference.repository().is_none() {
                    return Err(error);
                }
                self.pull(&reference, events).await
            }
            found => found,
        }
    }

    async fn create(&self, spec: &SandboxSpec, wiring: &Wiring) -> Result<ContainerId> {
        let (spec, wiring) = (spec.clone(), wiring.clone());
        let gvisor = self.gvisor.clone();
        self.with(move |machine| machine.create(&spec, &wiring, gvisor.as_deref())).await
    }

    async fn start(&self, container: &ContainerId) -> Result<()> {
        let container = container.clone();
        // It is held until the container has it, and by nobody afterwards.
        let stream = self.gvisor.as_ref().and_then(|gvisor| gvisor.take(&container));
        self.with(move |machine| machine.start(&container, stream.as_ref())).await
    }

    async fn state(&self, container: &ContainerId) -> Result<ContainerState> {
        let container = container.clone();
        self.with(move |machine| machine.state(&container)).await
    }

    async fn kill(&self, container: &ContainerId, signal: Signal) -> Result<()> {
        let signal = match signal {
            Signal::Kill => ProcessSignal::KILL,
            Signal::Terminate => ProcessSignal::TERM,
            _ => {
                let message = format!("signal {signal:?} is not known to this runtime");
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
        };
        let container = container.clone();
        self.with(move |machine| machine.kill(&container, signal)).await
    }

    async fn delete(&self, container: &ContainerId) -> Result<()> {
        let container = container.clone();
        if let Some(gvisor) = &self.gvisor {
            gvisor.take(&container);
        }
        self.with(move |machine| machine.delete(&container)).await
    }

    async fn list(&self) -> Result<Vec<ContainerSummary>> {
        self.with(Machine::list).await
    }
}
