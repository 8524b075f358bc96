//! Who knows accounts at registries, and private authorities.

use std::fmt;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use sandbox_core::{Error, ErrorKind, Result};
use secrecy::{ExposeSecret as _, SecretString};

/// Tells how to speak to registries. Each is named as images name it, `HOST` or `HOST:PORT`; Docker Hub is `index.docker.io`.
#[async_trait]
pub trait RegistryAccess: fmt::Debug + Send + Sync + 'static {
    /// Gives out the account at a registry; it is asked for only if the registry wants one. `None`: as anybody may.
    ///
    /// # Errors
    /// Where there should be one and it cannot be had: nothing is fetched then.
    async fn account(&self, registry: &str) -> Result<Option<RegistryAccount>>;

    /// Authorities, in PEM form, that vouch for this registry beside those that this machine trusts.
    ///
    /// # Errors
    /// Where they cannot be read.
    async fn authorities(&self, registry: &str) -> Result<Vec<u8>> {
        let _ = registry;
        Ok(Vec::new())
    }
}

/// An account at a registry.
#[derive(Clone, Debug)]
pub struct RegistryAccount {
    /// The user's name; it has no colon.
    pub user: String,
    /// The password, or a token in its place.
    pub secret: SecretString,
}

impl RegistryAccount {
    /// The header that says it (<https://www.rfc-editor.org/rfc/rfc7617>).
    pub(super) fn basic(&self) -> Result<HeaderValue> {
        if self.user.contains(':') {
            let message = format!("user {:?} of a registry has a colon, which ends its name", self.user);
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let both = SecretString::from(format!("{}:{}", self.user, self.secret.expose_secret()));
        let text = SecretString::from(format!("Basic {}", STANDARD.encode(both.expose_secret())));
        let mut header = HeaderValue::try_from(text.expose_secret())
            .map_err(|error| Error::new(ErrorKind::InvalidInput, "an account is no header").with_source(error))?;
        header.set_sensitive(true);
        Ok(header)
    }
}

/// Nobody has an account anywhere.
#[derive(Debug)]
pub(crate) struct Anonymous;

#[async_trait]
impl RegistryAccess for Anonymous {
    async fn account(&self, _: &str) -> Result<Option<RegistryAccount>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_said_as_the_standard_says_and_never_shown() {
        // The example of RFC 7617.
        let account = RegistryAccount { user: "Aladdin".to_owned(), secret: "open sesame".to_owned().into() };
        let header = account.basic().unwrap();
        assert_eq!(header.as_bytes(), b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert!(!format!("{header:?}{account:?}").contains("QWxh") && !format!("{account:?}").contains("sesame"));
        let account = RegistryAccount { user: "a:b".to_owned(), ..account };
        assert_eq!(account.basic().unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
