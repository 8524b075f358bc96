//! The connections to the real host behind an intercepted one.
//!
//! Invariant: the host has proved by its certificate who it is before anything of a request is sent, and a connection that
//! is used again leads to an address that the new request's pass allows.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sandbox_policy::Host;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::head;
use super::streamed::Streamed;
use super::tasks::Spawner;
use crate::egress::answer::Refusal;
use crate::egress::buffer::Link;
use crate::egress::session::{Pass, Session};
use crate::egress::trust::Roots;

/// How TLS is spoken to real hosts.
#[derive(Debug, Clone)]
pub(crate) struct Outward {
    either: Arc<ClientConfig>,
    first: Arc<ClientConfig>,
}

impl Outward {
    /// Trusts these authorities, and speaks HTTP/2 or HTTP/1.1.
    pub(crate) fn new(roots: &Roots) -> sandbox_core::Result<Self> {
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| {
                sandbox_core::Error::new(sandbox_core::ErrorKind::Io, "TLS cannot be spoken").with_source(error)
            })?
            .with_root_certificates(roots.store())
            .with_no_client_auth();
        let speaking = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self { either: speaking(&[b"h2", b"http/1.1"]), first: speaking(&[b"http/1.1"]) })
    }
}

/// The connections to one host, for one connection from inside.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) host: Host,
    pub(super) port: u16,
    pub(super) outward: Outward,
    pub(super) session: Arc<Session>,
    pub(super) spawner: Spawner,
    pub(super) second: tokio::sync::Mutex<Known>,
    pub(super) idle: Arc<Mutex<Vec<First>>>,
}

/// What is known of the host's protocol.
#[derive(Debug, Default)]
pub(super) enum Known {
    #[default]
    Nothing,
    First,
    Second(http2::SendRequest<Streamed>, Option<IpAddr>),
}

/// A connection with HTTP/1.1.
#[derive(Debug)]
pub(super) struct First {
    sender: http1::SendRequest<Streamed>,
    peer: Option<IpAddr>,
}

/// A connection that is in use, and goes back where it came from.
#[derive(Debug)]
pub(super) struct Lease {
    connection: First,
    idle: Arc<Mutex<Vec<First>>>,
}

enum Sender {
    First(First),
    Second(http2::SendRequest<Streamed>),
}

impl Lease {
    /// Lets others use it.
    pub(super) fn give_back(self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.connection.sender.is_closed() && idle.len() < MAX_IDLE {
            idle.push(self.connection);
        }
    }
}

impl Upstream {
    /// Sends a request, and returns the head of the answer.
    pub(super) async fn send(
        &self,
        request: Request<Streamed>,
        pass: &Pass,
    ) -> Result<(Response<Incoming>, Option<Lease>), Refusal> {
        let mut request = request;
        for _ in 0..MAX_TRIES {
            request = match self.sender(pass).await? {
                Sender::Second(mut sender) => {
                    let request = self.addressed(request, Version::HTTP_2)?;
                    match in_time(sender.try_send_request(request)).await? {
                        Ok(response) => return Ok((response, None)),
                        Err(mut error) => error.take_message().ok_or_else(broken_off)?,
                    }
                }
                Sender::First(mut connection) => {
                    let request = self.addressed(request, Version::HTTP_11)?;
                    match in_time(connection.sender.try_send_request(request)).await? {
                        Ok(response) => {
                            return Ok((response, Some(Lease { connection, idle: Arc::clone(&self.idle) })));
                        }
                        // It was closed before anything was sent, so another may take it.
                        Err(mut error) => error.take_message().ok_or_else(broken_off)?,
                    }
                }
            };
        }
        Err(broken_off())
    }

    /// Sends a request that asks to change the protocol, by a connection of its own.
    pub(super) async fn send_alone(
        &self,
        request: Request<Streamed>,
        pass: &Pass,
    ) -> Result<(Response<Incoming>, Option<IpAddr>), Refusal> {
        let (stream, peer) = self.dial(pass).await?;
        let stream = self.secured(stream, &self.outward.first).await?;
        let mut first = self.first(stream, peer).await?;
        let response = in_time(first.sender.send_request(request)).await?.map_err(|_| broken_off())?;
        Ok((response, peer))
    }

