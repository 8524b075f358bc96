//! A token that its user made and keeps.

use async_trait::async_trait;
use sandbox_core::{Error, ErrorKind, RepoGrant, Result, Token, TokenProvider};
use sandbox_policy::{Capabilities, Control, RepoId, Support};
use secrecy::SecretString;

use crate::TokenKind;

/// Hands out one personal access token, for one repository and no other.
///
/// Nothing is asked of GitHub, so what the token may really do, and for how long, is not known: a policy that asks for
/// [`Control::ShortLivedToken`] or [`Control::TokenScope`], as any does that grants a token, refuses it unless both are waived.
#[derive(Clone, Debug)]
pub struct PersonalToken {
    token: Token,
}

impl PersonalToken {
    /// Binds a token to the repository that it was made for.
    ///
    /// # Errors
    /// `Token` if it is no personal access token of GitHub's.
    pub fn new(repository: RepoId, secret: SecretString) -> Result<Self> {
        match TokenKind::of(&secret) {
            Some(TokenKind::Classic | TokenKind::FineGrained) => Ok(Self { token: Token::new(repository, secret) }),
            found => {
                let found = found.map_or("no token of GitHub's".to_owned(), |kind| format!("a token of kind {kind:?}"));
                let message = format!("the token for {repository} is {found}, a personal access token is needed");
                let hint = "make a fine-grained token for the one repository; it begins with `github_pat_`";
                Err(Error::new(ErrorKind::Token, message).with_hint(hint))
            }
        }
    }
}

#[async_trait]
impl TokenProvider for PersonalToken {
    fn capabilities(&self) -> Capabilities {
        let why = "a personal access token lives as long as its user chose";
        let hint = "use a GitHub App's installation tokens, or waive short-lived-token";
        let lives = Support::Unsupported { why: why.to_owned(), hint: hint.to_owned() };
        let why = "nobody has asked GitHub what the token may do";
        let hint = "use a GitHub App's installation tokens, or waive token-scope";
        let may = Support::Unsupported { why: why.to_owned(), hint: hint.to_owned() };
        Capabilities::new().with(Control::ShortLivedToken, lives).with(Control::TokenScope, may)
    }

    async fn token(&self, grant: &RepoGrant) -> Result<Token> {
        let bound = self.token.repository();
        if *bound == grant.repository {
            return Ok(self.token.clone());
        }
        let asked = &grant.repository;
        Err(Error::new(ErrorKind::Token, format!("the token is bound to {bound}, and {asked} was asked for"))
            .with_hint("each repository has a token of its own"))
    }

    /// The token is its user's: it is forgotten here, and stays good until it expires or its user revokes it.
    async fn revoke(&self, _: Token) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    const MADE_UP: &str = "github_pat_MADE0UP0FOR0TESTS0";

    fn provider() -> PersonalToken {
        PersonalToken::new("owner/name".parse().unwrap(), SecretString::from(MADE_UP)).unwrap()
    }

    fn grant(repository: &str) -> RepoGrant {
        RepoGrant { repository: repository.parse().unwrap(), scopes: [sandbox_policy::Scope::Repo].into() }
    }

    #[tokio::test]
    async fn a_token_speaks_for_its_own_repository_alone() {
        let own = grant("Owner/Name");
        assert_eq!(provider().token(&own).await.unwrap().secret().expose_secret(), MADE_UP);
        let other = grant("owner/other");
        let error = provider().token(&other).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Token);
        assert!(error.to_string().contains("owner/other"), "{error}");
    }

    #[test]
    fn other_kinds_are_refused_and_never_printed() {
        for secret in ["ghs_MADE0UP0FOR0TESTS0", "MADE0UP0FOR0TESTS0", ""] {
            let error = PersonalToken::new("owner/name".parse().unwrap(), SecretString::from(secret)).unwrap_err();
            assert!(secret.is_empty() || !format!("{error:?} {error}").contains(secret), "{error:?}");
        }
        assert!(!format!("{:?}", provider()).contains("MADE0UP"));
    }

    #[test]
    fn a_life_that_is_not_known_is_not_called_short() {
        for control in [Control::ShortLivedToken, Control::TokenScope] {
            assert!(matches!(provider().capabilities().get(control), Some(Support::Unsupported { .. })), "{control}");
        }
    }
}
