//! Which GitHub is meant, where tokens are kept, and who gives them out.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use sandbox_core::ErrorKind;
use sandbox_github::{AppTokens, Client, EnvFiles, GitHubUrl, PersonalToken, PrivateKey, TokenStore as _};
use sandbox_policy::{Policy, RepoId};
use secrecy::SecretString;

use super::Config;
use crate::failure::{Failure, Result};

/// Who gives out the token of a sandbox's repository.
#[derive(Debug)]
pub(crate) enum Tokens {
    /// An app, which makes one for the sandbox.
    App(AppTokens),
    /// Nobody: none is kept, and no app is named.
    Missing,
    /// The policy grants none.
    NotGranted,
    /// The user, who made one.
    Personal(PersonalToken),
}

impl Config {
    /// Where tokens are kept.
    pub(crate) fn token_store(&self) -> Result<EnvFiles> {
        let environment = &self.environment;
        let of_user = || {
            let home = || environment.home.as_ref().map(|home| PathBuf::from(home).join(".config"));
            let config = environment.xdg_config_home.as_ref().map(PathBuf::from).filter(|path| path.is_absolute());
            config.or_else(home).map(|config| config.join("sandbox/tokens"))
        };
        let directory = environment.tokens.as_ref().map(PathBuf::from).or_else(of_user).ok_or_else(|| {
            Failure::new(ErrorKind::InvalidInput, "there is no place for tokens: HOME is not set")
                .with_hint("set SANDBOX_TOKENS to a directory")
        })?;
        Ok(EnvFiles::new(directory))
    }

    /// The GitHub that is meant: what `SANDBOX_GITHUB` names, else github.com.
    pub(crate) fn github(&self) -> Result<GitHubUrl> {
        let Some(text) = &self.environment.github else { return Ok(GitHubUrl::github()) };
        text.to_string_lossy().parse().map_err(|error: sandbox_github::Error| {
            Failure::new(ErrorKind::InvalidInput, "SANDBOX_GITHUB names no GitHub").with_cause(error)
        })
    }

    /// Prepares to speak to it.
    pub(crate) fn github_client(&self) -> Result<Client> {
        Ok(Client::new(self.github()?).map_err(sandbox_core::Error::from)?)
    }

    /// Finds who gives out tokens for a repository: the app that is named, else the token that is kept.
    pub(crate) async fn tokens_for(&self, policy: &Policy, repository: &RepoId) -> Result<Tokens> {
        if policy.token().scopes.is_empty() {
            return Ok(Tokens::NotGranted);
        }
        if let Some(issuer) = &self.environment.github_app {
            let issuer = issuer.to_string_lossy().parse().map_err(|error: sandbox_github::Error| {
                Failure::new(ErrorKind::InvalidInput, "SANDBOX_GITHUB_APP names no app").with_cause(error)
            })?;
            let key = PrivateKey::from_pem(&self.app_key().await?).map_err(|error| {
                Failure::new(ErrorKind::InvalidInput, "the app's key cannot be used").with_cause(error)
            })?;
            let app = AppTokens::new(self.github_client()?, issuer, key).map_err(sandbox_core::Error::from)?;
            return Ok(Tokens::App(app));
        }
        let Some(kept) = self.token_store()?.load(repository)? else { return Ok(Tokens::Missing) };
        let secret = kept.token.secret().clone();
        let personal = PersonalToken::checked(&self.github_client()?, repository.clone(), secret).await?;
        Ok(Tokens::Personal(personal))
    }

    /// The app's private key, out of a file or from a command.
    async fn app_key(&self) -> Result<SecretString> {
        let (file, command) = (&self.environment.github_app_key_file, &self.environment.github_app_key_command);
        match (file, command) {
            (Some(file), None) => {
                let shown = file.to_string_lossy();
                let text = super::read(file.as_ref())
                    .map_err(|error| Failure::io(format!("cannot read the app's key {shown}"), error))?;
                text.map(SecretString::from)
                    .ok_or_else(|| Failure::new(ErrorKind::NotFound, format!("the app's key {shown} does not exist")))
            }
            (None, Some(command)) => said_by(command).await,
            _ => Err(Failure::new(ErrorKind::InvalidInput, "SANDBOX_GITHUB_APP is set, and where its key is, is not")
                .with_hint("set one of SANDBOX_GITHUB_APP_KEY_FILE and SANDBOX_GITHUB_APP_KEY_COMMAND")),
        }
    }
}

/// What a command line of the user's prints: the way to a key store.
async fn said_by(command: &std::ffi::OsStr) -> Result<SecretString> {
    let what = "the command for the app's key";
    let mut shell = tokio::process::Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let output = tokio::time::timeout(COMMAND_WITHIN, shell.output())
        .await
        .map_err(|_| Failure::new(ErrorKind::DeadlineExceeded, format!("{what} takes longer than {COMMAND_WITHIN:?}")))?
        .map_err(|error| Failure::io(format!("cannot run {what}"), error))?;
    if !output.status.success() {
        return Err(Failure::new(ErrorKind::InvalidInput, format!("{what} failed: {}", output.status)));
    }
    String::from_utf8(output.stdout)
        .map(SecretString::from)
        .map_err(|_| Failure::new(ErrorKind::InvalidInput, format!("{what} printed no text")))
}

/// A key store may ask its user for a passphrase.
const COMMAND_WITHIN: Duration = Duration::from_mins(2);
