//! SOCKS5 without a login, for what cannot speak to an HTTP proxy (RFC 1928): CONNECT alone.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use sandbox_policy::Host;
use tokio::net::TcpStream;

use super::answer::Refusal;
use super::buffer::Link;
use super::connect::{self, say};
use super::session::Session;

/// Serves one connection.
pub(crate) async fn serve(session: Arc<Session>, stream: TcpStream) -> io::Result<()> {
    let mut client = Link::new(stream);
    let asked = tokio::time::timeout(WITHIN, negotiate(&mut client)).await??;
    let (host, port) = match asked {
        Ok(asked) => asked,
        Err(code) => {
            say(&mut client.stream, &reply(code)).await?;
            return connect::lingering(&mut client.stream).await;
        }
    };
    let answer =
        |opened: Result<(), &Refusal>| reply(opened.map_or_else(Refusal::socks_reply, |()| SUCCEEDED)).to_vec();
    connect::run(&session, client, host, port, answer).await
}

/// Reads the greeting and the request; a code where it is none that can be served.
async fn negotiate(client: &mut Link<TcpStream>) -> io::Result<Result<(Host, u16), u8>> {
    let [version, methods] = *bytes(client, 2).await? else { return Err(broken()) };
    if version != VERSION {
        return Err(broken());
    }
    client.buffer.consume(2);
    let offers_none = bytes(client, usize::from(methods)).await?.contains(&NO_LOGIN);
    client.buffer.consume(usize::from(methods));
    if !offers_none {
        say(&mut client.stream, &[VERSION, NO_METHOD]).await?;
        return Err(broken());
    }
    say(&mut client.stream, &[VERSION, NO_LOGIN]).await?;
    let [version, command, reserved, kind, first] = *bytes(client, 5).await? else { return Err(broken()) };
    if version != VERSION || reserved != 0 {
        return Err(broken());
    }
    let length = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => 1 + usize::from(first),
        _ => return Ok(Err(KIND_UNKNOWN)),
    };
    let request = bytes(client, 4 + length + 2).await?;
    let (address, port) = request[4..].split_at(length);
    let host = match kind {
        IPV4 => <[u8; 4]>::try_from(address).ok().map(|octets| Host::from(Ipv4Addr::from(octets))),
        IPV6 => <[u8; 16]>::try_from(address).ok().map(|octets| Host::from(Ipv6Addr::from(octets))),
        _ => str::from_utf8(&address[1..]).ok().and_then(|name| name.parse().ok()),
    };
    let port = port.iter().fold(0, |number, byte| number << 8 | u16::from(*byte));
    client.buffer.consume(4 + length + 2);
    match (command, host, port) {
        (CONNECT, Some(host), 1..) => Ok(Ok((host, port))),
        (CONNECT, _, _) => Ok(Err(FAILED)),
        _ => Ok(Err(COMMAND_UNKNOWN)),
    }
}

/// Waits until so many bytes have come.
async fn bytes(client: &mut Link<TcpStream>, count: usize) -> io::Result<&[u8]> {
    while client.buffer.unread().len() < count {
        if client.buffer.fill(&mut client.stream).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(&client.buffer.unread()[..count])
}

/// A reply, which names no address that it was reached from.
fn reply(code: u8) -> [u8; 10] {
    [VERSION, code, 0, IPV4, 0, 0, 0, 0, 0, 0]
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is no SOCKS5 without a login")
}

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
const SUCCEEDED: u8 = 0;
const FAILED: u8 = 1;
const COMMAND_UNKNOWN: u8 = 7;
const KIND_UNKNOWN: u8 = 8;
/// How long a client may take until it has said what it wants.
const WITHIN: Duration = Duration::from_secs(30);
