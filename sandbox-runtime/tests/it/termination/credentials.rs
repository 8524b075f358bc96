//! A secret goes to its host, in its place, and is seen nowhere else.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::StatusCode;
use hyper::body::Bytes;
use sandbox_core::Event;

use super::harness::{POLICY, SECRET, Scene, Stage, hexadecimal};
use crate::egress::stray::{assert_absent, chunked, forms as forms_of};

/// The forms in which somebody might look for a text.
fn forms(text: &str) -> Vec<String> {
    let mut forms = vec![text.to_owned(), hexadecimal(text, ""), hexadecimal(text, "").to_lowercase()];
    for skipped in 0..3 {
        // However it lies in groups of three: without the characters that depend on what stands beside it.
        let padded = format!("{}{text}", "x".repeat(skipped));
        for encoded in [BASE64_STANDARD.encode(&padded), BASE64_URL_SAFE_NO_PAD.encode(&padded)] {
            forms.push(encoded.trim_end_matches('=')[4..].chars().take(20).collect());
        }
    }
    forms
}

fn assert_unseen(text: &str, in_what: &str) {
    for form in forms(text) {
        assert!(!in_what.contains(&form), "{form} is in {in_what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_added_on_the_way_out_and_its_host_alone_sees_it() {
    for (inside, outside) in [("http/1.1", "http/1.1"), ("http/1.1", "h2"), ("h2", "http/1.1"), ("h2", "h2")] {
        let scene = Scene::with(&[outside]).await;
        assert!(scene.placeholder().starts_with("sk-test-") && scene.placeholder().len() == 48);
        let mut client = scene.client("api.example", inside).await;
        let body = Bytes::from(format!("{{\"key\": \"{}\"}}", "x".repeat(10)));
        let reply = client.ask("POST", "/v1/messages", &[("x-api-key", scene.placeholder())], body).await;
        assert_eq!(reply.status, StatusCode::OK, "{inside} {outside}: {}", reply.body);
        let seen = scene.api.seen();
        assert!(seen.contains(&format!("x-api-key: {SECRET}")), "{inside} {outside}: {seen}");
        assert!(!seen.contains(scene.placeholder()));
        let added = |event: &Event| matches!(event, Event::CredentialAdding { credential, host } if credential == "model" && host == "api.example");
        assert_eq!(scene.events().iter().filter(|event| added(event)).count(), 1);
        assert_unseen(SECRET, &format!("{:?} {:?}", scene.events(), scene.sandbox.attestation()));
        // Nothing inside holds it.
        assert_unseen(SECRET, &format!("{:?}", scene.variables));
        let bundle = std::fs::read_to_string(&scene.variables["SSL_CERT_FILE"]).unwrap();
        assert!(bundle.contains("BEGIN CERTIFICATE") && !bundle.contains("PRIVATE"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_placeholder_nor_secret_reaches_an_unbound_host() {
    let scene = Scene::with(&["http/1.1"]).await;
    let placeholder = scene.placeholder().to_owned();
    let hexadecimal = hexadecimal(&placeholder, "%");
    let login = BASE64_STANDARD.encode(format!("user:{placeholder}"));
    let mut client = scene.client("other.example", "http/1.1").await;
    for headers in [
        [("x-api-key", placeholder.clone())],
        [("authorization", format!("Bearer {placeholder}"))],
        [("authorization", format!("Basic {login}"))],
        [("cookie", format!("a=b; key={placeholder}"))],
        [("x-any", hexadecimal.clone())],
        [("x-any", format!("before{placeholder}after"))],
    ] {
        let [(name, value)] = &headers;
        let reply = client.get("/open/a", &[(name, value)]).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{name}: {value}");
        assert_eq!(reply.headers["x-sandbox-denied"], "credential model");
        assert!(!reply.body.contains(&placeholder) && reply.body.contains("api.example"), "{}", reply.body);
    }
    for path in [
        format!("/open/{placeholder}"),
        format!("/open/a?k={placeholder}"),
        format!("/open/{hexadecimal}"),
        format!("/open/?{login}"),
    ] {
        assert_eq!(client.get(&path, &[]).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    // A part of it is nothing that anybody could exchange for the secret, wherever the parts go.
    let (first, second) = placeholder.split_at(20);
    assert_eq!(client.get("/open/a", &[("x-a", first), ("x-b", second)]).await.status, StatusCode::OK);
    let seen = scene.other.seen();
    assert!(seen.contains(first), "the positive control: what is allowed arrives");
    assert_unseen(&placeholder, &seen);
    assert_unseen(SECRET, &seen);
    assert_eq!(scene.api.seen(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_its_own_host_a_placeholder_in_another_place_is_refused_and_so_is_another_key() {
    let scene = Scene::with(&["h2"]).await;
    let placeholder = scene.placeholder().to_owned();
    let mut client = scene.client("api.example", "h2").await;
    for (name, value) in [
        ("x-other", placeholder.as_str()),
        ("authorization", &format!("Bearer {placeholder}")),
        ("x-api-key", "sk-test-somebody-elses"),
    ] {
        let reply = client.get("/v1", &[(name, value)]).await;
        assert_eq!(
            (reply.status, &reply.headers["x-sandbox-denied"]),
            (StatusCode::FORBIDDEN, &"credential model".parse().unwrap())
        );
    }
    assert_eq!(scene.api.connections(), 0);
    assert_eq!(client.get("/v1", &[]).await.status, StatusCode::OK, "without a key it is an ordinary request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_and_a_withdrawal_hold_for_the_next_request_of_the_same_connection() {
    let scene = Scene::with(&["h2"]).await;
    let mut client = scene.client("api.example", "h2").await;
    let key = [("x-api-key", scene.placeholder())];
    assert_eq!(client.get("/first", &key).await.status, StatusCode::OK);
    scene.keeper.keep(Some("not-a-real-secret-rotated"));
    assert_eq!(client.get("/second", &key).await.status, StatusCode::OK);
    scene.keeper.keep(None);
    let reply = client.get("/third", &key).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    assert!(reply.body.contains("cannot be had") && !reply.body.contains("withdrawn"), "{}", reply.body);
    let seen = scene.api.seen();
    let (first, second) = seen.split_once("/second").unwrap();
    assert!(
        first.contains(SECRET) && second.contains("rotated") && !second.contains(SECRET) && !seen.contains("/third")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_keeps_the_key_back() {
    let refused = |event: &Event| matches!(event, Event::CredentialAdding { .. });
    let scene = Stage::new(&["http/1.1"]).refusing(refused).open().await;
    let mut client = scene.client("api.example", "http/1.1").await;
    let reply = client.get("/v1", &[("x-api-key", scene.placeholder())]).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(scene.api.seen(), "");
}

/// Keeps every word that any library logs.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<String>>);

struct Words<'a>(&'a mut String);

impl tracing::field::Visit for Words<'_> {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl tracing::Subscriber for Logged {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut Words(&mut self.0.lock().unwrap()));
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut Words(&mut self.0.lock().unwrap()));
    }

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut Words(&mut self.0.lock().unwrap()));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn no_log_at_any_level_holds_the_secret() {
    let logged = Logged::default();
    tracing::subscriber::set_global_default(logged.clone()).unwrap();
    let scene = Scene::with(&["h2"]).await;
    let mut client = scene.client("api.example", "h2").await;
    let reply = client.get("/v1", &[("x-api-key", scene.placeholder()), ("x-control", "seen-in-the-log")]).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert!(scene.api.seen().contains(SECRET));
    let words = logged.0.lock().unwrap().clone();
    assert!(words.len() > 1_000, "the positive control: {words}");
    assert_unseen(SECRET, &words);
}

/// The policy, with requests to the unbound host that may have a body.
fn with_bodies() -> Stage {
    Stage::new(&["http/1.1"]).policy(POLICY.replace("[\"GET\"]", "[\"GET\", \"POST\"]"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_placeholder_in_a_body_reaches_neither_an_unbound_host_nor_its_own() {
    for (inside, outside) in [("http/1.1", "http/1.1"), ("http/1.1", "h2"), ("h2", "http/1.1"), ("h2", "h2")] {
        let scene = with_bodies().speaking(outside).open().await;
        let placeholder = scene.placeholder().to_owned();
        let middle = placeholder.len() / 2;
        let another = [&placeholder[..middle], &placeholder[middle + 1..]].concat();
        for (host, path) in [("other.example", "/open/a"), ("api.example", "/v1/messages")] {
            let written = forms_of(&placeholder);
            for (form, almost) in written.iter().zip(forms_of(&another)) {
                // Cut by a frame of HTTP/2, which holds 16 KiB where nobody says otherwise.
                for before in [0, (16 << 10) - form.len() / 2] {
                    let body =
                        |form: &str| Bytes::from(format!("{}&{form}&{}", "-".repeat(before), "-".repeat(1 << 10)));
                    let reply = scene.client(host, inside).await.ask("POST", path, &[], body(form)).await;
                    assert_eq!(reply.status, StatusCode::FORBIDDEN, "{inside} {outside} {host} {form}");
                    assert_eq!(reply.headers["x-sandbox-denied"], "credential model");
                    let reply = scene.client(host, inside).await.ask("POST", path, &[], body(&almost)).await;
                    assert_eq!(
                        reply.status,
                        StatusCode::OK,
                        "the positive control: {inside} {outside} {host} {almost}"
                    );
                }
            }
        }
        for origin in [&scene.api, &scene.other] {
            let seen = origin.seen();
            assert!(seen.contains(&another), "the positive control");
            assert_absent(&placeholder, &seen);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_placeholder_in_chunks_or_behind_a_body_does_not_arrive() {
    let scene = with_bodies().open().await;
    let placeholder = scene.placeholder().to_owned();
    let head = "POST /open/a HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n";
    let chunks = chunked(&placeholder, 7);
    let answer = scene.say("other.example", format!("{head}\r\n{chunks}0\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    // What is said behind the body is a header, too.
    let behind = |value: &str| format!("{head}Trailer: X-Any\r\n\r\n3\r\nabc\r\n0\r\nX-Any: {value}\r\n\r\n");
    let answer = scene.say("other.example", behind(&placeholder)).await;
    assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let seen = scene.other.seen();
    let joined = seen.replace("\r\n7\r\n", "");
    assert!(!seen.contains(&placeholder) && !joined.contains(&placeholder), "{joined}");
}
