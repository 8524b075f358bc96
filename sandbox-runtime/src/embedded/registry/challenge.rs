//! How a registry wants to be asked (<https://www.rfc-editor.org/rfc/rfc9110#field.www-authenticate>).

use http_auth::ChallengeParser;
use reqwest::header::HeaderValue;

/// One of the ways that are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// With the account itself.
    Basic,
    /// With a token that a realm gives out.
    Bearer {
        /// Where to ask.
        realm: String,
        /// For whom.
        service: Option<String>,
    },
}

impl Challenge {
    /// Chooses among what is offered: a token before the account itself. What cannot be read is no offer.
    pub(super) fn of<'a>(headers: impl IntoIterator<Item = &'a HeaderValue>) -> Option<Self> {
        let headers = headers.into_iter().take(MAX_HEADERS).filter_map(|header| header.to_str().ok());
        let mut found = None;
        for challenge in headers.flat_map(|text| ChallengeParser::new(text).map_while(Result::ok)) {
            let parameter = |name: &str| {
                let value = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                value.map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("bearer")
                && let Some(realm) = parameter("realm")
            {
                return Some(Self::Bearer { realm, service: parameter("service") });
            }
            if challenge.scheme.eq_ignore_ascii_case("basic") {
                found = Some(Self::Basic);
            }
        }
        found
    }
}

/// How many headers are read.
const MAX_HEADERS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(texts: &[&'static str]) -> Option<Challenge> {
        let headers: Vec<_> = texts.iter().map(|text| HeaderValue::from_static(text)).collect();
        Challenge::of(&headers)
    }

    #[test]
    fn a_token_goes_before_the_account() {
        let bearer = r#"Bearer realm="https://auth.example/token",service="registry",scope="repository:x:pull""#;
        let expected =
            Challenge::Bearer { realm: "https://auth.example/token".to_owned(), service: Some("registry".to_owned()) };
        assert_eq!(of(&[bearer]), Some(expected.clone()));
        assert_eq!(of(&[r#"Basic realm="x""#, bearer]), Some(expected));
        assert_eq!(of(&[r#"basic realm="x""#]), Some(Challenge::Basic));
        for nothing in [&["Bearer service=x"][..], &["Negotiate"], &["\"\"\""], &[]] {
            assert_eq!(of(nothing), None, "{nothing:?}");
        }
    }
}
