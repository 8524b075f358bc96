//! One installation token, asked for as narrow as it is needed and looked at before anybody has it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use sandbox_core::{RepoGrant, Token};
use sandbox_policy::{RepoId, TokenLevel, TokenPermission, TokenPermissions};
use secrecy::SecretString;
use secrecy::zeroize::Zeroize as _;
use serde::{Deserialize, Deserializer};
use serde_json::json;

use super::claim::Claimant;
use crate::client::{Answer, Call, Client, read};
use crate::{Error, Result, TokenKind, expiry, token_sha256};

/// An installation token with all that GitHub said of it. It prints without the token.
#[derive(Clone)]
#[non_exhaustive]
pub struct InstallationToken {
    /// The token, bound to its repository, with its end.
    pub token: Token,
    /// When it ends, by GitHub's clock.
    pub expires: SystemTime,
    /// All that it may do, whether known here or not.
    pub permissions: TokenPermissions,
    /// GitHub's number of the repository, which stays when its name changes.
    pub repository: u64,
    /// What GitHub's audit log calls it.
    pub sha256: [u8; 32],
}

impl fmt::Debug for InstallationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token, expires, permissions, repository, sha256: _ } = self;
        f.debug_struct("InstallationToken")
            .field("token", token)
            .field("expires", expires)
            .field("permissions", &permissions.to_string())
            .field("repository", repository)
            .finish_non_exhaustive()
    }
}

/// Where a repository's tokens come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) installation: u64,
    /// Known from the first token on: what is asked for by number stays the same repository.
    pub(super) repository: Option<u64>,
}

/// Finds the installation that has the repository, and sees whether it can give what is asked for.
pub(super) async fn find(client: &Client, claimant: &Claimant, grant: &RepoGrant) -> Result<Place> {
    let repository = &grant.repository;
    let what = format!("finding the app's installation for {repository}");
    let path = ["repos", repository.owner(), repository.name(), "installation"];
    let answer = as_app(client, claimant, || Call::get(&path, what.clone())).await?;
    if answer.status == StatusCode::NOT_FOUND {
        return Err(Error::NotInstalled { repository: repository.to_string() });
    }
    let Installation { id, permissions, suspended_at } = answer.json()?;
    if suspended_at.is_some() {
        return Err(Error::Suspended { repository: repository.to_string() });
    }
    let missing = TokenPermissions::of(&grant.scopes).beyond(&known(&permissions));
    if !missing.is_empty() {
        return Err(Error::Ungranted { repository: repository.to_string(), missing: missing.to_string() });
    }
    Ok(Place { installation: id, repository: None })
}

/// Mints a token and looks at it. One that is not as it was asked for is revoked, and nobody gets it.
pub(super) async fn mint(
    client: &Client,
    claimant: &Claimant,
    grant: &RepoGrant,
    place: Place,
) -> Result<InstallationToken> {
    let RepoGrant { repository, scopes } = grant;
    let asked = TokenPermissions::of(scopes);
    let permissions: BTreeMap<&str, &str> = asked.iter().map(|(name, level)| (name.as_str(), level.as_str())).collect();
    let body = match place.repository {
        Some(id) => json!({ "repository_ids": [id], "permissions": permissions }),
        None => json!({ "repositories": [repository.name()], "permissions": permissions }),
    };
    let what = format!("minting a token for {repository}");
    let installation = place.installation.to_string();
    let path = ["app", "installations", &installation, "access_tokens"];
    let call = || Call::new(Method::POST, &path, what.clone()).body(body.clone());
    let Answer { mut body, what, .. } =
        as_app(client, claimant, call).await?.expect(StatusCode::CREATED).map_err(|error| match error {
            Error::Invalid { .. } => {
                Error::Ungranted { repository: repository.to_string(), missing: asked.to_string() }
            }
            Error::Forbidden { .. } => Error::Suspended { repository: repository.to_string() },
            other => other,
        })?;
    let made = read::<Made>(&body, what.clone());
    body.zeroize();
    let made = made?;
    let fault = match made.fault(grant, &asked, place, claimant.now()) {
        Ok(fit) => return Ok(fit),
        Err(fault) => fault,
    };
    let revoked = client.revoke_installation(&made.token).await;
    Err(Error::Overreaching { what, why: fault, revoked: revoked.err().map(|error| error.to_string()) })
}

