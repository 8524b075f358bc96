//! Seam 3: a checkpoint on the host that a sandbox talks through.

use std::fmt;

use async_trait::async_trait;
use sandbox_policy::{Capabilities, SandboxSpec};

use crate::{Events, Guest, Result, Token};

/// Opens checkpoints.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait Gateway: fmt::Debug + Send + Sync + 'static {
    /// Its name, for events: `egress`, `git`.
    fn name(&self) -> &str;

    /// What an open gateway enforces.
    fn capabilities(&self) -> Capabilities;

    /// Opens the checkpoint for one sandbox, before its container is made. The token is there if the sandbox has a
    /// repository and a token provider.
    ///
    /// # Errors
    /// Whatever keeps it from opening: then the sandbox does not start.
    async fn open(&self, spec: &SandboxSpec, events: &Events, token: Option<Token>) -> Result<Box<dyn OpenGateway>>;
}

/// A checkpoint that is open for one sandbox.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait OpenGateway: fmt::Debug + Send {
    /// Variables by which programs inside find it. Neither the image's own nor the caller's are replaced.
    fn environment(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// Meets the guest, before any program of the agent runs.
    ///
    /// # Errors
    /// Whatever keeps it from serving: then the sandbox does not start.
    async fn attach(&mut self, guest: &Guest) -> Result<()>;

    /// Closes it. When this returns, nothing can pass any more.
    ///
    /// # Errors
    /// What could not be undone.
    async fn close(self: Box<Self>) -> Result<()>;
}
