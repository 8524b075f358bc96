//! The head of an HTTP/1.1 message, read as strictly as the grammar allows (RFC 9112).
//!
//! Invariant: what two parsers could read in two ways is refused: bare line feeds, folded lines, blanks before a colon, two
//! lengths, a length beside chunks. What is accepted is written anew from its parts, never passed on as it came.

use std::io;
use std::time::Duration;

use tokio::io::AsyncRead;

use super::buffer::Buffer;

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestHead {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) version: Version,
    pub(crate) fields: Fields,
}

/// The head of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResponseHead {
    pub(crate) status: u16,
    pub(crate) reason: Vec<u8>,
    pub(crate) version: Version,
    pub(crate) fields: Fields,
}

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    Http11,
}

/// How long a message's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    Empty,
    /// Bytes.
    Length(u64),
    /// Until the chunk of no bytes.
    Chunked,
    /// Until the connection ends.
    UntilClose,
}

/// Why a head is refused, in words for whoever sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Why there is no head.
#[derive(Debug)]
pub(crate) enum NoHead {
    /// The stream ended, or nothing came for long.
    Ended,
    /// It is refused.
    Malformed(Malformed),
    /// It did not come in time.
    Late,
}

/// Waits for a message to begin, and then for the whole of its head.
pub(crate) async fn read(
    buffer: &mut Buffer,
    stream: &mut (impl AsyncRead + Unpin),
    begin_within: Duration,
    whole_within: Duration,
) -> Result<Vec<u8>, NoHead> {
    if buffer.unread().is_empty() {
        buffer.rest();
        match tokio::time::timeout(begin_within, buffer.fill(stream)).await {
            Ok(Ok(1..)) => {}
            _ => return Err(NoHead::Ended),
        }
    }
    tokio::time::timeout(whole_within, whole(buffer, stream)).await.unwrap_or(Err(NoHead::Late))
}

async fn whole(buffer: &mut Buffer, stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<u8>, NoHead> {
    let mut searched: usize = 0;
    loop {
        let unread = buffer.unread();
        let from = searched.saturating_sub(END.len());
        let end = unread[from..].windows(END.len()).position(|window| window == END).map(|at| from + at + END.len());
        match end {
            Some(end) if end <= MAX_HEAD => {
                let head = unread[..end].to_vec();
                buffer.consume(end);
                return Ok(head);
            }
            None if unread.len() < MAX_HEAD => {}
            _ => return Err(NoHead::Malformed(Malformed("the head is larger than 32 KiB"))),
        }
        searched = unread.len();
        match buffer.fill(stream).await {
            Ok(1..) => {}
            _ => return Err(NoHead::Ended),
        }
    }
}

impl RequestHead {
    /// Reads the head of a request.
    pub(crate) fn parse(head: &[u8]) -> Result<Self, Malformed> {
        let (first, fields) = lines(head)?;
        let mut words = first.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Malformed("the request line is not three words between single blanks"));
        };
        if !is_token(method) || method.len() > MAX_METHOD {
            return Err(Malformed("the method is no token of at most 20 characters"));
        }
        if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
            return Err(Malformed("the target is empty or holds a character that no URL may"));
        }
        Ok(Self {
            method: ascii(method),
            target: ascii(target),
            version: Version::parse(version)?,
            fields: Fields::parse(fields)?,
        })
    }

    /// How long its body is.
    pub(crate) fn framing(&self) -> Result<Framing, Malformed> {
        match (self.fields.length()?, self.fields.is_chunked()?) {
            (Some(_), true) => Err(Malformed("both Content-Length and Transfer-Encoding are given")),
            (None, true) if self.version == Version::Http10 => {
                Err(Malformed("Transfer-Encoding is given in HTTP/1.0, which has none"))
            }
            (None, true) => Ok(Framing::Chunked),
            (Some(length), false) => Ok(Framing::Length(length)),
            (None, false) => Ok(Framing::Empty),
        }
    }

    /// Whether whoever sent it stays for another.
    pub(crate) fn is_kept(&self) -> bool {
        let says = |word| self.fields.lists("connection", word) || self.fields.lists("proxy-connection", word);
        if self.version == Version::Http11 { !says("close") } else { says("keep-alive") }
    }
}

impl ResponseHead {
    /// Reads the head of a response.
    pub(crate) fn parse(head: &[u8]) -> Result<Self, Malformed> {
        let (first, fields) = lines(head)?;
        let mut words = first.splitn(3, |&byte| byte == b' ');
        let version = Version::parse(words.next().unwrap_or_default())?;
        let digits = words.next().unwrap_or_default();
        let status =
            str::from_utf8(digits).ok().filter(|digits| digits.len() == 3).and_then(|digits| digits.parse().ok());
        let Some(status @ 100..=999) = status else { return Err(Malformed("the status is not three digits")) };
        Ok(Self { status, reason: words.next().unwrap_or_default().to_vec(), version, fields: Fields::parse(fields)? })
    }

