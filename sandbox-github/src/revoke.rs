//! The end of a token, checked.
//!
//! Each kind is revoked in its own way, and afterwards used once: only a 401 proves that it is gone.
//! <https://docs.github.com/en/rest/credentials/revoke>, <https://docs.github.com/en/rest/apps/installations#revoke-an-installation-access-token>

use http::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use crate::client::{Answer, Call, Client, Credential};
use crate::{Error, Result, TokenKind};

/// An OAuth app, which may end the tokens that were made for it. It prints without its secret.
#[derive(Clone, Debug)]
pub struct OAuthApp {
    /// The client id.
    pub client_id: String,
    /// The client secret.
    pub client_secret: SecretString,
}

/// How a token came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Revoked {
    /// It was not valid any more when it was looked at first.
    Already,
    /// It was revoked now.
    Now,
}

impl Client {
    /// Revokes a token for good, and makes sure of it. `Ok` means that GitHub no longer accepts it.
    ///
    /// An Enterprise Server may have no way to revoke personal tokens; then this says so.
    ///
    /// # Errors
    /// `Input` if it is no token of GitHub's; `StillGood` where it was not revoked, or nobody can tell.
    pub async fn revoke(&self, secret: &SecretString) -> Result<Revoked> {
        let kind = TokenKind::of(secret).ok_or_else(|| Error::Input {
            field: "the token to revoke",
            given: "something that is no token".to_owned(),
            allowed: "a token of GitHub's, such as one that begins with github_pat_",
        })?;
        if self.is_dead(kind, secret).await? {
            return Ok(Revoked::Already);
        }
        let asked = match kind {
            TokenKind::Installation => self.revoke_own(secret).await,
            _ => self.revoke_reported(secret).await,
        };
        self.seen_dead(kind, secret, asked).await
    }

    /// Revokes a token that was made for an OAuth app, in the app's name. It works where tokens cannot be reported, as on an
    /// Enterprise Server.
    ///
    /// # Errors
    /// `Input` if it is no token of an app's; `StillGood` where it was not revoked, or nobody can tell.
    pub async fn revoke_of_app(&self, app: &OAuthApp, secret: &SecretString) -> Result<Revoked> {
        let kind = TokenKind::of(secret).filter(|kind| matches!(kind, TokenKind::OAuth | TokenKind::User));
        let kind = kind.ok_or_else(|| Error::Input {
            field: "the token to revoke",
            given: "something that is no token of an app's user".to_owned(),
            allowed: "a token that begins with gho_ or ghu_",
        })?;
        if self.is_dead(kind, secret).await? {
            return Ok(Revoked::Already);
        }
        let path = ["applications", &app.client_id, "token"];
        let call = Call::new(Method::DELETE, &path, WHAT)
            .body(json!({ "access_token": secret.expose_secret() }))
            .with(Credential::Basic(&app.client_id, &app.client_secret))
            .hiding(secret);
        let asked = self.send(&call).await.and_then(|answer| answer.expect(StatusCode::NO_CONTENT));
        self.seen_dead(kind, secret, asked).await
    }

    async fn seen_dead(&self, kind: TokenKind, secret: &SecretString, asked: Result<Answer>) -> Result<Revoked> {
        // Whatever was answered, or lost on the way: what counts is whether the token is still good.
        for attempt in 0..LOOKS {
            if self.is_dead(kind, secret).await? {
                return Ok(Revoked::Now);
            }
            if asked.is_err() {
                break;
            }
            tokio::time::sleep(BETWEEN.saturating_mul(1 << attempt)).await;
        }
        let why = asked.err().map_or("GitHub still accepts it".to_owned(), |error| error.to_string());
        Err(Error::StillGood { what: WHAT.to_owned(), why })
    }

    /// Revokes what the answer to a minting calls a token, whatever it looks like.
    pub(crate) async fn revoke_installation(&self, secret: &SecretString) -> Result<()> {
        let asked = self.revoke_own(secret).await;
        if self.is_dead(TokenKind::Installation, secret).await? {
            return Ok(());
        }
        let why = asked.err().map_or("GitHub still accepts it".to_owned(), |error| error.to_string());
        Err(Error::StillGood { what: WHAT.to_owned(), why })
    }

    /// Tells whether GitHub has stopped accepting a token; any answer but a 401 is none.
    async fn is_dead(&self, kind: TokenKind, secret: &SecretString) -> Result<bool> {
        let look: &[&str] = if kind == TokenKind::Installation { &["installation", "repositories"] } else { &["user"] };
        let call = Call::get(look, "looking whether the token is still good").bearer(secret);
        Ok(self.send(&call).await?.status == StatusCode::UNAUTHORIZED)
    }

    async fn revoke_own(&self, secret: &SecretString) -> Result<Answer> {
        let call = Call::new(Method::DELETE, &["installation", "token"], WHAT).bearer(secret);
        self.send(&call).await?.expect(StatusCode::NO_CONTENT)
    }

    /// Whoever holds a token may report it. The call carries no credential: with one, GitHub refuses it.
    async fn revoke_reported(&self, secret: &SecretString) -> Result<Answer> {
        let body = json!({ "credentials": [secret.expose_secret()] });
        let call = Call::new(Method::POST, &["credentials", "revoke"], WHAT).body(body).hiding(secret);
        self.send(&call).await?.expect(StatusCode::ACCEPTED)
    }
}

const WHAT: &str = "revoking a token";
/// GitHub accepts reports at once and works on them afterwards.
const LOOKS: u32 = 5;
const BETWEEN: std::time::Duration = std::time::Duration::from_millis(200);
