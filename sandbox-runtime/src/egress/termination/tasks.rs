//! Work beside an intercepted connection, which ends with it.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;

use hyper::rt::Executor;
use tokio::task::{AbortHandle, JoinSet};

use crate::egress::serve::broken_down;

/// Owns what runs beside one connection: dropping it ends all of it.
#[derive(Debug, Default)]
pub(super) struct Tasks(Arc<Mutex<JoinSet<()>>>);

/// Starts what runs beside one connection, without keeping it alive.
#[derive(Debug, Clone)]
pub(super) struct Spawner(Weak<Mutex<JoinSet<()>>>);

impl Tasks {
    pub(super) fn spawner(&self) -> Spawner {
        Spawner(Arc::downgrade(&self.0))
    }

    /// Waits until nothing is left of it.
    pub(super) async fn finished(&self) {
        std::future::poll_fn(|cx| {
            let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            while let Some(ended) = std::task::ready!(tasks.poll_join_next(cx)) {
                broken_down(ended);
            }
            Poll::Ready(())
        })
        .await;
    }
}

impl Spawner {
    /// Starts something; nothing where the connection has ended.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> Option<AbortHandle> {
        let tasks = self.0.upgrade()?;
        let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // What has ended is forgotten, so that no more is kept than runs.
        while let Some(ended) = tasks.try_join_next() {
            broken_down(ended);
        }
        Some(tasks.spawn(work))
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Spawner {
    fn execute(&self, work: F) {
        self.spawn(work);
    }
}
