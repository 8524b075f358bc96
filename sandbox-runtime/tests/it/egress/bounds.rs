//! Clients that mean harm: what they hold is bounded, and what is over ends.

use std::time::Duration;

use sandbox_core::testkit::contract::Fixture;
use sandbox_core::{Cause, EgressVerdict};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::harness::{Origin, PATIENCE, Way, all, allowlist, here};

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let way = Way::by([]).await;
    let flood = ["GET http://a.example/ HTTP/1.1\r\n".to_owned(), "X-Flood: and more\r\n".repeat(100_000)].concat();
    let mut stream = way.connect().await;
    // The gateway stops reading long before all of it is sent.
    let _ = tokio::time::timeout(PATIENCE, stream.write_all(flood.as_bytes())).await.expect("it is cut off");
    let answer = all(&mut stream).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    let many = format!("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n{}\r\n", "A: b\r\n".repeat(200));
    assert!(way.say(many).await.starts_with("HTTP/1.1 400 "));
    assert_eq!(way.decided().len(), 0);
}

#[tokio::test]
async fn connections_are_counted_and_their_places_come_back() {
    let way = Way::with(allowlist([]), |proxy| proxy.with_connections(3)).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = way.connect().await;
        stream.write_all(b"GET http://a.example/ HTTP/1.1\r\n").await.unwrap();
        held.push(stream);
    }
    let refused = loop {
        // The others may not have been accepted yet.
        let mut stream = way.connect().await;
        stream.write_all(b"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
        let answer = all(&mut stream).await;
        if !answer.starts_with("HTTP/1.1 403") {
            break answer;
        }
    };
    // Cut off at once, by an answer or by a reset.
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 429"), "{refused}");
    drop(held);
    let again = async {
        while !way.get("http://a.example/").await.starts_with("HTTP/1.1 403") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("a place that has come back");
}

/// Bytes of memory that this process has.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_idle_connections_hold_little_and_leave_nothing() {
    let origin = Origin::web().await;
    let way =
        Way::with(allowlist([here("origin.example", &[origin.port])]), |proxy| proxy.with_connections(10_000)).await;
    let url = format!("http://origin.example:{}/", origin.port);
    assert!(way.get(&url).await.starts_with("HTTP/1.1 200"));
    let (memory, open) = (resident(), descriptors());
    // This process holds both ends, so as many as its descriptors allow.
    let room = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(20_000);
    let count = usize::try_from(room).unwrap().saturating_sub(open + 200).min(20_000) / 2;
    let mut idle = Vec::with_capacity(count);
    for number in 0..count {
        let mut stream = way.connect().await;
        // Some in the middle of a head.
        if number % 2 == 0 {
            stream.write_all(b"GET http://a.example/ HTTP/1.1\r\nX: y\r\n").await.unwrap();
        }
        idle.push(stream);
    }
    let held = resident().saturating_sub(memory) / count;
    assert!(held <= 64 << 10, "{held} bytes for each of {count} connections");
    assert!(way.get(&url).await.starts_with("HTTP/1.1 200"), "others are served all the same");
    drop(idle);
    let gone = async {
        while descriptors() > open + 20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("descriptors that are closed again");
}

#[tokio::test]
async fn when_the_sandbox_ends_so_does_every_connection() {
    let origin = Origin::serving(0, |mut stream, _| async move {
        let _ = stream.read_u8().await;
        std::future::pending::<()>().await;
    })
    .await;
    let way = Way::by([here("origin.example", &[origin.port])]).await;
    let (mut tunnel, answer) = way.tunnel(&format!("origin.example:{}", origin.port)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut half = way.connect().await;
    half.write_all(b"GET http://or").await.unwrap();
    let id = way.sandbox.id();
    assert_eq!(way.sandbox.destroy().await.unwrap(), Cause::Requested);
    assert_eq!((all(&mut tunnel).await.as_str(), all(&mut half).await.as_str()), ("", ""));
    assert!(TcpStream::connect(way.http).await.is_err() && TcpStream::connect(way.socks).await.is_err());
    assert_eq!(way.proxy.ledger(id), None);
}

#[tokio::test]
async fn a_client_that_resets_in_the_middle_takes_nobody_along() {
    let origin = Origin::web().await;
    let way = Way::by([here("origin.example", &[origin.port])]).await;
    for _ in 0..20 {
        let (stream, _) = way.tunnel(&format!("origin.example:{}", origin.port)).await;
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        drop(stream);
    }
    let answer = way.get(&format!("http://origin.example:{}/", origin.port)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(way.decided().iter().all(|(_, _, verdict)| *verdict == EgressVerdict::Allowed));
}

#[tokio::test]
async fn a_sandbox_that_reaches_nothing_has_no_gateway_inside() {
    let fixture: Fixture = crate::contract::fixture::fake().await;
    let proxy = sandbox_runtime::EgressProxy::new();
    let sandbox = fixture.builder().gateway(proxy.clone()).start().await.unwrap();
    let output = sandbox.command("sh").args(["-c", "env | grep -ci proxy"]).output().await.unwrap();
    assert_eq!(output.stdout, b"0\n");
    assert_eq!(proxy.ledger(sandbox.id()), None);
    sandbox.destroy().await.unwrap();
}
