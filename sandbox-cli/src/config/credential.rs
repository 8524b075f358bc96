//! Where the secrets of credentials come from, as `--credential` says.
//!
//! A file is read and a command run each time that a request needs the secret, so that a change holds for the next one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;

use async_trait::async_trait;
use sandbox_core::{CredentialProvider, Error, ErrorKind};
use sandbox_policy::CredentialName;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::args::{CredentialArgument, CredentialSource};
use crate::failure::{Failure, Result};

/// Knows the secrets that were named on the command line.
pub(crate) struct Credentials(BTreeMap<CredentialName, Source>);

enum Source {
    Command(Vec<String>),
    File(PathBuf),
    /// What a variable held when the sandbox was asked for.
    Held(SecretString),
}

impl Credentials {
    /// Finds the secrets that are named, as far as they must be there at once.
    pub(super) fn named(arguments: &[CredentialArgument]) -> Result<Self> {
        let mut all = BTreeMap::new();
        for CredentialArgument { name, source } in arguments {
            let source = match source {
                CredentialSource::Command(words) => Source::Command(words.clone()),
                CredentialSource::Env(variable) => Source::Held(super::secret_variable(variable).ok_or_else(|| {
                    let message =
                        format!("the credential {name} is to be in the variable {variable}, which is not set");
                    Failure::new(ErrorKind::InvalidInput, message)
                })?),
                CredentialSource::File(path) => Source::File(path.clone()),
            };
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
        let missing = |why: &str| Error::new(ErrorKind::Token, format!("the secret of {name} cannot be had: {why}"));
        let bytes = match self.0.get(name) {
            None => return Err(missing("nobody named it")),
            Some(Source::Held(secret)) => return Ok(secret.clone()),
            Some(Source::File(path)) => {
                let file = tokio::fs::File::open(path).await.map_err(|error| missing("its file").with_source(error))?;
                bounded(file).await.map_err(|error| missing("its file").with_source(error))?
            }
            Some(Source::Command(words)) => {
                output_of(words).await.map_err(|error| missing("its command").with_source(error))?
            }
        };
        let text = std::str::from_utf8(&bytes).map_err(|_| missing("it is no text"))?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(missing("it is empty"));
        }
        Ok(SecretString::from(text))
    }
}

/// Runs a command without a shell and gives what it wrote; it ends when nobody waits for it any more.
async fn output_of(words: &[String]) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let (program, arguments) = words.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let output = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
    let bytes = bounded(output).await?;
    if child.wait().await?.success() { Ok(bytes) } else { Err(std::io::Error::other("it failed")) }
}

/// Reads to the end, and no more than a secret may have.
async fn bounded(from: impl tokio::io::AsyncRead + Unpin) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET));
    from.take(MAX_SECRET as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < MAX_SECRET { Ok(bytes) } else { Err(std::io::ErrorKind::FileTooLarge.into()) }
}

/// The most bytes of a secret, in bytes.
const MAX_SECRET: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn name() -> CredentialName {
        "model".parse().unwrap()
    }

    async fn told(source: Source) -> sandbox_core::Result<String> {
        let secret = Credentials(BTreeMap::from([(name(), source)])).secret(&name()).await?;
        Ok(secret.expose_secret().to_owned())
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

    #[tokio::test]
    async fn a_command_says_it_or_it_cannot_be_had() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(told(Source::Command(words("echo $HOME"))).await.unwrap(), "$HOME", "there is no shell");
        for bad in ["false", "true", "/nonexistent", "head -c 16384 /dev/zero", "head -c 9 /dev/urandom /nonexistent"] {
            assert_eq!(told(Source::Command(words(bad))).await.unwrap_err().kind(), ErrorKind::Token, "{bad}");
        }
        assert_eq!(told(Source::Held("held".into())).await.unwrap(), "held");
    }
}
