//! Clients that mean harm: what they hold is bounded, and what is over ends.

use std::time::Duration;

use sandbox_core::testkit::contract::Fixture;
use sandbox_core::{Cause, EgressVerdict, ErrorKind};
use sandbox_runtime::Resolve;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::harness::{Names, Origin, PATIENCE, Way, all, allowlist, here, own_address};

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

/// A client of its own process, since one process has not descriptors enough for both ends: it opens so many connections,
/// leaves every other one in the middle of a head, says so, and holds them until its input ends.
const IDLE_CLIENT: &str = "
import resource, socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
held = []
for number in range(count):
    held.append(socket.create_connection(('127.0.0.1', port)))
    if number % 2:
        held[-1].sendall(b'GET http://a.example/ HTTP/1.1\\r\\nX: y\\r\\n')
print('held', flush=True)
sys.stdin.read()
";

/// Raises what this process may open to the most that it may set, and says what it opens at most.
fn descriptors_raised() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    limit.maximum.unwrap_or(u64::MAX)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_hold_little_and_leave_nothing() {
    const COUNT: usize = 10_000;
    let most = descriptors_raised();
    assert!(most > COUNT as u64 + 300, "this test needs 10,300 descriptors, and the hard limit is {most} (ulimit -Hn)");
    let origin = Origin::web().await;
    let rules = allowlist([here("origin.example", &[origin.port])]);
    let way = Way::with(rules, |proxy| proxy.with_connections(COUNT + 10)).await;
    let url = format!("http://origin.example:{}/", origin.port);
    assert!(way.get(&url).await.starts_with("HTTP/1.1 200"));
    let (memory, open) = (resident(), descriptors());
    let mut client = tokio::process::Command::new("python3")
        .args(["-c", IDLE_CLIENT, &way.http.port().to_string(), &COUNT.to_string()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = [0; 5];
    let saying = client.stdout.as_mut().unwrap().read_exact(&mut said);
    tokio::time::timeout(2 * PATIENCE, saying).await.expect("all are connected").unwrap();
    assert_eq!(&said, b"held\n");
    // Those that were connected last may not have been accepted yet.
    let until = async |held: &dyn Fn(usize) -> bool| {
        let waiting = async {
            while !held(descriptors().saturating_sub(open)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("as many descriptors as connections");
    };
    until(&|held| held >= COUNT).await;
    let held = resident().saturating_sub(memory) / COUNT;
    assert!(held <= 64 << 10, "{held} bytes for each connection");
    assert!(way.get(&url).await.starts_with("HTTP/1.1 200"), "others are served all the same");
    drop(client.stdin.take());
    assert!(tokio::time::timeout(PATIENCE, client.wait()).await.unwrap().unwrap().success());
    drop(client);
    until(&|held| held < 20).await;
}

/// A resolver with a defect.
#[derive(Debug)]
pub(super) struct Defective(pub(super) Names);

#[async_trait::async_trait]
impl Resolve for Defective {
    async fn resolve(&self, name: &str) -> std::io::Result<Vec<std::net::IpAddr>> {
        assert_ne!(name, "defect.example", "the defect");
        self.0.resolve(name).await
    }
}

#[tokio::test]
async fn a_panic_ends_everything_that_passes_and_is_reported() {
    let origin = Origin::serving(0, |mut stream, _| async move {
        let _ = stream.read_u8().await;
    })
    .await;
    let names = Names::default();
    names.lead("origin.example", &[&[&own_address().to_string()]]);
    let rules = [here("origin.example", &[origin.port]), here("defect.example", &[80])];
    let way = Way::with(allowlist(rules), |proxy| proxy.with_resolver(Defective(names))).await;
    let (mut tunnel, answer) = way.tunnel(&format!("origin.example:{}", origin.port)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let mut idle = way.connect().await;
    assert_eq!(way.get("http://defect.example/").await, "");
    assert_eq!((all(&mut tunnel).await.as_str(), all(&mut idle).await.as_str()), ("", ""));
    let closed = async {
        while TcpStream::connect(way.http).await.is_ok() || TcpStream::connect(way.socks).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("listeners that are gone");
    let error = way.sandbox.destroy().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Residue);
    let told = format!("{error:?}");
    assert!(told.contains("the egress gateway had broken down"), "{told}");
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
    assert_eq!(threads(), 1);
    assert_eq!(way.sandbox.destroy().await.unwrap(), Cause::Requested);
    assert_eq!((all(&mut tunnel).await.as_str(), all(&mut half).await.as_str()), ("", ""));
    assert!(TcpStream::connect(way.http).await.is_err() && TcpStream::connect(way.socks).await.is_err());
    assert_eq!(way.proxy.ledger(id), None);
    assert_eq!(threads(), 0);
}

/// How many threads of gateways this process has.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
    names.filter(|name| name.trim() == "sandbox-egress").count()
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
