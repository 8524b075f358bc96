//! One request to GitHub, before it is sent.

use std::fmt;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

use crate::{Error, Result};

/// Says on whose behalf something is asked.
#[derive(Clone, Copy)]
pub(crate) enum Credential<'a> {
    /// An OAuth app by its client id and its secret.
    Basic(&'a str, &'a SecretString),
    /// A token, or the signed claim of an app.
    Bearer(&'a SecretString),
    /// Nobody's.
    None,
}

impl<'a> Credential<'a> {
    pub(crate) fn secret(self) -> Option<&'a SecretString> {
        match self {
            Self::Basic(_, secret) | Self::Bearer(secret) => Some(secret),
            Self::None => None,
        }
    }

    /// The header that carries it, marked so that it is neither printed nor indexed.
    pub(crate) fn header(self) -> Result<Option<HeaderValue>> {
        let mut text = Zeroizing::new(String::new());
        match self {
            Self::Basic(user, password) => {
                let pair = Zeroizing::new(format!("{user}:{}", password.expose_secret()));
                text.push_str("Basic ");
                STANDARD.encode_string(pair.as_bytes(), &mut text);
            }
            Self::Bearer(secret) => {
                text.push_str("Bearer ");
                text.push_str(secret.expose_secret());
            }
            Self::None => return Ok(None),
        }
        let header = HeaderValue::from_str(&text);
        let mut header = header.map_err(|_| Error::Input {
            field: "the credential",
            given: "something with characters that no header can hold".to_owned(),
            allowed: "visible ASCII",
        })?;
        header.set_sensitive(true);
        Ok(Some(header))
    }

    /// Tells credentials apart without holding them.
    pub(crate) fn digest(self) -> [u8; 32] {
        let secret = self.secret().map(ExposeSecret::expose_secret).unwrap_or_default();
        Sha256::digest(secret.as_bytes()).into()
    }
}

/// A request: what is asked, and in whose name.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    /// Path and query, below the API's address, in ASCII.
    pub(crate) target: String,
    pub(crate) body: Option<serde_json::Value>,
    pub(crate) credential: Credential<'a>,
    /// What the body holds and no error may.
    pub(crate) hidden: Option<&'a SecretString>,
    /// Says in an error what was asked: `reading the rules of main`.
    pub(crate) what: String,
    /// Whether an earlier answer may serve if GitHub says that nothing changed.
    pub(crate) remembered: bool,
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, segments: &[&str], what: impl Into<String>) -> Self {
        let mut target = String::new();
        for segment in segments {
            target.push('/');
            target.extend(utf8_percent_encode(segment, SEGMENT));
        }
        Self {
            method,
            target,
            body: None,
            credential: Credential::None,
            hidden: None,
            what: what.into(),
            remembered: false,
        }
    }

    pub(crate) fn get(segments: &[&str], what: impl Into<String>) -> Self {
        Self::new(Method::GET, segments, what)
    }

    pub(crate) fn query(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        let value = value.to_string();
        // Writing to a string does not fail.
        let _ = write!(self.target, "{name}={}", utf8_percent_encode(&value, SEGMENT));
        self
    }

    pub(crate) fn body(mut self, body: serde_json::Value) -> Self {
        self.body = Some(body);
        self
    }

    pub(crate) fn with(mut self, credential: Credential<'a>) -> Self {
        self.credential = credential;
        self
    }

    pub(crate) fn bearer(self, secret: &'a SecretString) -> Self {
        self.with(Credential::Bearer(secret))
    }

    /// Names the secret that stands in the body.
    pub(crate) fn hiding(mut self, secret: &'a SecretString) -> Self {
        self.hidden = Some(secret);
        self
    }

    /// Asks only for what is new since the last time.
    pub(crate) fn remembered(mut self) -> Self {
        self.remembered = true;
        self
    }

    /// The secrets that go out with it.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &'a SecretString> + use<'a> {
        self.credential.secret().into_iter().chain(self.hidden)
    }

    /// Whether it changes nothing and may be asked again.
    pub(crate) fn is_read(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }
}

/// All but what a segment may hold unescaped; a `/` inside a branch's name must be `%2F`.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_stay_segments() {
        let call = Call::get(&["repos", "a", "b", "rules", "branches", "fix/x y?#%2f"], "").query("q", "a&b=c");
        assert_eq!(call.target, "/repos/a/b/rules/branches/fix%2Fx%20y%3F%23%252f?q=a%26b%3Dc");
    }

    #[test]
    fn a_credential_that_no_header_can_hold_is_refused_unseen() {
        let secret = SecretString::from("ghp_MADEUP\r\nx-evil: 1");
        let error = Credential::Bearer(&secret).header().unwrap_err();
        assert!(!format!("{error:?} {error}").contains("MADEUP"), "{error}");
        assert!(Credential::Bearer(&SecretString::from("x".repeat(520))).header().unwrap().unwrap().is_sensitive());
    }
}
