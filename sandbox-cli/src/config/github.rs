//! Which GitHub is meant, where tokens are kept, and who gives them out.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use sandbox_core::ErrorKind;
use sandbox_github::{
    AppTokens, Client, EnvFiles, GitHubUrl, KeptToken, Keyring, PersonalToken, PrivateKey, TokenStore,
};
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
    Personal(Box<PersonalToken>),
}

/// The places in which tokens are kept.
#[derive(Debug)]
pub(crate) struct TokenStores {
    pub(crate) files: EnvFiles,
    keyring: Option<Keyring>,
}

impl TokenStores {
    /// The keyring, for who wants it and no other.
    pub(crate) fn keyring(&self) -> Result<&Keyring> {
        self.keyring.as_ref().ok_or_else(|| {
            Failure::new(ErrorKind::NotFound, "this session has no bus, and so no keyring")
                .with_hint("keep the token in a file, without --keyring")
        })
    }

    /// Finds a repository's token and where it is kept: in a file, else in the keyring.
    pub(crate) fn find(&self, repository: &RepoId) -> Result<Option<(&dyn TokenStore, KeptToken)>> {
        if let Some(kept) = self.files.load(repository)? {
            return Ok(Some((&self.files, kept)));
        }
        let Some(keyring) = &self.keyring else { return Ok(None) };
        let found = absent_is_none(keyring.load(repository))?.flatten();
        Ok(found.map(|kept| (keyring as &dyn TokenStore, kept)))
    }

    /// Lists the repositories that have a token in either.
    pub(crate) fn list(&self) -> Result<Vec<RepoId>> {
        let mut all = self.files.list()?;
        if let Some(keyring) = &self.keyring {
            all.extend(absent_is_none(keyring.list())?.unwrap_or_default());
        }
        all.sort();
        all.dedup();
        Ok(all)
    }
}

/// A bus without a keyring has no tokens, which is no failure.
fn absent_is_none<T>(found: sandbox_core::Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Config {
    /// Where tokens are kept: in files, and in the keyring of a session that has one.
    pub(crate) fn token_stores(&self) -> Result<TokenStores> {
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
        let named = environment.session_bus.as_ref().map(|address| address.to_string_lossy().into_owned());
        let usual = || {
            let path = PathBuf::from(environment.xdg_runtime_dir.as_ref()?).join("bus");
            path.exists().then(|| format!("unix:path={}", path.display()))
        };
        let github = self.github()?;
        let keyring = named.or_else(usual).map(|address| Keyring::new(address, &github));
        Ok(TokenStores { files: EnvFiles::new(directory), keyring })
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
        let Some((_, kept)) = self.token_stores()?.find(repository)? else { return Ok(Tokens::Missing) };
        let secret = kept.token.secret().clone();
        let personal = PersonalToken::checked(&self.github_client()?, repository.clone(), secret).await?;
        Ok(Tokens::Personal(Box::new(personal)))
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
