//! Requests in plain HTTP: what is decided on, what goes out and what comes back.

use sandbox_core::EgressVerdict::{Allowed, Denied};
use sandbox_core::policy::{Budget, EgressRule, Method, PathPattern};
use sandbox_core::testkit::Refuser;
use sandbox_core::{ErrorKind, Event};
use sandbox_runtime::{Outcome, Upstream};
use tokio::io::AsyncWriteExt as _;

use super::harness::{Origin, Way, all, allowlist, head, here, own_address, rule};

#[tokio::test]
async fn what_is_allowed_is_answered_and_what_is_not_is_told_why() {
    let origin = Origin::web().await;
    let way = Way::by([here("origin.example", &[origin.port])]).await;
    let url = format!("http://origin.example:{}/path?query", origin.port);
    let answer = way.get(&url).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nanswer 1"), "{answer}");
    assert!(origin.text().starts_with("GET /path?query HTTP/1.1\r\nHost: origin.example:"), "{}", origin.text());

    let denied = way.get("http://elsewhere.example/").await;
    let (head, body) = denied.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 403 ") && head.contains("\r\nx-sandbox-denied: no rule\r\n"), "{denied}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["reason"], "elsewhere.example is not on the allowlist");
    assert!(body["hint"].as_str().unwrap().contains("host = \"elsewhere.example\""), "{body}");
    // What is denied is not even looked up.
    assert_eq!(way.names.asked(), ["origin.example"]);
    let port = origin.port;
    assert_eq!(way.decided(), [("origin.example".into(), port, Allowed), ("elsewhere.example".into(), 80, Denied)]);
    let ledger = way.proxy.ledger(way.sandbox.id()).unwrap();
    let lines: Vec<_> = ledger.iter().map(|entry| (entry.host.as_str(), entry.outcome, entry.count)).collect();
    assert_eq!(lines, [("elsewhere.example", Outcome::Denied, 1), ("origin.example", Outcome::Allowed, 1)]);
    assert!(ledger[1].received > 8 && ledger[1].sent > 8, "{ledger:?}");
    way.sandbox.destroy().await.unwrap();
}

