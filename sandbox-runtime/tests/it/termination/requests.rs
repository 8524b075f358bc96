//! Each request of a connection is seen, decided on and passed on, or told why not.

use http::StatusCode;
use hyper::body::Bytes;
use sandbox_core::policy::Policy;
use sandbox_core::{EgressVerdict, Event};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::{PATIENCE, POLICY, Scene, Stage};
use super::origin::{Origin, Trusted};

const PROTOCOLS: [(&str, &str); 4] = [("http/1.1", "http/1.1"), ("http/1.1", "h2"), ("h2", "http/1.1"), ("h2", "h2")];

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_decided_on_and_a_refusal_leaves_the_connection() {
    for (inside, outside) in PROTOCOLS {
        let scene = Scene::with(&[outside]).await;
        let mut client = scene.client("other.example", inside).await;
        assert_eq!(client.get("/open/a", &[]).await.status, StatusCode::OK);
        for (method, path) in
            [("GET", "/closed"), ("POST", "/open/a"), ("GET", "/open/../closed"), ("GET", "/open/%2e%2e/x")]
        {
            let denied = client.ask(method, path, &[], Bytes::new()).await;
            assert_eq!(denied.status, StatusCode::FORBIDDEN, "{method} {path}");
            assert_eq!(denied.headers["x-sandbox-denied"], "rule other.example");
            let said: serde_json::Value = serde_json::from_str(&denied.body).unwrap();
            assert!(said["reason"].as_str().unwrap().contains("other.example may be asked"), "{said}");
            assert!(said["hint"].is_string() && said["rule"].is_string());
        }
        // The same connection, there and beyond.
        assert_eq!(client.get("/open/b?q=1", &[]).await.status, StatusCode::OK);
        assert_eq!(scene.other.connections(), 1, "{inside} {outside}");
        let seen = scene.other.seen();
        assert!(seen.contains("/open/a") && seen.contains("/open/b?q=1") && !seen.contains("closed"), "{seen}");
        let denied = |event: &Event| matches!(event, Event::EgressDecided { verdict: EgressVerdict::Denied, .. });
        assert_eq!(scene.events().iter().filter(|event| denied(event)).count(), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_ends_a_request_that_waits_and_leaves_what_is_still_allowed() {
    let request = "GET /open/silent HTTP/1.1\r\nHost: other.example\r\n\r\n";
    for protocol in ["http/1.1", "h2"] {
        let scene = Stage::new(&[protocol]).open().await;
        let mut stream = scene.tls("other.example", "other.example", "http/1.1").await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let waiting = async {
            while !scene.other.seen().contains("/open/silent") {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        // HTTP/2 compresses what it says, so that its origin notes what it was asked for.
        tokio::time::timeout(PATIENCE, waiting).await.expect("a request that is under way");
        let mut idle = scene.client("api.example", "http/1.1").await;
        assert_eq!(idle.get("/a", &[]).await.status, StatusCode::OK);
        let narrower = POLICY.replace("\"/open/*\"", "\"/other\"");
        scene.proxy.reload(&Policy::from_toml(&format!("version = 1\n{narrower}")).unwrap());
        let mut all = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("it is ended");
        assert_eq!(String::from_utf8_lossy(&all), "");
        let is_denied = |event: &Event| matches!(event, Event::EgressDecided { host, verdict: EgressVerdict::Denied, .. } if host == "other.example");
        assert_eq!(scene.events().iter().filter(|event| is_denied(event)).count(), 1);
        assert_eq!(idle.get("/b", &[]).await.status, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_whole_both_ways() {
    let mut body = Vec::with_capacity(24 << 20);
    let mut state = 1_u32;
    while body.len() < 24 << 20 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        body.push(b'a' + u8::try_from(state >> 24).unwrap() % 26);
    }
    for (inside, outside) in PROTOCOLS {
        let scene = Scene::with(&[outside]).await;
        let mut client = scene.client("api.example", inside).await;
        let reply = client.ask("POST", "/echo", &[], Bytes::from(body.clone())).await;
        assert_eq!(reply.status, StatusCode::OK);
        assert!(reply.body.as_bytes() == body, "{inside} {outside}: {} bytes came back", reply.body.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_ends_a_body() {
    let policy =
        POLICY.replace("host = \"api.example\"\n[[egress", "host = \"api.example\"\nbytes = \"1MiB\"\n[[egress");
    assert_ne!(policy, POLICY);
    let scene = Stage::new(&["http/1.1"]).policy(policy).open().await;
    let request = format!("POST /other HTTP/1.1\r\nHost: api.example\r\nContent-Length: {}\r\n\r\n", 3 << 20);
    let answer = scene.say("api.example", [request.as_bytes(), &vec![b'x'; 3 << 20]].concat()).await;
    assert!(!answer.contains(" 200 "), "{answer}");
    let arrived = scene.api.seen().len();
    assert!(arrived <= (1 << 20) + (64 << 10), "{arrived} bytes arrived");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_names_another_host_is_refused() {
    let scene = Scene::with(&["http/1.1"]).await;
    for (request, status) in [
        ("GET /open/a HTTP/1.1\r\nHost: api.example\r\n\r\n", "421"),
        ("GET /open/a HTTP/1.1\r\nHost: other.example:444\r\n\r\n", "421"),
        ("GET https://api.example/open/a HTTP/1.1\r\nHost: other.example\r\n\r\n", "421"),
        ("GET http://other.example/open/a HTTP/1.1\r\nHost: other.example\r\n\r\n", "421"),
        ("GET /open/a HTTP/1.1\r\n\r\n", "400"),
        ("GET /open/a HTTP/1.1\r\nHost: other.example\r\nHost: other.example\r\n\r\n", "400"),
    ] {
        let request = request.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
        let answer = scene.say("other.example", &request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
    let mut client = scene.client("other.example", "h2").await;
    assert_eq!(client.get("/open/a", &[("host", "api.example")]).await.status, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(scene.other.connections() + scene.api.connections(), 0);
    // TLS for another host than the tunnel's.
    assert!(scene.tls("other.example", "api.example", "h2").await.is_err());
    assert_eq!(scene.other.connections() + scene.api.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_could_be_two_are_refused_and_nothing_arrives() {
    let scene = Scene::with(&["http/1.1"]).await;
    let smuggled = "GET /closed HTTP/1.1\r\nHost: other.example\r\n\r\n";
    let head = "GET /open/a HTTP/1.1\r\nHost: other.example\r\n";
    for (fields, body) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", "0\r\n\r\n"),
        ("Content-Length: 0\r\nContent-Length: 4\r\n\r\n", ""),
        ("Content-Length: 0\r\nContent-Length: 0\r\n\r\n", ""),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", "0\r\n\r\n"),
        ("Transfer-Encoding : chunked\r\n\r\n", "0\r\n\r\n"),
        ("X: y\r\n Transfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n"),
        ("X: y\nTransfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n"),
        ("X: y\rTransfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n"),
    ] {
        let answer = scene.say("other.example", format!("{head}{fields}{body}{smuggled}")).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{fields:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{fields:?}: {answer}");
    }
    assert_eq!(scene.other.seen(), "");
    // The positive control: two requests that are clear are two.
    let answer = scene.say("other.example", format!("{head}\r\n{head}Connection: close\r\n\r\n")).await;
    assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 2, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_proves_nothing_is_told_nothing() {
    let strangers = Trusted::new();
    let impostor = Origin::serving(&strangers, "api.example", &["http/1.1"]).await;
    let misnamed = Origin::serving(&strangers, "evil.example", &["http/1.1"]).await;
    for (port, roots) in [(impostor.port, Trusted::new().roots()), (misnamed.port, strangers.roots())] {
        let scene = Stage::new(&["http/1.1"]).api(port, roots).open().await;
        let reply = scene.client("api.example", "http/1.1").await.get("/", &[("x-api-key", scene.placeholder())]).await;
        assert_eq!(reply.status, StatusCode::BAD_GATEWAY);
        assert!(reply.body.contains("does not trust"), "{}", reply.body);
    }
    assert_eq!((impostor.seen(), misnamed.seen()), (String::new(), String::new()));
    assert_eq!((impostor.connections(), misnamed.connections()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_the_clients_to_follow() {
    let scene = Scene::with(&["h2"]).await;
    let reply = scene.client("other.example", "h2").await.get("/elsewhere", &[]).await;
    assert_eq!(
        (reply.status, &reply.headers["location"]),
        (StatusCode::FOUND, &"https://evil.example/".parse().unwrap())
    );
    let hosts: Vec<String> = scene
        .events()
        .into_iter()
        .filter_map(|event| if let Event::EgressDecided { host, .. } = event { Some(host) } else { None })
        .collect();
    assert_eq!(hosts, ["other.example"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_passes_where_its_request_may() {
    let scene = Scene::with(&["h2", "http/1.1"]).await;
    let asking = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: other.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGVzdA==\r\n\r\n"
        )
    };
    let mut stream = scene.tls("other.example", "other.example", "http/1.1").await.unwrap();
    stream.write_all(asking("/socket").as_bytes()).await.unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.unwrap());
    }
    assert!(text.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&text));
    stream.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"PING");

    // What follows one that is refused is looked at by nobody, and so goes nowhere.
    let refused =
        scene.say("other.example", asking("/closed") + "GET /open/after HTTP/1.1\r\nHost: other.example\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 403 ") && refused.contains("connection: close"), "{refused}");
    assert_eq!(refused.matches("HTTP/1.1 ").count(), 1);
    assert!(!scene.other.seen().contains("after"));
}
