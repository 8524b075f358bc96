//! A GitHub App: it makes tokens that live for an hour and speak for one repository.
//!
//! Invariants: nobody gets a token that may do more than was asked for; each token that was handed out can be followed to
//! its end, through every renewal; a caller who stops waiting neither keeps others waiting nor leaves a token behind.

mod claim;
mod key;
mod lease;
mod mint;
mod tasks;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use sandbox_core::{RepoGrant, Token, TokenProvider};
use sandbox_policy::{BranchProtection, Capabilities, Control, Host, RepoId, Support};
use tokio::sync::{oneshot, watch};

pub use self::claim::AppIssuer;
use self::claim::Claimant;
pub use self::key::{KeyError, PrivateKey};
use self::lease::{Lease, Standing, outcome};
pub use self::mint::InstallationToken;
use self::mint::Place;
use self::tasks::Tasks;
use crate::{Client, Error, Result, token_sha256};

/// Hands out installation tokens of a GitHub App, each for one repository and for what was granted.
///
/// Every call of [`token`](TokenProvider::token) mints one, so that the end of a sandbox ends no other sandbox's token, and
/// GitHub's audit log tells them apart. [`renew`](TokenProvider::renew) gives the same one back as long as it has enough
/// life left. Clones share all of this; when the last is dropped, work under way is broken off, and what it may have
/// minted in that moment ends within the hour.
#[derive(Clone)]
pub struct AppTokens {
    inner: Arc<Inner>,
    tasks: Arc<Tasks>,
    minimum_life: Duration,
}

struct Inner {
    client: Client,
    claimant: Claimant,
    places: Mutex<HashMap<RepoId, Place>>,
    /// By the digest of each token that was handed out and not given back.
    leases: Mutex<HashMap<[u8; 32], Arc<Lease>>>,
}

impl AppTokens {
    /// Prepares to speak as an app; nothing is sent.
    ///
    /// # Errors
    /// `Unreachable` outside of a tokio runtime.
    pub fn new(client: Client, issuer: AppIssuer, key: PrivateKey) -> Result<Self> {
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| Error::Unreachable {
            what: "preparing to speak as an app".to_owned(),
            origin: client.url().origin().to_owned(),
            why: "there is no tokio runtime".to_owned(),
        })?;
        let inner =
            Inner { client, claimant: Claimant::new(issuer, key), places: Mutex::default(), leases: Mutex::default() };
        Ok(Self { inner: Arc::new(inner), tasks: Arc::new(Tasks::new(runtime)), minimum_life: MINIMUM_LIFE })
    }

    /// Sets how long a token must still live to be given out again; five minutes without it, three quarters of an hour at
    /// most.
    #[must_use]
    pub fn with_minimum_life(self, least: Duration) -> Self {
        Self { minimum_life: least.min(MOST_MINIMUM_LIFE), ..self }
    }

    /// Mints a token for one repository, and keeps it in view until it is revoked.
    ///
    /// # Errors
    /// `NotInstalled`, `Suspended` or `Ungranted` with what to do at GitHub; `NotTheApp` if the key is not the app's;
    /// `Overreaching` if GitHub made another token than was asked for, which was then revoked.
    pub async fn mint(&self, grant: &RepoGrant) -> Result<InstallationToken> {
        let (tell, told) = oneshot::channel();
        let (inner, tasks, grant) = (Arc::clone(&self.inner), Arc::downgrade(&self.tasks), grant.clone());
        // On a task of its own: a caller who gives up must not lose a token that GitHub has made already.
        self.tasks.spawn(async move {
            let made = inner.mint(&grant).await;
            let made = made.map(|made| Fresh { made: Some((grant, made)), inner, tasks });
            // If nobody waits any more, the token is dropped with its guard, which revokes it.
            let _ = tell.send(made);
        });
        let fresh = told.await.map_err(|_| broken_off())??;
        fresh.keep()
    }

    /// Replaces a token before its time: a new one is minted, then the old one is revoked and seen to be dead.
    ///
    /// # Errors
    /// As [`AppTokens::mint`], and then the old one stays; `StillGood` if the old one could not be revoked, and then
    /// the new one is in its place all the same.
    pub async fn rotate(&self, token: &Token) -> Result<Token, sandbox_core::Error> {
        let lease = self.inner.lease(token).ok_or_else(|| not_ours(token))?;
        let new = self.renewed(&lease, When::Now).await?;
        self.inner.sweep(&lease).await.map_err(sandbox_core::Error::from)?;
        Ok(new)
    }

    /// Revokes every token that was handed out and not given back.
    ///
    /// # Errors
    /// The first that may still be good; the others have been tried all the same.
    pub async fn revoke_all(&self) -> Result<(), sandbox_core::Error> {
        let leases: Vec<Arc<Lease>> = lock(&self.inner.leases).values().cloned().collect();
        let mut first = Ok(());
        for lease in leases {
            let token = lease.state().current.token.clone();
            let revoked = self.revoke(token).await;
            first = first.and(revoked);
        }
        first
    }

    /// The tokens that were handed out and not given back, without the secrets' holders knowing.
    pub fn held(&self) -> Vec<InstallationToken> {
        let mut held: Vec<InstallationToken> = Vec::new();
        for lease in lock(&self.inner.leases).values() {
            let current = lease.state().current.clone();
            if held.iter().all(|known| known.sha256 != current.sha256) {
                held.push(current);
            }
        }
        held
    }

    /// Gives the lease's token, or a new one: of all who ask at the same time, one makes it happen and all wait for it.
    async fn renewed(&self, lease: &Arc<Lease>, when: When) -> Result<Token, sandbox_core::Error> {
        let renewal = {
            let mut state = lease.state();
            if state.standing == Standing::Over {
                return Err(not_ours(&state.current.token));
            }
            let under_way = state.renewal.clone().filter(|renewal| renewal.has_changed().is_ok());
            match under_way {
                Some(renewal) => renewal,
                None if when == When::Needed && self.inner.life(&state.current) >= self.minimum_life => {
                    return Ok(state.current.token.clone());
                }
                None => {
                    let (tell, renewal) = watch::channel(None);
                    state.renewal = Some(renewal.clone());
                    let (inner, lease) = (Arc::clone(&self.inner), Arc::clone(lease));
                    self.tasks.spawn(async move { inner.replace(lease, tell).await });
                    renewal
                }
            }
        };
        match outcome(renewal).await {
            Some(Ok(token)) => Ok(token),
            Some(Err(error)) => Err(error.as_ref().into()),
            None => Err(broken_off().into()),
        }
    }
}

