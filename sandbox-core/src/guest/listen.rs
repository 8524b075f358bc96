//! Listeners that are inside and accepted on outside.
//!
//! What comes from inside is a claim: it is taken only if it is a listening socket of the kind that was asked for.

use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;

use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};
use sandbox_guest::wire::{Reply, Request, Socket};
use tokio::net::{TcpListener, UnixListener};

use super::{ANSWER, Guest};
use crate::{Error, ErrorKind, Result};

impl Guest {
    /// Listens on a port of the sandbox's own loopback, where everything inside may connect. Port 0 is any that is
    /// free; the listener knows which. It ends when it is dropped.
    ///
    /// # Errors
    /// `Io` where the port is taken, `InvalidInput` where the engine's transport can pass no listener.
    pub async fn listen_tcp(&self, port: u16) -> Result<TcpListener> {
        let listener = StdTcpListener::from(self.listen(Socket::Loopback { port }, AddressFamily::INET).await?);
        let unusable = |error| Error::io("cannot use the sandbox's listener", error);
        let expected = |given: &SocketAddr| given.ip() == Ipv4Addr::LOCALHOST && (port == 0 || given.port() == port);
        if !expected(&listener.local_addr().map_err(unusable)?) {
            return Err(Error::new(ErrorKind::Guest, "the guest listens elsewhere than it was asked to"));
        }
        listener.set_nonblocking(true).map_err(unusable)?;
        TcpListener::from_std(listener).map_err(unusable)
    }

    /// Listens at a path inside, with these permission bits; the directories above it are made where they are missing.
    /// The listener ends when it is dropped; the path's entry stays.
    ///
    /// # Errors
    /// `Io` where something is at the path already, `Denied` where container root may not make it, `InvalidInput` where
    /// the path cannot be a socket's or the engine's transport can pass no listener.
    pub async fn listen_unix(&self, path: impl AsRef<Path> + Send, mode: u32) -> Result<UnixListener> {
        let path = path.as_ref().as_os_str().as_bytes().to_vec();
        let listener = StdUnixListener::from(self.listen(Socket::Unix { path, mode }, AddressFamily::UNIX).await?);
        let unusable = |error| Error::io("cannot use the sandbox's listener", error);
        listener.set_nonblocking(true).map_err(unusable)?;
        UnixListener::from_std(listener).map_err(unusable)
    }

    async fn listen(&self, socket: Socket, family: AddressFamily) -> Result<OwnedFd> {
        let mut control = self.request(Request::Listen(socket), Vec::new()).await?;
        let (reply, descriptors) = control.answer("listening inside", ANSWER).await?;
        if reply != Reply::Listening {
            return Err(super::control::unexpected("listening inside", &reply));
        }
        let [listener] = <[OwnedFd; 1]>::try_from(descriptors).map_err(|given| {
            Error::new(ErrorKind::Guest, format!("{} descriptors instead of one listener", given.len()))
        })?;
        check(&listener, family)?;
        Ok(listener)
    }
}

/// Takes a stream socket that listens, of one family (socket(7)), and nothing else.
fn check(listener: &OwnedFd, family: AddressFamily) -> Result<()> {
    let is_one = || -> rustix::io::Result<bool> {
        Ok(socket_domain(listener)? == family
            && socket_type(listener)? == SocketType::STREAM
            && socket_acceptconn(listener)?)
    };
    if is_one().unwrap_or(false) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Guest, "the guest passed something that is no listener of the kind that was asked for"))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::{TcpStream, UdpSocket};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_a_listener_of_the_kind_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let tcp = StdTcpListener::bind("127.0.0.1:0").unwrap();
        let connected = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let unix = StdUnixListener::bind(directory.path().join("socket")).unwrap();
        let (pair, _other) = UnixStream::pair().unwrap();
        let tcp = OwnedFd::from(tcp);
        let unix = OwnedFd::from(unix);
        assert!(check(&tcp, AddressFamily::INET).is_ok() && check(&unix, AddressFamily::UNIX).is_ok());
        let others: [OwnedFd; 5] = [
            connected.into(),
            UdpSocket::bind("127.0.0.1:0").unwrap().into(),
            StdTcpListener::bind("[::1]:0").unwrap().into(),
            pair.into(),
            File::open("/dev/null").unwrap().into(),
        ];
        for other in others.iter().chain([&unix]) {
            assert_eq!(check(other, AddressFamily::INET).unwrap_err().kind(), ErrorKind::Guest, "{other:?}");
        }
        for other in others.iter().chain([&tcp]) {
            assert_eq!(check(other, AddressFamily::UNIX).unwrap_err().kind(), ErrorKind::Guest, "{other:?}");
        }
    }
}
