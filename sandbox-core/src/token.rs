//! Seam 2: credentials.
//!
//! A token never enters a container. It is minted for one repository when a sandbox starts, handed to gateways on the
//! host, and revoked when the sandbox ends.

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;
use sandbox_policy::{Capabilities, RepoId, Scope};
use secrecy::SecretString;

use crate::Result;

/// Gives out tokens for repositories.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait TokenProvider: fmt::Debug + Send + Sync + 'static {
    /// What the provider guarantees of its tokens.
    fn capabilities(&self) -> Capabilities;

    /// Gives out a token for one repository.
    ///
    /// # Errors
    /// `Token`, with what is missing.
    async fn token(&self, grant: &RepoGrant) -> Result<Token>;

    /// Takes a token back. `Ok` means that it is of no more use, or that it is the user's own and stays theirs.
    ///
    /// # Errors
    /// `Token` where the token may still be good.
    async fn revoke(&self, token: Token) -> Result<()>;
}

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoGrant {
    /// The repository.
    pub repository: RepoId,
    /// What the token is used for.
    pub scopes: BTreeSet<Scope>,
}

/// A secret that speaks for one repository. It prints as nothing but that repository.
#[derive(Clone)]
pub struct Token {
    repository: RepoId,
    secret: SecretString,
}

impl Token {
    /// Binds a secret to its repository.
    pub fn new(repository: RepoId, secret: SecretString) -> Self {
        Self { repository, secret }
    }

    /// The repository that it speaks for.
    pub fn repository(&self) -> &RepoId {
        &self.repository
    }

    /// The secret itself.
    pub fn secret(&self) -> &SecretString {
        &self.secret
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("repository", &self.repository.to_string()).finish_non_exhaustive()
    }
}
