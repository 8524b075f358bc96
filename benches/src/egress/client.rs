//! The client of all proxies: it asks for a file by HTTP/1.1, on a connection of its own, and counts what comes.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustls::StreamOwned;

use super::Trust;
use crate::{CHUNK, Result};

/// A contender, and where its server is.
#[derive(Clone, Debug)]
pub struct Entrant {
    /// What it is called.
    pub name: &'static str,
    /// None for whoever goes there directly.
    pub proxy: Option<SocketAddr>,
    /// The server, as this proxy is asked for it.
    pub host: String,
    /// The server's port for plain HTTP.
    pub plain: u16,
    /// The server's port for TLS.
    pub secure: u16,
    /// Whom a client trusts that speaks TLS by it.
    pub trust: Option<Trust>,
}

/// How the server is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no other way")]
pub enum Via {
    /// Requests go to the proxy, in plain HTTP.
    Forward,
    /// The proxy is asked for a tunnel, in which plain HTTP is spoken.
    Tunnel,
    /// The proxy is asked for a tunnel, in which TLS is spoken.
    Tls,
}

/// A connection on which one thing after another is asked for.
#[derive(Debug)]
pub struct Session {
    stream: Stream,
    /// What stands before a path.
    base: String,
    host: String,
    buffer: Vec<u8>,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Secure(Box<StreamOwned<rustls::ClientConnection, Ahead>>),
}

/// A connection that is read in large parts: TLS asks for a few thousand bytes at a time, and the client is not to be what is
/// measured.
#[derive(Debug)]
struct Ahead(BufReader<TcpStream>);

/// What the client wants of the connection when it has its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Close,
    Keep,
}

impl Entrant {
    /// Opens a connection to the server.
    ///
    /// # Errors
    /// Whatever keeps it from being opened, with the contender's name.
    pub fn open(&self, via: Via) -> Result<Session> {
        self.blamed(self.open_with(via, CHUNK))
    }

    /// Opens a connection, asks for a file by the first and last request of it, and reads to its end.
    ///
    /// # Errors
    /// Whatever goes wrong, with the contender's name.
    pub fn once(&self, via: Via, path: &str) -> Result<u64> {
        let opened = self.open_with(via, SMALL);
        self.blamed(opened.and_then(|mut session| session.exchange(path, After::Close)))
    }

    /// Opens a connection that is to be held for long and holds little, and asks for a file by it.
    ///
    /// # Errors
    /// Whatever goes wrong, with the contender's name.
    pub fn held(&self, via: Via, path: &str) -> Result<Session> {
        let opened = self.open_with(via, SMALL).and_then(|mut session| {
            session.exchange(path, After::Keep)?;
            session.buffer = Vec::new();
            Ok(session)
        });
        self.blamed(opened)
    }

    fn blamed<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| format!("by way of {}: {error}", self.name).into())
    }

    fn open_with(&self, via: Via, buffer: usize) -> Result<Session> {
        let port = if via == Via::Tls { self.secure } else { self.plain };
        let at = format!("{}:{port}", self.host);
        let to = match self.proxy {
            Some(proxy) => proxy,
            None => at.parse()?,
        };
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut session =
            Session { stream: Stream::Plain(stream), base: String::new(), host: at, buffer: vec![0; buffer] };
        if self.proxy.is_some() {
            match via {
                Via::Forward => session.base = format!("http://{}", session.host),
                Via::Tunnel | Via::Tls => session.tunnel()?,
            }
        }
        if via == Via::Tls {
            let trust = self.trust.as_ref().ok_or("it trusts nobody")?;
            let Stream::Plain(stream) = session.stream else { return Err("it speaks TLS already".into()) };
            session.stream = Stream::Secure(Box::new(StreamOwned::new(
                trust.connection()?,
                Ahead(BufReader::with_capacity(CHUNK, stream)),
            )));
        }
        Ok(session)
    }
}

impl Session {
    /// Asks for a file and reads all of it; returns how many bytes it has.
    ///
    /// # Errors
    /// If it does not come whole.
    pub fn get(&mut self, path: &str) -> Result<u64> {
        self.exchange(path, After::Keep)
    }

    fn tunnel(&mut self) -> Result<()> {
        let request = format!("CONNECT {0} HTTP/1.1\r\nHost: {0}\r\n\r\n", self.host);
        self.stream.write_all(request.as_bytes())?;
        let (head, came) = self.head()?;
        if status(&self.buffer[..head])? != 200 || came != head {
            return Err(format!("no tunnel: {}", String::from_utf8_lossy(&self.buffer[..came])).into());
        }
        Ok(())
    }

    fn exchange(&mut self, path: &str, after: After) -> Result<u64> {
        let close = if after == After::Close { "Connection: close\r\n" } else { "" };
        let request = format!("GET {}{path} HTTP/1.1\r\nHost: {}\r\n{close}\r\n", self.base, self.host);
        self.stream.write_all(request.as_bytes())?;
        let (head, came) = self.head()?;
        let text = String::from_utf8_lossy(&self.buffer[..head]).into_owned();
        if status(text.as_bytes())? != 200 {
            return Err(format!("{path} is refused: {}", String::from_utf8_lossy(&self.buffer[..came])).into());
        }
        let field = |name: &str| {
            let mut fields = text.lines().filter_map(|line| line.split_once(':'));
            fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
        };
        let length: u64 =
            field("content-length").ok_or_else(|| format!("the answer has no length: {text}"))?.parse()?;
        let mut left = length.checked_sub((came - head) as u64).ok_or("more comes than was promised")?;
        while left > 0 {
            match self.read()? {
                0 => return Err(format!("the connection ends {left} bytes before {path} does").into()),
                count => left = left.checked_sub(count as u64).ok_or("more comes than was promised")?,
            }
        }
        if after == After::Close && self.read()? != 0 {
            return Err("the connection goes on behind its last answer".into());
        }
        Ok(length)
    }

    /// Reads the head of an answer, and maybe more; returns where it ends and how much there is.
    fn head(&mut self) -> Result<(usize, usize)> {
        let mut came = 0;
        loop {
            let count = self.stream.read(&mut self.buffer[came..])?;
            came += count;
            if let Some(end) = self.buffer[..came].windows(4).position(|four| four == b"\r\n\r\n") {
                return Ok((end + 4, came));
            }
            if count == 0 {
                let said = String::from_utf8_lossy(&self.buffer[..came]);
                return Err(format!("the connection ends before the head of an answer does, after {said:?}").into());
            }
        }
    }

    fn read(&mut self) -> Result<usize> {
        Ok(self.stream.read(&mut self.buffer)?)
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Ahead {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.get_mut().write(bytes)
    }

    fn write_vectored(&mut self, parts: &[std::io::IoSlice<'_>]) -> std::io::Result<usize> {
        self.0.get_mut().write_vectored(parts)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.get_mut().flush()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Secure(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Secure(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Secure(stream) => stream.flush(),
        }
    }
}

fn status(head: &[u8]) -> Result<u16> {
    let text = String::from_utf8_lossy(head);
    Ok(text.split(' ').nth(1).ok_or_else(|| format!("no answer of HTTP: {text}"))?.parse()?)
}

/// No contender leaves a client waiting for longer.
const PATIENCE: Duration = Duration::from_mins(1);
/// Bytes that are read at once of small things.
const SMALL: usize = 4 << 10;
