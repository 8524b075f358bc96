//! The life of one sandbox, from the check to nothing left.
//!
//! One task owns all that is opened. It starts the sandbox step by step, hands out the handle, waits for a reason to end,
//! and unwinds the [teardown stack](crate::teardown). A caller who gives up, at any point, closes a channel that this
//! task watches; the task then unwinds as it would after a failure. It waits for nothing without a deadline, so it
//! always comes to its end.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_guest::frame::{Incoming, Outgoing};
use sandbox_guest::wire::{Hello, Identity, MAX_TO_GUEST, MAX_TO_HOST, PROTOCOL, Reply, Request, Setup, Sudo};
use sandbox_policy::{
    Access, AgentUser, Capabilities, Control, Isolation, Policy, ProtectionRule, SandboxRequest, SandboxSpec, SudoRule,
    Support, Workspace, WorkspaceKind,
};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};

use crate::attest::Attestation;
use crate::cover;
use crate::guest::{self, Guest};
use crate::ownership;
use crate::run_directory::RunDirectory;
use crate::sandbox::About;
use crate::teardown::{Teardown, Undo};
use crate::work::Seed;
use crate::workspace::{self, Brought};
use crate::{
    Agent, Cause, ContainerId, ContainerStatus, Error, ErrorKind, Event, EventSink, Events, Exposed, FileSystem,
    Gateway, Mirrors, Owner, Ownership, RepoGrant, Result, RunRoot, Runtime, Sandbox, SandboxId, TokenProvider,
    Transport, Underlay, Wiring,
};

/// All that a sandbox is started from.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) id: SandboxId,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) policy: Policy,
    pub(crate) request: SandboxRequest,
    pub(crate) sink: Arc<dyn EventSink>,
    pub(crate) gateways: Vec<Arc<dyn Gateway>>,
    pub(crate) tokens: Option<Arc<dyn TokenProvider>>,
    pub(crate) mirrors: Option<Mirrors>,
    pub(crate) run_root: RunRoot,
    pub(crate) connect_within: Duration,
}

/// How a sandbox ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) cause: Cause,
    /// What could not be undone, in words.
    pub(crate) residue: Vec<String>,
}

/// Starts a sandbox on a task of its own.
pub(crate) async fn start(plan: Plan) -> Result<Sandbox> {
    let events = Events::new(plan.id, Arc::clone(&plan.sink));
    let (spec, ownership) = check(&plan, &events)?;
    let (stop, stopped) = oneshot::channel();
    let (tell, told) = oneshot::channel();
    let (end, ended) = watch::channel(None);
    #[expect(clippy::disallowed_methods, reason = "this is the one task that owns the sandbox; it ends by itself")]
    tokio::spawn(live(plan, (spec, ownership), events, tell, stopped, end));
    let (about, guest) =
        told.await.unwrap_or_else(|_| Err(Error::new(ErrorKind::Io, "the runtime is shutting down")))?;
    Ok(Sandbox { about: Arc::new(about), guest, stop, ended })
}

/// Asks the policy; nothing has been touched before, and nothing is touched if it refuses.
fn check(plan: &Plan, events: &Events) -> Result<(SandboxSpec, Option<Ownership>)> {
    let mut capabilities = plan.runtime.capabilities().join(&own_capabilities());
    for gateway in &plan.gateways {
        capabilities = capabilities.join(&gateway.capabilities());
    }
    if let Some(tokens) = &plan.tokens {
        capabilities = capabilities.join(&tokens.capabilities());
    }
    if plan.runtime.transport() == Transport::Relay {
        capabilities = capabilities.join(&without_listeners());
    }
    let spec = plan.policy.check(&plan.request, &capabilities).inspect_err(|error| {
        events.report(Event::Refused { violations: error.violations().to_vec() });
    })?;
    if let Some((host, _)) = spec.workspace().and_then(Workspace::mounted)
        && plan.runtime.file_system() == FileSystem::Apart
    {
        events.report(Event::Refused { violations: Vec::new() });
        return Err(not_mountable(host.as_path(), &plan.runtime.info().endpoint));
    }
    if let Some(kind @ WorkspaceKind::Volume) = spec.workspace().map(|it| it.source.kind()) {
        events.report(Event::Refused { violations: Vec::new() });
        let message = format!("workspace kind {kind} is not there yet; bind, clone and copy are");
        return Err(Error::new(ErrorKind::InvalidInput, message).with_hint("mount a directory, or have it copied"));
    }
    let ownership = ownership::of(&spec, &*plan.runtime)
        .inspect_err(|_| events.report(Event::Refused { violations: Vec::new() }))?;
    for (control, why) in spec.waived() {
        events.announce(Event::Waived { control: *control, why: why.clone() })?;
    }
    Ok((spec, ownership))
}

