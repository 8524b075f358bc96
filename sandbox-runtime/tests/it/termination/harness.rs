//! A sandbox with a gateway that ends TLS, two origins beyond it, and a client inside.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sandbox_core::policy::{CredentialName, NetworkRequest, Policy};
use sandbox_core::testkit::Recorder;
use sandbox_core::testkit::contract::Fixture;
use sandbox_core::{CredentialProvider, Envelope, Error, ErrorKind, Event, EventSink, Result, Sandbox};
use sandbox_runtime::{EgressProxy, Roots};
use secrecy::SecretString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::origin::{Origin, Switchboard, Trusted};
use crate::contract::fixture;

/// No step of a test takes longer, unless something hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What nothing inside may ever see. It is made up.
pub(super) const SECRET: &str = "not-a-real-secret-0123456789";

/// `api.example` has a credential and takes any request; `other.example` may be read below `/open/`.
pub(super) const POLICY: &str = r#"
[[credentials]]
name = "model"
host = "api.example"
header = "x-api-key"
variable = "MODEL_KEY"
prefix = "sk-test-"
length = 48
[egress]
reach = "allowlist"
bundles = []
[[egress.rules]]
host = "api.example"
[[egress.rules]]
host = "other.example"
methods = ["GET"]
paths = ["/open/*", "/socket", "/elsewhere"]
"#;

/// Knows one secret, which a test may change.
#[derive(Clone, Debug, Default)]
pub(super) struct Keeper(Arc<Mutex<Option<String>>>);

impl Keeper {
    pub(super) fn keep(&self, secret: Option<&str>) {
        *self.0.lock().unwrap() = secret.map(str::to_owned);
    }
}

#[async_trait]
impl CredentialProvider for Keeper {
    async fn secret(&self, _: &CredentialName) -> Result<SecretString> {
        let kept = self.0.lock().unwrap().clone();
        kept.map(SecretString::from).ok_or_else(|| Error::new(ErrorKind::Token, "it was withdrawn"))
    }
}

/// Everything between a client inside and two origins.
pub(super) struct Scene {
    pub(super) sandbox: Sandbox,
    pub(super) proxy: EgressProxy,
    pub(super) api: Origin,
    pub(super) other: Origin,
    pub(super) keeper: Keeper,
    pub(super) recorder: Recorder,
    pub(super) variables: BTreeMap<String, String>,
    http: SocketAddr,
    _switchboard: Switchboard,
    _fixture: Fixture,
    _bundle: tempfile::TempDir,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
}

/// What a scene is to be.
pub(super) struct Stage {
    protocols: Vec<&'static str>,
    policy: String,
    fixture: Option<Fixture>,
    api: Option<(u16, Roots)>,
    refused: Option<fn(&Event) -> bool>,
}

/// Keeps every event, and refuses those that a test picks.
#[derive(Debug)]
struct Sink(Recorder, Option<fn(&Event) -> bool>);

impl EventSink for Sink {
    fn record(&self, envelope: &Envelope) -> Result<()> {
        if self.1.is_some_and(|refused| refused(&envelope.event)) {
            return Err(Error::new(ErrorKind::Exhausted, "the disk is full"));
        }
        self.0.record(envelope)
    }
}

