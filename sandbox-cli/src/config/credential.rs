//! Where the secrets of credentials come from, as `--credential` says.

use std::collections::BTreeMap;
use std::fmt;

use async_trait::async_trait;
use sandbox_core::{CredentialProvider, Error, ErrorKind};
use sandbox_policy::CredentialName;
use secrecy::SecretString;

use super::source::Source;
use crate::args::CredentialArgument;
use crate::failure::{Failure, Result};

/// Knows the secrets that were named on the command line.
pub(crate) struct Credentials(BTreeMap<CredentialName, Source>);

impl Credentials {
    /// Finds the secrets that are named, as far as they must be there at once.
    pub(super) fn named(arguments: &[CredentialArgument]) -> Result<Self> {
        let mut all = BTreeMap::new();
        for CredentialArgument { name, source } in arguments {
            let source = Source::named(source, &format!("the credential {name}"))?;
            if all.insert(name.clone(), source).is_some() {
                return Err(Failure::new(ErrorKind::InvalidInput, format!("the credential {name} is named twice")));
            }
        }
        Ok(Self(all))
    }

    /// The names, each of which the policy must bind.
    pub(crate) fn names(&self) -> impl Iterator<Item = &CredentialName> {
        self.0.keys()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys().map(CredentialName::as_str)).finish()
    }
}

#[async_trait]
impl CredentialProvider for Credentials {
    async fn secret(&self, name: &CredentialName) -> sandbox_core::Result<SecretString> {
        let what = format!("the secret of {name}");
        let nobody = || Error::new(ErrorKind::Token, format!("{what} cannot be had: nobody named it"));
        self.0.get(name).ok_or_else(nobody)?.secret(&what).await
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn name() -> CredentialName {
        "model".parse().unwrap()
    }

    #[tokio::test]
    async fn a_secret_is_read_anew_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        let credentials = Credentials(BTreeMap::from([(name(), Source::File(path.clone()))]));
        for secret in ["not-real-1", "not-real-2"] {
            std::fs::write(&path, format!("{secret}\n")).unwrap();
            assert_eq!(credentials.secret(&name()).await.unwrap().expose_secret(), secret);
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(credentials.secret(&name()).await.unwrap_err().kind(), ErrorKind::Token);
        assert!(credentials.secret(&"other".parse().unwrap()).await.is_err());
        assert_eq!(format!("{credentials:?}"), "{\"model\"}");
    }
}