/// The error of a workspace on an engine that does not see it.
fn not_mountable(path: &Path, endpoint: &str) -> Error {
    let path = path.display();
    let message =
        format!("workspace {path} cannot be mounted: the engine at {endpoint} shares no file system with this machine");
    Error::new(ErrorKind::InvalidInput, message)
        .with_hint("have the directory copied: `--copy`, or `SandboxBuilder::workspace_copy`")
}

/// What holds on every engine, because the guest or the sandbox's own task sees to it.
pub fn own_capabilities() -> Capabilities {
    let by = |by: &str| Support::Enforced { by: by.to_owned() };
    Capabilities::new()
        .with(Control::AgentUser, by("the guest, which starts every program as the agent"))
        .with(Control::NoNewPrivileges, by("the guest, which sets no_new_privs on every program"))
        .with(Control::OpenFiles, by("the guest, by RLIMIT_NOFILE"))
        .with(Control::WallClock, by("the sandbox's task, and the guest's own clock"))
}

/// What cannot be had where no listener can be passed out of a sandbox, whoever offers it.
fn without_listeners() -> Capabilities {
    let unsupported = || Support::Unsupported {
        why: "the engine's connection carries bytes alone, and no listening socket".to_owned(),
        hint: "use an engine whose guest connects to a socket".to_owned(),
    };
    [Control::EgressAllowlist, Control::GitBroker, Control::Sudo]
        .into_iter()
        .fold(Capabilities::new(), |all, control| all.with(control, unsupported()))
}

type Tell = oneshot::Sender<Result<(About, Guest)>>;

async fn live(
    plan: Plan,
    (spec, ownership): (SandboxSpec, Option<Ownership>),
    events: Events,
    tell: Tell,
    mut stopped: oneshot::Receiver<()>,
    end: watch::Sender<Option<Arc<Ended>>>,
) {
    let mut teardown = Teardown::default();
    // Before the guest's own clock begins, so that an end by that clock is told from a guest that broke off.
    let began = Instant::now();
    let lifetime = spec.limits().lifetime.as_duration();
    let started = Start { plan: &plan, events: &events, stopped: &mut stopped, teardown: &mut teardown }
        .run(spec, ownership)
        .await;
    let cause = match started {
        Err(error) => {
            let wanted = matches!(stopped.try_recv(), Err(oneshot::error::TryRecvError::Empty));
            let cause = if wanted { Cause::Failed } else { Cause::Cancelled };
            let residue = unwind(&events, cause, &mut teardown).await;
            // A caller who has given up needs no reason.
            let _ = tell.send(Err(error.with_residue(residue)));
            return;
        }
        Ok((about, guest)) => {
            let watched = guest.clone();
            let cause = if tell.send(Ok((about, guest))).is_err() {
                Cause::Cancelled
            } else {
                tokio::select! {
                    asked = &mut stopped => if asked.is_ok() { Cause::Requested } else { Cause::Dropped },
                    () = watched.closed() => if began.elapsed() < lifetime { Cause::GuestEnded } else { Cause::LifetimeOver },
                    () = tokio::time::sleep(lifetime) => Cause::LifetimeOver,
                }
            };
            // Whatever handles there are: a container that ends by itself is removed sooner than one that is killed.
            watched.close();
            cause
        }
    };
    let residue = unwind(&events, cause, &mut teardown).await;
    let residue = residue.iter().map(chain).collect();
    end.send_replace(Some(Arc::new(Ended { cause, residue })));
}

