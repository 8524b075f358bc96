//! What GitHub answered.

use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Call;
use crate::redact::shown;
use crate::{Error, Result};

/// An answer, read in full.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) what: String,
    /// GitHub's words, fit to be shown.
    pub(crate) said: String,
}

impl Answer {
    pub(crate) fn new(status: StatusCode, headers: HeaderMap, body: Vec<u8>, call: &Call<'_>) -> Self {
        let said = if status.is_success() { String::new() } else { said(&body, call) };
        Self { status, headers, body, what: call.what.clone(), said }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Passes an answer of the one status that means success, and makes an error of any other.
    pub(crate) fn expect(self, status: StatusCode) -> Result<Self> {
        if self.status == status {
            return Ok(self);
        }
        let Self { status, what, said, .. } = self;
        Err(match status {
            StatusCode::UNAUTHORIZED => Error::Unauthorized { what },
            StatusCode::FORBIDDEN => Error::Forbidden { what, said },
            StatusCode::NOT_FOUND => Error::NotFound { what },
            StatusCode::UNPROCESSABLE_ENTITY => Error::Invalid { what, said },
            status if status.is_redirection() => Error::Moved { what },
            status => Error::Unexpected { what, status: status.as_u16(), said },
        })
    }

    /// Reads the body of a success.
    pub(crate) fn json<T: DeserializeOwned>(self) -> Result<T> {
        let Self { body, what, .. } = self.expect(StatusCode::OK)?;
        read(&body, what)
    }
}

/// Reads a body; an error names the place, and nothing of what stands there.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8], what: String) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| {
        let why = format!("line {}, column {}: {:?} error", error.line(), error.column(), error.classify());
        Error::Unreadable { what, why }
    })
}

fn said(body: &[u8], call: &Call<'_>) -> String {
    #[derive(Deserialize)]
    struct Said {
        #[serde(default)]
        message: String,
        #[serde(default)]
        errors: Vec<serde_json::Value>,
    }
    let Ok(Said { message, errors }) = serde_json::from_slice(body) else { return "no message".to_owned() };
    let details = errors.iter().filter_map(|error| error.as_str().or_else(|| error.get("message")?.as_str()));
    let text: Vec<&str> = std::iter::once(message.as_str()).chain(details).collect();
    shown(&text.join("; "), call.secrets())
}