impl Stage {
    /// Origins that speak these protocols, on the fake runtime.
    pub(super) fn new(protocols: &[&'static str]) -> Self {
        Self { protocols: protocols.to_vec(), policy: POLICY.to_owned(), fixture: None, api: None, refused: None }
    }

    pub(super) fn policy(mut self, policy: String) -> Self {
        self.policy = policy;
        self
    }

    /// Origins that speak this protocol.
    pub(super) fn speaking(mut self, protocol: &'static str) -> Self {
        self.protocols = vec![protocol];
        self
    }

    pub(super) fn on(mut self, fixture: Fixture) -> Self {
        self.fixture = Some(fixture);
        self
    }

    /// Another server in the place of `api.example`, and other authorities that are trusted.
    pub(super) fn api(mut self, port: u16, roots: Roots) -> Self {
        self.api = Some((port, roots));
        self
    }

    pub(super) fn refusing(mut self, refused: fn(&Event) -> bool) -> Self {
        self.refused = Some(refused);
        self
    }

    pub(super) async fn open(self) -> Scene {
        let Self { protocols, policy, fixture, api: another, refused } = self;
        let trusted = Trusted::new();
        let api = Origin::serving(&trusted, "api.example", &protocols).await;
        let other = Origin::serving(&trusted, "other.example", &protocols).await;
        let (port, roots) = another.unwrap_or_else(|| (api.port, trusted.roots()));
        let switchboard = Switchboard::leading(&[("api.example", port), ("other.example", other.port)]).await;
        let bundle = tempfile::tempdir().unwrap();
        let keeper = Keeper::default();
        keeper.keep(Some(SECRET));
        let mut proxy =
            EgressProxy::new().with_upstream(switchboard.upstream()).with_roots(roots).with_credentials(keeper.clone());
        let mut http = 3128;
        let fixture = if let Some(fixture) = fixture {
            fixture
        } else {
            // Nothing is isolated, so that each sandbox needs ports and a place of its own.
            http = free_port();
            let path = bundle.path().join("made/authorities.pem");
            proxy = proxy.with_ports(http, free_port()).with_bundle_at(path.to_str().unwrap());
            fixture::fake().await
        };
        let written = Policy::from_toml(&format!("version = 1\n{policy}")).unwrap();
        let policy = written
            .credentials()
            .iter()
            .fold(fixture.policy(), |policy, (name, bound)| policy.with_credential(name.clone(), bound.clone()))
            .with_egress(written.egress().clone());
        let recorder = Recorder::default();
        let builder = fixture.builder().policy(policy).network(NetworkRequest::Egress).gateway(proxy.clone());
        let names = written.credentials().keys();
        let builder = names.fold(builder, |builder, name| builder.credential(name.clone()));
        let sandbox = builder.events(Sink(recorder.clone(), refused)).start().await.unwrap();
        let environment = sandbox.command("env").output().await.unwrap();
        let variables = String::from_utf8(environment.stdout).unwrap();
        let variables = variables.lines().filter_map(|line| line.split_once('='));
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let http = SocketAddr::from((Ipv4Addr::LOCALHOST, http));
        Scene {
            sandbox,
            proxy,
            api,
            other,
            keeper,
            recorder,
            variables,
            http,
            _switchboard: switchboard,
            _fixture: fixture,
            _bundle: bundle,
        }
    }
}

impl Scene {
    /// Opens everything on the fake runtime; the origins speak these protocols.
    pub(super) async fn with(protocols: &[&'static str]) -> Self {
        Stage::new(protocols).open().await
    }

    pub(super) fn placeholder(&self) -> &str {
        &self.variables["MODEL_KEY"]
    }

    /// Opens TLS to a host as a program inside does: by the proxy, and trusting what the variables name.
    pub(super) async fn tls(&self, host: &str, named: &str, protocol: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all(format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n").as_bytes()).await.unwrap();
        let answer = head(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let pem = std::fs::read(&self.variables["SSL_CERT_FILE"]).unwrap();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = ServerName::try_from(named.to_owned()).unwrap();
        let shaking = TlsConnector::from(Arc::new(config)).connect(name, stream);
        tokio::time::timeout(PATIENCE, shaking).await.unwrap()
    }

    /// Sends raw bytes of HTTP/1.1, and gives all that comes back until the end.
    pub(super) async fn say(&self, host: &str, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.tls(host, host, "http/1.1").await.unwrap();
        stream.write_all(bytes.as_ref()).await.unwrap();
        stream.flush().await.unwrap();
        let mut all = Vec::new();
        // A reset ends it, too.
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await.unwrap();
        String::from_utf8_lossy(&all).into_owned()
    }

    pub(super) async fn client(&self, host: &str, protocol: &str) -> Client {
        let stream = TokioIo::new(self.tls(host, host, protocol).await.unwrap());
        if protocol == "h2" {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            Client { host: host.to_owned(), sender: Sender::Second(sender), _driver: driven(connection) }
        } else {
            let (sender, connection) = http1::handshake(stream).await.unwrap();
            Client { host: host.to_owned(), sender: Sender::First(sender), _driver: driven(connection) }
        }
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.recorder.events()
    }
}

/// A client of one connection.
pub(super) struct Client {
    host: String,
    sender: Sender,
    _driver: tokio::task::JoinSet<()>,
}

enum Sender {
    First(http1::SendRequest<Full<Bytes>>),
    Second(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    pub(super) async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Reply {
        self.ask("GET", path, headers, Bytes::new()).await
    }

    pub(super) async fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Reply {
        let uri = match &self.sender {
            Sender::First(_) => path.to_owned(),
            Sender::Second(_) => format!("https://{}{path}", self.host),
        };
        let mut request = Request::builder().method(method).uri(uri);
        if let Sender::First(_) = &self.sender {
            request = request.header("host", &self.host);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).unwrap();
        let answer = async {
            let response = match &mut self.sender {
                Sender::First(sender) => {
                    sender.ready().await.unwrap();
                    sender.send_request(request).await.unwrap()
                }
                Sender::Second(sender) => {
                    sender.ready().await.unwrap();
                    sender.send_request(request).await.unwrap()
                }
            };
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            Reply { status: parts.status, headers: parts.headers, body }
        };
        tokio::time::timeout(PATIENCE, answer).await.unwrap()
    }
}

fn driven<E>(
    connection: impl Future<Output = std::result::Result<(), E>> + Send + 'static,
) -> tokio::task::JoinSet<()> {
    let mut driver = tokio::task::JoinSet::new();
    driver.spawn(async move {
        let _ = connection.await;
    });
    driver
}

/// Writes bytes as hexadecimal digits, each byte after this.
pub(super) fn hexadecimal(text: &str, before: &str) -> String {
    text.bytes().fold(String::new(), |digits, byte| digits + before + &format!("{byte:02X}"))
}

/// Reads a head and nothing after it.
pub(super) async fn head(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.unwrap_or(0) == 1 {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

pub(super) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
