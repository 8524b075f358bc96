//! Connecting to engines: to the one that is used, or to all in which something may be.

use std::path::Path;
use std::sync::Arc;

use sandbox_core::{ErrorKind, Runtime};
use sandbox_policy::Isolation;
use sandbox_runtime::{EmbeddedOptions, EmbeddedRuntime, Trial};
use tokio::task::JoinSet;

use super::{Choice, EngineAt};
use crate::config::Config;
use crate::failure::{Failure, Result};

impl Choice {
    /// Connects, and finds out what the engine enforces.
    pub(crate) async fn connect(&self, config: &Config) -> Result<Arc<dyn Runtime>> {
        self.connect_for(config, Isolation::Standard).await
    }

    /// Connects, and finds it out anew.
    pub(crate) async fn connect_anew(&self, config: &Config) -> Result<Arc<dyn Runtime>> {
        match &self.engine {
            EngineAt::Embedded(state) => {
                let mut options = config.options(state);
                options.trial = Trial::Anew;
                Ok(Arc::new(embedded(options).await?))
            }
            EngineAt::Endpoint(_) => self.connect(config).await,
        }
    }

    /// Connects for sandboxes that are isolated in this way.
    pub(crate) async fn connect_for(&self, config: &Config, isolation: Isolation) -> Result<Arc<dyn Runtime>> {
        Ok(match &self.engine {
            EngineAt::Embedded(state) => {
                let runtime = embedded(config.options(state)).await?.with_registry_access(config.registries());
                match config.environment.program(RUNSC).filter(|_| isolation == Isolation::Gvisor) {
                    Some(runsc) => Arc::new(runtime.with_gvisor(runsc)),
                    None => Arc::new(runtime),
                }
            }
            EngineAt::Endpoint(endpoint) => sandbox_runtime::connect_for(endpoint.clone(), isolation).await?,
        })
    }

    /// Whether it is the one that is there without being named.
    pub(crate) fn is_embedded(&self) -> bool {
        matches!(self.engine, EngineAt::Embedded(_))
    }
}

/// The embedded runtime; where it cannot work, an engine can be named.
async fn embedded(options: EmbeddedOptions) -> Result<EmbeddedRuntime> {
    EmbeddedRuntime::connect(options).await.map_err(|error| {
        let failure = Failure::from(error);
        if failure.hint.is_some() || !failure.is(ErrorKind::EngineUnavailable) {
            return failure;
        }
        failure.with_hint("an engine may do what this process cannot: --engine docker, --engine podman")
    })
}

/// gVisor's program.
const RUNSC: &str = "runsc";

impl Config {
    /// Connects to the engine that sandboxes are made with.
    pub(crate) async fn connect(&self, isolation: Isolation) -> Result<Arc<dyn Runtime>> {
        self.engine()?.connect_for(self, isolation).await
    }

    /// Connects to the embedded runtime for a verb that no engine needs.
    pub(crate) async fn connect_embedded(&self, verb: &str) -> Result<EmbeddedRuntime> {
        match self.engine()? {
            Choice { engine: EngineAt::Embedded(state), .. } => {
                Ok(embedded(self.options(&state)).await?.with_registry_access(self.registries()))
            }
            Choice { engine: EngineAt::Endpoint(endpoint), found_by } => {
                let message = format!("the images of the engine at {endpoint} (from {found_by}) are its own business");
                Err(Failure::new(ErrorKind::InvalidInput, message)
                    .with_hint(format!("use its own command, or `sandbox {verb} --engine embedded`")))
            }
        }
    }

    fn options(&self, state: &Path) -> EmbeddedOptions {
        let mut options = EmbeddedOptions::new(state);
        options.plain_http.clone_from(&self.plain_http);
        options.trial = Trial::Remembered;
        options
    }

    /// Connects to every engine in which a sandbox of this user may be. One that nobody named and that does not answer has
    /// none that runs; one that is named has to answer.
    pub(crate) async fn connect_all(&self) -> Result<Vec<Arc<dyn Runtime>>> {
        let engines = self.engines()?;
        if let [only] = engines.as_slice() {
            return Ok(vec![only.connect(self).await?]);
        }
        let mut connecting = JoinSet::new();
        for (place, engine) in engines.into_iter().enumerate() {
            let config = self.clone();
            connecting.spawn(async move { (place, engine.connect(&config).await) });
        }
        let mut connected = connecting.join_all().await;
        connected.sort_by_key(|(place, _)| *place);
        Ok(connected.into_iter().filter_map(|(_, runtime)| runtime.ok()).collect())
    }
}
