//! One request goes out and its response comes back, each written anew from its parts.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::body::{self, Extensions, STALL};
use super::budget::Meter;
use super::buffer::{Buffer, Link};
use super::head::{self, Fields, Framing, Malformed, RequestHead, ResponseHead, Version};
use super::stray::{Found, Search};

/// A request that may go out.
#[derive(Debug)]
pub(crate) struct Outbound {
    method: String,
    head: Vec<u8>,
    framing: Framing,
    upgrade: Upgrade,
    version: Version,
    kept: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Upgrade {
    None,
    WebSocket,
}

/// What follows a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Both sides stay.
    Both,
    /// The client stays; the server has gone or must.
    Client,
    /// Both sides now speak something else.
    Upgraded,
    /// The connection is over.
    None,
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Nothing came from the server, and nothing of the request's body was taken: it may be asked again.
    Untouched,
    /// The server gave no response that makes sense, and the client has heard nothing.
    NoResponse(String),
    /// The client has gone, or has heard a part that cannot be completed.
    Broken,
    /// The request's body held a placeholder, and was ended there; whether the client has heard anything.
    Stray(Found, Heard),
}

/// Whether the client has heard a part of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    Nothing,
    Something,
}

impl Heard {
    fn of(begun: &AtomicBool) -> Self {
        if begun.load(Ordering::Relaxed) { Self::Something } else { Self::Nothing }
    }
}

impl Outbound {
    /// Prepares a request to be sent with another target. Fields that are about this connection alone go no further.
    pub(crate) fn new(head: &RequestHead, target: &str, host: &str, extra: &str) -> Result<Self, Malformed> {
        let framing = head.framing()?;
        let websocket = head.fields.lists("upgrade", "websocket") && head.fields.lists("connection", "upgrade");
        let upgrade = if websocket && framing == Framing::Empty { Upgrade::WebSocket } else { Upgrade::None };
        // An older client is answered in its own version, which knows no chunks.
        let version = if head.version == Version::Http10 { "HTTP/1.0" } else { "HTTP/1.1" };
        let mut text = format!("{} {target} {version}\r\nHost: {host}\r\n{extra}", head.method).into_bytes();
        forwarded(&head.fields, &mut text)?;
        match framing {
            Framing::Length(length) => text.extend(format!("Content-Length: {length}\r\n").bytes()),
            Framing::Chunked => text.extend(b"Transfer-Encoding: chunked\r\n"),
            Framing::Empty | Framing::UntilClose => {}
        }
        if upgrade == Upgrade::WebSocket {
            text.extend(b"Connection: Upgrade\r\nUpgrade: websocket\r\n");
        }
        text.extend(b"\r\n");
        Ok(Self {
            method: head.method.clone(),
            head: text,
            framing,
            upgrade,
            version: head.version,
            kept: head.is_kept(),
        })
    }
}

/// Sends a request and passes its response on.
pub(crate) async fn run<C, S>(
    request: &Outbound,
    client: &mut Link<C>,
    server: &mut Link<S>,
    meter: &Meter,
    mut search: Search,
) -> Result<Next, Failed>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut client_read, mut client_write) = tokio::io::split(&mut client.stream);
    let (mut server_read, mut server_write) = tokio::io::split(&mut server.stream);
    // Whatever was said before it was asked belongs to nobody.
    if !server.buffer.unread().is_empty() {
        return Err(Failed::Untouched);
    }
    meter.sent(request.head.len()).map_err(|error| Failed::NoResponse(error.to_string()))?;
    if body::write(&mut server_write, &request.head).await.is_err() {
        return Err(if request.framing == Framing::Empty { Failed::Untouched } else { no_response("it went away") });
    }
    let client_buffer = &mut client.buffer;
    let (stray, begun) = (OnceLock::new(), AtomicBool::new(false));
    let upload = async {
        let count = |bytes: &[u8]| {
            search.look(bytes).map_err(|found| {
                // There is one at most: it ends the body.
                let _ = stray.set(found);
                io::ErrorKind::PermissionDenied
            })?;
            meter.sent(bytes.len())
        };
        let refused = Extensions::Refused;
        body::copy(request.framing, client_buffer, &mut client_read, &mut server_write, refused, count).await?;
        server_write.flush().await
    };
    let download = response(request, &mut server.buffer, &mut server_read, &mut client_write, meter, &begun);
    tokio::pin!(upload, download);
    let mut uploaded = false;
    let next = loop {
        tokio::select! {
            // In this order, so that a request that is complete counts as such when its response is.
            biased;
            sent = &mut upload, if !uploaded => {
                match sent {
                    Ok(()) => uploaded = true,
                    // The server may have stopped reading because it has answered.
                    Err(error) if is_gone(&error) => break tokio::time::timeout(ANSWER_WITHIN, &mut download).await.unwrap_or(Err(Failed::Broken)).map(|_| Next::None),
                    Err(_) => break Err(stray.get().map_or(Failed::Broken, |found| Failed::Stray(*found, Heard::of(&begun)))),
                }
            }
            next = &mut download => break next.map(|next| if uploaded { next } else { Next::None }),
        }
    };
    next.map_err(|failed| match failed {
        Failed::Untouched if request.framing != Framing::Empty => no_response("it went away"),
        failed => failed,
    })
}

