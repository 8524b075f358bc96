//! A secret that lies somewhere on this machine: in a variable, in a file, or with a program that writes it.
//!
//! A file is read and a command run each time that the secret is needed, so that a change holds from then on.

use std::path::PathBuf;
use std::process::Stdio;

use sandbox_core::{Error, ErrorKind};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::args::CredentialSource;
use crate::failure::{Failure, Result};

/// Where a secret is.
pub(super) enum Source {
    /// What a program writes.
    Command(Vec<String>),
    /// What a file holds.
    File(PathBuf),
    /// What a variable held when the sandbox was asked for.
    Held(SecretString),
}

impl Source {
    /// Finds a secret as far as it must be there at once; `what` says what it is: `the credential model`.
    pub(super) fn named(source: &CredentialSource, what: &str) -> Result<Self> {
        Ok(match source {
            CredentialSource::Command(words) => Self::Command(words.clone()),
            CredentialSource::Env(variable) => Self::Held(super::secret_variable(variable).ok_or_else(|| {
                let message = format!("{what} is to be in the variable {variable}, which is not set");
                Failure::new(ErrorKind::InvalidInput, message)
            })?),
            CredentialSource::File(path) => Self::File(path.clone()),
        })
    }

    /// Reads the secret; `what` says what it is: `the secret of model`.
    pub(super) async fn secret(&self, what: &str) -> sandbox_core::Result<SecretString> {
        let missing = |why: &str| Error::new(ErrorKind::Token, format!("{what} cannot be had: {why}"));
        let bytes = match self {
            Self::Held(secret) => return Ok(secret.clone()),
            Self::File(path) => {
                let file = tokio::fs::File::open(path).await.map_err(|error| missing("its file").with_source(error))?;
                bounded(file).await.map_err(|error| missing("its file").with_source(error))?
            }
            Self::Command(words) => {
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

    async fn told(source: Source) -> sandbox_core::Result<String> {
        Ok(source.secret("the secret").await?.expose_secret().to_owned())
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
