//! The work, done in a sandbox.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sandbox_core::policy::{Allowlist, Control, Egress, EgressRule, History, Policy, WorkspaceKind};
use sandbox_core::{
    Envelope, Event, EventSink, Guest, Mirrors, Resolve, Runtime, Sandbox, SandboxBuilder, Status, TransferLimits,
};
use sandbox_runtime::{DockerRuntime, EmbeddedOptions, EmbeddedRuntime, HOST_IMAGE};
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;

use crate::{Engine, Failure, Forge, IMAGE, Result};

/// Starts sandboxes of the standard policy.
#[derive(Debug)]
pub struct Ours {
    runtime: Arc<dyn Runtime>,
    policy: Policy,
    image: &'static str,
}

/// The times of one sandbox, from nothing to nothing.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// From the first call until the first byte that its program wrote.
    pub first_output: Duration,
    /// From the call that ends it until it is gone.
    pub destroy: Duration,
}

impl Ours {
    /// Connects to the engine, and waives what it does not enforce.
    ///
    /// # Errors
    /// The engine's.
    pub async fn connect(engine: &Engine) -> Result<Self> {
        Ok(Self::on(DockerRuntime::connect(engine.address.parse()?).await?, IMAGE))
    }

    /// Needs no engine; everything is kept in a directory, and the image is this machine's own programs.
    ///
    /// # Errors
    /// If no container can be made.
    pub async fn embedded(state: &Path) -> Result<Self> {
        Ok(Self::on(EmbeddedRuntime::connect(EmbeddedOptions::new(state)).await?, HOST_IMAGE))
    }

    fn on(runtime: impl Runtime, image: &'static str) -> Self {
        let lacking = runtime.capabilities().iter().map(|(control, _)| control);
        let lacking: Vec<Control> = lacking.filter(|control| !runtime.capabilities().is_enforced(*control)).collect();
        let policy = lacking.into_iter().fold(Policy::standard(), Policy::with_waived);
        Self { runtime: Arc::new(runtime), policy, image }
    }

    /// Describes a sandbox.
    pub fn builder(&self) -> SandboxBuilder {
        let builder = Sandbox::builder().shared_runtime(Arc::clone(&self.runtime));
        builder.policy(self.policy.clone()).image(self.image)
    }

    /// Starts a sandbox.
    ///
    /// # Errors
    /// The sandbox's.
    pub async fn start(&self) -> Result<Sandbox> {
        Ok(self.builder().start().await?)
    }

    /// Starts a sandbox, waits for the first output of a program in it, and destroys it.
    ///
    /// # Errors
    /// The sandbox's.
    pub async fn turn(&self) -> Result<Turn> {
        let begun = Instant::now();
        let sandbox = self.start().await?;
        let came = Self::first_output(&sandbox).await;
        let first_output = begun.elapsed();
        let ended = Instant::now();
        sandbox.destroy().await?;
        came.map(|()| Turn { first_output, destroy: ended.elapsed() })
    }

    /// Starts a sandbox with a copy of a directory, and destroys it; returns how long the start took from when the copy began.
    ///
    /// # Errors
    /// The sandbox's, and if there was no copy.
    pub async fn copied(&self, from: &Path) -> Result<Duration> {
        let clock = Clock::default();
        let sandbox = self.builder().workspace_copy(from).events(clock.clone()).start().await?;
        let ended = Instant::now();
        sandbox.destroy().await?;
        let begun = clock.0.lock().unwrap_or_else(PoisonError::into_inner).ok_or("nothing was copied")?;
        Ok(ended.duration_since(begun))
    }

    /// Starts a sandbox with a clone of a server's repository, and destroys it; returns how long all of the start took. The mirror,
    /// and what else is kept, lies in a directory.
    ///
    /// # Errors
    /// The sandbox's, and if what was cloned is not as it was committed.
    pub async fn cloned(&self, forge: &Forge, mirrors: &Path) -> Result<Duration> {
        let rule = EgressRule::new(forge.name().parse()?).with_ports([forge.address.port()]);
        let rule = rule.with_addresses([forge.address.ip()])?;
        let egress = Egress::list(Allowlist { bundles: [].into(), rules: [rule].into() });
        let policy = self.policy.clone().with_workspace_kinds(WorkspaceKind::ALL.iter().copied()).with_egress(egress);
        let mirrors = Mirrors::new(mirrors).with_authorities(forge.authority()).with_resolver(At(forge.address.ip()));
        let begun = Instant::now();
        let builder = self.builder().policy(policy).mirrors(mirrors);
        let sandbox = builder.workspace_clone(forge.url().parse()?, History::Full).start().await?;
        let took = begun.elapsed();
        let differs = sandbox.command("git").args(["status", "--porcelain"]).directory("/workspace").output().await;
        sandbox.destroy().await?;
        let differs = differs?;
        if differs.exit.status != Status::Code(0) || !differs.stdout.is_empty() {
            return Err(format!("the clone is not what was committed: {differs:?}").into());
        }
        Ok(took)
    }

