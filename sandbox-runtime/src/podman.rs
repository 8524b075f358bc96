//! Podman, as root or rootless, by the service that speaks Docker's API (podman-system-service(1)).

use sandbox_core::Result;

use crate::engine::{self, Endpoint, Engine, Product};

/// Runs sandboxes on a Podman engine.
///
/// ```no_run
/// # async fn example() -> sandbox_core::Result<()> {
/// use sandbox_core::Runtime as _;
/// use sandbox_runtime::{PodmanRuntime, Endpoint};
///
/// let endpoint: Endpoint = "unix:///run/podman/podman.sock".parse()?;
/// let podman = PodmanRuntime::connect(endpoint).await?;
/// for (control, support) in podman.capabilities().iter() {
///     println!("{control}: {support:?}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct PodmanRuntime {
    pub(crate) engine: Engine,
}

impl PodmanRuntime {
    /// Connects to the engine at an address, and probes what it enforces.
    ///
    /// # Errors
    /// `EngineUnavailable` where nothing, or something else, answers; `DeadlineExceeded` where it does not answer
    /// within seconds. Each names the address.
    pub async fn connect(endpoint: Endpoint) -> Result<Self> {
        engine::connect(endpoint, Some(Product::Podman)).await.map(|engine| Self { engine })
    }

    /// Runs sandboxes on gVisor, a kernel of their own, where that is the runtime of all the engine's containers (`runtime =
    /// "runsc"` below `[engine]`, containers.conf(5)); where it is not,
    /// [`Control::Isolation`](sandbox_policy::Control::Isolation) is reported as unsupported, and nothing is started.
    ///
    /// Guests are spoken to over the engine's own connection, and the other controls are reported anew.
    #[must_use]
    pub fn with_gvisor(mut self) -> Self {
        self.engine.isolate();
        self
    }
}

engine::runtime_of_an_engine!(PodmanRuntime);
