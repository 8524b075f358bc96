//! A sandbox with a gateway, an origin beyond it, and names that lead where a test says.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sandbox_core::policy::{
    Allowlist, Budget, Credential, CredentialName, Egress, EgressRule, NetworkRequest, Placement, Policy,
};
use sandbox_core::testkit::Recorder;
use sandbox_core::testkit::contract::Fixture;
use sandbox_core::{EgressVerdict, Event, EventSink, Result, Sandbox, SandboxBuilder};
use sandbox_runtime::{EgressProxy, Resolve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::contract::fixture;

/// No step of a test takes longer, unless something hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// An address of this machine that is not its loopback, which no rule could name.
pub(crate) fn own_address() -> IpAddr {
    // Nothing is sent: the kernel looks up where it would be sent from (udp(7)).
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.99:9").unwrap();
    let address = socket.local_addr().unwrap().ip();
    assert!(!address.is_loopback(), "this machine has an address of its own");
    address
}

/// Names and where they lead: at each question the next answer, and the last one for good.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    answers: HashMap<String, Vec<Vec<IpAddr>>>,
    asked: Vec<String>,
}

impl Names {
    pub(crate) fn lead(&self, name: &str, answers: &[&[&str]]) {
        let parse = |answer: &&[&str]| answer.iter().map(|address| address.parse().unwrap()).collect();
        self.0.lock().unwrap().answers.insert(name.to_owned(), answers.iter().map(parse).collect());
    }

    /// What was asked for so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.0.lock().unwrap().asked.clone()
    }
}

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut known = self.0.lock().unwrap();
        known.asked.push(name.to_owned());
        let answers = known.answers.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() })
    }
}

/// A sandbox that reaches what its rules say.
pub(crate) struct Way {
    pub(crate) sandbox: Sandbox,
    pub(crate) proxy: EgressProxy,
    pub(crate) names: Names,
    pub(crate) recorder: Recorder,
    pub(crate) http: SocketAddr,
    pub(crate) socks: SocketAddr,
    fixture: Fixture,
}

/// What a sandbox may reach, move and use.
struct Setting {
    egress: Egress,
    budget: Budget,
    credential: Option<Credential>,
}

impl From<Egress> for Setting {
    fn from(egress: Egress) -> Self {
        Self { egress, budget: Budget::default(), credential: None }
    }
}

pub(crate) fn rule(host: &str, ports: &[u16]) -> EgressRule {
    EgressRule::new(host.parse().unwrap()).with_ports(ports.iter().copied())
}

/// A rule for a host that is at this machine's own address.
pub(crate) fn here(host: &str, ports: &[u16]) -> EgressRule {
    rule(host, ports).with_addresses([own_address()]).unwrap()
}

pub(crate) fn allowlist(rules: impl IntoIterator<Item = EgressRule>) -> Egress {
    Egress::list(Allowlist { bundles: [].into(), rules: rules.into_iter().collect() })
}

impl Way {
    /// Opens a way by these rules, with every name of theirs at this machine's own address.
    pub(crate) async fn by(rules: impl IntoIterator<Item = EgressRule>) -> Self {
        Self::with(allowlist(rules), |proxy| proxy).await
    }

    pub(crate) async fn with(egress: Egress, set: impl FnOnce(EgressProxy) -> EgressProxy) -> Self {
        Self::start(egress, set).await.unwrap()
    }

    /// Opens a way in a sandbox that may move so much in all.
    pub(crate) async fn within(egress: Egress, budget: Budget, set: impl FnOnce(EgressProxy) -> EgressProxy) -> Self {
        let recorder = Recorder::default();
        let setting = Setting { egress, budget, credential: None };
        Self::opened(setting, set, recorder.clone(), recorder).await.unwrap()
    }

    /// Opens a way in a sandbox that holds a credential's placeholder, in the variable `MODEL_KEY`.
    pub(crate) async fn keeping(egress: Egress) -> (Self, String) {
        let recorder = Recorder::default();
        let place = Placement::Header { name: "x-api-key".parse().unwrap() };
        let bound = Credential::new("api.example".parse().unwrap(), place, "MODEL_KEY".parse().unwrap());
        let setting = Setting { egress, budget: Budget::default(), credential: Some(bound) };
        // Nothing is isolated, so that what is placed needs a place of its own.
        let directory = tempfile::tempdir().unwrap();
        let bundle = directory.path().join("made/authorities.pem").display().to_string();
        let set = |proxy: EgressProxy| proxy.with_bundle_at(bundle);
        let mut way = Self::opened(setting, set, recorder.clone(), recorder).await.unwrap();
        way.fixture.keep.push(Box::new(directory));
        let shown = way.sandbox.command("printenv").args(["MODEL_KEY"]).output().await.unwrap();
        let placeholder = String::from_utf8(shown.stdout).unwrap().trim().to_owned();
        assert_eq!(placeholder.len(), 40);
        (way, placeholder)
    }

