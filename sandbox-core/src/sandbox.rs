//! The handle of a running sandbox.

use std::ffi::OsStr;
use std::ops::Deref;
use std::sync::Arc;

use sandbox_policy::{AgentUser, SandboxSpec};
use tokio::sync::{oneshot, watch};

use crate::lifecycle::Ended;
use crate::{
    Attestation, Cause, Command, ContainerId, Error, ErrorKind, Guest, Image, Result, RuntimeInfo, SandboxBuilder,
    SandboxId,
};

/// A container for one repository and one branch, in which everything may be done.
///
/// It derefs to its [`Guest`], so programs, terminals and files are methods of the sandbox itself. Dropping it takes it
/// down without waiting; [`destroy`](Self::destroy) waits and says whether anything was left.
#[derive(Debug)]
#[must_use = "a sandbox that is dropped is taken down"]
pub struct Sandbox {
    pub(crate) about: Arc<About>,
    pub(crate) guest: Guest,
    /// Asks for the end; dropping it asks as well.
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) ended: watch::Receiver<Option<Arc<Ended>>>,
}

/// What is known of a sandbox from its start.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) id: SandboxId,
    pub(crate) spec: SandboxSpec,
    pub(crate) agent: AgentUser,
    pub(crate) image: Image,
    pub(crate) container: ContainerId,
    pub(crate) runtime: RuntimeInfo,
    pub(crate) attestation: Attestation,
}

impl Sandbox {
    /// Starts to describe a sandbox.
    pub fn builder() -> SandboxBuilder {
        SandboxBuilder::new()
    }

    /// Its name.
    pub fn id(&self) -> SandboxId {
        self.about.id
    }

    /// What the policy agreed to.
    pub fn spec(&self) -> &SandboxSpec {
        &self.about.spec
    }

    /// Whom the agent runs as, also where the image said it.
    pub fn agent(&self) -> AgentUser {
        self.about.agent
    }

    /// The image that runs.
    pub fn image(&self) -> &Image {
        &self.about.image
    }

    /// The engine's id of its container.
    pub fn container(&self) -> &ContainerId {
        &self.about.container
    }

    /// The engine that holds it.
    pub fn runtime(&self) -> &RuntimeInfo {
        &self.about.runtime
    }

    /// What was asked and what is in force, control by control.
    pub fn attestation(&self) -> &Attestation {
        &self.about.attestation
    }

    /// Its guest, as a handle that can be cloned and sent.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Prepares to run a program as the agent, in the workspace if there is one.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let command = self.guest.command(program);
        match self.about.spec.workspace() {
            Some(workspace) => command.directory(workspace.guest.as_path()),
            None => command,
        }
        .envs(self.about.spec.environment().iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// Waits until the sandbox has ended, and says why.
    ///
    /// # Errors
    /// `Residue` if something was left behind.
    pub async fn ended(&self) -> Result<Cause> {
        Ended::wait(self.ended.clone()).await
    }

    /// Takes the sandbox down and waits until all of it is gone.
    ///
    /// # Errors
    /// `Residue` with each thing that could not be undone; a [reaper](crate::reap) will find them.
    pub async fn destroy(self) -> Result<Cause> {
        let Self { about: _, guest, stop, ended } = self;
        drop(guest);
        // An error means that it has ended by itself.
        let _ = stop.send(());
        Ended::wait(ended).await
    }
}

impl Deref for Sandbox {
    type Target = Guest;

    fn deref(&self) -> &Guest {
        &self.guest
    }
}

impl Ended {
    async fn wait(mut ended: watch::Receiver<Option<Arc<Self>>>) -> Result<Cause> {
        let lost = || Error::new(ErrorKind::Residue, "the sandbox's own task was ended before it could clean up");
        let ended = ended.wait_for(Option::is_some).await.map_err(|_| lost())?.clone().ok_or_else(lost)?;
        if ended.residue.is_empty() {
            return Ok(ended.cause);
        }
        let count = ended.residue.len();
        Err(Error::new(ErrorKind::Residue, format!("{count} things could not be undone: {}", ended.residue.join("; ")))
            .with_hint(
                "clean up what is left once the engine answers again: `sandbox cleanup`, or `sandbox_core::reap`",
            ))
    }
}
