//! Stands in the place of one host towards a program inside, so that each request is seen, decided on and passed on.
//!
//! Invariant: a request goes out only with a pass of its own, over TLS that the real host has proved, and to the host that
//! the connection was opened for; what SNI, `Host` and `:authority` say must be that host.

mod change;
mod head;
mod screen;
mod streamed;
mod tasks;
mod underway;
mod upstream;

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode, Version};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::server::Acceptor;
use sandbox_core::Event;
use sandbox_policy::{Host, SandboxSpec, Sight};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use self::screen::Screened;
use self::streamed::{Answer, Direction, Exchange, Guard, Streamed};
use self::tasks::{Spawner, Tasks};
use self::underway::{Place, Underway};
pub(crate) use self::upstream::Outward;
use self::upstream::Upstream;
use super::answer::{Refusal, RefusalKind};
use super::authority::Authority;
use super::buffer::Link;
use super::intercept::Intercept;
use super::session::{Pass, Session};
use super::trust::Roots;
use super::vault::{Bearer, Vault};

/// What it takes to stand in the place of a sandbox's hosts.
#[derive(Debug)]
pub(crate) struct Termination {
    spec: SandboxSpec,
    authority: Authority,
    roots: Roots,
    outward: Outward,
    vault: Arc<Vault>,
}

impl Termination {
    /// Makes what a sandbox needs whose requests must be seen somewhere; real hosts are checked against these authorities,
    /// or against those of this machine.
    ///
    /// # Errors
    /// `Io` where no key can be made or this machine trusts nobody.
    pub(crate) fn where_needed(
        spec: &SandboxSpec,
        roots: Option<Roots>,
        vault: &Arc<Vault>,
    ) -> sandbox_core::Result<Option<Arc<Self>>> {
        let hosts = spec.seen_hosts();
        if hosts.is_empty() {
            return Ok(None);
        }
        let roots = roots.map_or_else(Roots::system, Ok)?;
        let lifetime = Duration::from_secs(spec.limits().lifetime.as_seconds().into());
        let (authority, outward) = (Authority::new(&hosts, lifetime)?, Outward::new(&roots)?);
        Ok(Some(Arc::new(Self { spec: spec.clone(), authority, roots, outward, vault: Arc::clone(vault) })))
    }

    /// The authorities that programs inside are to trust, in every form, with the bundle at this path.
    pub(crate) fn files(&self, bundle: &str) -> Vec<(String, Vec<u8>)> {
        self.roots.files(self.authority.pem(), bundle)
    }

    async fn served(
        self: &Arc<Self>,
        session: &Arc<Session>,
        client: Link<TcpStream>,
        host: &Host,
        port: u16,
    ) -> io::Result<()> {
        let stream = tokio::time::timeout(SHAKE_WITHIN, self.shake(session, client, host, port)).await??;
        let is_second = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let tasks = Tasks::default();
        let cut = Arc::new(Notify::new());
        let underway = Arc::new(Underway::default());
        let service = Arc::new(Service {
            session: Arc::clone(session),
            vault: Arc::clone(&self.vault),
            upstream: Upstream {
                host: host.clone(),
                port,
                outward: self.outward.clone(),
                session: Arc::clone(session),
                spawner: tasks.spawner(),
                second: tokio::sync::Mutex::default(),
                idle: Arc::new(Mutex::default()),
            },
            spawner: tasks.spawner(),
            underway: Arc::clone(&underway),
            cut: Arc::clone(&cut),
        });
        let service = service_fn(move |request| {
            let service = Arc::clone(&service);
            async move { Ok::<_, Infallible>(service.answer(request).await) }
        });
        let serving = async {
            if is_second {
                let mut server = http2::Builder::new(tasks.spawner());
                server
                    .timer(TokioTimer::new())
                    .max_concurrent_streams(MAX_STREAMS)
                    .max_header_list_size(MAX_HEADERS)
                    .keep_alive_interval(ALIVE_EVERY)
                    .keep_alive_timeout(ALIVE_WITHIN);
                server.serve_connection(TokioIo::new(Screened::open(stream)), service).await
            } else {
                let mut server = http1::Builder::new();
                server
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_WITHIN)
                    .half_close(true)
                    .max_buf_size(MAX_BUFFER);
                let stream = TokioIo::new(Screened::requests(stream));
                server.serve_connection(stream, service).with_upgrades().await
            }
        };
        tokio::select! {
            served = serving => served.map_err(io::Error::other)?,
            () = cut.notified() => return Err(io::ErrorKind::ConnectionAborted.into()),
            () = underway.denied(session) => return Err(io::ErrorKind::ConnectionAborted.into()),
        }
        // What the protocol was changed to goes on until it ends.
        tasks.finished().await;
        Ok(())
    }

    /// Speaks TLS as the host, if the client means that host.
    async fn shake(
        &self,
        session: &Session,
        client: Link<TcpStream>,
        host: &Host,
        port: u16,
    ) -> io::Result<TlsStream<Link<TcpStream>>> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), client).await?;
        let named = start.client_hello().server_name().map(str::parse::<Host>);
        let agrees = match (named, host.address()) {
            (Some(Ok(named)), _) => named == *host,
            (None, Some(_)) => true,
            _ => false,
        };
        if !agrees {
            let reason = format!("the connection is for {host}, and TLS names another host or none");
            let refusal = Refusal::new(RefusalKind::Denied, "one host for each connection", reason, "");
            session.deny(host, port, None, refusal);
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        start.into_stream(self.authority.stand_in(host).map_err(io::Error::other)?).await
    }
}

#[async_trait]
impl Intercept for Arc<Termination> {
    fn wants(&self, host: &Host, port: u16) -> bool {
        self.spec.sight(host, port) == Sight::Requests
    }

