//! Connecting to an engine of which only the address is known.

use std::sync::Arc;

use sandbox_core::{Result, Runtime};
use sandbox_policy::Isolation;

use crate::engine::{self, Endpoint, Product};
use crate::{DockerRuntime, PodmanRuntime};

/// Connects to whatever engine answers at an address, Docker or Podman, and probes what it enforces.
///
/// # Errors
/// `EngineUnavailable` where nothing, or something else, answers; `DeadlineExceeded` where it does not answer within
/// seconds. Each names the address.
pub async fn connect(endpoint: Endpoint) -> Result<Arc<dyn Runtime>> {
    connect_for(endpoint, Isolation::Standard).await
}

/// Connects as [`connect`] does, for sandboxes that are isolated in this way; where the engine cannot, it reports
/// [`Control::Isolation`](sandbox_policy::Control::Isolation) as unsupported.
///
/// # Errors
/// As [`connect`].
pub async fn connect_for(endpoint: Endpoint, isolation: Isolation) -> Result<Arc<dyn Runtime>> {
    let engine = engine::connect(endpoint, None).await?;
    Ok(match engine.product() {
        Product::Docker if isolation == Isolation::Gvisor => Arc::new(DockerRuntime { engine }.with_gvisor()),
        Product::Docker => Arc::new(DockerRuntime { engine }),
        Product::Podman if isolation == Isolation::Gvisor => Arc::new(PodmanRuntime { engine }.with_gvisor()),
        Product::Podman => Arc::new(PodmanRuntime { engine }),
    })
}
