//! Removing a container, until it is gone.

use std::time::Duration;

use bollard::query_parameters::{InspectContainerOptions, RemoveContainerOptionsBuilder};
use sandbox_core::{ContainerId, Error, ErrorKind, Result};
use tokio::time::{Instant, sleep};

use super::error::{Answer, within};
use super::{Engine, GONE, INSPECT, REMOVE};

impl Engine {
    /// Removes a container with its volumes, running or not; when this returns `Ok`, it is gone.
    pub(crate) async fn delete(&self, container: &ContainerId) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let removed = self.docker.remove_container(container.as_str(), Some(options));
        match within(&self.endpoint, REMOVE, "remove the container", removed).await {
            Ok(()) => {}
            // It is gone, or somebody else, such as the engine after the end of process 1, is removing it.
            Err(answer) if matches!(answer.status(), Some(404 | 409)) => {}
            Err(answer) => return Err(answer.into_error()),
        }
        self.until_gone(container).await
    }

    /// The engine answers before it has forgotten a container that another request removes, and no call of its API
    /// waits for that without a race: so this asks, at growing intervals.
    async fn until_gone(&self, container: &ContainerId) -> Result<()> {
        let deadline = Instant::now() + GONE;
        let mut pause = FIRST_PAUSE;
        loop {
            let inspected = self.docker.inspect_container(container.as_str(), None::<InspectContainerOptions>);
            match within(&self.endpoint, INSPECT, "inspect the container", inspected).await {
                Err(answer) if answer.status() == Some(404) => return Ok(()),
                Err(answer) => return Err(Answer::into_error(answer)),
                Ok(_) if Instant::now() >= deadline => {
                    let message =
                        format!("container {container} was removed {} s ago and is still there", GONE.as_secs());
                    return Err(Error::new(ErrorKind::Residue, message)
                        .with_hint("the engine's log says what keeps it; `sandbox cleanup` tries again"));
                }
                Ok(_) => sleep(pause).await,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