    pub(crate) async fn start(egress: Egress, set: impl FnOnce(EgressProxy) -> EgressProxy) -> Result<Self> {
        let recorder = Recorder::default();
        Self::opened(egress.into(), set, recorder.clone(), recorder).await
    }

    /// Opens a way whose events go elsewhere.
    pub(crate) async fn told_to(
        egress: Egress,
        set: impl FnOnce(EgressProxy) -> EgressProxy,
        sink: impl EventSink,
    ) -> Self {
        Self::opened(egress.into(), set, sink, Recorder::default()).await.unwrap()
    }

    async fn opened(
        Setting { egress, budget, credential }: Setting,
        set: impl FnOnce(EgressProxy) -> EgressProxy,
        sink: impl EventSink,
        recorder: Recorder,
    ) -> Result<Self> {
        let fixture = fixture::fake().await;
        let names = Names::default();
        for name in ["origin.example", "other.example"] {
            names.lead(name, &[&[&own_address().to_string()]]);
        }
        let (http, socks) = (free_port(), free_port());
        let proxy = set(EgressProxy::new().with_ports(http, socks).with_resolver(names.clone()));
        let policy: Policy = fixture.policy().with_egress(egress).with_egress_budget(budget);
        let name: CredentialName = "model".parse().unwrap();
        let asked = credential.is_some().then(|| name.clone());
        let policy = credential.into_iter().fold(policy, |policy, bound| policy.with_credential(name.clone(), bound));
        let builder = fixture.builder().policy(policy).network(NetworkRequest::Egress);
        let builder = asked.into_iter().fold(builder, SandboxBuilder::credential);
        let sandbox = builder.gateway(proxy.clone()).events(sink).start().await?;
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Self { sandbox, proxy, names, recorder, http: at(http), socks: at(socks), fixture })
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.http).await.unwrap()
    }

    /// Sends bytes on a connection of their own and gives all that comes back.
    pub(crate) async fn say(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_ref()).await.unwrap();
        all(&mut stream).await
    }

    /// Asks for a URL.
    pub(crate) async fn get(&self, url: &str) -> String {
        let host = url.strip_prefix("http://").unwrap().split('/').next().unwrap();
        self.say(format!("GET {url} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")).await
    }

    /// Asks for a tunnel, and gives the connection and what was answered.
    pub(crate) async fn tunnel(&self, to: &str) -> (TcpStream, String) {
        let mut stream = self.connect().await;
        stream.write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes()).await.unwrap();
        let answer = head(&mut stream).await;
        (stream, answer)
    }

    /// What was decided so far.
    pub(crate) fn decided(&self) -> Vec<(String, u16, EgressVerdict)> {
        let decided = |event| match event {
            Event::EgressDecided { host, port, verdict, .. } => Some((host, port, verdict)),
            _ => None,
        };
        self.recorder.events().into_iter().filter_map(decided).collect()
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Reads to the end.
pub(crate) async fn all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap();
    // A reset ends it, too.
    let _ = read;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads a head and nothing after it.
pub(crate) async fn head(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut byte)).await.unwrap();
        if read.unwrap() == 0 {
            break;
        }
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// A server at this machine's own address.
pub(crate) struct Origin {
    pub(crate) port: u16,
    /// All that came, of every connection.
    pub(crate) seen: Arc<Mutex<Vec<u8>>>,
    _serving: JoinSet<()>,
}

impl Origin {
    /// Answers each request of HTTP on a connection with its number on it.
    pub(crate) async fn web() -> Self {
        Self::serving(0, |mut stream, seen| async move {
            let mut number = 0;
            loop {
                let asked = head(&mut stream).await;
                if asked.is_empty() {
                    return;
                }
                seen.lock().unwrap().extend(asked.bytes());
                number += 1;
                let answer = format!("answer {number}");
                let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
                if stream.write_all(response.as_bytes()).await.is_err() {
                    return;
                }
            }
        })
        .await
    }

    pub(crate) async fn serving<F>(
        port: u16,
        serve: impl Fn(TcpStream, Arc<Mutex<Vec<u8>>>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind((own_address(), port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::<Mutex<Vec<u8>>>::default();
        let noted = Arc::clone(&seen);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&noted)));
            }
        });
        Self { port, seen, _serving: serving }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }
}
