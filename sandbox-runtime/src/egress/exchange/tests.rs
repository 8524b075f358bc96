use std::sync::Arc;
use std::time::Instant;

use sandbox_policy::Budget;
use tokio::io::{AsyncReadExt as _, DuplexStream};

use super::super::budget::{Budgets, Overdrawn};
use super::*;

fn meter() -> Meter {
    let budgets = Budgets::new(Budget::default());
    let host = "a.example".parse().unwrap();
    Meter::new(budgets.begin(&host, Budget::default(), Instant::now()).unwrap(), Arc::default(), Overdrawn::new(|_| ()))
}

fn outbound(head: &str) -> Result<Outbound, Malformed> {
    Outbound::new(&RequestHead::parse(head.as_bytes()).unwrap(), "/x", "a.example", "")
}

/// Sends a request to a server that answers so, and gives what each side got.
async fn exchanged(request: &str, body: &[u8], answer: &[u8]) -> (Result<Next, Failed>, String, String) {
    let outbound = outbound(request).unwrap();
    let (mut client, inside) = tokio::io::duplex(1 << 16);
    let (outside, mut server) = tokio::io::duplex(1 << 16);
    client.write_all(body).await.unwrap();
    server.write_all(answer).await.unwrap();
    let (mut inside, mut outside) = (Link::new(inside), Link::new(outside));
    let meter = meter();
    let run = run(&outbound, &mut inside, &mut outside, &meter, Search::new(None));
    let asked = async {
        let mut asked = vec![0; 1 << 16];
        let mut length = 0;
        while !asked[..length].ends_with(body) || length <= body.len() {
            match server.read(&mut asked[length..]).await.unwrap() {
                0 => break,
                read => length += read,
            }
        }
        server.shutdown().await.unwrap();
        asked.truncate(length);
        asked
    };
    let (next, asked) = tokio::join!(run, asked);
    drop(inside);
    (next, String::from_utf8(asked).unwrap(), all(&mut client).await)
}

async fn all(stream: &mut DuplexStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn what_is_about_one_connection_goes_no_further() {
    let request = "POST http://a.example/x HTTP/1.1\r\nHost: a.example\r\nConnection: X-Own, keep-alive\r\nX-Own: 1\r\n\
        Proxy-Authorization: Basic secret\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\nUpgrade: h2c\r\n\
        X-Kept: 2\r\nContent-Length: 3\r\n\r\n";
    let answer = b"HTTP/1.1 200 Fine\r\nKeep-Alive: timeout=5\r\nX-Answer: 3\r\nContent-Length: 2\r\n\r\nok";
    let (next, asked, answered) = exchanged(request, b"abc", answer).await;
    assert_eq!(asked, "POST /x HTTP/1.1\r\nHost: a.example\r\nX-Kept: 2\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(answered, "HTTP/1.1 200 Fine\r\nX-Answer: 3\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(next.unwrap(), Next::Both);
}

#[test]
fn a_field_that_must_go_on_cannot_be_taken_away() {
    for name in ["Host", "content-length", "Transfer-Encoding", "authorization"] {
        let head = format!("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nConnection: {name}\r\n\r\n");
        assert!(outbound(&head).is_err(), "{name}");
    }
}

const GET: &str = "GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\n\r\n";

#[tokio::test]
async fn interim_responses_and_bodies_without_a_length_pass() {
    let answer = b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.0 200 OK\r\n\r\nall of it";
    let (next, _, answered) = exchanged(GET, b"", answer).await;
    let expected = "HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it";
    assert_eq!((next.unwrap(), answered.as_str()), (Next::None, expected));
}

#[tokio::test]
async fn a_response_that_makes_no_sense_is_none() {
    for answer in [
        &b"SSH-2.0-x\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
    ] {
        let (next, _, answered) = exchanged(GET, b"", answer).await;
        assert!(matches!(next, Err(Failed::NoResponse(_))) && answered.is_empty(), "{}", answer.escape_ascii());
    }
    assert!(matches!(exchanged(GET, b"", b"").await.0, Err(Failed::Untouched)));
    let (next, _, _) = exchanged(GET, b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc").await;
    assert!(matches!(next, Err(Failed::Broken)));
}

#[tokio::test]
async fn a_websocket_may_take_over_and_nothing_else() {
    let asking = |protocol: &str| {
        format!(
            "GET http://a.example/x HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
        )
    };
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (next, asked, answered) = exchanged(&asking("websocket"), b"", answer).await;
    assert_eq!(next.unwrap(), Next::Upgraded);
    assert!(asked.contains("Upgrade: websocket\r\n") && answered.starts_with("HTTP/1.1 101 "));
    let (next, asked, _) = exchanged(&asking("h2c"), b"", answer).await;
    assert!(matches!(next, Err(Failed::NoResponse(_))) && !asked.to_lowercase().contains("upgrade"), "{asked}");
}

#[tokio::test]
async fn an_older_client_is_answered_without_chunks() {
    let request = "GET http://a.example/x HTTP/1.0\r\n\r\n";
    let (next, asked, answered) = exchanged(request, b"", b"HTTP/1.1 200 OK\r\n\r\nall").await;
    assert!(asked.starts_with("GET /x HTTP/1.0\r\nHost: a.example\r\n"), "{asked}");
    assert!(next.unwrap() == Next::None && answered.ends_with("Connection: close\r\n\r\nall"), "{answered}");
    let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nall\r\n0\r\n\r\n";
    assert!(matches!(exchanged(request, b"", chunks).await.0, Err(Failed::NoResponse(_))));
}
