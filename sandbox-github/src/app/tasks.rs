//! What goes on by itself for a while: it is owned, and ends with its owner.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// Owns tasks; those that are under way when it is dropped are broken off.
#[derive(Debug)]
pub(super) struct Tasks {
    runtime: Handle,
    set: Mutex<JoinSet<()>>,
}

impl Tasks {
    pub(super) fn new(runtime: Handle) -> Self {
        Self { runtime, set: Mutex::default() }
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        while set.try_join_next().is_some() {}
        set.spawn_on(work, &self.runtime);
    }
}
