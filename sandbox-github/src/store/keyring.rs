//! Tokens in the keyring of a desktop, by its Secret Service
//! (<https://specifications.freedesktop.org/secret-service-spec/latest/>).
//!
//! An item is found by what it is for, the GitHub and the repository in full, so no two repositories share one. The
//! service is spoken to on a thread of its own, and for a bounded time: it may be waiting for its user.

use std::collections::HashMap;
use std::sync::mpsc;
use std::time::{Duration, UNIX_EPOCH};

use sandbox_core::{Error, ErrorKind, Result, Token};
use sandbox_policy::RepoId;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use secret_service::EncryptionType;
use secret_service::blocking::{Collection, Item, SecretService};
use zbus::blocking::connection::Builder;

use super::{KeptToken, Removed, TokenStore};
use crate::{GitHubUrl, TokenKind};

/// Keeps tokens in a user's keyring.
#[derive(Clone, Debug)]
pub struct Keyring {
    /// The session bus, on which the service answers.
    bus: String,
    /// The GitHub that the tokens are for.
    github: String,
}

impl Keyring {
    /// Keeps the tokens of one GitHub in the keyring that answers on a session bus, such as `unix:path=/run/user/1000/bus`.
    /// Nothing is asked of it yet.
    pub fn new(bus: impl Into<String>, github: &GitHubUrl) -> Self {
        Self { bus: bus.into(), github: github.web().to_owned() }
    }

    /// What an item is found by.
    fn named<'a>(&'a self, repository: Option<&'a str>) -> HashMap<&'a str, &'a str> {
        let all = [("xdg:schema", SCHEMA), ("github", self.github.as_str())];
        all.into_iter().chain(repository.map(|repository| (REPOSITORY, repository))).collect()
    }

    /// Does something with the user's usual collection, which must be open.
    fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self, &Collection<'_>) -> Result<T, secret_service::Error> + Send + 'static,
    ) -> Result<T> {
        let (tell, told) = mpsc::channel();
        let own = self.clone();
        // It ends by itself; one that waits for a service that is stuck is not waited for.
        std::thread::spawn(move || {
            let done = own.connected(work);
            // Nobody waits for what comes too late.
            let _ = tell.send(done);
        });
        told.recv_timeout(WITHIN).unwrap_or_else(|_| Err(Error::deadline("the keyring's answer", WITHIN)))
    }

    fn connected<T>(&self, work: impl FnOnce(&Self, &Collection<'_>) -> Result<T, secret_service::Error>) -> Result<T> {
        let bus = || Builder::address(self.bus.as_str())?.method_timeout(ONE_CALL).build();
        let bus = bus().map_err(|error| absent(&error.into()))?;
        let service = SecretService::connect_with_existing(EncryptionType::Dh, bus).map_err(|error| absent(&error))?;
        let collection = service.get_default_collection().map_err(|error| absent(&error))?;
        if collection.is_locked().map_err(|error| failed(&error))? {
            return Err(Error::new(ErrorKind::Denied, "the keyring is locked").with_hint("unlock it, and try again"));
        }
        work(self, &collection).map_err(|error| failed(&error))
    }
}

impl TokenStore for Keyring {
    fn load(&self, repository: &RepoId) -> Result<Option<KeptToken>> {
        let name = folded(repository);
        let found = self.with(move |own, collection| {
            let mut newest: Option<(u64, Zeroizing<Vec<u8>>, Option<String>)> = None;
            for item in collection.search_items(own.named(Some(&name)))? {
                let modified = item.get_modified()?;
                if newest.as_ref().is_none_or(|(other, ..)| modified >= *other) {
                    let secret = Zeroizing::new(item.get_secret()?);
                    newest = Some((modified, secret, item.get_attributes()?.remove(EXPIRES)));
                }
            }
            Ok(newest)
        })?;
        let Some((_, secret, expires)) = found else { return Ok(None) };
        let text = std::str::from_utf8(&secret).unwrap_or_default();
        let secret = SecretString::from(text);
        if TokenKind::of(&secret).is_none() {
            let message = format!("what the keyring has for {repository} is no token of GitHub's");
            return Err(Error::new(ErrorKind::Token, message).with_hint("remove it there, and set the token up anew"));
        }
        let expires = expires.and_then(|text| UNIX_EPOCH.checked_add(Duration::from_secs(text.parse().ok()?)));
        Ok(Some(KeptToken { token: Token::new(repository.clone(), secret), expires }))
    }

    fn save(&self, kept: &KeptToken) -> Result<()> {
        let repository = kept.token.repository();
        if TokenKind::of(kept.token.secret()).is_none() {
            return Err(Error::new(ErrorKind::Token, format!("the token for {repository} is none of GitHub's")));
        }
        let (name, label) = (folded(repository), format!("GitHub token for {repository} (sandbox)"));
        let secret = Zeroizing::new(kept.token.secret().expose_secret().as_bytes().to_vec());
        let seconds = kept.expires.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map(|at| at.as_secs().to_string());
        self.with(move |own, collection| {
            let before = collection.search_items(own.named(Some(&name)))?;
            let mut attributes = own.named(Some(&name));
            attributes.extend(seconds.as_deref().map(|seconds| (EXPIRES, seconds)));
            // The new one first, so that there is always one; what it does not replace, having other attributes, goes then.
            let new = collection.create_item(&label, attributes, &secret, true, "text/plain")?;
            for item in before.iter().filter(|item| item.item_path != new.item_path) {
                remove(item)?;
            }
            Ok(())
        })
    }

    fn remove(&self, repository: &RepoId) -> Result<Removed> {
        let name = folded(repository);
        self.with(move |own, collection| {
            let found = collection.search_items(own.named(Some(&name)))?;
            found.iter().try_for_each(remove)?;
            Ok(if found.is_empty() { Removed::Absent } else { Removed::Forgotten })
        })
    }

    fn list(&self) -> Result<Vec<RepoId>> {
        let names = self.with(|own, collection| {
            let items = collection.search_items(own.named(None))?;
            items.iter().map(Item::get_attributes).collect::<Result<Vec<_>, _>>()
        })?;
        let mut found: Vec<RepoId> =
            names.into_iter().filter_map(|mut it| it.remove(REPOSITORY)?.parse().ok()).collect();
        found.sort();
        found.dedup();
        Ok(found)
    }
}

/// Removes an item; one that has gone meanwhile will do.
fn remove(item: &Item<'_>) -> Result<(), secret_service::Error> {
    match item.delete() {
        Err(secret_service::Error::NoResult) => Ok(()),
        removed => removed,
    }
}

/// A repository as GitHub compares its name.
fn folded(repository: &RepoId) -> String {
    repository.to_string().to_ascii_lowercase()
}

fn absent(error: &secret_service::Error) -> Error {
    Error::new(ErrorKind::NotFound, format!("no keyring answers on the session bus: {error}"))
        .with_hint("start the desktop's keyring, or keep tokens in files")
}

fn failed(error: &secret_service::Error) -> Error {
    Error::new(ErrorKind::Io, format!("the keyring refuses: {error}"))
}

const SCHEMA: &str = "dev.sandbox.Token";
const REPOSITORY: &str = "repository";
const EXPIRES: &str = "expires";
/// How long one call may take.
const ONE_CALL: Duration = Duration::from_secs(10);
/// How long everything may take.
const WITHIN: Duration = Duration::from_secs(30);