#[tokio::test]
async fn each_request_of_a_connection_is_decided_anew() {
    let origin = Origin::web().await;
    let way = Way::by([here("origin.example", &[origin.port])]).await;
    let mut stream = way.connect().await;
    let port = origin.port;
    let request = |host: &str| format!("GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
    // All at once, as a client that pipelines would.
    let all_of_them = [request("origin.example"), request("origin.example"), request("other.example")].concat();
    stream.write_all(all_of_them.as_bytes()).await.unwrap();
    let answers = all(&mut stream).await;
    // The second came over the connection of the first.
    assert!(answers.contains("answer 1HTTP/1.1 200") && answers.contains("answer 2HTTP/1.1 403"), "{answers}");
    assert!(!origin.text().contains("other.example"));
    assert_eq!(way.names.asked(), ["origin.example"]);
}

#[tokio::test]
async fn methods_and_paths_are_seen_in_plain_http() {
    let origin = Origin::web().await;
    let path: PathPattern = "/read/*".parse().unwrap();
    let method: Method = "GET".parse().unwrap();
    let rule = here("origin.example", &[origin.port]).with_methods([method]).with_paths([path]);
    let directory = tempfile::tempdir().unwrap();
    let bundle = directory.path().join("authorities.pem").display().to_string();
    let way = Way::with(allowlist([rule]), |proxy| proxy.with_bundle_at(bundle)).await;
    let at = format!("http://origin.example:{}", origin.port);
    assert!(way.get(&format!("{at}/read/it")).await.starts_with("HTTP/1.1 200"));
    for path in ["/write/it", "/read/../write", "/read/%2e%2e/write", "/"] {
        assert!(way.get(&format!("{at}{path}")).await.starts_with("HTTP/1.1 403"), "{path}");
    }
    let host = format!("origin.example:{}", origin.port);
    let posted = way.say(format!("POST {at}/read/it HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n")).await;
    assert!(posted.starts_with("HTTP/1.1 403") && posted.contains("not with POST"), "{posted}");
    // A tunnel there ends in the gateway, which speaks TLS alone and sees each request.
    let (mut tunnel, opened) = way.tunnel(&host).await;
    assert!(opened.starts_with("HTTP/1.1 200"), "{opened}");
    tunnel.write_all(format!("POST /read/it HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await.unwrap();
    assert!(!all(&mut tunnel).await.contains("HTTP/1.1"));
    assert_eq!(origin.text().matches("HTTP/1.1").count(), 1);
}

#[tokio::test]
async fn what_two_servers_could_read_in_two_ways_goes_nowhere() {
    let origin = Origin::web().await;
    let way = Way::by([here("origin.example", &[origin.port])]).await;
    let host = format!("origin.example:{}", origin.port);
    let start = format!("POST http://{host}/ HTTP/1.1\r\n");
    let smuggled = "GET /smuggled HTTP/1.1\r\n\r\n";
    for (what, request) in [
        (
            "two framings",
            format!("{start}Host: {host}\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        ("two lengths", format!("{start}Host: {host}\r\nContent-Length: 0\r\nContent-Length: 26\r\n\r\n{smuggled}")),
        ("a folded field", format!("{start}Host: {host}\r\nX: a\r\n b\r\n\r\n")),
        ("bare line feeds", format!("POST http://{host}/ HTTP/1.1\nHost: {host}\n\r\n\r\n")),
        ("two hosts", format!("{start}Host: {host}\r\nHost: {host}\r\n\r\n")),
        ("another host", format!("{start}Host: other.example\r\n\r\n")),
        ("no host", format!("{start}\r\n")),
        ("a blank before the colon", format!("{start}Host: {host}\r\nContent-Length : 3\r\n\r\nabc")),
        ("another coding", format!("{start}Host: {host}\r\nTransfer-Encoding: xchunked\r\n\r\n")),
        (
            "a taken length",
            format!("{start}Host: {host}\r\nConnection: content-length\r\nContent-Length: 3\r\n\r\nabc"),
        ),
        ("no proxy's target", format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")),
        ("TLS by a plain request", "GET https://origin.example/ HTTP/1.1\r\nHost: origin.example\r\n\r\n".to_owned()),
        ("a name with NUL", format!("GET http://evil.example\0.{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n")),
        ("a user in front", format!("GET http://origin.example@{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n")),
    ] {
        let answer = way.say(request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{what}: {answer}");
    }
    assert_eq!(origin.text(), "");
    // Refused while it is under way: the server has the head, and no end of the message.
    let chunked =
        format!("{start}Host: {host}\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n{smuggled}");
    way.say(chunked).await;
    assert!(!origin.text().contains("smuggled"), "{}", origin.text());
}

#[tokio::test]
async fn nothing_is_dialled_before_it_is_told() {
    let origin = Origin::web().await;
    let refuser = Refuser(|event| matches!(event, Event::EgressDecided { .. }));
    let rules = allowlist([here("origin.example", &[origin.port])]);
    let way = Way::told_to(rules, |proxy| proxy, refuser).await;
    let answer = way.get(&format!("http://origin.example:{}/", origin.port)).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!((origin.text(), way.names.asked().len()), (String::new(), 0));
}

#[tokio::test]
async fn budgets_end_what_goes_over_them() {
    let origin = Origin::serving(0, |mut stream, _| async move {
        head(&mut stream).await;
        let body = vec![b'x'; 1 << 20];
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let _ = stream.write_all(&[response.as_bytes(), &body].concat()).await;
    })
    .await;
    let budget = |bytes: Option<&str>, rate| Budget { bytes: bytes.map(|bytes| bytes.parse().unwrap()), rate };
    let bounded = |host: &str, budget| here(host, &[origin.port]).with_budget(budget);
    let way = Way::by([
        bounded("origin.example", budget(Some("64KiB"), None)),
        bounded("other.example", budget(None, Some(1))),
    ])
    .await;
    let (one, other) =
        (format!("http://origin.example:{}/", origin.port), format!("http://other.example:{}/", origin.port));
    let cut = way.get(&one).await;
    assert!(cut.starts_with("HTTP/1.1 200") && cut.len() < 128 << 10, "{} bytes came", cut.len());
    let spent = way.get(&one).await;
    assert!(
        spent.starts_with("HTTP/1.1 403") && spent.contains("x-sandbox-denied: the rule's budget of bytes"),
        "{spent}"
    );
    assert!(way.get(&other).await.len() > 1 << 20);
    assert!(way.get(&other).await.starts_with("HTTP/1.1 429"));

    // What the whole sandbox may move, whatever its rules say.
    let rules = allowlist([here("origin.example", &[origin.port]), here("other.example", &[origin.port])]);
    let way = Way::with(rules.clone(), |proxy| proxy.with_budget(budget(Some("64KiB"), None))).await;
    assert!(way.get(&one).await.len() < 128 << 10);
    assert!(way.get(&other).await.starts_with("HTTP/1.1 403"));

    // The smaller of what the gateway has and what the policy says.
    let way = Way::within(rules.clone(), budget(Some("64KiB"), None), |proxy| {
        proxy.with_budget(budget(Some("1GiB"), Some(3)))
    })
    .await;
    assert!(way.get(&one).await.len() < 128 << 10);
    let spent = way.get(&other).await;
    assert!(
        spent.starts_with("HTTP/1.1 403") && spent.contains("more bytes in the policy's section egress"),
        "{spent}"
    );
    let denied: Vec<_> = way.proxy.ledger(way.sandbox.id()).unwrap();
    let denied: Vec<_> = denied.iter().filter(|entry| entry.outcome == Outcome::Denied).collect();
    // What was cut under way is told, too.
    assert_eq!(denied.iter().map(|entry| entry.host.as_str()).collect::<Vec<_>>(), ["origin.example", "other.example"]);
    assert!(denied.iter().all(|entry| entry.rule == "the sandbox's budget of bytes"), "{denied:?}");

    let way = Way::within(rules.clone(), budget(None, Some(2)), |proxy| proxy).await;
    assert!(way.get(&one).await.len() > 1 << 20 && way.get(&other).await.len() > 1 << 20);
    let spent = way.get(&one).await;
    assert!(
        spent.starts_with("HTTP/1.1 429") && spent.contains("the 2 requests a minute that the sandbox has"),
        "{spent}"
    );
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_told_apart_from_a_policy_that_says_no() {
    let unused = std::net::TcpListener::bind((own_address(), 0)).unwrap().local_addr().unwrap().port();
    let way = Way::by([here("origin.example", &[unused]), rule("unknown.example", &[80])]).await;
    for url in [format!("http://origin.example:{unused}/"), "http://unknown.example/".to_owned()] {
        let answer = way.get(&url).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    }
}

#[tokio::test]
async fn a_proxy_beyond_this_one_is_asked_for_what_is_allowed() {
    let upstream = Origin::serving(0, |mut stream, seen| async move {
        let asked = head(&mut stream).await;
        seen.lock().unwrap().extend(asked.bytes());
        let answer = if asked.starts_with("CONNECT") {
            "HTTP/1.1 200 OK\r\n\r\nthrough"
        } else {
            "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nthrough"
        };
        // A tunnel's bytes come only after the client's own.
        let (first, rest) = answer.split_at(answer.find("\r\n\r\n").unwrap() + 4);
        stream.write_all(first.as_bytes()).await.unwrap();
        if asked.starts_with("CONNECT") {
            let _ = tokio::io::AsyncReadExt::read_u8(&mut stream).await;
        }
        stream.write_all(rest.as_bytes()).await.unwrap();
    })
    .await;
    let password = ["pass", "word"].concat();
    let host = own_address().to_string().parse().unwrap();
    let corporate = Upstream::new(host, upstream.port).with_login("user", password.clone().into());
    assert!(!format!("{corporate:?}").contains(&password));
    let rules: [EgressRule; 1] = [rule("origin.example", &[80, 8080])];
    let way = Way::with(allowlist(rules), |proxy| proxy.with_upstream(corporate)).await;
    assert!(way.get("http://origin.example/x").await.ends_with("through"));
    let (mut stream, answer) = way.tunnel("origin.example:8080").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    stream.write_all(b"x").await.unwrap();
    assert_eq!(all(&mut stream).await, "through");
    assert!(way.get("http://elsewhere.example/").await.starts_with("HTTP/1.1 403"));
    let seen = upstream.text();
    assert!(seen.starts_with("GET http://origin.example/x HTTP/1.1\r\nHost: origin.example\r\n"), "{seen}");
    assert!(seen.contains("CONNECT origin.example:8080 HTTP/1.1\r\n") && !seen.contains("elsewhere"), "{seen}");
    assert_eq!(seen.matches("Proxy-Authorization: Basic dXNlcjpwYXNzd29yZA==\r\n").count(), 2);
    assert_eq!(way.names.asked().len(), 0);
}

#[tokio::test]
async fn a_taken_port_keeps_the_sandbox_from_starting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = Way::start(allowlist([]), |proxy| proxy.with_ports(port, 0)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
    assert!(error.to_string().contains("egress gateway") && error.residue().is_empty(), "{error:?}");
}
