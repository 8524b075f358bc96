//! Who knows the secrets of a policy's credentials.
//!
//! A secret is asked for when a request needs it and enters no container, so that a change and a withdrawal hold for the
//! next request.

use std::fmt;

use async_trait::async_trait;
use sandbox_policy::CredentialName;
use secrecy::SecretString;

use crate::Result;

/// Gives out the secrets of credentials that a policy binds.
#[cfg_attr(test, mockall::automock)]
#[async_trait]
pub trait CredentialProvider: fmt::Debug + Send + Sync + 'static {
    /// Gives out the secret as it is now.
    ///
    /// # Errors
    /// `Token` where there is none, or none any more: the request that needs it is refused.
    async fn secret(&self, name: &CredentialName) -> Result<SecretString>;
}
