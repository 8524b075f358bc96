//! What a personal access token is good for, as far as GitHub tells.
//!
//! GitHub has no call that describes a fine-grained token, so a part of the answer is a guess, and is named one.

use std::time::SystemTime;

use http::StatusCode;
use sandbox_policy::{RepoId, Span, TokenCarries, TokenFacts, TokenForm, TokenLife, TokenReach};
use secrecy::SecretString;
use serde::Deserialize;

use crate::client::{Answer, Call, Client};
use crate::{Error, Result, TokenKind, expiry};

/// What was found out about a personal token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PatReport {
    /// Its kind, by its prefix.
    pub kind: TokenKind,
    /// When it ends.
    pub expiry: Expiry,
    /// The scopes of a classic token; `None` where GitHub names none, as for fine-grained ones.
    pub scopes: Option<Vec<String>>,
    /// Whether the repository is private.
    pub private: bool,
    /// What the token's *user* may do there: `pull`, `push`, `admin` and so on. The token may do less.
    pub role: Vec<String>,
    /// Whether it reaches this repository alone.
    pub reach: Reach,
    /// What could not be found out, in words.
    pub unknown: Vec<String>,
}

/// When a token ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expiry {
    /// At this moment.
    At(SystemTime),
    /// Never: GitHub names no end.
    Never,
    /// GitHub names an end in a form that is not known here; take it for never.
    Unreadable,
}

/// Whether a token reaches one repository alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// GitHub lists this private repository and no other. Public ones may be read by any token.
    LikelySingle,
    /// It certainly reaches others.
    Many,
    /// Nobody can tell.
    Unknown,
    /// GitHub says so itself; only installation tokens can be asked.
    Verified,
}

impl PatReport {
    /// Says the same in the policy's words, which decides whether the token will do.
    pub fn facts(&self, now: SystemTime) -> TokenFacts {
        let life = match self.expiry {
            Expiry::At(at) => {
                let left = at.duration_since(now).unwrap_or_default().as_secs();
                TokenLife::Ends(Span::seconds(u32::try_from(left).unwrap_or(u32::MAX)))
            }
            Expiry::Never => TokenLife::Never,
            Expiry::Unreadable => TokenLife::Unreadable,
        };
        let reach = match self.reach {
            Reach::LikelySingle => TokenReach::LikelySingle,
            Reach::Many => TokenReach::Many,
            Reach::Unknown => TokenReach::Unknown,
            Reach::Verified => TokenReach::Verified,
        };
        let (form, carries) = match self.kind {
            TokenKind::Classic => (TokenForm::Classic, TokenCarries::Scopes(self.scopes.clone().unwrap_or_default())),
            _ => (TokenForm::FineGrained, TokenCarries::Unknown),
        };
        TokenFacts { form, life, reach, carries }
    }
}

impl Client {
    /// Finds out what a personal token is good for.
    ///
    /// # Errors
    /// `Input` if it is no personal token; `Unauthorized` if it is not valid; `NotFound` if the repository is out of its
    /// reach; `Moved` if the repository was renamed.
    pub async fn check_pat(&self, secret: &SecretString, repository: &RepoId) -> Result<PatReport> {
        let kind = TokenKind::of(secret)
            .filter(|kind| matches!(kind, TokenKind::Classic | TokenKind::FineGrained))
            .ok_or_else(|| Error::Input {
                field: "the token",
                given: "something that is no personal access token".to_owned(),
                allowed: "a token that begins with github_pat_ (or, where the policy allows it, ghp_)",
            })?;
        let what = format!("reading {repository}");
        let call = Call::get(&["repos", repository.owner(), repository.name()], what).bearer(secret);
        let answer = self.send(&call).await?.expect(StatusCode::OK)?;
        let expiry = match answer.headers.get(EXPIRY) {
            None => Expiry::Never,
            Some(text) => text.to_str().ok().and_then(expiry::header).map_or(Expiry::Unreadable, Expiry::At),
        };
        let scopes = scopes(&answer);
        let Repository { private, permissions, full_name } = answer.json()?;
        if full_name.parse::<RepoId>().ok().as_ref() != Some(repository) {
            return Err(Error::Moved { what: call.what });
        }
        let mut unknown = Vec::new();
        let reach = match kind {
            TokenKind::Classic => Reach::Many,
            _ => self.reach(secret, repository, private, &mut unknown).await?,
        };
        if kind == TokenKind::FineGrained {
            unknown.push("which permissions the token has: GitHub does not tell of fine-grained tokens".to_owned());
        }
        let role = permissions.into_iter().filter_map(|(name, has)| has.then_some(name)).collect();
        Ok(PatReport { kind, expiry, scopes, private, role, reach, unknown })
    }

    /// A fine-grained token lists the private repositories that it was given, and every public one.
    async fn reach(
        &self,
        secret: &SecretString,
        repository: &RepoId,
        private: bool,
        unknown: &mut Vec<String>,
    ) -> Result<Reach> {
        let call = Call::get(&["user", "repos"], "listing the repositories that the token reaches")
            .query("visibility", "private")
            .query("per_page", 2)
            .bearer(secret);
        let answer = self.send(&call).await?;
        if answer.status != StatusCode::OK {
            unknown.push("whether it reaches other private repositories: GitHub does not list them".to_owned());
            return Ok(Reach::Unknown);
        }
        let listed: Vec<Repository> = answer.json()?;
        let others = listed.iter().any(|found| found.full_name.parse::<RepoId>().ok().as_ref() != Some(repository));
        if others {
            return Ok(Reach::Many);
        }
        unknown.push("whether it may write to other public repositories".to_owned());
        Ok(if private && !listed.is_empty() { Reach::LikelySingle } else { Reach::Unknown })
    }
}

fn scopes(answer: &Answer) -> Option<Vec<String>> {
    let named = answer.header("x-oauth-scopes")?;
    Some(named.split(',').map(|scope| scope.trim().to_owned()).filter(|scope| !scope.is_empty()).collect())
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
    private: bool,
    #[serde(default)]
    permissions: std::collections::BTreeMap<String, bool>,
}

const EXPIRY: &str = "github-authentication-token-expiration";
