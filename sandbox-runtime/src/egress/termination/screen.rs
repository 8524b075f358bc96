//! Looks at the heads of requests in HTTP/1.1 before the server's parser does.
//!
//! Invariant: nothing of a head is handed on before all of it was read as strictly as [`RequestHead`] reads, and where a body
//! ends is known here, too: what two parsers could take for two requests is refused.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::egress::head::{Framing, RequestHead};

/// A stream whose requests are looked at.
#[derive(Debug)]
pub(super) struct Screened<S> {
    stream: S,
    state: State,
    /// What has come and was not handed on.
    input: Vec<u8>,
    /// How much of it may be handed on, from its start.
    released: usize,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The head of a request.
    Head,
    /// So many bytes of a body.
    Body(u64),
    /// The line that says how long a chunk is.
    Size,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The line's end after a chunk.
    ChunkEnd,
    /// Lines after the last chunk, of so many bytes at most.
    Trailers(usize),
    /// No more of HTTP: bytes as they come.
    Open,
    /// Nothing: what came was refused.
    Refused,
}

impl<S> Screened<S> {
    /// Looks at a stream's requests.
    pub(super) fn requests(stream: S) -> Self {
        Self { stream, state: State::Head, input: Vec::new(), released: 0 }
    }

    /// Lets everything through: the stream is one of another protocol.
    pub(super) fn open(stream: S) -> Self {
        Self { stream, state: State::Open, input: Vec::new(), released: 0 }
    }

    /// Releases all of what has come that may be handed on.
    fn advance(&mut self) {
        loop {
            let waiting = &self.input[self.released..];
            if waiting.is_empty() {
                return;
            }
            let step = match self.state {
                State::Head => head(waiting),
                State::Body(left) => take(waiting, left, State::Body, State::Head),
                State::Size => size(waiting),
                State::Chunk(left) => take(waiting, left, State::Chunk, State::ChunkEnd),
                State::ChunkEnd => chunk_end(waiting),
                State::Trailers(left) => trailer(waiting, left),
                State::Open => Step::Go(waiting.len(), State::Open),
                State::Refused => return self.input.truncate(self.released),
            };
            match step {
                Step::Go(count, next) => {
                    self.released += count;
                    self.state = next;
                }
                Step::Wait => return,
                Step::Refuse => {
                    self.input.truncate(self.released);
                    // What no parser takes, so that the server says 400 and closes.
                    self.input.push(0);
                    self.released += 1;
                    self.state = State::Refused;
                    return;
                }
            }
        }
    }

    fn hand_on(&mut self, buffer: &mut ReadBuf<'_>) {
        let count = self.released.min(buffer.remaining());
        buffer.put_slice(&self.input[..count]);
        self.input.drain(..count);
        self.released -= count;
    }
}

enum Step {
    Go(usize, State),
    Wait,
    Refuse,
}

fn head(waiting: &[u8]) -> Step {
    let Some(end) = waiting.windows(END.len()).position(|window| window == END) else {
        return if waiting.len() < MAX_HEAD { Step::Wait } else { Step::Refuse };
    };
    let end = end + END.len();
    if end > MAX_HEAD {
        return Step::Refuse;
    }
    let Ok(head) = RequestHead::parse(&waiting[..end]) else { return Step::Refuse };
    let asks_to_change = head.fields.all("upgrade").next().is_some();
    match head.framing() {
        _ if head.method == "CONNECT" => Step::Refuse,
        Ok(Framing::Empty) if asks_to_change => Step::Go(end, State::Open),
        Ok(Framing::Empty | Framing::Length(0)) if !asks_to_change => Step::Go(end, State::Head),
        Ok(Framing::Length(length)) if !asks_to_change => Step::Go(end, State::Body(length)),
        Ok(Framing::Chunked) if !asks_to_change => Step::Go(end, State::Size),
        _ => Step::Refuse,
    }
}

fn take(waiting: &[u8], left: u64, more: impl Fn(u64) -> State, done: State) -> Step {
    let count = usize::try_from(left).map_or(waiting.len(), |left| left.min(waiting.len()));
    let left = left - count as u64;
    Step::Go(count, if left == 0 { done } else { more(left) })
}