/// When a token is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Needed,
    Now,
}

impl Inner {
    async fn mint(&self, grant: &RepoGrant) -> Result<InstallationToken> {
        let known = lock(&self.places).get(&grant.repository).copied();
        if let Some(place) = known {
            match mint::mint(&self.client, &self.claimant, grant, place).await {
                // The installation may be another one by now.
                Err(Error::NotFound { .. } | Error::Ungranted { .. } | Error::Suspended { .. }) => {}
                made => return made,
            }
        }
        let mut place = mint::find(&self.client, &self.claimant, grant).await?;
        place.repository = known.and_then(|known| known.repository);
        let made = mint::mint(&self.client, &self.claimant, grant, place).await?;
        place.repository = Some(made.repository);
        lock(&self.places).insert(grant.repository.clone(), place);
        Ok(made)
    }

    fn lease(&self, token: &Token) -> Option<Arc<Lease>> {
        lock(&self.leases).get(&token_sha256(token.secret())).cloned()
    }

    /// How long a token still lives.
    fn life(&self, token: &InstallationToken) -> Duration {
        token.expires.duration_since(self.claimant.now()).unwrap_or_default()
    }

    /// Mints, swaps, tells, and deletes the old one.
    async fn replace(&self, lease: Arc<Lease>, tell: watch::Sender<Option<Result<Token, Arc<Error>>>>) {
        let made = self.mint(&lease.grant).await;
        let told = match made {
            Ok(made) => {
                let token = made.token.clone();
                let mut state = lease.state();
                state.renewal = None;
                if state.standing == Standing::Over {
                    // It waits for this, and revokes all that is listed.
                    state.replaced.push(token);
                    Err(Arc::new(broken_off()))
                } else {
                    lock(&self.leases).insert(made.sha256, Arc::clone(&lease));
                    let old = std::mem::replace(&mut state.current, made);
                    state.replaced.push(old.token);
                    Ok(token)
                }
            }
            Err(error) => {
                lease.state().renewal = None;
                Err(Arc::new(error))
            }
        };
        let swapped = told.is_ok();
        tell.send_replace(Some(told));
        if swapped {
            // What could not be deleted stays on the lease's list, and is tried again at its end.
            let _ = self.sweep(&lease).await;
        }
    }