/// Passes on interim responses, and then the one that counts.
async fn response(
    request: &Outbound,
    buffer: &mut Buffer,
    server: &mut (impl AsyncRead + Unpin),
    client: &mut (impl AsyncWrite + Unpin),
    meter: &Meter,
    begun: &AtomicBool,
) -> Result<Next, Failed> {
    let mut interim = 0;
    loop {
        let head = match head::read(buffer, server, STALL, HEAD_WITHIN).await {
            Ok(head) => head,
            Err(head::NoHead::Ended) if interim == 0 && buffer.unread().is_empty() => return Err(Failed::Untouched),
            Err(head::NoHead::Malformed(Malformed(why))) => return Err(no_response(why)),
            Err(_) => return Err(no_response("it broke off")),
        };
        meter.received(head.len()).map_err(|error| no_response(&error.to_string()))?;
        let head = ResponseHead::parse(&head).map_err(|Malformed(why)| no_response(why))?;
        let framing = head.framing(&request.method).map_err(|Malformed(why)| no_response(why))?;
        if framing == Framing::Chunked && request.version == Version::Http10 {
            return Err(no_response("it answers HTTP/1.0 with chunks"));
        }
        let upgraded = head.status == 101;
        if upgraded && request.upgrade != Upgrade::WebSocket {
            return Err(no_response("it speaks something else than it was asked for"));
        }
        let kept = request.kept && (framing != Framing::UntilClose);
        let mut text =
            answer(&head, framing, &request.method, if upgraded { Stay::Upgraded } else { Stay::from(kept) })
                .map_err(|Malformed(why)| no_response(why))?;
        begun.store(true, Ordering::Relaxed);
        let count = |bytes: &[u8]| meter.received(bytes.len());
        // What has come of the body goes with the head, in one piece.
        let framing = body::join(framing, buffer, &mut text, count).map_err(|_| Failed::Broken)?;
        body::write(client, &text).await.map_err(|_| Failed::Broken)?;
        if upgraded {
            return Ok(Next::Upgraded);
        }
        if (100..200).contains(&head.status) {
            interim += 1;
            if interim > MAX_INTERIM {
                return Err(Failed::Broken);
            }
            continue;
        }
        let copied = body::copy(framing, buffer, server, client, Extensions::Dropped, count).await;
        copied.map_err(|_| Failed::Broken)?;
        client.flush().await.map_err(|_| Failed::Broken)?;
        return Ok(match (kept, head.is_kept()) {
            (true, true) => Next::Both,
            (true, false) => Next::Client,
            (false, _) => Next::None,
        });
    }
}

#[derive(Clone, Copy)]
enum Stay {
    Kept,
    Over,
    Upgraded,
}

impl From<bool> for Stay {
    fn from(kept: bool) -> Self {
        if kept { Self::Kept } else { Self::Over }
    }
}

fn answer(head: &ResponseHead, framing: Framing, method: &str, stay: Stay) -> Result<Vec<u8>, Malformed> {
    let mut text = format!("HTTP/1.1 {} ", head.status).into_bytes();
    text.extend(head.reason.iter().filter(|byte| **byte >= 0x20 && **byte != 0x7f));
    text.extend(b"\r\n");
    forwarded(&head.fields, &mut text)?;
    match framing {
        Framing::Length(length) => text.extend(format!("Content-Length: {length}\r\n").bytes()),
        Framing::Chunked => text.extend(b"Transfer-Encoding: chunked\r\n"),
        // The length of what is not sent is told all the same (RFC 9110, section 8.6).
        Framing::Empty if method == "HEAD" || head.status == 304 => {
            for value in head.fields.all("content-length") {
                text.extend([b"Content-Length: ", value, b"\r\n"].concat());
            }
        }
        Framing::Empty | Framing::UntilClose => {}
    }
    match stay {
        Stay::Kept => {}
        Stay::Over if (100..200).contains(&head.status) => {}
        Stay::Over => text.extend(b"Connection: close\r\n"),
        Stay::Upgraded => text.extend(b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    }
    text.extend(b"\r\n");
    Ok(text)
}

/// Writes the fields that go on to the next, as they came.
fn forwarded(fields: &Fields, text: &mut Vec<u8>) -> Result<(), Malformed> {
    let named: Vec<&[u8]> = fields.words("connection").chain(fields.words("proxy-connection")).collect();
    if named.iter().any(|name| KEPT.iter().any(|kept| name.eq_ignore_ascii_case(kept.as_bytes()))) {
        return Err(Malformed("Connection names a field that must go on"));
    }
    for (name, value) in fields.iter() {
        let own = OWN.iter().any(|own| name.eq_ignore_ascii_case(own));
        if !own && !named.iter().any(|other| name.as_bytes().eq_ignore_ascii_case(other)) {
            text.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
    }
    Ok(())
}

fn no_response(why: &str) -> Failed {
    Failed::NoResponse(why.to_owned())
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Fields that are about one connection (RFC 9110, section 7.6.1), or that are written anew.
const OWN: [&str; 12] = [
    "connection",
    "content-length",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields that a Connection field may not take away.
const KEPT: [&str; 5] = ["authorization", "content-length", "content-type", "host", "transfer-encoding"];

/// How long the head of a response may take, once it has begun.
const HEAD_WITHIN: Duration = Duration::from_mins(1);
/// How long a server that has stopped reading may take to say why.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const MAX_INTERIM: usize = 16;

#[cfg(test)]
mod tests;
