//! One question to an engine, without a client that knows what may be answered.
//!
//! Podman has requests of its own, and words for states that Docker's clients do not know.

use std::time::Duration;

use bollard::errors::Error as Failure;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::Endpoint;
use super::error::{Answer, answer, late, senseless};

/// Asks for what lies at a path of the engine's API, up to a deadline. `what` completes "cannot …".
pub(crate) async fn get(endpoint: &Endpoint, limit: Duration, what: &str, path: &str) -> Result<Value, Answer> {
    request(endpoint, limit, what, &format!("GET {path} HTTP/1.0\r\nHost: engine\r\n\r\n")).await
}

/// Has the engine make something that is described, up to a deadline. `what` completes "cannot …".
pub(crate) async fn post(
    endpoint: &Endpoint,
    limit: Duration,
    what: &str,
    path: &str,
    description: &Value,
) -> Result<Value, Answer> {
    let body = description.to_string();
    let head = format!("POST {path} HTTP/1.0\r\nHost: engine\r\nContent-Type: application/json\r\n");
    request(endpoint, limit, what, &format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())).await
}

async fn request(endpoint: &Endpoint, limit: Duration, what: &str, request: &str) -> Result<Value, Answer> {
    let Ok(asked) = tokio::time::timeout(limit, ask(endpoint, request)).await else {
        return Err(late(endpoint, what, limit).into());
    };
    let bytes = asked.map_err(|err| answer(endpoint, what, Failure::IOError { err }))?;
    let (status_code, body) = split(&bytes).ok_or_else(|| senseless("it is no HTTP"))?;
    let parsed: Result<Value, _> = serde_json::from_slice(body);
    if !matches!(status_code, 200 | 201) {
        let message = parsed.ok().and_then(|body| Some(body.get("message")?.as_str()?.to_owned())).unwrap_or_default();
        return Err(answer(endpoint, what, Failure::DockerResponseServerError { status_code, message }));
    }
    parsed.map_err(|error| senseless("it is no JSON").with_source(error).into())
}

/// One request and its whole answer. In HTTP/1.0 nothing comes in pieces, and the end of the connection is the end of the
/// answer (RFC 1945, section 7.2.2).
async fn ask(endpoint: &Endpoint, request: &str) -> std::io::Result<Vec<u8>> {
    let socket = endpoint.socket().ok_or(std::io::ErrorKind::Unsupported)?;
    let mut socket = UnixStream::connect(socket).await?;
    socket.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    socket.take(MOST).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// Splits an answer into its status and its body.
fn split(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut words = head.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    let status = words.next()?.get(..3)?.parse().ok()?;
    Some((status, &bytes[end + 4..]))
}

/// The most bytes of an answer: a list of thousands of containers has some millions.
const MOST: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use sandbox_core::ErrorKind;
    use tokio::net::UnixListener;

    use super::*;

    #[test]
    fn an_answer_is_a_status_and_a_body() {
        assert_eq!(split(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n{}"), Some((200, b"{}".as_slice())));
        assert_eq!(split(b"HTTP/1.1 404\r\n\r\n"), Some((404, b"".as_slice())));
        for nonsense in
            [b"".as_slice(), b"\r\n\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.0 x\r\n\r\n", b"SSH-2.0 200\r\n\r\n"]
        {
            assert_eq!(split(nonsense), None, "{}", nonsense.escape_ascii());
        }
    }

    async fn answered(bytes: &'static [u8]) -> Result<Value, Answer> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let endpoint = Endpoint::Unix(path);
        let serve = async {
            let (mut peer, _) = listener.accept().await.unwrap();
            let _ = peer.read(&mut [0; 4_096]).await;
            peer.write_all(bytes).await.unwrap();
            drop(peer);
        };
        tokio::join!(get(&endpoint, Duration::from_secs(9), "ask", "/x"), serve).0
    }

    #[tokio::test]
    async fn a_refusal_keeps_its_status_and_its_words() {
        let answer = answered(b"HTTP/1.0 404 Not Found\r\n\r\n{\"message\":\"no such thing\"}").await.unwrap_err();
        assert_eq!((answer.status(), answer.message()), (Some(404), "no such thing"));
        assert_eq!(answered(b"HTTP/1.0 500 Oh\r\n\r\n<html>").await.unwrap_err().status(), Some(500));
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_an_error() {
        for bytes in [b"".as_slice(), b"hello", b"HTTP/1.0 200 OK\r\n\r\n{"] {
            let answer = answered(bytes).await.unwrap_err();
            assert_eq!((answer.status(), answer.into_error().kind()), (None, ErrorKind::Engine));
        }
        assert_eq!(answered(b"HTTP/1.0 200 OK\r\n\r\n[1]").await.unwrap(), serde_json::json!([1]));
    }
}
