//! Placeholders in the bodies of requests without TLS: they end the request, however they are written and cut.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sandbox_core::{EgressVerdict, Event};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::{Origin, Way, all, allowlist, head, here};

/// A text as it is, percent-encoded, in hexadecimal, and in base64 wherever it lies in groups of three.
pub(crate) fn forms(text: &str) -> Vec<String> {
    let digits =
        |before: &str| text.bytes().fold(String::new(), |digits, byte| digits + before + &format!("{byte:02x}"));
    let base64 = ["", "x", "xx"].map(|before| BASE64_STANDARD.encode(format!("{before}{text}")));
    [vec![text.to_owned(), digits("%"), digits("")], base64.to_vec()].concat()
}

/// Fails if a text arrived as a whole in one of these forms; in base64, as far as it alone decides what is written.
pub(crate) fn assert_absent(text: &str, arrived: &str) {
    for (before, form) in [0, 0, 0, 0, 1, 2].into_iter().zip(forms(text)) {
        let whole = if form.starts_with(text) || form.len() >= 2 * text.len() {
            form.as_str()
        } else {
            &form[..(before + text.len()) * 8 / 6]
        };
        assert!(!arrived.contains(whole), "{form} arrived");
    }
}

/// Takes each request to its word `END`, and answers it then; the last byte of what is cut off is never `D`.
async fn reader() -> Origin {
    Origin::serving(0, |mut stream, seen| async move {
        let mut buffer = [0; 4096];
        let mut body = Vec::new();
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            seen.lock().unwrap().extend_from_slice(&buffer[..read]);
            body.extend_from_slice(&buffer[..read]);
            // Chunks of five cut the word at any place.
            if body.iter().rev().filter(|byte| byte.is_ascii_alphabetic()).take(3).eq(b"DNE") {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
                body.clear();
            }
        }
    })
    .await
}

/// A text in chunks of so many bytes.
pub(crate) fn chunked(text: &str, size: usize) -> String {
    text.as_bytes().chunks(size).fold(String::new(), |chunks, chunk| {
        let text = std::str::from_utf8(chunk).unwrap();
        chunks + &format!("{:x}\r\n{text}\r\n", chunk.len())
    })
}

/// Requests with this body: of a length, and in chunks of five bytes.
fn requests(port: u16, body: &str) -> [String; 2] {
    let head =
        format!("POST http://origin.example:{port}/ HTTP/1.1\r\nHost: origin.example:{port}\r\nConnection: close\r\n");
    let chunks = chunked(body, 5);
    [
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"),
    ]
}

#[tokio::test]
async fn a_placeholder_in_a_body_ends_the_request_and_never_arrives() {
    let origin = reader().await;
    let (way, placeholder) = Way::keeping(allowlist([here("origin.example", &[origin.port])])).await;
    let middle = placeholder.len() / 2;
    let another = [&placeholder[..middle], &placeholder[middle + 1..]].concat();
    let mut ended = 0;
    for (form, almost) in forms(&placeholder).iter().zip(forms(&another)) {
        for request in requests(origin.port, &format!("{{\"a\": \"{form}\"}} END")) {
            let answer = way.say(request).await;
            assert!(
                answer.starts_with("HTTP/1.1 403 ") && answer.contains("x-sandbox-denied: credential model"),
                "{answer}"
            );
            assert!(answer.contains("the body holds the placeholder") && !answer.contains(&placeholder), "{answer}");
            ended += 1;
        }
        for request in requests(origin.port, &format!("{{\"a\": \"{almost}\"}} END")) {
            let answer = way.say(request).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "the positive control: {almost}: {answer}");
        }
    }
    let seen = origin.text();
    let joined = seen.replace("\r\n5\r\n", "");
    assert_absent(&placeholder, &seen);
    assert_absent(&placeholder, &joined);
    assert!(seen.contains(&another) && joined.matches(&another).count() == 2, "the positive control");
    let denied = |event: &Event| matches!(event, Event::EgressDecided { verdict: EgressVerdict::Denied, rule, .. } if rule == "credential model");
    assert_eq!(way.recorder.events().iter().filter(|event| denied(event)).count(), ended);
}

#[tokio::test]
async fn where_the_answer_has_begun_the_connection_ends_instead() {
    let origin = Origin::serving(0, |mut stream, seen| async move {
        head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n").await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        seen.lock().unwrap().extend(rest);
    })
    .await;
    let (way, placeholder) = Way::keeping(allowlist([here("origin.example", &[origin.port])])).await;
    let mut stream = way.connect().await;
    let [request, _] = requests(origin.port, &format!("a body with {placeholder} in it"));
    let (first, rest) = request.split_at(request.len() - 20);
    stream.write_all(first.as_bytes()).await.unwrap();
    let mut answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    stream.write_all(rest.as_bytes()).await.unwrap();
    answer = all(&mut stream).await;
    assert!(
        !answer.contains("403") && !answer.contains("0\r\n\r\n"),
        "what is cut off does not look complete: {answer}"
    );
    assert!(!origin.text().contains(&placeholder));
}
