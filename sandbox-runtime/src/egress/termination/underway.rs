//! The requests that are under way on one connection, and what ends them where the policy changes its mind.
//!
//! One wait serves all of them: a request takes a place among the others, and starts nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::egress::session::{Pass, Session};

/// The passes that are in use.
#[derive(Debug, Default)]
pub(super) struct Underway {
    passes: Mutex<Vec<Arc<Pass>>>,
    /// Told where a pass may have been decided by what holds no more.
    outdated: Notify,
}

/// A pass that is in use for as long as this value lives.
#[derive(Debug)]
pub(super) struct Place {
    underway: Arc<Underway>,
    pass: Arc<Pass>,
}

impl Underway {
    /// Takes a pass in.
    pub(super) fn take(self: &Arc<Self>, session: &Session, pass: &Arc<Pass>) -> Place {
        self.passes().push(Arc::clone(pass));
        // A change that comes after this finds it there.
        if !session.is_current(pass) {
            self.outdated.notify_one();
        }
        Place { underway: Arc::clone(self), pass: Arc::clone(pass) }
    }

    /// Waits until one of them is no longer allowed, and tells so.
    pub(super) async fn denied(&self, session: &Session) {
        let mut reach = session.reach.clone();
        loop {
            let now = Arc::clone(&reach.borrow_and_update());
            let passes = self.passes().clone();
            if passes.iter().any(|pass| session.is_denied_by(&now, pass, None)) {
                return;
            }
            tokio::select! {
                changed = reach.changed() => if changed.is_err() {
                    // Nobody can change it any more, and the gateway's end ends all of this.
                    return std::future::pending().await;
                },
                () = self.outdated.notified() => {}
            }
        }
    }

    fn passes(&self) -> MutexGuard<'_, Vec<Arc<Pass>>> {
        self.passes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut passes = self.underway.passes();
        if let Some(at) = passes.iter().position(|pass| Arc::ptr_eq(pass, &self.pass)) {
            passes.swap_remove(at);
        }
    }
}