fn size(waiting: &[u8]) -> Step {
    let Some(end) = waiting.iter().position(|&byte| byte == b'\n') else {
        return if waiting.len() < MAX_SIZE_LINE { Step::Wait } else { Step::Refuse };
    };
    let digits = waiting[..end].strip_suffix(b"\r").and_then(|line| str::from_utf8(line).ok());
    let is_number = |text: &&str| (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match digits.filter(is_number).map(|text| u64::from_str_radix(text, 16)) {
        Some(Ok(0)) => Step::Go(end + 1, State::Trailers(MAX_TRAILERS)),
        Some(Ok(length)) => Step::Go(end + 1, State::Chunk(length)),
        _ => Step::Refuse,
    }
}

fn chunk_end(waiting: &[u8]) -> Step {
    match waiting {
        [b'\r', b'\n', ..] => Step::Go(2, State::Size),
        b"\r" => Step::Wait,
        _ => Step::Refuse,
    }
}

fn trailer(waiting: &[u8], left: usize) -> Step {
    match waiting.iter().position(|&byte| byte == b'\n') {
        None if waiting.len() < left => Step::Wait,
        Some(1) if waiting[0] == b'\r' => Step::Go(2, State::Head),
        Some(end) if end < left && waiting[..end].ends_with(b"\r") => {
            Step::Go(end + 1, State::Trailers(left - end - 1))
        }
        _ => Step::Refuse,
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Screened<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.released > 0 {
                this.hand_on(buffer);
                return Poll::Ready(Ok(()));
            }
            if this.state == State::Refused {
                return Poll::Ready(Ok(()));
            }
            if this.input.is_empty()
                && let State::Body(_) | State::Chunk(_) | State::Open = this.state
            {
                return this.poll_through(cx, buffer);
            }
            let mut part = [0; CHUNK];
            let mut read = ReadBuf::new(&mut part);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.input.extend_from_slice(read.filled());
            this.advance();
        }
    }
}

impl<S: AsyncRead + Unpin> Screened<S> {
    /// Hands on what is known to be no head.
    fn poll_through(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let left = match self.state {
            State::Body(left) | State::Chunk(left) => usize::try_from(left).unwrap_or(usize::MAX),
            _ => usize::MAX,
        };
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(left.min(buffer.remaining())));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        buffer.advance(count);
        if count > 0 {
            self.state = match (self.state, count as u64) {
                (State::Body(left), count) if left == count => State::Head,
                (State::Body(left), count) => State::Body(left - count),
                (State::Chunk(left), count) if left == count => State::ChunkEnd,
                (State::Chunk(left), count) => State::Chunk(left - count),
                (state, _) => state,
            };
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Screened<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

const END: &[u8] = b"\r\n\r\n";
const CHUNK: usize = 8 << 10;
const MAX_HEAD: usize = 32 << 10;
const MAX_SIZE_LINE: usize = 18;
const MAX_TRAILERS: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// What is handed on of bytes that come in parts of this size.
    async fn screened(bytes: &[u8], part: usize) -> Vec<u8> {
        let (mut ours, theirs) = tokio::io::duplex(part);
        let sending = async {
            // Whoever is refused is no longer listened to.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut ours, bytes).await;
            drop(ours);
        };
        let mut out = Vec::new();
        let mut screened = Screened::requests(theirs);
        let reading = async {
            screened.read_to_end(&mut out).await.unwrap();
            drop(screened);
        };
        tokio::join!(sending, reading);
        out
    }

    const GOOD: [&str; 6] = [
        "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\n\r\nGET /2 HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\0\x01any",
    ];

    const BAD: [&str; 16] = [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nX: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\nHost: a\n\nGET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc",
        "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    ];

    #[tokio::test]
    async fn what_is_clear_passes_as_it_came() {
        for text in GOOD {
            for part in [1, 7, 4_096] {
                assert_eq!(String::from_utf8_lossy(&screened(text.as_bytes(), part).await), text);
            }
        }
    }

    #[tokio::test]
    async fn nothing_of_a_head_that_could_be_read_in_two_ways_passes() {
        for text in BAD {
            for part in [1, 7, 4_096] {
                assert_eq!(screened(text.as_bytes(), part).await, [0], "{text:?}");
                let kept = [GOOD[2], text].concat();
                let out = screened(kept.as_bytes(), part).await;
                assert_eq!(out, [GOOD[2].as_bytes(), &[0]].concat(), "{text:?} on a kept connection");
            }
        }
        let chunks = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        for body in [
            "3;a=b\r\nabc\r\n",
            "3\nabc\r\n",
            "0x3\r\nabc\r\n",
            "3 \r\nabc\r\n",
            "-1\r\n",
            "\r\nabc",
            "0\r\nX: y\n\r\n",
        ] {
            let out = screened(format!("{chunks}{body}").as_bytes(), 4_096).await;
            assert_eq!(out.last(), Some(&0), "{body:?}");
        }
        let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEAD));
        assert_eq!(screened(long.as_bytes(), 4_096).await, [0]);
    }

    proptest! {
        #[test]
        fn what_passes_is_a_beginning_of_what_came(bytes in "(GET|POST) / HTTP/1.1\r\n(Host: a\r\n|Content-Length: [0-9]\r\n|Transfer-Encoding: chunked\r\n|[^\r\n]{0,9}\r\n){0,3}\r\n[ -~\r\n]{0,40}", part in 1_usize..50) {
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            let out = runtime.block_on(screened(bytes.as_bytes(), part));
            let passed = out.strip_suffix(&[0]).unwrap_or(&out);
            prop_assert!(bytes.as_bytes().starts_with(passed));
        }
    }
}
