//! Tunnels: by CONNECT and by SOCKS5, as they are and with TLS in them.

use sandbox_core::EgressVerdict;
use sandbox_core::policy::{Budget, Egress, Policy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::harness::{Origin, PATIENCE, Way, all, allowlist, head, here, own_address};

/// Sends back what comes, and at its end how much it was.
pub(super) async fn echo() -> Origin {
    Origin::serving(0, |mut stream, _| async move {
        let mut buffer = vec![0; 64 << 10];
        let mut total = 0;
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            total += read;
            if stream.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
        let _ = stream.write_all(format!("total {total}").as_bytes()).await;
    })
    .await
}

/// Says a word and ends its half, and then takes what comes.
pub(super) async fn over_first() -> Origin {
    Origin::serving(0, |mut stream, seen| async move {
        stream.write_all(b"over").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        seen.lock().unwrap().extend(rest);
    })
    .await
}

/// Answers a change of protocol, and then sends back what comes until it is over.
pub(super) async fn chat() -> Origin {
    Origin::serving(0, |mut stream, _| async move {
        assert!(head(&mut stream).await.contains("Upgrade: websocket\r\n"));
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut buffer = [0; 64];
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            stream.write_all(&buffer[..read]).await.unwrap();
        }
    })
    .await
}

/// Waits until an origin has got all of a text.
pub(super) async fn arrived(origin: &Origin, text: &str) {
    let waiting = async {
        while origin.text() != text {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "{text:?} did not arrive, but {:?}", origin.text());
}

fn noise(length: usize) -> Vec<u8> {
    let numbers = 0..u32::try_from(length / 4).unwrap();
    numbers.flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_goes_both_ways_at_once_and_each_half_closes_by_itself() {
    let origin = echo().await;
    let way = Way::by([here("origin.example", &[origin.port])]).await;
    let (stream, answer) = way.tunnel(&format!("origin.example:{}", origin.port)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let sent = noise(64 << 20);
    let (mut read, mut write) = stream.into_split();
    let mut back = Vec::new();
    let reading = read.read_to_end(&mut back);
    let writing = async {
        write.write_all(&sent).await.unwrap();
        // One half is over, and the origin answers to that.
        write.shutdown().await.unwrap();
    };
    let (read, ()) = tokio::join!(reading, writing);
    read.unwrap();
    let (bytes, total) = back.split_at(sent.len());
    assert!(bytes == sent, "what came back is not what was sent");
    assert_eq!(String::from_utf8_lossy(total), format!("total {}", sent.len()));
    let ledger = way.proxy.ledger(way.sandbox.id()).unwrap();
    assert_eq!((ledger[0].sent, ledger[0].received), (64 << 20, (64 << 20) + 14));
}

#[tokio::test]
async fn an_origin_may_end_its_half_first() {
    let origin = over_first().await;
    let way = Way::by([here("origin.example", &[origin.port])]).await;
    let (mut stream, _) = way.tunnel(&format!("origin.example:{}", origin.port)).await;
    assert_eq!(all(&mut stream).await, "over");
    stream.write_all(b"still here").await.unwrap();
    stream.shutdown().await.unwrap();
    arrived(&origin, "still here").await;
}

async fn socks(way: &Way, request: &[u8]) -> (TcpStream, Vec<u8>) {
    let mut stream = TcpStream::connect(way.socks).await.unwrap();
    stream.write_all(&[5, 1, 0]).await.unwrap();
    let mut greeting = [0; 2];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(greeting, [5, 0]);
    stream.write_all(request).await.unwrap();
    let mut reply = vec![0; 10];
    let read = tokio::time::timeout(PATIENCE, stream.read_exact(&mut reply)).await.unwrap();
    if read.is_err() {
        reply.clear();
    }
    (stream, reply)
}

fn socks_to(name: &[u8], port: u16) -> Vec<u8> {
    [&[5, 1, 0, 3, u8::try_from(name.len()).unwrap()], name, &port.to_be_bytes()].concat()
}

#[tokio::test]
async fn socks_leads_where_the_policy_allows() {
    let origin = echo().await;
    let own = own_address();
    let way = Way::by([here("origin.example", &[origin.port]), here(&own.to_string(), &[origin.port])]).await;
    let std::net::IpAddr::V4(v4) = own else { panic!("{own} is no IPv4 address") };
    let literal = [&[5, 1, 0, 1][..], &v4.octets(), &origin.port.to_be_bytes()].concat();
    for request in [socks_to(b"origin.example", origin.port), socks_to(b"ORIGIN.example.", origin.port), literal] {
        let (mut stream, reply) = socks(&way, &request).await;
        assert_eq!(reply[..2], [5, 0], "{request:?}");
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(all(&mut stream).await, "hellototal 5");
    }
    let v6 = |address: &str| {
        let address: std::net::Ipv6Addr = address.parse().unwrap();
        [&[5, 1, 0, 4][..], &address.octets(), &443_u16.to_be_bytes()].concat()
    };
    for (code, request) in [
        (2, socks_to(b"elsewhere.example", 443)),
        (2, socks_to(b"origin.example", 22)),
        (2, vec![5, 1, 0, 1, 127, 0, 0, 1, 0, 80]),
        (2, vec![5, 1, 0, 1, 169, 254, 169, 254, 0, 80]),
        (2, v6("::1")),
        (2, v6("::ffff:10.0.0.1")),
        (1, socks_to(b"evil.example\0.origin.example", 443)),
        (1, socks_to(b"127.1", 443)),
        (1, socks_to(b"", 443)),
        (1, socks_to(b"origin.example", 0)),
        (7, vec![5, 2, 0, 1, 1, 1, 1, 1, 0, 80]),
        (7, vec![5, 3, 0, 1, 1, 1, 1, 1, 0, 80]),
        (8, vec![5, 1, 0, 9, 1, 1, 1, 1, 0, 80]),
    ] {
        let (_, reply) = socks(&way, &request).await;
        assert_eq!(reply.get(1), Some(&code), "{request:?}");
    }
    assert!(way.names.asked().iter().all(|asked| asked == "origin.example"));
    // Neither another version nor a login.
    for greeting in [&[4, 1, 0, 80, 1, 1, 1, 1, 0][..], b"GET / HTTP/1.1\r\n\r\n"] {
        let mut stream = TcpStream::connect(way.socks).await.unwrap();
        stream.write_all(greeting).await.unwrap();
        assert_eq!(all(&mut stream).await, "");
    }
    let mut stream = TcpStream::connect(way.socks).await.unwrap();
    stream.write_all(&[5, 1, 2]).await.unwrap();
    let mut refused = [0; 2];
    stream.read_exact(&mut refused).await.unwrap();
    assert_eq!(refused, [5, 255]);
}

/// A `ClientHello` that names this server.
fn hello(name: &str) -> Vec<u8> {
    let sized = |bytes: usize, content: &[u8]| [&(content.len() as u64).to_be_bytes()[8 - bytes..], content].concat();
    let entry = [&[0][..], &sized(2, name.as_bytes())].concat();
    let extensions = [&[0, 0][..], &sized(2, &sized(2, &entry))].concat();
    let body = [&[3, 3][..], &[7; 32], &[0], &sized(2, &[0x13, 1]), &sized(1, &[0]), &sized(2, &extensions)].concat();
    let message = [&[1][..], &sized(3, &body)].concat();
    [&[22, 3, 1][..], &sized(2, &message)].concat()
}

#[tokio::test]
async fn the_port_of_tls_is_for_tls_to_the_host_that_was_asked_for() {
    // Whatever comes is noted and answered; the gateway looks at the client's words alone.
    let origin = Origin::serving(443, |mut stream, seen| async move {
        let mut buffer = [0; 4096];
        if let Ok(read @ 1..) = stream.read(&mut buffer).await {
            seen.lock().unwrap().extend(&buffer[..read]);
            let _ = stream.write_all(b"server").await;
        }
    })
    .await;
    let way = Way::by([here("origin.example", &[443]), here("other.example", &[443])]).await;
    let (mut stream, _) = way.tunnel("origin.example:443").await;
    stream.write_all(&hello("Origin.Example")).await.unwrap();
    assert_eq!(all(&mut stream).await, "server");
    assert_eq!(origin.seen.lock().unwrap().as_slice(), hello("Origin.Example"));
    let (mut stream, reply) = socks(&way, &socks_to(b"origin.example", 443)).await;
    assert_eq!(reply[1], 0);
    stream.write_all(&hello("origin.example")).await.unwrap();
    assert_eq!(all(&mut stream).await, "server");
    let before = origin.text();
    for other in [
        hello("other.example"),
        hello("origin.example.evil.example"),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"SSH-2.0-x\r\n".to_vec(),
    ] {
        let (mut stream, answer) = way.tunnel("origin.example:443").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        stream.write_all(&other).await.unwrap();
        // An alert of TLS, fatal: unrecognized_name.
        assert_eq!(all(&mut stream).await.as_bytes(), [21, 3, 3, 0, 2, 2, 112], "{}", other.escape_ascii());
        let (mut stream, _) = socks(&way, &socks_to(b"origin.example", 443)).await;
        stream.write_all(&other).await.unwrap();
        assert_eq!(all(&mut stream).await.as_bytes(), [21, 3, 3, 0, 2, 2, 112]);
    }
    let plain = way.get("http://origin.example:443/").await;
    assert!(plain.starts_with("HTTP/1.1 403") && plain.contains("TLS alone"), "{plain}");
    assert_eq!(origin.text(), before, "none of it has arrived");
    let denied = way.decided().into_iter().filter(|(_, _, verdict)| *verdict == EgressVerdict::Denied).count();
    assert_eq!(denied, 9);
}

#[tokio::test]
async fn a_websocket_stays_open_and_carries_both_ways() {
    let origin = chat().await;
    let way = Way::by([here("origin.example", &[origin.port])]).await;
    let host = format!("origin.example:{}", origin.port);
    let mut stream = way.connect().await;
    let asked =
        format!("GET http://{host}/chat HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    stream.write_all(asked.as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    let mut word = [0; 5];
    stream.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"first");
    for _ in 0..3 {
        stream.write_all(b"again").await.unwrap();
        stream.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"again");
    }
    stream.shutdown().await.unwrap();
    assert_eq!(all(&mut stream).await, "");
}

#[tokio::test]
async fn a_reload_closes_what_is_no_longer_allowed_and_nothing_else() {
    let origin = echo().await;
    let port = origin.port;
    let way = Way::by([here("origin.example", &[port]), here("other.example", &[port])]).await;
    let (mut kept, _) = way.tunnel(&format!("origin.example:{port}")).await;
    let (mut closed, _) = way.tunnel(&format!("other.example:{port}")).await;
    closed.write_all(b"x").await.unwrap();
    closed.read_exact(&mut [0]).await.unwrap();
    let policy = Policy::standard().with_egress(allowlist([here("origin.example", &[port])]));
    way.proxy.reload(&policy);
    assert_eq!(all(&mut closed).await, "");
    kept.write_all(b"x").await.unwrap();
    kept.read_exact(&mut [0]).await.unwrap();
    assert!(way.tunnel(&format!("other.example:{port}")).await.1.starts_with("HTTP/1.1 403"));
    // It can tighten and not widen.
    way.proxy.reload(&Policy::standard().with_egress(Egress::Open));
    assert!(way.tunnel("elsewhere.example:80").await.1.starts_with("HTTP/1.1 403"));
    way.proxy.reload(&Policy::maximum());
    assert_eq!(all(&mut kept).await, "");
}

#[tokio::test]
async fn a_reload_tightens_what_the_sandbox_may_move_under_way() {
    let origin = echo().await;
    let rules = allowlist([here("origin.example", &[origin.port])]);
    let way = Way::with(rules.clone(), |proxy| proxy).await;
    let (mut stream, answer) = way.tunnel(&format!("origin.example:{}", origin.port)).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut echoed = [0; 2_048];
    stream.write_all(&[b'x'; 2_048]).await.unwrap();
    stream.read_exact(&mut echoed).await.unwrap();
    let less =
        Policy::standard().with_egress(rules).with_egress_budget(Budget { bytes: "1KiB".parse().ok(), rate: None });
    way.proxy.reload(&less);
    stream.write_all(b"more").await.unwrap();
    assert_eq!(all(&mut stream).await, "");
    let (_, answer) = way.tunnel(&format!("origin.example:{}", origin.port)).await;
    assert!(answer.contains("x-sandbox-denied: the sandbox's budget of bytes"), "{answer}");
}
