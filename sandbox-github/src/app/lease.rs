//! One token that was handed out, and those that came after it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use sandbox_core::{RepoGrant, Token};
use tokio::sync::watch;

use super::mint::InstallationToken;
use crate::Error;

/// What a holder of a token has: the latest of a row of tokens, for one grant.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) grant: RepoGrant,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) current: InstallationToken,
    /// Tokens that were replaced and are not known to be dead yet.
    pub(super) replaced: Vec<Token>,
    /// The one renewal under way.
    pub(super) renewal: Option<Renewal>,
    pub(super) standing: Standing,
}

/// What a renewal came to, for everybody who waits for it; nothing as long as it is under way.
pub(super) type Renewal = watch::Receiver<Option<Result<Token, std::sync::Arc<Error>>>>;

/// Whether anybody still has the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Somebody does.
    Held,
    /// It was given back: what is minted for it now is of no use.
    Over,
}

impl Lease {
    pub(super) fn new(grant: RepoGrant, current: InstallationToken) -> Self {
        let state = State { current, replaced: Vec::new(), renewal: None, standing: Standing::Held };
        Self { grant, state: Mutex::new(state) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every token of the lease that may still be good.
    pub(super) fn alive(&self) -> Vec<Token> {
        let state = self.state();
        state.replaced.iter().chain([&state.current.token]).cloned().collect()
    }
}

/// Waits for a renewal; `None` if whoever did it is gone.
pub(super) async fn outcome(mut renewal: Renewal) -> Option<Result<Token, std::sync::Arc<Error>>> {
    renewal.wait_for(Option::is_some).await.ok().and_then(|done| done.clone())
}
