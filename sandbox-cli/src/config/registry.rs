//! Accounts at registries, as `docker login` keeps them, and the authorities of private ones.
//!
//! Both are read by the rules of those who wrote them, so that what works for Docker works here
//! (<https://docs.docker.com/reference/cli/docker/login/>, containers-certs.d(5)).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbox_core::{Error, ErrorKind, Result};
use sandbox_runtime::{RegistryAccess, RegistryAccount};
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::time::timeout;

use super::{Config, read};

/// Where accounts and authorities are kept.
#[derive(Clone, Debug)]
pub(crate) struct Registries {
    accounts: Option<PathBuf>,
    authorities: Vec<PathBuf>,
}

impl Config {
    /// Knows the registries at which this user has an account.
    pub(super) fn registries(&self) -> Registries {
        let docker = self.environment.docker_directory();
        let of_user = self.environment.home.as_ref().map(|home| PathBuf::from(home).join(".config/containers/certs.d"));
        let of_machine = ["/etc/docker/certs.d", "/etc/containers/certs.d"].map(PathBuf::from);
        let authorities = docker.iter().map(|directory| directory.join("certs.d")).chain(of_user).chain(of_machine);
        Registries { authorities: authorities.collect(), accounts: docker.map(|path| path.join("config.json")) }
    }
}

/// Docker's own settings, as far as they are about accounts. They are held no longer than it takes to find one.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Settings {
    auths: BTreeMap<String, Kept>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Kept {
    #[serde(deserialize_with = "maybe_secret")]
    auth: Option<SecretString>,
    identitytoken: Option<IgnoredAny>,
}

/// What a helper answers (<https://github.com/docker/docker-credential-helpers#development>).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    #[serde(deserialize_with = "secret")]
    secret: SecretString,
}

fn secret<'de, D: Deserializer<'de>>(text: D) -> std::result::Result<SecretString, D::Error> {
    String::deserialize(text).map(SecretString::from)
}

fn maybe_secret<'de, D: Deserializer<'de>>(text: D) -> std::result::Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(text)?.map(SecretString::from))
}

#[async_trait]
impl RegistryAccess for Registries {
    async fn account(&self, registry: &str) -> Result<Option<RegistryAccount>> {
        let Some(path) = &self.accounts else { return Ok(None) };
        let unusable = |why: &str| {
            let message = format!("the account at registry {registry} cannot be had: {why}");
            Error::new(ErrorKind::Token, message)
                .with_hint("`docker login` keeps it anew; `docker logout` goes without")
        };
        let text = read(path).map_err(|error| unusable(&format!("{}", path.display())).with_source(error))?;
        let Some(text) = text.map(Zeroizing::new) else { return Ok(None) };
        // Its words may hold a secret, so they are not passed on.
        let settings: Settings = serde_json::from_str(&text)
            .map_err(|error| unusable(&format!("{} line {}, makes no sense", path.display(), error.line())))?;
        // Docker Hub has the address of its first protocol there.
        let name = if registry == DOCKER_HUB { DOCKER_HUB_ADDRESS } else { registry };
        let helper = settings.cred_helpers.iter().find(|(of, _)| is_same(of, name)).map(|(_, helper)| helper);
        let account = match helper.or(settings.creds_store.as_ref()) {
            Some(helper) => ask(helper, name).await.map_err(|why| unusable(&why))?,
            None => match settings.auths.into_iter().find(|(of, _)| is_same(of, name)) {
                Some((_, Kept { identitytoken: Some(_), .. })) => return Err(unusable(IDENTITY)),
                Some((_, Kept { auth: Some(auth), .. })) => {
                    Some(decode(&auth).ok_or_else(|| unusable("it makes no sense"))?)
                }
                _ => None,
            },
        };
        match account {
            Some(account) if account.user == "<token>" => Err(unusable(IDENTITY)),
            account => Ok(account),
        }
    }

    async fn authorities(&self, registry: &str) -> Result<Vec<u8>> {
        let mut found = Vec::new();
        if !registry.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte)) {
            return Ok(found);
        }
        for directory in &self.authorities {
            let Ok(entries) = std::fs::read_dir(directory.join(registry)) else { continue };
            let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            paths.retain(|path| path.extension().is_some_and(|end| end == "crt"));
            paths.sort_unstable();
            for path in paths {
                let text = read(&path).map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
                found.extend(text.unwrap_or_default().into_bytes());
                found.push(b'\n');
            }
        }
        Ok(found)
    }
}

/// Whether a key of Docker's settings means a registry: keys may have a scheme and a path.
fn is_same(key: &str, registry: &str) -> bool {
    let host = |text: &str| {
        let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default().to_owned()
    };
    key == registry || host(key) == host(registry)
}

