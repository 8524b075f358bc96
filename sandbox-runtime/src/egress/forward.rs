//! Requests in plain HTTP, one after the other, each decided on anew.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sandbox_policy::Host;
use tokio::net::TcpStream;

use super::answer::Refusal;
use super::buffer::Link;
use super::connect::{self, TLS, lingering, not_tls, say};
use super::exchange::{self, Failed, Heard, Next, Outbound};
use super::head::{self, Malformed, NoHead, RequestHead};
use super::session::{Pass, Session};
use super::target::Target;
use super::tunnel;

/// Serves one connection.
pub(crate) async fn serve(session: Arc<Session>, stream: TcpStream) -> io::Result<()> {
    let mut client = Link::new(stream);
    let mut kept: Option<Kept> = None;
    loop {
        let (method, refusal) = match next(&mut client).await {
            Ok(None) => return Ok(()),
            Err(Malformed(why)) => (String::new(), Refusal::malformed(why)),
            Ok(Some(head)) if head.method == "CONNECT" => match Target::of_tunnel(&head) {
                Ok(Target { host, port, path: _ }) => {
                    return connect::run(&session, client, host, port, connect::http_reply).await;
                }
                Err(Malformed(why)) => (head.method, Refusal::malformed(why)),
            },
            Ok(Some(head)) => match forward(&session, &mut client, &mut kept, &head).await {
                Ok(Next::Both | Next::Client) => continue,
                Ok(Next::Upgraded | Next::None) | Err(Ended::Broken) => return Ok(()),
                Err(Ended::Refused(refusal)) => (head.method, *refusal),
            },
        };
        say(&mut client.stream, &refusal.response(&method)).await?;
        return lingering(&mut client.stream).await;
    }
}

/// The server of the last request, which may be asked again.
struct Kept {
    host: Host,
    port: u16,
    server: Link<TcpStream>,
}

enum Ended {
    Broken,
    Refused(Box<Refusal>),
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<Malformed> for Ended {
    fn from(Malformed(why): Malformed) -> Self {
        Refusal::malformed(why).into()
    }
}

async fn next(client: &mut Link<TcpStream>) -> Result<Option<RequestHead>, Malformed> {
    match head::read(&mut client.buffer, &mut client.stream, IDLE, HEAD_WITHIN).await {
        Ok(head) => RequestHead::parse(&head).map(Some),
        Err(NoHead::Malformed(malformed)) => Err(malformed),
        Err(NoHead::Ended | NoHead::Late) => Ok(None),
    }
}

async fn forward(
    session: &Session,
    client: &mut Link<TcpStream>,
    kept: &mut Option<Kept>,
    head: &RequestHead,
) -> Result<Next, Ended> {
    let target = Target::of_request(head)?;
    head.framing()?;
    let pass = session.ask(&target.host, target.port, Some((&head.method, &target.path)))?;
    if target.port == TLS {
        let Refusal { rule, reason, hint, .. } = not_tls(&target.host);
        return Err(session.revoke(&pass, &rule, reason, &hint).into());
    }
    session
        .vault
        .stray(&target.path, head.fields.iter())
        .map_err(|Refusal { rule, reason, hint, .. }| session.revoke(&pass, &rule, reason, &hint))?;
    let request = match &session.upstream {
        None => Outbound::new(head, &target.path, &target.host_field(), "")?,
        Some(upstream) => {
            let url = format!("http://{}{}", target.host_field(), target.path);
            Outbound::new(head, &url, &target.host_field(), &upstream.login_field())?
        }
    };
    let old = kept.take().filter(|kept| kept.serves(session, &pass));
    let used = old.is_some();
    let mut server = match old {
        Some(kept) => kept.server,
        None => dialled(session, &pass).await?,
    };
    let mut outcome = pass_through(session, &pass, &request, client, &mut server).await;
    if used && matches!(outcome, Err(Failed::Untouched)) {
        // It went away while nobody asked it.
        server = dialled(session, &pass).await?;
        outcome = pass_through(session, &pass, &request, client, &mut server).await;
    }
    let at = format!("{} port {}", target.host, target.port);
    match outcome {
        Ok(Next::Both) => {
            *kept = Some(Kept { host: target.host, port: target.port, server });
            Ok(Next::Both)
        }
        Ok(next) => Ok(next),
        Err(Failed::Untouched) => Err(Refusal::unreachable(format!("{at} ended the connection without a word")).into()),
        Err(Failed::NoResponse(why)) => Err(Refusal::unreachable(format!("{at} gives no response: {why}")).into()),
        Err(Failed::Broken) => Err(Ended::Broken),
        Err(Failed::Stray(found, so_far)) => {
            let Refusal { rule, reason, hint, .. } = session.vault.in_body(found);
            let refusal = session.revoke(&pass, &rule, reason, &hint);
            Err(if so_far == Heard::Nothing { refusal.into() } else { Ended::Broken })
        }
    }
}

/// Exchanges a request and its response, and what comes after an upgrade, for as long as the policy allows it.
async fn pass_through(
    session: &Session,
    pass: &Pass,
    request: &Outbound,
    client: &mut Link<TcpStream>,
    server: &mut Link<TcpStream>,
) -> Result<Next, Failed> {
    let peer = server.stream.peer_addr().ok().filter(|_| session.upstream.is_none()).map(|address| address.ip());
    let work = async {
        let next = exchange::run(request, client, server, pass.meter(), session.vault.search()).await?;
        if next == Next::Upgraded {
            let (out, back) = (client.buffer.take(), server.buffer.take());
            let moved = async {
                pass.meter().sent(out.len())?;
                pass.meter().received(back.len())?;
                say(&mut server.stream, &out).await?;
                say(&mut client.stream, &back).await?;
                tunnel::run(&mut client.stream, &mut server.stream, pass.meter(), &session.pipes).await
            };
            // However it ended, it has.
            let _ = moved.await;
        }
        Ok(next)
    };
    tokio::select! {
        next = work => next,
        () = session.denied(pass, peer) => Err(Failed::Broken),
    }
}

async fn dialled(session: &Session, pass: &Pass) -> Result<Link<TcpStream>, Refusal> {
    match &session.upstream {
        None => session.dial(pass).await.map(Link::new),
        Some(upstream) => upstream.connect().await.map(Link::new),
    }
}

impl Kept {
    /// Whether a pass leads to the same place, at an address that it still allows, and somebody is still there.
    fn serves(&self, session: &Session, pass: &Pass) -> bool {
        let mut byte = [0];
        let silent = matches!(self.server.stream.try_read(&mut byte),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        let peer = self.server.stream.peer_addr();
        let allowed = session.upstream.is_some() || peer.is_ok_and(|peer| pass.check_address(peer.ip()).is_ok());
        silent && allowed && (&self.host, self.port) == (pass.host(), pass.port())
    }
}

/// How long a client may leave its connection unused.
const IDLE: Duration = Duration::from_mins(2);
/// How long a request's head may take, once it has begun.
const HEAD_WITHIN: Duration = Duration::from_secs(20);