    /// How long its body is, as an answer to a request with this method (RFC 9112, section 6.3).
    pub(crate) fn framing(&self, method: &str) -> Result<Framing, Malformed> {
        let (length, chunked) = (self.fields.length()?, self.fields.is_chunked()?);
        if method == "HEAD" || matches!(self.status, 100..=199 | 204 | 304) {
            return Ok(Framing::Empty);
        }
        match (length, chunked) {
            (Some(_), true) => Err(Malformed("both Content-Length and Transfer-Encoding are given")),
            (None, true) => Ok(Framing::Chunked),
            (Some(length), false) => Ok(Framing::Length(length)),
            (None, false) => Ok(Framing::UntilClose),
        }
    }

    /// Whether whoever sent it stays for another.
    pub(crate) fn is_kept(&self) -> bool {
        if self.version == Version::Http11 {
            !self.fields.lists("connection", "close")
        } else {
            self.fields.lists("connection", "keep-alive")
        }
    }
}

impl Version {
    fn parse(text: &[u8]) -> Result<Self, Malformed> {
        match text {
            b"HTTP/1.0" => Ok(Self::Http10),
            b"HTTP/1.1" => Ok(Self::Http11),
            _ => Err(Malformed("the version is neither HTTP/1.0 nor HTTP/1.1")),
        }
    }
}

/// The fields of a head, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields(Vec<(String, Vec<u8>)>);

impl Fields {
    fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Result<Self, Malformed> {
        let mut fields = Vec::new();
        for line in lines {
            if fields.len() == MAX_FIELDS {
                return Err(Malformed("there are more than 128 fields"));
            }
            if matches!(line.first(), Some(b' ' | b'\t')) {
                return Err(Malformed("a field goes on in the next line"));
            }
            let colon = line.iter().position(|&byte| byte == b':').ok_or(Malformed("a field has no colon"))?;
            // A form feed is a blank to `trim_ascii` and none to HTTP, so nothing is trimmed before it is looked at.
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            if !is_token(name) {
                return Err(Malformed("a field's name is no token"));
            }
            if value.iter().any(|&byte| (byte < 0x20 && byte != b'\t') || byte == 0x7f) {
                return Err(Malformed("a field's value holds a control character"));
            }
            fields.push((ascii(name), value.trim_ascii().to_vec()));
        }
        Ok(Self(fields))
    }

    /// Each field, in its order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// The values of every field of a name.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(move |(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The value of the one field of a name; two are refused.
    pub(crate) fn one(&self, name: &str, twice: Malformed) -> Result<Option<&[u8]>, Malformed> {
        let mut values = self.all(name);
        let value = values.next();
        if values.next().is_some() { Err(twice) } else { Ok(value) }
    }

    /// Whether a field that is a list has a word in it.
    pub(crate) fn lists(&self, name: &str, word: &str) -> bool {
        self.words(name).any(|given| given.eq_ignore_ascii_case(word.as_bytes()))
    }

    /// The words of a field that is a list.
    pub(crate) fn words(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.all(name).flat_map(|value| value.split(|&byte| byte == b',')).map(<[u8]>::trim_ascii)
    }

    fn length(&self) -> Result<Option<u64>, Malformed> {
        let Some(value) = self.one("content-length", Malformed("Content-Length is given twice"))? else {
            return Ok(None);
        };
        let digits = str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let length = digits.filter(|digits| digits.len() <= MAX_DIGITS).and_then(|digits| digits.parse().ok());
        length.map(Some).ok_or(Malformed("Content-Length is not a number"))
    }

    fn is_chunked(&self) -> Result<bool, Malformed> {
        match self.one("transfer-encoding", Malformed("Transfer-Encoding is given twice"))? {
            None => Ok(false),
            Some(value) if value.eq_ignore_ascii_case(b"chunked") => Ok(true),
            Some(_) => Err(Malformed("Transfer-Encoding is something else than chunked")),
        }
    }
}

/// Splits a head into its first line and the others, each of which ends with CR LF and holds neither.
fn lines(head: &[u8]) -> Result<(&[u8], impl Iterator<Item = &[u8]>), Malformed> {
    let text = head.strip_suffix(END).ok_or(Malformed("the head does not end with an empty line"))?;
    let bare = |(at, &byte): (usize, &u8)| match byte {
        b'\n' => at == 0 || text[at - 1] != b'\r',
        b'\r' => text.get(at + 1) != Some(&b'\n'),
        0 => true,
        _ => false,
    };
    if text.iter().enumerate().any(bare) {
        return Err(Malformed("a line ends with something else than CR LF, or holds NUL"));
    }
    let mut lines = text.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let first = lines.next().filter(|line| !line.is_empty()).ok_or(Malformed("the first line is empty"))?;
    Ok((first, lines))
}

/// Whether it is a token (RFC 9110, section 5.6.2).
fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

fn ascii(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl From<NoHead> for io::Error {
    fn from(no_head: NoHead) -> Self {
        match no_head {
            NoHead::Ended => io::ErrorKind::UnexpectedEof.into(),
            NoHead::Late => io::ErrorKind::TimedOut.into(),
            NoHead::Malformed(Malformed(what)) => Self::new(io::ErrorKind::InvalidData, what),
        }
    }
}

const END: &[u8] = b"\r\n\r\n";
const MAX_HEAD: usize = 32 << 10;
const MAX_FIELDS: usize = 128;
const MAX_METHOD: usize = 20;
const MAX_DIGITS: usize = 18;

#[cfg(test)]
mod tests;
