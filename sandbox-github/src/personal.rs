//! A token that its user made and keeps.

use std::time::SystemTime;

use async_trait::async_trait;
use sandbox_core::{Error, ErrorKind, RepoGrant, Result, Token, TokenProvider};
use sandbox_policy::{
    BranchProtection, Capabilities, Host, RepoId, Scope, TokenCarries, TokenFacts, TokenForm, TokenLife, TokenReach,
};
use secrecy::SecretString;

use crate::{Client, Expiry, PatReport, TokenKind};

/// Hands out one personal access token, for one repository and no other.
///
/// [`PersonalToken::checked`] asks GitHub what the token is good for, and the policy decides on the answer: a classic
/// token, and one that lives for too long, are refused. GitHub does not tell which permissions a fine-grained token has,
/// so [`Control::TokenScope`](sandbox_policy::Control::TokenScope) is never proved of one, and a policy must waive it by name.
#[derive(Clone, Debug)]
pub struct PersonalToken {
    token: Token,
    form: TokenForm,
    found: Option<(Client, PatReport)>,
    at_end: AtEnd,
}

/// What becomes of the token at the end of its sandbox.
#[derive(Clone, Debug)]
enum AtEnd {
    Keep,
    Revoke(Client),
}

impl PersonalToken {
    /// Binds a token to the repository that it was made for, and asks nobody about it. Then nothing is known of it, and a
    /// policy must waive both controls of tokens.
    ///
    /// # Errors
    /// `Token` if it is no personal access token of GitHub's.
    pub fn new(repository: RepoId, secret: SecretString) -> Result<Self> {
        let form = match TokenKind::of(&secret) {
            Some(TokenKind::Classic) => TokenForm::Classic,
            Some(TokenKind::FineGrained) => TokenForm::FineGrained,
            found => {
                let found = found.map_or("no token of GitHub's".to_owned(), |kind| format!("a token of kind {kind:?}"));
                let message = format!("the token for {repository} is {found}, a personal access token is needed");
                let hint = "make a fine-grained token for the one repository; it begins with `github_pat_`";
                return Err(Error::new(ErrorKind::Token, message).with_hint(hint));
            }
        };
        Ok(Self { token: Token::new(repository, secret), form, found: None, at_end: AtEnd::Keep })
    }

    /// Binds a token to its repository, after GitHub was asked what it is good for.
    ///
    /// # Errors
    /// As [`PersonalToken::new`] and [`Client::check_pat`].
    pub async fn checked(client: &Client, repository: RepoId, secret: SecretString) -> Result<Self> {
        let mut checked = Self::new(repository, secret)?;
        let report = client.check_pat(checked.token.secret(), checked.token.repository()).await?;
        if let Expiry::At(at) = report.expiry {
            checked.token = checked.token.until(at);
        }
        checked.found = Some((client.clone(), report));
        Ok(checked)
    }

    /// Has the token revoked at the end of its sandbox, for good: its user must make a new one for the next.
    #[must_use]
    pub fn revoked_at_end(mut self, client: &Client) -> Self {
        self.at_end = AtEnd::Revoke(client.clone());
        self
    }

    /// What GitHub said of it, if it was asked.
    pub fn report(&self) -> Option<&PatReport> {
        self.found.as_ref().map(|(_, report)| report)
    }

    fn facts_now(&self) -> TokenFacts {
        let unasked = TokenFacts {
            form: self.form,
            life: TokenLife::Unasked,
            reach: TokenReach::Unknown,
            carries: TokenCarries::Unknown,
        };
        self.report().map_or(unasked, |report| report.facts(SystemTime::now()))
    }
}

#[async_trait]
impl TokenProvider for PersonalToken {
    /// What holds whatever is granted; the policy weighs the rest by the facts.
    fn capabilities(&self) -> Capabilities {
        self.facts_now().capabilities(&Scope::ALL.iter().copied().collect())
    }

    fn facts(&self) -> Option<TokenFacts> {
        Some(self.facts_now())
    }

    fn server(&self) -> Option<(Host, u16)> {
        self.found.as_ref().and_then(|(client, _)| client.url().server())
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

    async fn default_branch(&self, token: &Token) -> Result<BranchProtection> {
        match &self.found {
            Some((client, _)) => Ok(client.default_branch_protection(token).await?),
            None => Ok(BranchProtection::Unknown { why: "nobody has asked GitHub about the token".to_owned() }),
        }
    }

    async fn repository_number(&self, token: &Token) -> Result<Option<u64>> {
        match &self.found {
            Some((client, _)) => Ok(Some(client.repository_number(token.secret(), token.repository()).await?)),
            None => Ok(None),
        }
    }

    /// The token is its user's: it is forgotten here, and stays good until it expires or its user revokes it, unless they
    /// [asked](PersonalToken::revoked_at_end) for its end.
    async fn revoke(&self, token: Token) -> Result<()> {
        match &self.at_end {
            AtEnd::Keep => Ok(()),
            AtEnd::Revoke(client) => Ok(client.revoke(token.secret()).await.map(drop)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use sandbox_policy::{Control, Support};
    use secrecy::ExposeSecret as _;

    use super::*;

    const MADE_UP: &str = "github_pat_MADE0UP0FOR0TESTS0";

    fn provider() -> PersonalToken {
        PersonalToken::new("owner/name".parse().unwrap(), SecretString::from(MADE_UP)).unwrap()
    }

    fn grant(repository: &str) -> RepoGrant {
        RepoGrant { repository: repository.parse().unwrap(), scopes: [Scope::Repo].into() }
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