/// Asks in the app's name, and again if GitHub's clock shows why it was refused. A claim that is refused did nothing.
async fn as_app<'a>(client: &Client, claimant: &Claimant, call: impl Fn() -> Call<'a>) -> Result<Answer> {
    let answer = ask(client, claimant, call()).await?;
    let off =
        answer.status == StatusCode::UNAUTHORIZED && answer.header("date").is_some_and(|date| claimant.learn(date));
    let answer = if off { ask(client, claimant, call()).await? } else { answer };
    if answer.status == StatusCode::UNAUTHORIZED {
        return Err(Error::NotTheApp { what: answer.what });
    }
    Ok(answer)
}

async fn ask(client: &Client, claimant: &Claimant, call: Call<'_>) -> Result<Answer> {
    let claim = claimant.claim()?;
    client.send(&call.bearer(&claim)).await
}

/// An installation, as far as it matters.
#[derive(Deserialize)]
struct Installation {
    id: u64,
    #[serde(default)]
    permissions: BTreeMap<String, String>,
    #[serde(default)]
    suspended_at: Option<String>,
}

/// The answer to a minting.
#[derive(Deserialize)]
struct Made {
    #[serde(deserialize_with = "secret")]
    token: SecretString,
    expires_at: String,
    #[serde(default)]
    permissions: BTreeMap<String, String>,
    #[serde(default)]
    repository_selection: Option<String>,
    #[serde(default)]
    repositories: Option<Vec<Repository>>,
}

#[derive(Deserialize)]
struct Repository {
    id: u64,
    full_name: String,
}

impl Made {
    /// Makes of the answer what was asked for, or says in what it is not that.
    fn fault(
        &self,
        grant: &RepoGrant,
        asked: &TokenPermissions,
        place: Place,
        now: SystemTime,
    ) -> Result<InstallationToken, String> {
        if TokenKind::of(&self.token) != Some(TokenKind::Installation) {
            return Err("it is no installation token".to_owned());
        }
        let unheard_of = self.permissions.len() - known(&self.permissions).iter().count();
        if unheard_of > 0 {
            return Err(format!("it carries {unheard_of} permissions that cannot be read"));
        }
        let permissions = known(&self.permissions);
        let beyond = permissions.beyond(asked);
        if !beyond.is_empty() {
            return Err(format!("it carries {beyond} beyond what was asked for"));
        }
        if self.repository_selection.as_deref() == Some("all") {
            return Err("it reaches all repositories of the installation".to_owned());
        }
        let [only] = self.repositories.as_deref().unwrap_or_default() else {
            let count =
                self.repositories.as_ref().map_or("an unknown number of".to_owned(), |all| all.len().to_string());
            return Err(format!("it reaches {count} repositories, and one was asked for"));
        };
        let same = only.full_name.parse::<RepoId>().ok().as_ref() == Some(&grant.repository);
        if !same || place.repository.is_some_and(|id| id != only.id) {
            return Err("it reaches another repository: was this one renamed?".to_owned());
        }
        let expires = expiry::body(&self.expires_at).ok_or("its end cannot be read")?;
        match expires.duration_since(now) {
            Ok(left) if left <= LONGEST => {}
            Ok(_) => return Err("it lives for longer than an hour".to_owned()),
            Err(_) => return Err("it has ended already".to_owned()),
        }
        let token = Token::new(grant.repository.clone(), self.token.clone()).until(expires);
        Ok(InstallationToken { token, expires, permissions, repository: only.id, sha256: token_sha256(&self.token) })
    }
}

/// The permissions that have a name and a level.
fn known(permissions: &BTreeMap<String, String>) -> TokenPermissions {
    let parsed = |(name, level): (&String, &String)| {
        Some((name.parse::<TokenPermission>().ok()?, level.parse::<TokenLevel>().ok()?))
    };
    permissions.iter().filter_map(parsed).collect()
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    String::deserialize(deserializer).map(SecretString::from)
}

/// An hour, and some for clocks that differ.
const LONGEST: Duration = Duration::from_mins(70);