async fn unwind(events: &Events, cause: Cause, teardown: &mut Teardown) -> Vec<Error> {
    events.report(Event::Destroying { cause });
    let residue = teardown.unwind().await;
    events.report(Event::Destroyed { residue: residue.iter().map(chain).collect() });
    residue
}

/// An error and its causes, in one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// A start under way.
struct Start<'a> {
    plan: &'a Plan,
    events: &'a Events,
    stopped: &'a mut oneshot::Receiver<()>,
    teardown: &'a mut Teardown,
}

impl Start<'_> {
    async fn run(mut self, spec: SandboxSpec, ownership: Option<Ownership>) -> Result<(About, Guest)> {
        let Plan { id, ref runtime, ref run_root, .. } = *self.plan;
        let events = self.events;
        let image = self.unless_given_up(runtime.resolve(&spec, events)).await?;
        let agent = Agent::of(&spec, &image, ownership.as_ref())?;

        let token = self.token(&spec).await?;
        let exposed = run_root.exposed()?;
        let tokens = self.plan.tokens.as_deref().zip(token.as_ref());
        let finding = workspace::find(&spec, self.plan.mirrors.as_ref(), tokens, &exposed, runtime.underlays(), events);
        let found = self.unless_given_up(Box::pin(finding)).await?;
        let checkout = found.as_ref().and_then(Seed::checkout).cloned();
        let underlay = checkout.as_ref().zip(spec.workspace()).map(|(checkout, workspace)| Underlay {
            source: checkout.tree(),
            target: workspace.guest.as_path().to_owned(),
        });
        if let Some(checkout) = checkout {
            self.teardown.push(Undo::Checkout(checkout));
        }
        let mut environment = Vec::new();
        for gateway in &self.plan.gateways {
            events.announce(Event::GatewayOpening { gateway: gateway.name().to_owned() })?;
            let open = within("opening a gateway", gateway.open(&spec, events, token.clone())).await?;
            environment.extend(open.environment());
            self.teardown.push(Undo::Gateway(open));
        }

        if let Some(workspace) = spec.workspace().filter(|workspace| !workspace.is_in_layer()) {
            let target = workspace.guest.as_path().display().to_string();
            events.announce(Event::WorkspacePreparing { target })?;
        }
        let directory = RunDirectory::named(run_root, id);
        self.teardown.push(Undo::RunDirectory(directory.clone()));
        let info = runtime.info();
        let root = ownership.map_or((info.root_uid, info.root_gid), |ownership| ownership.root);
        directory.prepare(run_root, runtime.guest(), root, (info.root_uid, info.root_gid))?;
        if let Some((host, Access::ReadWrite)) = spec.workspace().and_then(Workspace::mounted) {
            let covered = spec.workspace_covered().iter().map(|part| part.as_path().to_owned()).collect();
            directory.expose(&Exposed { directory: host.as_path().to_owned(), covered })?;
        }
        let (laid, held) = cover::lay(&spec, &directory.placeholders(), &directory.guest_directory())?;
        if !laid.covers.is_empty() || !laid.blanks.is_empty() {
            self.teardown.push(Undo::Covers(held));
        }
        if !laid.blanks.is_empty() {
            environment.extend(workspace::trusted(&spec));
        }
        let relayed = runtime.transport() == Transport::Relay;
        let listener = if relayed { None } else { Some(directory.listen(root)?) };

        let wiring = Wiring {
            sandbox: id,
            owner: Owner::current()?,
            image: image.clone(),
            agent,
            root,
            guest_directory: directory.guest_directory(),
            covers: laid.covers,
            blanks: laid.blanks,
            underlay,
            file_system: runtime.file_system(),
        };
        self.still_wanted()?;
        events.announce(Event::Creating { image: image.id.clone() })?;
        // By its name, since a call that fails may have made it all the same.
        self.teardown.push(Undo::Container(Arc::clone(runtime), ContainerId::new(wiring.container_name())));
        // Neither call is given up half-way: what an engine is told, it does.
        let container = within("making the container", runtime.create(&spec, &wiring)).await?;
        self.still_wanted()?;
        // Before it runs, so that nothing it says is missed.
        let stream =
            if relayed { Some(within("attaching to the container", runtime.attach(&container)).await?) } else { None };
        events.announce(Event::Starting { container: container.to_string() })?;
        within("starting the container", runtime.start(&container)).await?;

        let channel = match (listener, stream) {
            (_, Some(stream)) => guest::relayed(stream)?,
            (Some(listener), None) => {
                let channel = self.connect(&listener, &container).await?;
                directory.close_door()?;
                channel
            }
            (None, None) => return Err(Error::new(ErrorKind::Engine, "there is no way to the guest")),
        };
        let channel =
            greet(channel, &spec, (&wiring.agent, runtime.isolation()), environment, self.plan.connect_within).await?;
        let guest = Guest::new(channel, Some(events.clone()));
        let (agent, attestation) = self.attest(&guest, &spec, &container, &wiring).await?;
        // It holds a buffer and git's output, and is too much for a stack.
        let own = run_root.of(id);
        let brought = Brought { cloned: found, blanks: &wiring.blanks, own: laid.repository.as_ref(), agent };
        let filling = Box::pin(workspace::fill(&guest, &spec, brought, events, &own));
        self.unless_given_up(filling).await?;
        for gateway in self.teardown.gateways() {
            within("attaching a gateway", gateway.attach(&guest)).await?;
        }
        Ok((About { id, spec, agent, image, container, runtime: info.clone(), attestation }, guest))
    }

    async fn token(&mut self, spec: &SandboxSpec) -> Result<Option<crate::Token>> {
        let (Some(provider), Some(repository)) = (&self.plan.tokens, spec.repository()) else { return Ok(None) };
        if spec.scopes().is_empty() {
            return Ok(None);
        }
        self.events.announce(Event::TokenMinting { repository: repository.to_string() })?;
        let grant = RepoGrant { repository: repository.clone(), scopes: spec.scopes().clone() };
        let token = within("minting a token", provider.token(&grant)).await?.at(provider.server());
        self.teardown.push(Undo::Token(Arc::clone(provider), token.clone()));
        let sha256 = token.sha256();
        self.events.announce(Event::TokenMinted { repository: repository.to_string(), sha256 })?;
        if spec.require_protected_default_branch() == ProtectionRule::Required {
            self.events.announce(Event::ProtectionChecking { repository: repository.to_string() })?;
            let found = within("looking at the default branch", provider.default_branch(&token)).await?;
            spec.weigh_default_branch(&found).map_err(|refusal| {
                self.events.report(Event::Refused { violations: refusal.violations().to_vec() });
                Error::from(refusal).with_hint("protect the default branch, or let the policy do without")
            })?;
        }
        Ok(Some(token))
    }

    /// Waits for the guest. Only the container's first process, as the engine names it, is let in.
    async fn connect(&mut self, listener: &UnixListener, container: &ContainerId) -> Result<UnixStream> {
        let within = self.plan.connect_within;
        let runtime = &self.plan.runtime;
        let accept = async {
            let pid = runtime.state(container).await?.pid;
            loop {
                tokio::select! {
                    connection = listener.accept() => {
                        let (socket, _) = connection.map_err(|error| Error::io("cannot accept the guest", error))?;
                        let peer = socket.peer_cred().map_err(|error| Error::io("cannot tell who connected", error))?.pid();
                        if peer.is_some() && peer == pid.and_then(|pid| i32::try_from(pid).ok()) {
                            return Ok(socket);
                        }
                    }
                    // A container that dies early would otherwise be waited for until the deadline.
                    () = tokio::time::sleep(LOOK_AGAIN) => {
                        if runtime.state(container).await?.status != ContainerStatus::Running {
                            return Err(Error::new(ErrorKind::Guest, "the container ended before its guest connected")
                                .with_hint("can the image's machine run a static Linux program of this architecture?"));
                        }
                    }
                }
            }
        };
        let timed = async {
            tokio::time::timeout(within, accept)
                .await
                .unwrap_or_else(|_| Err(Error::deadline("the guest's connection", within)))
        };
        given_up(self.stopped, timed).await
    }

    /// Reads back what is in force, from inside and from the engine, and compares it with what was asked.
    async fn attest(
        &mut self,
        guest: &Guest,
        spec: &SandboxSpec,
        container: &ContainerId,
        wiring: &Wiring,
    ) -> Result<(AgentUser, Attestation)> {
        let look = async {
            let mut control = guest.request(Request::Attest, Vec::new()).await?;
            let answer = control.answer("reading back what is in force", guest::ANSWER).await?;
            let (Reply::Observed(inside), _) = answer else {
                return Err(Error::new(ErrorKind::Guest, "the guest did not report what is in force"));
            };
            let outside = within("asking the engine what is in force", self.plan.runtime.state(container)).await?;
            let agent = wiring.agent.settle(&wiring.image, inside.identity)?;
            Ok((agent, Attestation::compare(spec, wiring, &inside, &outside.settings)))
        };
        let (agent, attestation) = given_up(self.stopped, look).await?;
        attestation.verify()?;
        self.events.announce(Event::Attested {
            enforced: spec.required().iter().copied().collect(),
            waived: spec.waived().keys().copied().collect(),
        })?;
        Ok((agent, attestation))
    }

    fn still_wanted(&mut self) -> Result<()> {
        match self.stopped.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => Ok(()),
            _ => Err(abandoned()),
        }
    }

    async fn unless_given_up<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        given_up(self.stopped, work).await
    }
}