    /// Revokes the tokens that were replaced.
    async fn sweep(&self, lease: &Lease) -> Result<()> {
        let replaced = lease.state().replaced.clone();
        let mut first = Ok(());
        for token in replaced {
            match self.client.revoke(token.secret()).await {
                Ok(_) => {
                    let dead = token_sha256(token.secret());
                    lease.state().replaced.retain(|other| token_sha256(other.secret()) != dead);
                }
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }

    /// Ends a lease: nothing is renewed from now on, and every token that it had is revoked and seen to be dead.
    async fn end(&self, lease: &Arc<Lease>) -> Result<()> {
        let under_way = {
            let mut state = lease.state();
            state.standing = Standing::Over;
            state.renewal.clone()
        };
        if let Some(renewal) = under_way {
            let _ = outcome(renewal).await;
        }
        let mut first = Ok(());
        for token in lease.alive() {
            first = first.and(self.client.revoke(token.secret()).await.map(drop));
        }
        // One that may still be good is kept, so that it can be tried again.
        if first.is_ok() {
            lock(&self.leases).retain(|_, other| !Arc::ptr_eq(other, lease));
        }
        first
    }
}

/// A token that was made and that nobody has yet: dropped, it is revoked.
struct Fresh {
    made: Option<(RepoGrant, InstallationToken)>,
    inner: Arc<Inner>,
    tasks: Weak<Tasks>,
}

impl Fresh {
    fn keep(mut self) -> Result<InstallationToken> {
        let (grant, made) = self.made.take().ok_or_else(broken_off)?;
        lock(&self.inner.leases).insert(made.sha256, Arc::new(Lease::new(grant, made.clone())));
        Ok(made)
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let (Some((_, made)), Some(tasks)) = (self.made.take(), self.tasks.upgrade()) {
            let client = self.inner.client.clone();
            tasks.spawn(async move {
                // It ends within the hour if this fails; there is nobody left to be told.
                let _ = client.revoke(made.token.secret()).await;
            });
        }
    }
}

#[async_trait]
impl TokenProvider for AppTokens {
    fn capabilities(&self) -> Capabilities {
        let by = |by: &str| Support::Enforced { by: by.to_owned() };
        Capabilities::new()
            .with(Control::ShortLivedToken, by("GitHub: installation tokens for one repository, for an hour at most"))
            .with(Control::TokenScope, by("GitHub: tokens made with these permissions alone, and read back"))
    }

    fn server(&self) -> Option<(Host, u16)> {
        self.inner.client.url().server()
    }

    async fn token(&self, grant: &RepoGrant) -> sandbox_core::Result<Token> {
        Ok(self.mint(grant).await?.token)
    }

    async fn renew(&self, token: &Token) -> sandbox_core::Result<Token> {
        let lease = self.inner.lease(token).ok_or_else(|| not_ours(token))?;
        self.renewed(&lease, When::Needed).await
    }

    async fn default_branch(&self, token: &Token) -> sandbox_core::Result<BranchProtection> {
        Ok(self.inner.client.default_branch_protection(token).await?)
    }

    async fn repository_number(&self, token: &Token) -> sandbox_core::Result<Option<u64>> {
        Ok(Some(self.inner.client.repository_number(token.secret(), token.repository()).await?))
    }

    async fn revoke(&self, token: Token) -> sandbox_core::Result<()> {
        match self.inner.lease(&token) {
            Some(lease) => self.inner.end(&lease).await?,
            None => self.inner.client.revoke(token.secret()).await.map(drop)?,
        }
        Ok(())
    }
}

impl fmt::Debug for AppTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppTokens")
            .field("client", &self.inner.client)
            .field("app", &self.inner.claimant)
            .finish_non_exhaustive()
    }
}

fn broken_off() -> Error {
    Error::Unreachable {
        what: "minting a token".to_owned(),
        origin: "GitHub".to_owned(),
        why: "it was broken off, since its sandbox or its provider ended".to_owned(),
    }
}

fn not_ours(token: &Token) -> sandbox_core::Error {
    let message = format!("the token for {} was not handed out here, or has been given back", token.repository());
    sandbox_core::Error::new(sandbox_core::ErrorKind::Token, message).with_hint("ask for a token of its own")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const MINIMUM_LIFE: Duration = Duration::from_mins(5);
const MOST_MINIMUM_LIFE: Duration = Duration::from_mins(45);
