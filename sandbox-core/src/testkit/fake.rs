//! A runtime that isolates nothing, and says so.
//!
//! Its containers are ordinary processes of the host that run the real guest, so that everything but isolation can be
//! tested without an engine. Every control that takes a container is reported as unsupported. Faults can be put in
//! its verbs, and lies in its report.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sandbox_guest::relay;
use sandbox_guest::wire::{GUEST_PROGRAM, GUEST_SOCKET};
use sandbox_policy::{Capabilities, Control, PullRule, SandboxSpec, Support};

use crate::{
    ContainerId, ContainerState, ContainerStatus, ContainerSummary, EffectiveSettings, Error, ErrorKind, Events, Image,
    Owner, Ownership, Result, Runtime, RuntimeInfo, SandboxId, Signal, Transport, Whose, Wiring,
};

/// A runtime without isolation.
#[derive(Debug)]
pub struct FakeRuntime {
    info: RuntimeInfo,
    capabilities: Capabilities,
    guest: Vec<u8>,
    faults: Vec<Fault>,
    transport: Transport,
    containers: Mutex<HashMap<String, Container>>,
}

/// A verb of [`Runtime`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named as the method is")]
#[non_exhaustive]
pub enum Verb {
    Create,
    Delete,
    Resolve,
    Start,
    State,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The verb fails and has done nothing.
    Fail(Verb),
    /// The verb does what it should, and its answer is lost.
    FailAfterwards(Verb),
    /// The verb never answers.
    Hang(Verb),
}

#[derive(Debug)]
struct Container {
    sandbox: SandboxId,
    owner: Owner,
    image: String,
    directory: std::path::PathBuf,
    stream: Option<UnixStream>,
    process: Option<Child>,
}

impl FakeRuntime {
    /// The one image that exists.
    pub const IMAGE: &str = "fake:latest";

    /// Makes a runtime that starts `guest`, a program for this machine.
    pub fn new(guest: impl Into<Vec<u8>>) -> Self {
        let why = "the fake runtime isolates nothing";
        let unsupported = Support::Unsupported { why: why.to_owned(), hint: "use an engine".to_owned() };
        let capabilities = [
            Control::CapabilityDrop,
            Control::Cpu,
            Control::Disk,
            Control::HostFilesystem,
            Control::Isolation,
            Control::Memory,
            Control::NoNetwork,
            Control::Pids,
            Control::ReadonlyRootfs,
            Control::Seccomp,
            Control::Sudo,
            Control::UserNamespace,
        ]
        .into_iter()
        .fold(Capabilities::new(), |all, control| all.with(control, unsupported.clone()));
        Self {
            info: RuntimeInfo {
                name: "fake".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                api: "none".to_owned(),
                endpoint: "this process".to_owned(),
                root_uid: rustix::process::geteuid().as_raw(),
                root_gid: rustix::process::getegid().as_raw(),
            },
            capabilities,
            guest: guest.into(),
            faults: Vec::new(),
            transport: Transport::Socket,
            containers: Mutex::default(),
        }
    }

    /// Speaks to its guests over a stream of bytes alone.
    #[must_use]
    pub fn relayed(mut self) -> Self {
        self.transport = Transport::Relay;
        self
    }

    /// Puts in a fault.
    #[must_use]
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Claims that a control is enforced, which it is not.
    #[must_use]
    pub fn lying_about(mut self, control: Control) -> Self {
        self.capabilities =
            std::mem::take(&mut self.capabilities).with(control, Support::Enforced { by: "a lie".to_owned() });
        self
    }

    /// How many containers there are.
    pub fn len(&self) -> usize {
        self.containers().len()
    }

    /// Whether there is no container.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn containers(&self) -> MutexGuard<'_, HashMap<String, Container>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn before(&self, verb: Verb) -> Result<()> {
        if self.faults.contains(&Fault::Hang(verb)) {
            std::future::pending::<()>().await;
        }
        if self.faults.contains(&Fault::Fail(verb)) {
            return Err(Error::new(ErrorKind::Engine, format!("{verb:?} fails, as it was told")));
        }
        Ok(())
    }

    fn after(&self, verb: Verb) -> Result<()> {
        if self.faults.contains(&Fault::FailAfterwards(verb)) {
            return Err(Error::new(ErrorKind::Engine, format!("the answer of {verb:?} is lost, as it was told")));
        }
        Ok(())
    }
}

impl Container {
    fn status(&mut self) -> ContainerStatus {
        match &mut self.process {
            None => ContainerStatus::Created,
            Some(process) => match process.try_wait() {
                Ok(None) => ContainerStatus::Running,
                _ => ContainerStatus::Exited,
            },
        }
    }

