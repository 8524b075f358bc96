//! What was read from a stream and not yet used.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// Bytes that wait to be looked at. It holds memory only while there are any.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// What waits.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Forgets what has been looked at.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
        if self.start == self.bytes.len() {
            self.start = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEPT {
                self.bytes = Vec::new();
            }
        }
    }

    /// Reads some more; 0 is the stream's end. May be dropped and called again: nothing is lost.
    pub(crate) async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.reserve(CHUNK);
        stream.read_buf(&mut self.bytes).await
    }

    /// Reads at most so much where nothing waits, and holds no memory while there is nothing to read; 0 is the stream's end.
    fn poll_fill(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.bytes.reserve_exact(most);
        let read = pin!(stream.read_buf(&mut self.bytes)).poll(cx);
        if read.is_pending() {
            *self = Self::default();
        }
        read
    }

    /// Gives up what is held; for a stream on which nobody waits for a message any more.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.drain(..self.start);
        self.start = 0;
        bytes
    }

    /// Frees the memory of a stream that is idle.
    pub(crate) fn rest(&mut self) {
        if self.unread().is_empty() {
            *self = Self::default();
        }
    }
}

/// A stream and what was read ahead of it.
#[derive(Debug)]
pub(crate) struct Link<S> {
    pub(crate) stream: S,
    pub(crate) buffer: Buffer,
}

impl<S> Link<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Buffer::default() }
    }
}

/// What was read ahead comes first. Then as much is read as there is, since TLS asks for a few thousand bytes at a time.
impl<S: AsyncRead + Unpin> AsyncRead for Link<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { stream, buffer: ahead } = self.get_mut();
        if ahead.unread().is_empty() {
            if buffer.remaining() >= AHEAD {
                return Pin::new(stream).poll_read(cx, buffer);
            }
            let filled = ready!(ahead.poll_fill(stream, AHEAD, cx))?;
            if filled == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let waiting = ahead.unread();
        let count = waiting.len().min(buffer.remaining());
        buffer.put_slice(&waiting[..count]);
        ahead.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Link<S> {
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

/// Bytes that are read at once.
pub(crate) const CHUNK: usize = 16 << 10;

/// Bytes that are read ahead at once.
const AHEAD: usize = 64 << 10;

/// Capacity that is kept for the next message.
const KEPT: usize = AHEAD;