    async fn sender(&self, pass: &Pass) -> Result<Sender, Refusal> {
        let mut known = self.second.lock().await;
        let is_allowed = |peer: Option<IpAddr>| peer.is_none_or(|peer| pass.check_address(peer).is_ok());
        if let Known::Second(sender, peer) = &*known
            && !sender.is_closed()
            && is_allowed(*peer)
        {
            return Ok(Sender::Second(sender.clone()));
        }
        if let Known::First = &*known {
            // Each has a connection of its own, and they need not wait for each other.
            drop(known);
            loop {
                let next = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let Some(mut next) = next else { break };
                let ready = tokio::time::timeout(READY_WITHIN, next.sender.ready()).await;
                if matches!(ready, Ok(Ok(()))) && is_allowed(next.peer) {
                    return Ok(Sender::First(next));
                }
            }
            return self.connect(pass).await.map(|(sender, _)| sender);
        }
        let (sender, peer) = self.connect(pass).await?;
        *known = match &sender {
            Sender::First(_) => Known::First,
            Sender::Second(sender) => Known::Second(sender.clone(), peer),
        };
        Ok(sender)
    }

    async fn connect(&self, pass: &Pass) -> Result<(Sender, Option<IpAddr>), Refusal> {
        let (stream, peer) = self.dial(pass).await?;
        let stream = self.secured(stream, &self.outward.either).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Ok((Sender::First(self.first(stream, peer).await?), peer));
        }
        let shaking = http2::Builder::new(self.spawner.clone())
            .timer(TokioTimer::new())
            .max_header_list_size(MAX_HEADERS)
            .keep_alive_interval(ALIVE_EVERY)
            .keep_alive_timeout(ALIVE_WITHIN)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = in_time(shaking).await?.map_err(|_| broken_off())?;
        self.spawner.spawn(async move {
            // Whoever waits for an answer hears of it.
            let _ = connection.await;
        });
        Ok((Sender::Second(sender), peer))
    }

    async fn first<S>(&self, stream: S, peer: Option<IpAddr>) -> Result<First, Refusal>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let shaking = http1::Builder::new().max_buf_size(MAX_BUFFER).handshake(TokioIo::new(stream));
        let (sender, connection) = in_time(shaking).await?.map_err(|_| broken_off())?;
        self.spawner.spawn(async move {
            // Whoever waits for an answer hears of it.
            let _ = connection.with_upgrades().await;
        });
        Ok(First { sender, peer })
    }

    /// Connects, and tells the address where it is the host's own.
    async fn dial(&self, pass: &Pass) -> Result<(TcpStream, Option<IpAddr>), Refusal> {
        let stream = self.session.dial(pass).await?;
        let peer = stream.peer_addr().ok().filter(|_| self.session.upstream.is_none());
        Ok((stream, peer.map(|address| address.ip())))
    }

    async fn secured(
        &self,
        stream: TcpStream,
        config: &Arc<ClientConfig>,
    ) -> Result<TlsStream<Link<TcpStream>>, Refusal> {
        let name = match (self.host.address(), self.host.name()) {
            (Some(address), _) => ServerName::IpAddress(address.into()),
            (None, name) => ServerName::try_from(name.unwrap_or_default().to_owned())
                .map_err(|_| Refusal::unreachable("the host has a name that TLS cannot say"))?,
        };
        let shaking = TlsConnector::from(Arc::clone(config)).connect(name, Link::new(stream));
        match tokio::time::timeout(SHAKE_WITHIN, shaking).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(Refusal::unreachable(format!("{} {}", self.host, distrust(&error)))),
            Err(_) => Err(Refusal::unreachable(format!("{} did not speak TLS in time", self.host))),
        }
    }

    fn addressed(&self, request: Request<Streamed>, version: Version) -> Result<Request<Streamed>, Refusal> {
        let (mut parts, body) = request.into_parts();
        head::address(&mut parts, &self.host, self.port, version)?;
        Ok(Request::from_parts(parts, body))
    }
}

/// What is wrong with a host's TLS, in words for whoever asked.
fn distrust(error: &io::Error) -> &'static str {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            "has a certificate that the host of this sandbox does not trust"
        }
        _ => "does not speak TLS as it should",
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> Result<T, Refusal> {
    let late = |_| Refusal::unreachable("the host did not answer in time");
    tokio::time::timeout(ANSWER_WITHIN, work).await.map_err(late)
}

fn broken_off() -> Refusal {
    Refusal::unreachable("the host broke the connection off")
}

/// How long the head of an answer may take; models think for minutes.
const ANSWER_WITHIN: Duration = Duration::from_mins(15);
const SHAKE_WITHIN: Duration = Duration::from_secs(15);
const READY_WITHIN: Duration = Duration::from_secs(1);
const ALIVE_EVERY: Duration = Duration::from_mins(1);
const ALIVE_WITHIN: Duration = Duration::from_secs(20);
const MAX_TRIES: usize = 3;
const MAX_IDLE: usize = 32;
const MAX_HEADERS: u32 = 64 << 10;
const MAX_BUFFER: usize = 128 << 10;
