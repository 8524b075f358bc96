//! Docker, rootful or rootless.

use async_trait::async_trait;
use sandbox_core::{
    ContainerId, ContainerState, ContainerSummary, Events, Image, Result, Runtime, RuntimeInfo, Signal, Wiring,
};
use sandbox_policy::{Capabilities, ImageRef, SandboxSpec};
use tokio::io::AsyncRead;

use crate::engine::{self, Endpoint, Engine};
use crate::guest_program;

/// Runs sandboxes on a Docker engine.
///
/// ```no_run
/// # async fn example() -> sandbox_core::Result<()> {
/// use sandbox_core::Runtime as _;
/// use sandbox_runtime::{DockerRuntime, Endpoint};
///
/// let endpoint: Endpoint = "unix:///var/run/docker.sock".parse()?;
/// let docker = DockerRuntime::connect(endpoint).await?;
/// for (control, support) in docker.capabilities().iter() {
///     println!("{control}: {support:?}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DockerRuntime {
    engine: Engine,
}

impl DockerRuntime {
    /// Connects to the engine at an address, and probes what it enforces.
    ///
    /// # Errors
    /// `EngineUnavailable` where nothing, or something else, answers; `DeadlineExceeded` where it does not answer
    /// within seconds. Each names the address.
    pub async fn connect(endpoint: Endpoint) -> Result<Self> {
        engine::connect(endpoint).await.map(|engine| Self { engine })
    }

    /// Makes an image of a tar archive, perhaps compressed, that holds a root file system, as `docker import` does.
    ///
    /// # Errors
    /// `InvalidInput` for a reference with a digest or an id, `ImageInvalid`, or one of the engine's.
    pub async fn import_rootfs<R>(&self, archive: R, reference: &ImageRef) -> Result<Image>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        self.engine.import_rootfs(archive, reference).await
    }

    /// Takes the images out of an archive that `docker save` made.
    ///
    /// # Errors
    /// `ImageInvalid` for an archive without an image and for images that no sandbox may use, or one of the engine's.
    pub async fn load_archive<R>(&self, archive: R) -> Result<Vec<Image>>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        self.engine.load_archive(archive).await
    }
}

#[async_trait]
impl Runtime for DockerRuntime {
    fn info(&self) -> &RuntimeInfo {
        self.engine.info()
    }

    fn capabilities(&self) -> &Capabilities {
        self.engine.capabilities()
    }

    fn guest(&self) -> &[u8] {
        guest_program()
    }

    async fn resolve(&self, spec: &SandboxSpec, events: &Events) -> Result<Image> {
        self.engine.resolve(spec, events).await
    }

    async fn create(&self, spec: &SandboxSpec, wiring: &Wiring) -> Result<ContainerId> {
        self.engine.create(spec, wiring).await
    }

    async fn start(&self, container: &ContainerId) -> Result<()> {
        self.engine.start(container).await
    }

    async fn state(&self, container: &ContainerId) -> Result<ContainerState> {
        self.engine.state(container).await
    }

    async fn kill(&self, container: &ContainerId, signal: Signal) -> Result<()> {
        self.engine.kill(container, signal).await
    }

    async fn delete(&self, container: &ContainerId) -> Result<()> {
        self.engine.delete(container).await
    }

    async fn list(&self) -> Result<Vec<ContainerSummary>> {
        self.engine.list().await
    }
}
