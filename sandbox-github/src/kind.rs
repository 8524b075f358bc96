//! What a token is, by its prefix.

use secrecy::{ExposeSecret as _, SecretString};

/// The kinds of GitHub tokens, told apart by their prefixes
/// (<https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/about-authentication-to-github#githubs-token-formats>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenKind {
    /// `ghp_`: a classic personal access token, good for all that its user may see.
    Classic,
    /// `github_pat_`: a fine-grained personal access token.
    FineGrained,
    /// `ghs_`: an installation token of a GitHub App.
    Installation,
    /// `gho_`: the token of an OAuth app.
    OAuth,
    /// `ghu_`: a user's token of a GitHub App.
    User,
}

impl TokenKind {
    /// Tells a token's kind; `None` if it is none of GitHub's.
    pub fn of(secret: &SecretString) -> Option<Self> {
        let secret = secret.expose_secret();
        let (kind, rest) = PREFIXES.iter().find_map(|(prefix, kind)| Some((*kind, secret.strip_prefix(prefix)?)))?;
        let body = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        let fits = (MIN_BODY..=MAX_BODY).contains(&rest.len()) && rest.bytes().all(body);
        fits.then_some(kind)
    }
}

const PREFIXES: [(&str, TokenKind); 5] = [
    ("ghp_", TokenKind::Classic),
    ("github_pat_", TokenKind::FineGrained),
    ("ghs_", TokenKind::Installation),
    ("gho_", TokenKind::OAuth),
    ("ghu_", TokenKind::User),
];

/// Tokens grow: what is bounded here is the header that one is sent in, not what GitHub may choose.
const MIN_BODY: usize = 16;
const MAX_BODY: usize = 4096;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(text: &str) -> Option<TokenKind> {
        TokenKind::of(&SecretString::from(text))
    }

    #[test]
    fn prefixes_tell_kinds_apart() {
        let body = "MADE0UP0FOR0TESTS0";
        assert_eq!(kind(&format!("ghp_{body}")), Some(TokenKind::Classic));
        assert_eq!(kind(&format!("github_pat_{body}_{body}")), Some(TokenKind::FineGrained));
        assert_eq!(kind(&format!("ghs_{}", "M".repeat(516))), Some(TokenKind::Installation));
        assert_eq!(kind(&format!("gho_{body}")), Some(TokenKind::OAuth));
        assert_eq!(kind(&format!("ghu_{body}")), Some(TokenKind::User));
    }

    #[test]
    fn what_is_no_token_has_no_kind() {
        let body = "MADE0UP0FOR0TESTS0";
        let long = format!("ghs_{}", "M".repeat(5000));
        for text in ["", "ghp_", "ghp_short", body, &format!(" ghp_{body}"), &format!("ghp_{body}\n"), &long] {
            assert_eq!(kind(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(text in ".*") {
            let _ = kind(&text);
        }
    }
}
