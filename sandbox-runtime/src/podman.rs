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
}

engine::runtime_of_an_engine!(PodmanRuntime);