    /// Starts so many sandboxes at once, waits for the first output of a program in each of them, and then destroys them;
    /// returns after what time all had answered.
    ///
    /// # Errors
    /// The first of the sandboxes'.
    pub async fn crowd(self: &Arc<Self>, count: usize) -> Result<Duration> {
        let begun = Instant::now();
        let mut starting = JoinSet::new();
        for _ in 0..count {
            let ours = Arc::clone(self);
            starting.spawn(async move {
                let sandbox = ours.start().await?;
                let came = Self::first_output(&sandbox).await;
                Ok::<_, Failure>((sandbox, came))
            });
        }
        let started = starting.join_all().await;
        let took = begun.elapsed();
        let mut ending = JoinSet::new();
        let mut failed = None;
        for one in started {
            match one {
                Ok((sandbox, came)) => {
                    failed = failed.or(came.err());
                    ending.spawn(async move { sandbox.destroy().await });
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        for ended in ending.join_all().await {
            ended?;
        }
        failed.map_or(Ok(took), Err)
    }

    async fn first_output(sandbox: &Sandbox) -> Result<()> {
        // It stays until the sandbox ends, as the engine's container does.
        let command = sandbox.command("sh").args(["-c", "echo ready; exec sleep infinity"]);
        command.spawn().await?.stdout()?.read_u8().await?;
        Ok(())
    }

    /// Runs `true` to its end.
    ///
    /// # Errors
    /// The sandbox's.
    pub async fn exec(sandbox: &Sandbox) -> Result<Duration> {
        let begun = Instant::now();
        let output = sandbox.command("true").output().await?;
        let took = begun.elapsed();
        if output.exit.status != Status::Code(0) {
            return Err(format!("true ended with {:?}", output.exit.status).into());
        }
        Ok(took)
    }

    /// Takes this many bytes of a program's output.
    ///
    /// # Errors
    /// The sandbox's.
    pub async fn stream(guest: Guest, bytes: u64) -> Result<Duration> {
        let begun = Instant::now();
        let mut counter = Counter(0);
        let command = guest.command("head").args(["-c", &bytes.to_string(), "/dev/zero"]);
        command.spawn().await?.copy_output(&mut counter, tokio::io::sink()).await?;
        let took = begun.elapsed();
        if counter.0 != bytes {
            return Err(format!("{} bytes came, not {bytes}", counter.0).into());
        }
        Ok(took)
    }

    /// Copies a host directory in; what an earlier copy left is removed first.
    ///
    /// # Errors
    /// The sandbox's.
    pub async fn upload(sandbox: &Sandbox, from: &Path) -> Result<Duration> {
        sandbox.command("rm").args(["-rf", INSIDE]).output().await?;
        let begun = Instant::now();
        sandbox.upload(from, INSIDE, TransferLimits::default()).await?;
        Ok(begun.elapsed())
    }

    /// Copies out what [`upload`](Self::upload) copied in.
    ///
    /// # Errors
    /// The sandbox's.
    pub async fn download(sandbox: &Sandbox, to: &Path) -> Result<Duration> {
        let begun = Instant::now();
        sandbox.download(INSIDE, to, TransferLimits::default()).await?;
        Ok(begun.elapsed())
    }
}

/// Where files go inside.
const INSIDE: &str = "/home/agent/tree";

/// Remembers when a workspace was begun.
#[derive(Clone, Debug, Default)]
struct Clock(Arc<Mutex<Option<Instant>>>);

impl EventSink for Clock {
    fn record(&self, envelope: &Envelope) -> sandbox_core::Result<()> {
        if matches!(envelope.event, Event::WorkspacePreparing { .. }) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        Ok(())
    }
}

/// Knows one address, for every name.
#[derive(Debug)]
struct At(std::net::IpAddr);

#[async_trait]
impl Resolve for At {
    async fn resolve(&self, _: &str) -> std::io::Result<Vec<std::net::IpAddr>> {
        Ok(vec![self.0])
    }
}

/// A writer that counts.
#[derive(Debug)]
struct Counter(u64);

impl tokio::io::AsyncWrite for Counter {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        data: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.0 += data.len() as u64;
        std::task::Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}
