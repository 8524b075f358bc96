//! Connecting to an engine of which only the address is known.

use std::sync::Arc;

use sandbox_core::{Result, Runtime};

use crate::engine::{self, Endpoint, Product};
use crate::{DockerRuntime, PodmanRuntime};

/// Connects to whatever engine answers at an address, Docker or Podman, and probes what it enforces.
///
/// # Errors
/// `EngineUnavailable` where nothing, or something else, answers; `DeadlineExceeded` where it does not answer within
/// seconds. Each names the address.
pub async fn connect(endpoint: Endpoint) -> Result<Arc<dyn Runtime>> {
    let engine = engine::connect(endpoint, None).await?;
    Ok(match engine.product() {
        Product::Docker => Arc::new(DockerRuntime { engine }),
        Product::Podman => Arc::new(PodmanRuntime { engine }),
    })
}