fn decode(auth: &SecretString) -> Option<RegistryAccount> {
    let bytes = Zeroizing::new(STANDARD.decode(secrecy::ExposeSecret::expose_secret(auth)).ok()?);
    let (user, secret) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    // Docker pads with zeros.
    Some(RegistryAccount { user: user.to_owned(), secret: secret.trim_end_matches('\0').to_owned().into() })
}

/// Asks a helper; `None` where it knows of no account.
async fn ask(helper: &str, registry: &str) -> std::result::Result<Option<RegistryAccount>, String> {
    if !helper.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Err(format!("{helper:?} is no helper's name"));
    }
    let program = format!("docker-credential-{helper}");
    let failed = |error: std::io::Error| format!("{program}: {error}");
    let mut command = Command::new(&program);
    let command = command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.kill_on_drop(true).spawn().map_err(failed)?;
    let exchange = async {
        if let Some(mut stdin) = child.stdin.take() {
            // Who does not read it has answered.
            let _ = stdin.write_all(registry.as_bytes()).await;
        }
        let mut said = Zeroizing::new(Vec::new());
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_ANSWER + 1).read_to_end(&mut said).await?;
        }
        Ok((said, child.wait().await?))
    };
    let (said, status) = timeout(PATIENCE, exchange)
        .await
        .map_err(|_| format!("{program} did not answer within {} s", PATIENCE.as_secs()))?
        .map_err(failed)?;
    if said.len() as u64 > MAX_ANSWER {
        return Err(format!("{program} says more than {MAX_ANSWER} bytes"));
    }
    if !status.success() {
        let is_unknown = std::str::from_utf8(&said).is_ok_and(|said| said.contains("credentials not found"));
        return if is_unknown { Ok(None) } else { Err(format!("{program} ended with {status}")) };
    }
    let Answer { username, secret } =
        serde_json::from_slice(&said).map_err(|_| format!("what {program} says makes no sense"))?;
    Ok(Some(RegistryAccount { user: username, secret }))
}

const DOCKER_HUB: &str = "index.docker.io";
const DOCKER_HUB_ADDRESS: &str = "https://index.docker.io/v1/";
const IDENTITY: &str = "it is an identity token, which is not understood; log in with a password or an access token";
/// Bytes that a helper may say, and how long it may take: it may ask somebody.
const MAX_ANSWER: u64 = 64 << 10;
const PATIENCE: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    async fn account(settings: &str, registry: &str) -> Result<Option<(String, String)>> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, settings).unwrap();
        let registries = Registries { accounts: Some(path), authorities: Vec::new() };
        let found = registries.account(registry).await?;
        Ok(found.map(|account| (account.user, account.secret.expose_secret().to_owned())))
    }

    #[tokio::test]
    async fn an_account_is_found_under_each_form_of_its_registry() {
        let auth = STANDARD.encode("robot:made-up:secret");
        let expected = Some(("robot".to_owned(), "made-up:secret".to_owned()));
        for (key, registry) in [
            ("registry.example:5000", "registry.example:5000"),
            ("https://registry.example", "registry.example"),
            ("https://registry.example/v2/", "registry.example"),
            ("https://index.docker.io/v1/", "index.docker.io"),
        ] {
            let settings = format!(r#"{{"auths": {{"{key}": {{"auth": "{auth}"}}}}, "other": 1}}"#);
            assert_eq!(account(&settings, registry).await.unwrap(), expected, "{key}");
            assert_eq!(account(&settings, "registry.example.evil").await.unwrap(), None, "{key}");
        }
        assert_eq!(account("{}", "registry.example").await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_told_without_the_secret() {
        for settings in [
            r#"{"auths": {"r": {"identitytoken": "made-up-secret"}}}"#,
            r#"{"auths": {"r": {"auth": "made-up-secret"}}}"#,
            r#"{"auths": {"r": {"auth": ["made-up-secret"]}}}"#,
            r#"{"credHelpers": {"r": "../made-up"}}"#,
            r#"{"credsStore": "made-up-that-is-not-there"}"#,
        ] {
            let error = account(settings, "r").await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Token, "{settings}");
            assert!(!format!("{error:?}").contains("made-up-secret") && error.hint().is_some(), "{error:?}");
        }
    }

    #[tokio::test]
    async fn authorities_are_those_of_the_registry() {
        let directory = tempfile::tempdir().unwrap();
        let own = directory.path().join("registry.example:5000");
        std::fs::create_dir(&own).unwrap();
        std::fs::write(own.join("ca.crt"), "one").unwrap();
        std::fs::write(own.join("client.key"), "other").unwrap();
        let registries = Registries { accounts: None, authorities: vec![directory.path().to_owned()] };
        assert_eq!(registries.authorities("registry.example:5000").await.unwrap(), b"one\n");
        for other in ["registry.example", "..", "../x", "x/registry.example:5000"] {
            assert_eq!(registries.authorities(other).await.unwrap(), b"", "{other}");
        }
    }
}
