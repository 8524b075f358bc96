//! What an engine's failures mean.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use bollard::errors::Error as Failure;
use sandbox_core::{Error, ErrorKind, Result};

use super::Endpoint;

/// A call that failed: with the engine's own answer, or without one.
#[derive(Debug)]
pub(crate) struct Answer {
    status: Option<u16>,
    message: String,
    error: Error,
}

impl Answer {
    /// Returns the HTTP status, where the engine answered.
    pub(crate) fn status(&self) -> Option<u16> {
        self.status
    }

    /// Returns the engine's own words, on one line; empty where it did not answer.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Returns the error.
    pub(crate) fn into_error(self) -> Error {
        self.error
    }
}

impl From<Error> for Answer {
    /// The failure of a call that the engine did not answer.
    fn from(error: Error) -> Self {
        Self { status: None, message: String::new(), error }
    }
}

/// Waits for a call to the engine, up to a deadline. `what` completes "cannot …".
pub(crate) async fn within<T>(
    endpoint: &Endpoint,
    limit: Duration,
    what: &str,
    call: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Answer> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(failure)) => Err(answer(endpoint, what, failure)),
        Err(_) => Err(late(endpoint, what, limit).into()),
    }
}

/// The error of a call that was not answered in time.
pub(crate) fn late(endpoint: &Endpoint, what: &str, limit: Duration) -> Error {
    let message = format!("cannot {what}: the engine at {endpoint} did not answer within {} s", limit.as_secs());
    Error::new(ErrorKind::DeadlineExceeded, message)
        .with_hint("see whether the engine is overloaded or hangs: its log says more")
}

/// Says what a failed call means.
pub(crate) fn answer(endpoint: &Endpoint, what: &str, failure: Failure) -> Answer {
    match failure {
        Failure::DockerResponseServerError { status_code, message } => {
            let message = one_line(&message);
            let kind = match status_code {
                401 | 403 => ErrorKind::Denied,
                404 => ErrorKind::NotFound,
                _ if is_full(&message) => ErrorKind::Exhausted,
                _ => ErrorKind::Engine,
            };
            let error = Error::new(kind, format!("cannot {what}: the engine says: {message} (status {status_code})"));
            Answer { status: Some(status_code), message, error }
        }
        Failure::DockerStreamError { error } => {
            let message = one_line(&error);
            let kind = if is_full(&message) { ErrorKind::Exhausted } else { ErrorKind::Engine };
            let error = Error::new(kind, format!("cannot {what}: the engine says: {message}"));
            Answer { status: None, message, error }
        }
        failure => unanswered(endpoint, what, failure).into(),
    }
}

/// The error of a call that brought no answer, or one that makes no sense.
fn unanswered(endpoint: &Endpoint, what: &str, failure: Failure) -> Error {
    let Some(kind) = io_kind(&failure) else {
        let message = format!("cannot {what}: what answers at {endpoint} does not speak Docker's API");
        return Error::new(ErrorKind::EngineUnavailable, message)
            .with_hint("give the address of a Docker engine's socket")
            .with_source(failure);
    };
    let (why, hint) = match kind {
        std::io::ErrorKind::PermissionDenied => {
            ("this user may not use its socket", "run as a user who may: on most machines, one of the group `docker`")
        }
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
            ("no engine listens there", "start the engine, or give the address of another")
        }
        std::io::ErrorKind::InvalidData => (
            "one side does not accept the other's certificate",
            "see whether ca.pem, cert.pem and key.pem are those that this engine was set up with",
        ),
        std::io::ErrorKind::ConnectionAborted => {
            ("the way there ended", "make `ssh` to that machine work without a question, and `docker version` there")
        }
        _ => ("the connection broke", "see whether the engine still runs: its log says more"),
    };
    Error::new(
        ErrorKind::EngineUnavailable,
        format!("cannot {what}: the engine at {endpoint} cannot be reached: {why}"),
    )
    .with_hint(hint)
    .with_source(failure)
}

/// Finds the system's error in or below a failure; there is none where the peer spoke something that is no HTTP.
fn io_kind(failure: &Failure) -> Option<std::io::ErrorKind> {
    if let Failure::IOError { err } = failure {
        return Some(err.kind());
    }
    let mut source = failure.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return Some(error.kind());
        }
        source = error.source();
    }
    None
}

/// Tells whether the engine speaks of a full disk, which it has no status for.
fn is_full(message: &str) -> bool {
    ["no space left on device", "disk quota exceeded"].iter().any(|full| message.to_lowercase().contains(full))
}

/// Makes an engine's words fit for a line of a log: no control characters, and bounded.
pub(crate) fn one_line(text: &str) -> String {
    const MOST: usize = 1_024;
    let line: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST).collect();
    if line.is_empty() { "nothing".to_owned() } else { line }
}

/// A call that ended in the engine's not making sense.
pub(crate) fn senseless(what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Engine, format!("the engine's answer makes no sense: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint() -> Endpoint {
        "unix:///run/x.sock".parse().unwrap()
    }

    fn server(status_code: u16, message: &str) -> Answer {
        answer(&endpoint(), "try", Failure::DockerResponseServerError { status_code, message: message.to_owned() })
    }

    #[test]
    fn each_status_has_its_kind_and_the_engines_words_on_one_line() {
        for (status, message, kind) in [
            (403, "no", ErrorKind::Denied),
            (404, "no such\ncontainer", ErrorKind::NotFound),
            (409, "conflict", ErrorKind::Engine),
            (500, "", ErrorKind::Engine),
            (500, "write /x: No space left on device", ErrorKind::Exhausted),
        ] {
            let answer = server(status, message);
            assert_eq!(answer.status(), Some(status));
            let error = answer.into_error();
            assert_eq!(error.kind(), kind, "{status}");
            assert!(!error.to_string().contains('\n'));
        }
        assert!(server(404, "a\u{1b}[1m\nb").message().contains("a [1m b"));
        assert_eq!(server(500, &"x".repeat(9_999)).message().len(), 1_024);
    }

    #[test]
    fn a_connection_that_fails_is_told_from_one_that_talks_nonsense() {
        let refused = Failure::IOError { err: std::io::ErrorKind::ConnectionRefused.into() };
        let garbage = Failure::JsonDataError { message: "x".to_owned(), column: 1 };
        for (failure, word) in [(refused, "no engine listens there"), (garbage, "does not speak Docker's API")] {
            let error = answer(&endpoint(), "try", failure).into_error();
            assert_eq!(error.kind(), ErrorKind::EngineUnavailable);
            assert!(error.to_string().contains("unix:///run/x.sock"), "{error}");
            assert!(error.to_string().contains(word), "{error}");
            assert!(error.hint().is_some());
        }
    }
}
