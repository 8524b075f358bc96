//! Tunnels: asked for by CONNECT or by SOCKS, opaque, and on the port of TLS only for TLS to the host that was asked for.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sandbox_policy::Host;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::answer::{Refusal, RefusalKind};
use super::buffer::Link;
use super::hello::{ClientHello, HelloReader, NoHello, UNRECOGNIZED_NAME};
use super::session::{Pass, Session};
use super::tunnel;

/// Opens a tunnel and moves what passes until it ends. `reply` makes the bytes that tell the client how it went.
pub(crate) async fn run(
    session: &Arc<Session>,
    mut client: Link<TcpStream>,
    host: Host,
    port: u16,
    reply: impl Fn(Result<(), &Refusal>) -> Vec<u8>,
) -> io::Result<()> {
    if let Some(intercept) = session.intercept.as_ref().filter(|intercept| intercept.wants(&host, port)) {
        say(&mut client.stream, &reply(Ok(()))).await?;
        intercept.serve(session, host, port, client).await;
        return Ok(());
    }
    let opened = async {
        let pass = session.ask(&host, port, None)?;
        let outside = session.dial(&pass).await?;
        Ok::<_, Refusal>((pass, outside))
    };
    let (pass, mut outside) = match opened.await {
        Ok(opened) => opened,
        Err(refusal) => {
            say(&mut client.stream, &reply(Err(&refusal))).await?;
            return lingering(&mut client.stream).await;
        }
    };
    say(&mut client.stream, &reply(Ok(()))).await?;
    let peer = outside.peer_addr().ok().filter(|_| session.upstream.is_none()).map(|address| address.ip());
    let through = async {
        if port == TLS {
            greeted(session, &pass, &mut client).await?;
        }
        let ahead = client.buffer.take();
        pass.meter().sent(ahead.len())?;
        say(&mut outside, &ahead).await?;
        tunnel::run(&mut client.stream, &mut outside, pass.meter(), &session.pipes).await
    };
    tokio::select! {
        moved = through => moved,
        () = session.denied(&pass, peer) => Ok(()),
    }
}

/// Waits for the `ClientHello`, which must name the host that was asked for.
async fn greeted(session: &Session, pass: &Pass, client: &mut Link<TcpStream>) -> io::Result<()> {
    let mut reader = HelloReader::default();
    let reading = async {
        loop {
            if let Some(hello) = reader.read(client.buffer.unread()).transpose() {
                return Ok::<_, io::Error>(hello);
            }
            if client.buffer.fill(&mut client.stream).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    };
    let hello = tokio::time::timeout(HELLO_WITHIN, reading).await??;
    let reason = match hello {
        Err(NoHello(why)) => format!("port {TLS} is for TLS alone: {why}"),
        // An address is no name, and cannot be named (RFC 6066, section 3).
        Ok(ClientHello { name: None }) if pass.host().address().is_some() => return Ok(()),
        Ok(ClientHello { name: None }) => "the TLS connection names no server".to_owned(),
        Ok(ClientHello { name: Some(name) }) if name == *pass.host() => return Ok(()),
        Ok(ClientHello { name: Some(name) }) => {
            format!("the tunnel was asked for {}, and the TLS connection in it for {name}", pass.host())
        }
    };
    session.revoke(pass, "TLS to the host that was asked for", reason, "ask for the host that TLS names");
    say(&mut client.stream, &UNRECOGNIZED_NAME).await?;
    lingering(&mut client.stream).await?;
    Err(io::ErrorKind::PermissionDenied.into())
}

/// Writes a few bytes to somebody who may not read them.
pub(crate) async fn say(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    tokio::time::timeout(SAY_WITHIN, stream.write_all(bytes)).await?
}

/// Closes a connection so that its last words arrive: what the client still sends would else reset it.
pub(crate) async fn lingering(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut left = LINGERING_BYTES;
    let mut buffer = [0; 4096];
    let drain = async {
        while let Ok(read @ 1..) = tokio::io::AsyncReadExt::read(stream, &mut buffer).await {
            left = left.saturating_sub(read);
            if left == 0 {
                return;
            }
        }
    };
    // Whoever goes on sending has been told.
    let _ = tokio::time::timeout(LINGERING, drain).await;
    Ok(())
}

/// What a client of HTTP is told.
pub(crate) fn http_reply(opened: Result<(), &Refusal>) -> Vec<u8> {
    match opened {
        Ok(()) => b"HTTP/1.1 200 Connection established\r\n\r\n".to_vec(),
        Err(refusal) => refusal.response("CONNECT"),
    }
}

/// Refuses what is for TLS and is none.
pub(crate) fn not_tls(host: &Host) -> Refusal {
    let reason = format!("port {TLS} of {host} is for TLS alone");
    Refusal::new(RefusalKind::Denied, "TLS to the host that was asked for", reason, "https:// in place of http://")
}

/// The port that is for TLS alone.
pub(crate) const TLS: u16 = 443;
const HELLO_WITHIN: Duration = Duration::from_secs(15);
const SAY_WITHIN: Duration = Duration::from_secs(30);
const LINGERING: Duration = Duration::from_secs(2);
const LINGERING_BYTES: usize = 1 << 20;
