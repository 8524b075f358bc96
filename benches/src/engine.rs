//! Which engine is measured.

use crate::Result;

/// The image that every container is made of; `scripts/image` makes it.
pub const IMAGE: &str = "sandbox-debian";

/// The engine that the environment names.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Its address, `unix://PATH`.
    pub address: String,
}

impl Engine {
    /// Reads `DOCKER_HOST`.
    ///
    /// # Errors
    /// If it is not set.
    pub fn named() -> Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "a benchmark is told by its environment which engine to measure")]
        let address = std::env::var("DOCKER_HOST")
            .map_err(|error| format!("DOCKER_HOST: {error}; eval \"$(scripts/engine env)\" sets it"))?;
        Ok(Self { address })
    }
}
