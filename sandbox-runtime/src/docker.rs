//! Docker, as root, rootless or with `userns-remap`.

use sandbox_core::Result;

use crate::engine::{self, Endpoint, Engine, Product};

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
    pub(crate) engine: Engine,
}

impl DockerRuntime {
    /// Connects to the engine at an address, and probes what it enforces.
    ///
    /// # Errors
    /// `EngineUnavailable` where nothing, or something else, answers; `DeadlineExceeded` where it does not answer
    /// within seconds. Each names the address.
    pub async fn connect(endpoint: Endpoint) -> Result<Self> {
        engine::connect(endpoint, Some(Product::Docker)).await.map(|engine| Self { engine })
    }

    /// Speaks to guests over the engine's own connection instead of a socket that host and container share, for engines
    /// whose containers see the host's files and not its sockets.
    #[must_use]
    pub fn over_relay(mut self) -> Self {
        self.engine.relay();
        self
    }

    /// Runs sandboxes on gVisor, a kernel of their own, where the engine has it as its runtime `runsc`; where it has not,
    /// [`Control::Isolation`](sandbox_policy::Control::Isolation) is reported as unsupported, and nothing is started.
    ///
    /// Guests are spoken to over the engine's own connection, and the other controls are reported anew.
    #[must_use]
    pub fn with_gvisor(mut self) -> Self {
        self.engine.isolate();
        self
    }
}

engine::runtime_of_an_engine!(DockerRuntime);
