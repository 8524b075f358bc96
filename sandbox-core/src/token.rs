//! Seam 2: credentials.
//!
//! A token never enters a container. It is minted for one repository when a sandbox starts, handed to gateways on the
//! host, and revoked when the sandbox ends.

use std::collections::BTreeSet;
use std::fmt;
use std::time::SystemTime;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox_policy::{BranchProtection, Capabilities, Host, RemoteRepo, RepoId, Scope, TokenFacts};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use crate::Result;

/// Gives out tokens for repositories.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait TokenProvider: fmt::Debug + Send + Sync + 'static {
    /// What the provider guarantees of its tokens.
    fn capabilities(&self) -> Capabilities;

    /// What is known of the token beforehand, for the policy to weigh; nothing where each sandbox has one of its own made.
    fn facts(&self) -> Option<TokenFacts> {
        None
    }

    /// The server that its tokens are for, by host and port; with none, git on the host is not shown them.
    fn server(&self) -> Option<(Host, u16)> {
        None
    }

    /// Gives out a token for one repository.
    ///
    /// # Errors
    /// `Token`, with what is missing.
    async fn token(&self, grant: &RepoGrant) -> Result<Token>;

    /// Gives a token that has life left in place of one that was handed out here: the same one as long as that will do,
    /// and a new one when it is about to end. Whoever uses a token for long asks this before each use.
    ///
    /// # Errors
    /// `Token`, if it has been taken back or a new one cannot be had.
    async fn renew(&self, token: &Token) -> Result<Token> {
        Ok(token.clone())
    }

    /// Finds out whether the default branch of the token's repository is protected. It is asked before anything is made,
    /// where the policy wants to know.
    ///
    /// # Errors
    /// Where nobody could be asked; what cannot be told is no error, and refuses the sandbox as well.
    async fn default_branch(&self, token: &Token) -> Result<BranchProtection> {
        let why = format!("who gives out tokens for {} does not look at branches", token.repository());
        Ok(BranchProtection::Unknown { why })
    }

    /// Tells the number by which the server knows the token's repository, whatever its name is by now. It is asked before the
    /// repository is cloned.
    ///
    /// # Errors
    /// Where nobody could be asked; a provider that cannot tell has no number, and that is no error.
    async fn repository_number(&self, token: &Token) -> Result<Option<u64>> {
        let _ = token;
        Ok(None)
    }

    /// Takes a token back, with all that it was renewed by. `Ok` means that it is of no more use, or that it is the user's own and stays theirs.
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
    expires: Option<SystemTime>,
    server: Option<(Host, u16)>,
}

impl Token {
    /// Binds a secret to its repository.
    pub fn new(repository: RepoId, secret: SecretString) -> Self {
        Self { repository, secret, expires: None, server: None }
    }

    /// Says when it ends.
    #[must_use]
    pub fn until(mut self, expires: SystemTime) -> Self {
        self.expires = Some(expires);
        self
    }

    /// Says which server it is for.
    #[must_use]
    pub(crate) fn at(mut self, server: Option<(Host, u16)>) -> Self {
        self.server = server;
        self
    }

    /// Tells whether it is for this repository of this server.
    pub(crate) fn opens(&self, remote: &RemoteRepo) -> bool {
        let server = self.server.as_ref().is_some_and(|(host, port)| host == remote.host() && *port == remote.port());
        server && self.repository == *remote.repository()
    }

    /// When it ends, as far as is known.
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    /// The repository that it speaks for.
    pub fn repository(&self) -> &RepoId {
        &self.repository
    }

    /// Its SHA-256 in base64, under which GitHub's audit log files what it does
    /// (<https://docs.github.com/en/enterprise-cloud@latest/admin/monitoring-activity-in-your-enterprise/reviewing-audit-logs-for-your-enterprise/identifying-audit-log-events-performed-by-an-access-token>).
    /// A token is random, so its digest tells nothing of it.
    pub fn sha256(&self) -> String {
        STANDARD.encode(Sha256::digest(self.secret.expose_secret()))
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
