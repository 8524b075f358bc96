//! Where tokens are kept between sandboxes: on this machine, one for each repository.
//!
//! Invariant: what is found for a repository was kept for that repository. No two repositories share a place, and a
//! place that somebody else could have written is refused.

mod env_file;
mod ignored;
mod keyring;

use std::fmt;
use std::time::SystemTime;

use sandbox_core::{Result, Token};
use sandbox_policy::RepoId;

pub use env_file::EnvFiles;
pub use keyring::Keyring;

/// Keeps one token for each repository.
pub trait TokenStore: fmt::Debug + Send + Sync + 'static {
    /// Finds the token of a repository; `None` if none is kept.
    ///
    /// # Errors
    /// `Denied` if somebody else could have read or written it, `Token` if what is kept makes no sense.
    fn load(&self, repository: &RepoId) -> Result<Option<KeptToken>>;

    /// Keeps a token, in place of the one before. Either the old one is kept or the new one, never half of one.
    ///
    /// # Errors
    /// `Denied` if others could read it there, `Token` if it is none of GitHub's.
    fn save(&self, kept: &KeptToken) -> Result<()>;

    /// Forgets the token of a repository. At GitHub it stays good: revoke it there first.
    ///
    /// # Errors
    /// Whatever keeps it from being forgotten.
    fn remove(&self, repository: &RepoId) -> Result<Removed>;

    /// Lists the repositories that a token is kept for, sorted.
    ///
    /// # Errors
    /// Whatever keeps the place from being read.
    fn list(&self) -> Result<Vec<RepoId>>;
}

/// A token as it is kept.
#[derive(Clone, Debug)]
pub struct KeptToken {
    /// The token and its repository.
    pub token: Token,
    /// When it expires, in whole seconds; `None` if that was not known when it was kept.
    pub expires: Option<SystemTime>,
}

/// Whether there was something to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "it was there or it was not")]
pub enum Removed {
    /// Nothing was kept.
    Absent,
    /// It is forgotten.
    Forgotten,
}