    /// Ends the guest by the signal on which it ends all that it started, as the end of a PID namespace would, and waits
    /// for it.
    fn end(&mut self) {
        let Some(process) = &mut self.process else { return };
        let running = matches!(process.try_wait(), Ok(None));
        if let (true, Some(pid)) = (running, i32::try_from(process.id()).ok().and_then(rustix::process::Pid::from_raw))
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = process.wait();
        }
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn info(&self) -> &RuntimeInfo {
        &self.info
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn guest(&self) -> &[u8] {
        &self.guest
    }

    /// Nothing is mounted, and nobody is somebody else.
    fn ownership(&self, _: (u32, u32)) -> Ownership {
        Ownership { agent: Whose::Anybody, root: (self.info.root_uid, self.info.root_gid) }
    }

    async fn resolve(&self, spec: &SandboxSpec, _: &Events) -> Result<Image> {
        self.before(Verb::Resolve).await?;
        let reference = spec.image().clone();
        if reference.to_string() != Self::IMAGE {
            let how =
                if spec.pull() == PullRule::Never { "the policy forbids to pull it" } else { "nothing can be pulled" };
            return Err(Error::new(ErrorKind::ImageMissing, format!("image {reference} is not there, and {how}")));
        }
        Ok(Image { id: reference.to_string(), reference, user: None })
    }

    async fn create(&self, _: &SandboxSpec, wiring: &Wiring) -> Result<ContainerId> {
        self.before(Verb::Create).await?;
        let name = wiring.container_name();
        let container = Container {
            sandbox: wiring.sandbox,
            owner: wiring.owner.clone(),
            image: wiring.image.id.clone(),
            directory: wiring.guest_directory.clone(),
            stream: None,
            process: None,
        };
        self.containers().insert(name.clone(), container);
        self.after(Verb::Create)?;
        Ok(ContainerId::new(name))
    }

    fn transport(&self) -> Transport {
        self.transport
    }

    async fn attach(&self, id: &ContainerId) -> Result<OwnedFd> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| Error::io("cannot make a stream", error))?;
        let mut containers = self.containers();
        let container = containers
            .get_mut(id.as_str())
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no container {id}")))?;
        container.stream = Some(theirs);
        Ok(ours.into())
    }

    async fn start(&self, id: &ContainerId) -> Result<()> {
        self.before(Verb::Start).await?;
        {
            let mut containers = self.containers();
            let container = containers
                .get_mut(id.as_str())
                .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no container {id}")))?;
            let mut command = Command::new(container.directory.join(GUEST_PROGRAM));
            if let Some(stream) = container.stream.take() {
                let output = stream.try_clone().map_err(|error| Error::io("cannot start the guest", error))?;
                command.arg(relay::ARGUMENT).stdin(OwnedFd::from(stream)).stdout(OwnedFd::from(output));
            } else {
                let socket = container.directory.join(GUEST_SOCKET);
                command.arg(socket).stdin(Stdio::null()).stdout(Stdio::null());
            }
            command.env_clear().stderr(Stdio::null());
            let process = spawn(&mut command).map_err(|error| Error::io("cannot start the guest", error))?;
            container.process = Some(process);
        }
        self.after(Verb::Start)
    }

    async fn state(&self, id: &ContainerId) -> Result<ContainerState> {
        self.before(Verb::State).await?;
        let mut containers = self.containers();
        let (status, pid) = match containers.get_mut(id.as_str()) {
            None => (ContainerStatus::Gone, None),
            Some(container) => (container.status(), container.process.as_ref().map(Child::id)),
        };
        Ok(ContainerState { status, pid, settings: EffectiveSettings::default() })
    }

    async fn kill(&self, id: &ContainerId, _: Signal) -> Result<()> {
        if let Some(container) = self.containers().get_mut(id.as_str()) {
            container.end();
        }
        Ok(())
    }

    async fn delete(&self, id: &ContainerId) -> Result<()> {
        self.before(Verb::Delete).await?;
        if let Some(mut container) = self.containers().remove(id.as_str()) {
            container.end();
        }
        self.after(Verb::Delete)
    }

    async fn list(&self) -> Result<Vec<ContainerSummary>> {
        let mut containers = self.containers();
        Ok(containers
            .iter_mut()
            .map(|(name, container)| ContainerSummary {
                container: ContainerId::new(name.clone()),
                sandbox: container.sandbox,
                owner: Some(container.owner.clone()),
                image: container.image.clone(),
                status: container.status(),
                created: 0,
            })
            .collect())
    }
}

impl Drop for FakeRuntime {
    fn drop(&mut self) {
        for container in self.containers().values_mut() {
            container.end();
        }
    }
}

/// Starts a program that was just written. A process that another thread forks meanwhile holds it open for writing until that
/// one executes something, and so long it cannot be executed (execve(2), `ETXTBSY`).
fn spawn(command: &mut Command) -> io::Result<Child> {
    for _ in 0..BUSY {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => std::thread::sleep(PAUSE),
            done => return done,
        }
    }
    command.spawn()
}

/// How often a busy program is tried again, and how long after.
const BUSY: usize = 1_000;
const PAUSE: Duration = Duration::from_millis(1);
