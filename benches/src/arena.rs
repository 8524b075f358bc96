//! Where the contenders meet: one sandbox and one container on the same engine.

use sandbox_core::Sandbox;
use tokio::runtime::Runtime;

use crate::{CommandLine, Engine, Ours, Raw, Result};

/// A sandbox and an ordinary container of the same image, and everybody who works in them.
#[derive(Debug)]
pub struct Arena {
    tokio: Runtime,
    /// Makes sandboxes.
    pub ours: Ours,
    /// Speaks to the engine.
    pub raw: Raw,
    /// Runs the engine's command.
    pub docker: CommandLine,
    /// A sandbox that runs.
    pub sandbox: Sandbox,
    /// The id of a container that runs.
    pub container: String,
}

impl Arena {
    /// Starts both, does something with them, and removes both, however that went.
    ///
    /// # Errors
    /// The engine's, or those of the work.
    pub fn with<T>(engine: &Engine, work: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let tokio = Runtime::new()?;
        let ours = tokio.block_on(Ours::connect(engine))?;
        let raw = tokio.block_on(Raw::connect(engine))?;
        let sandbox = tokio.block_on(ours.start())?;
        let container = match tokio.block_on(raw.start()) {
            Ok(container) => container,
            Err(error) => {
                tokio.block_on(sandbox.destroy())?;
                return Err(error);
            }
        };
        let arena = Self { tokio, ours, raw, docker: CommandLine::new(engine), sandbox, container };
        let result = work(&arena);
        let Self { tokio, ours: _, raw, docker: _, sandbox, container } = arena;
        let removed = tokio.block_on(raw.remove(&container));
        tokio.block_on(sandbox.destroy())?;
        removed?;
        result
    }

    /// Waits for work to be done.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.tokio.block_on(work)
    }

    /// Waits for work to be done by a task, as most of an orchestrator's work is.
    ///
    /// # Errors
    /// Those of the work.
    pub fn in_a_task<T: Send + 'static>(&self, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
        self.tokio.block_on(self.tokio.spawn(work))?
    }
}
