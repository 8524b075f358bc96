//! A message's body, moved from one stream to another and framed anew.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::buffer::Buffer;
use super::head::Framing;

/// Moves a body of this framing. `count` sees each part before it is written, and may refuse.
pub(crate) async fn copy(
    framing: Framing,
    buffer: &mut Buffer,
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    extensions: Extensions,
    mut count: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    match framing {
        Framing::Empty => Ok(()),
        Framing::Length(length) => plain(length, buffer, from, to, &mut count).await,
        Framing::UntilClose => loop {
            if buffer.unread().is_empty() && fill(buffer, from).await? == 0 {
                return Ok(());
            }
            let length = buffer.unread().len();
            plain(length as u64, buffer, from, to, &mut count).await?;
        },
        Framing::Chunked => chunks(buffer, from, to, extensions, &mut count).await,
    }
}

/// What becomes of extensions of a chunk's size, which no two servers read alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extensions {
    /// They are left out.
    Dropped,
    /// They end the message.
    Refused,
}

/// Takes what has come of a body whose length is known behind the head that it follows, and gives the framing of what is left.
pub(crate) fn join(
    framing: Framing,
    buffer: &mut Buffer,
    head: &mut Vec<u8>,
    mut count: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<Framing> {
    let Framing::Length(left) = framing else { return Ok(framing) };
    let some = buffer.unread();
    let some = &some[..some.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
    count(some)?;
    head.extend_from_slice(some);
    let moved = some.len();
    buffer.consume(moved);
    Ok(Framing::Length(left - moved as u64))
}

async fn plain(
    mut left: u64,
    buffer: &mut Buffer,
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    while left > 0 {
        if buffer.unread().is_empty() && fill(buffer, from).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let some = buffer.unread();
        let some = &some[..some.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
        count(some)?;
        write(to, some).await?;
        let moved = some.len();
        buffer.consume(moved);
        left -= moved as u64;
    }
    Ok(())
}

async fn chunks(
    buffer: &mut Buffer,
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    extensions: Extensions,
    count: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    loop {
        let line = line(buffer, from, MAX_SIZE_LINE).await?;
        let size = chunk_size(&line, extensions)?;
        if size == 0 {
            break;
        }
        write(to, format!("{size:x}\r\n").as_bytes()).await?;
        plain(size, buffer, from, to, count).await?;
        if !self::line(buffer, from, 0).await?.is_empty() {
            return Err(broken("a chunk is longer than it says"));
        }
        write(to, b"\r\n").await?;
    }
    // Trailers are left out: they may not be forwarded where the recipient did not ask (RFC 9110, section 6.5.1).
    let mut left = MAX_TRAILERS;
    loop {
        let trailer = line(buffer, from, left).await?;
        if trailer.is_empty() {
            return write(to, b"0\r\n\r\n").await;
        }
        left = left.saturating_sub(trailer.len());
    }
}

fn chunk_size(line: &[u8], extensions: Extensions) -> io::Result<u64> {
    let semicolon = line.iter().position(|&byte| byte == b';');
    let digits = match (semicolon, extensions) {
        (None, _) => line,
        (Some(at), Extensions::Dropped) => line[..at].trim_ascii(),
        (Some(_), Extensions::Refused) => return Err(broken("a chunk has extensions")),
    };
    let hexadecimal = !digits.is_empty() && digits.len() <= 15 && digits.iter().all(u8::is_ascii_hexdigit);
    let text = str::from_utf8(digits).ok().filter(|_| hexadecimal);
    text.and_then(|text| u64::from_str_radix(text, 16).ok()).ok_or_else(|| broken("a chunk's size is no number"))
}

/// Reads a line of at most so many bytes, without its CR LF.
async fn line(buffer: &mut Buffer, from: &mut (impl AsyncRead + Unpin), most: usize) -> io::Result<Vec<u8>> {
    loop {
        let unread = buffer.unread();
        if let Some(end) = unread.iter().position(|&byte| byte == b'\n') {
            let Some(line) = unread[..end].strip_suffix(b"\r").filter(|line| !line.contains(&b'\r')) else {
                return Err(broken("a line ends with a bare line feed"));
            };
            if line.len() > most {
                return Err(broken("a line is too long"));
            }
            let line = line.to_vec();
            buffer.consume(end + 1);
            return Ok(line);
        }
        if unread.len() > most + 1 {
            return Err(broken("a line is too long"));
        }
        if fill(buffer, from).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn fill(buffer: &mut Buffer, from: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
    tokio::time::timeout(STALL, buffer.fill(from)).await?
}

/// Writes all of it, to somebody who may be slow but must not stop.
pub(crate) async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    tokio::time::timeout(STALL, to.write_all(bytes)).await?
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// How long a body may stand still.
pub(crate) const STALL: Duration = Duration::from_mins(10);

const MAX_SIZE_LINE: usize = 256;
const MAX_TRAILERS: usize = 8 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    async fn moved(framing: Framing, extensions: Extensions, sent: &[u8]) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let (mut buffer, mut from, mut to) = (Buffer::default(), sent, Vec::new());
        copy(framing, &mut buffer, &mut from, &mut to, extensions, |_| Ok(())).await?;
        let mut left = buffer.take();
        left.extend_from_slice(from);
        Ok((to, left))
    }

    #[tokio::test]
    async fn no_more_is_taken_than_belongs_to_the_message() {
        let (to, left) = moved(Framing::Length(3), Extensions::Refused, b"abcGET").await.unwrap();
        assert_eq!((to.as_slice(), left.as_slice()), (&b"abc"[..], &b"GET"[..]));
        let (to, left) =
            moved(Framing::Chunked, Extensions::Refused, b"3\r\nabc\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\nGET")
                .await
                .unwrap();
        assert_eq!((to.as_slice(), left.as_slice()), (&b"3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n"[..], &b"GET"[..]));
        let (to, _) = moved(Framing::UntilClose, Extensions::Refused, b"all").await.unwrap();
        assert_eq!(to, b"all");
    }

    #[tokio::test]
    async fn chunks_that_could_be_read_in_two_ways_are_refused() {
        for sent in [
            &b"3;a=b\r\nabc\r\n0\r\n\r\n"[..],
            b"3\nabc\r\n0\r\n\r\n",
            b"3\r\nabcd\r\n0\r\n\r\n",
            b"3\r\nabc\n0\r\n\r\n",
            b"+3\r\nabc\r\n0\r\n\r\n",
            b"0x3\r\nabc\r\n0\r\n\r\n",
            b"3 \r\nabc\r\n0\r\n\r\n",
            b"\r\nabc\r\n0\r\n\r\n",
            b"fffffffffffffffff\r\nabc",
            b"3\r\nabc\r\n0\r\n",
            b"3\rx\r\nabc\r\n0\r\n\r\n",
        ] {
            assert!(moved(Framing::Chunked, Extensions::Refused, sent).await.is_err(), "{}", sent.escape_ascii());
        }
        let (to, _) = moved(Framing::Chunked, Extensions::Dropped, b"3;a=b\r\nabc\r\n0\r\n\r\n").await.unwrap();
        assert_eq!(to, b"3\r\nabc\r\n0\r\n\r\n");
    }

    #[tokio::test]
    async fn a_budget_is_asked_before_each_part() {
        let (mut buffer, mut from, mut to) = (Buffer::default(), &b"abc"[..], Vec::new());
        let refuse = |_: &[u8]| Err(io::ErrorKind::QuotaExceeded.into());
        let moved = copy(Framing::Length(3), &mut buffer, &mut from, &mut to, Extensions::Refused, refuse).await;
        assert_eq!((moved.unwrap_err().kind(), to.len()), (io::ErrorKind::QuotaExceeded, 0));
    }
}