/// Does work that may be broken off, until nobody wants it any more.
async fn given_up<T>(stopped: &mut oneshot::Receiver<()>, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        _ = stopped => Err(abandoned()),
        result = work => result,
    }
}

/// Does work that is not broken off half-way, unless it hangs.
async fn within<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(STEP, work).await.unwrap_or_else(|_| Err(Error::deadline(what, STEP)))
}

fn abandoned() -> Error {
    Error::new(ErrorKind::SandboxGone, "the start was given up")
}

/// Exchanges the first messages.
async fn greet(
    channel: UnixStream,
    spec: &SandboxSpec,
    (agent, isolation): (&Agent, Isolation),
    environment: Vec<(String, String)>,
    within: Duration,
) -> Result<UnixStream> {
    let asked = Instant::now();
    let exchange = async {
        let hello = hello(&channel).await?;
        if hello.protocol != PROTOCOL {
            let given = hello.protocol;
            return Err(Error::new(ErrorKind::Guest, format!("the guest speaks version {given}, not {PROTOCOL}")));
        }
        let ids = agent.ids().unwrap_or_default();
        let setup = Setup {
            protocol: PROTOCOL,
            agent: Identity { uid: ids.uid(), gid: ids.gid() },
            user: match agent {
                Agent::Ids(_) => None,
                Agent::Named(user) => Some(user.clone()),
            },
            lifetime: spec.limits().lifetime.as_seconds().into(),
            open_files: spec.limits().open_files.get().into(),
            environment: environment.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes())).collect(),
            // gVisor's processes are its own to count: to the host's kernel they are threads of it.
            processes: (isolation == Isolation::Gvisor).then(|| spec.limits().processes.get().into()),
            sudo: if spec.sudo() == SudoRule::Deny { Sudo::Denied } else { Sudo::Offered },
            workspace: spec
                .workspace()
                .filter(|workspace| workspace.is_in_layer())
                .map(|workspace| workspace.guest.as_str().into()),
        };
        let frame = Outgoing::new(&setup, MAX_TO_GUEST).map_err(broken)?;
        guest::send(&channel, frame, &[]).await.map_err(broken)
    };
    tokio::time::timeout(within, exchange)
        .await
        .unwrap_or_else(|_| Err(Error::deadline("the guest's greeting", asked.elapsed())))?;
    Ok(channel)
}

async fn hello(channel: &UnixStream) -> Result<Hello> {
    let mut frame = Incoming::new(MAX_TO_HOST);
    loop {
        channel.readable().await.map_err(broken)?;
        match channel.try_io(Interest::READABLE, || frame.advance(channel)) {
            Ok(()) => return Ok(frame.finish().map_err(broken)?.0),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(broken(error)),
        }
    }
}

fn broken(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Guest, "the guest broke off its greeting").with_source(error)
}

/// How long one step of a start may take; the runtime's own deadlines are shorter and say more.
const STEP: Duration = Duration::from_mins(2);

/// How often a container whose guest has not connected is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
