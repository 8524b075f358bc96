//! Removing a container, until it is gone.

use std::time::Duration;

use bollard::query_parameters::RemoveContainerOptionsBuilder;
use sandbox_core::{ContainerId, ContainerStatus, Error, ErrorKind, Result};
use sandbox_policy::Isolation;
use tokio::time::{Instant, sleep};

use super::error::within;
use super::{END, Engine, GONE, REMOVE};

impl Engine {
    /// Removes a container with its volumes, running or not; when this returns `Ok`, it is gone.
    ///
    /// Somebody else, such as the engine after the end of process 1, may be removing it too, and an engine that finds a
    /// file system busy fails once and succeeds a moment later. No call of its API waits for the end of either, so
    /// this asks again, at growing intervals.
    pub(crate) async fn delete(&self, container: &ContainerId) -> Result<()> {
        if self.isolation == Isolation::Gvisor {
            self.end(container).await;
        }
        let deadline = Instant::now() + GONE;
        let mut pause = FIRST_PAUSE;
        loop {
            let refused = self.remove(container).await?;
            if self.is_gone(container).await? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(refused.unwrap_or_else(|| still_there(container)));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits a while for the end of a container whose guest was told to end.
    ///
    /// containerd's shim hands out the exits of what gVisor leaves behind, a process for each address space that there was
    /// inside, in turn with that of `runsc kill`, for which it holds the lock that they need: beyond the 32 that it queues,
    /// each takes it a second. So gVisor is killed only if it does not end by itself
    /// (<https://github.com/containerd/containerd/blob/v1.6.20/sys/reaper/reaper_unix.go>, `Reap`).
    async fn end(&self, container: &ContainerId) {
        let deadline = Instant::now() + END;
        let mut pause = FIRST_PAUSE;
        while Instant::now() < deadline {
            match self.state(container).await {
                Ok(state) if state.status == ContainerStatus::Running => sleep(pause).await,
                _ => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Asks once; returns why the engine would not, where it may yet.
    async fn remove(&self, container: &ContainerId) -> Result<Option<Error>> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let removed = self.docker.remove_container(container.as_str(), Some(options));
        match within(&self.endpoint, REMOVE, "remove the container", removed).await {
            Ok(()) => Ok(None),
            // It is gone, or it is being removed.
            Err(answer) if matches!(answer.status(), Some(404 | 409)) => Ok(None),
            Err(answer) if answer.status().is_some_and(|status| status >= 500) => Ok(Some(answer.into_error())),
            Err(answer) => Err(answer.into_error()),
        }
    }

    async fn is_gone(&self, container: &ContainerId) -> Result<bool> {
        match self.inspect(container).await {
            Ok(_) => Ok(false),
            Err(answer) if answer.status() == Some(404) => Ok(true),
            Err(answer) => Err(answer.into_error()),
        }
    }
}

fn still_there(container: &ContainerId) -> Error {
    let message = format!("container {container} is still there {} s after it was to be removed", GONE.as_secs());
    Error::new(ErrorKind::Residue, message).with_hint("the engine's log says what keeps it; try again later")
}

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