    async fn serve(&self, session: &Arc<Session>, host: Host, port: u16, client: Link<TcpStream>) {
        // How a connection ended is the client's to see.
        let _ = self.served(session, client, &host, port).await;
    }
}

/// Answers the requests of one connection.
#[derive(Debug)]
struct Service {
    session: Arc<Session>,
    vault: Arc<Vault>,
    upstream: Upstream,
    spawner: Spawner,
    underway: Arc<Underway>,
    /// Ends the connection, where the policy has changed its mind on what its protocol was changed to.
    cut: Arc<Notify>,
}

impl Service {
    async fn answer(&self, request: Request<Incoming>) -> Response<Answer> {
        let may_stay = !request.headers().contains_key(UPGRADE);
        let is_second = request.version() == Version::HTTP_2;
        let mut response = self.exchange(request).await.unwrap_or_else(|refusal| refused(&refusal));
        if !may_stay && !is_second && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            // What follows such a request was not looked at.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    async fn exchange(&self, mut request: Request<Incoming>) -> Result<Response<Answer>, Refusal> {
        let Upstream { host, port, .. } = &self.upstream;
        let (session, vault) = (&self.session, &self.vault);
        let changed = hyper::upgrade::on(&mut request);
        let (mut parts, body) = request.into_parts();
        head::agrees(&parts, host, *port)?;
        let method = parts.method.clone();
        let path = head::path(&parts.uri).to_owned();
        let pass = Arc::new(session.ask(host, *port, Some((method.as_str(), &path)))?);
        let place = self.underway.take(session, &pass);
        let revoked = |refusal: Refusal| session.revoke(&pass, &refusal.rule, refusal.reason, &refusal.hint);

        let websocket = head::asks_for_websocket(&parts);
        let key = parts.headers.get(UPGRADE).cloned().filter(|_| websocket);
        head::clean(&mut parts.headers);
        let bearer = Bearer { host, port: *port, method: method.as_str(), path: &path };
        for slot in vault.slots(bearer, &parts.headers).map_err(revoked)? {
            let event = Event::CredentialAdding { credential: slot.name().to_string(), host: host.to_string() };
            session.events.announce(event).map_err(|_| {
                Refusal::new(RefusalKind::Audit, "the audit", "the audit cannot be written, so nothing goes out", "")
            })?;
            vault.fill(&slot, &mut parts.headers, &session.home).await.map_err(revoked)?;
        }
        let (guard, stray) = Guard::new(session, &pass);
        let body = Streamed::new(body, pass.meter().clone(), Direction::Out(Box::new(guard)));
        // Where the body was ended, that is why there is no answer.
        let why = |refusal: Refusal| stray.get().cloned().unwrap_or(refusal);
        if let Some(key) = key {
            head::address(&mut parts, host, *port, Version::HTTP_11)?;
            parts.headers.insert(UPGRADE, key);
            parts.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            return self.change(Request::from_parts(parts, body), changed, pass, place).await.map_err(why);
        }
        let (response, lease) = self.upstream.send(Request::from_parts(parts, body), &pass).await.map_err(why)?;
        Ok(passed_on(response, &pass, place, lease).await)
    }

    /// Has the host change the protocol, and then moves bytes.
    async fn change(
        &self,
        request: Request<Streamed>,
        inside: hyper::upgrade::OnUpgrade,
        pass: Arc<Pass>,
        place: Place,
    ) -> Result<Response<Answer>, Refusal> {
        let (mut response, peer) = self.upstream.send_alone(request, &pass).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(passed_on(response, &pass, place, None).await);
        }
        let outside = hyper::upgrade::on(&mut response);
        let (session, cut) = (Arc::clone(&self.session), Arc::clone(&self.cut));
        self.spawner.spawn(async move {
            let Ok((inside, outside)) = tokio::try_join!(inside, outside) else { return };
            let (mut inside, mut outside) = (TokioIo::new(inside), TokioIo::new(outside));
            tokio::select! {
                // Either side hears of its end by its own stream's.
                _ = change::run(&mut inside, &mut outside, pass.meter()) => {}
                () = session.denied(&pass, peer) => cut.notify_one(),
            }
        });
        let (parts, _) = response.into_parts();
        Ok(Response::from_parts(parts, Either::Right(Full::default())))
    }
}

/// Passes an answer on.
async fn passed_on(
    response: Response<Incoming>,
    pass: &Pass,
    place: Place,
    lease: Option<upstream::Lease>,
) -> Response<Answer> {
    let (mut parts, body) = response.into_parts();
    head::clean(&mut parts.headers);
    parts.version = Version::HTTP_11;
    let mut body = Streamed::new(body, pass.meter().clone(), Direction::In).ending(Exchange { lease, place });
    body.begin().await;
    Response::from_parts(parts, Either::Left(body))
}

/// A refusal as an answer; the connection stays.
fn refused(refusal: &Refusal) -> Response<Answer> {
    let mut response = Response::new(Either::Right(Full::from(refusal.body())));
    *response.status_mut() = StatusCode::from_u16(refusal.status().0).unwrap_or(StatusCode::FORBIDDEN);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(rule) = HeaderValue::from_str(&refusal.rule_field()) {
        headers.insert("x-sandbox-denied", rule);
    }
    response
}

const SHAKE_WITHIN: Duration = Duration::from_secs(15);
/// How long the head of a request may take, and how long a connection may wait for one.
const HEAD_WITHIN: Duration = Duration::from_mins(2);
const ALIVE_EVERY: Duration = Duration::from_mins(1);
const ALIVE_WITHIN: Duration = Duration::from_secs(20);
const MAX_STREAMS: u32 = 100;
const MAX_HEADERS: u32 = 64 << 10;
const MAX_BUFFER: usize = 128 << 10;
