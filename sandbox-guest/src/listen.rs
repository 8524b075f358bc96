//! Sockets that listen inside and are accepted on outside: what a checkpoint on the host is reached by.
//!
//! The listener belongs to container root. It is passed out and closed here, so it ends with the host that holds it.

use std::fs::DirBuilder;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::fs::{Mode, chmod};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use sandbox_guest::wire::{Failure, Reply, Socket};

use crate::control::Control;
use crate::failure::{failure, invalid, kind_of, printable};
use crate::init::Transport;

/// Connections that wait to be accepted; the kernel may allow fewer (listen(2)).
const BACKLOG: i32 = 1024;

/// Answers a request for a listener.
pub(crate) fn run(transport: Transport, socket: Socket, control: &Control) {
    let opened = match transport {
        Transport::Descriptors => open(socket),
        Transport::Bytes => Err(invalid("a listening socket cannot be passed where a relay carries the channel")),
    };
    // A host that does not take the answer has gone, and the listener with it.
    let _ = match &opened {
        Ok(listener) => control.post(&Reply::Listening, &[listener.as_fd()]),
        Err(failure) => control.post(&Reply::Failed(failure.clone()), &[]),
    };
}

fn open(socket: Socket) -> Result<OwnedFd, Failure> {
    match socket {
        Socket::Loopback { port } => {
            loopback(port).map_err(|error| told(&format!("port {port} of the loopback"), error))
        }
        Socket::Unix { path, mode } => {
            if !path.starts_with(b"/") || path.contains(&0) {
                let text = format!("socket \"{}\": an absolute path without NUL is needed", printable(&path));
                return Err(invalid(text));
            }
            unix(&path, mode).map_err(|error| told(&format!("socket \"{}\"", printable(&path)), error))
        }
    }
}

fn loopback(port: u16) -> Result<OwnedFd, Errno> {
    let listener = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // A port whose last connections are still being forgotten is free (socket(7)).
    set_socket_reuseaddr(&listener, true)?;
    bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
    listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// Makes the directories above it, too, where they are missing.
fn unix(path: &[u8], mode: u32) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path)?;
    if let Some(parent) = Path::new(std::ffi::OsStr::from_bytes(path)).parent() {
        let parents = DirBuilder::new().recursive(true).mode(0o755).create(parent);
        parents.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    }
    let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&listener, &address)?;
    // Nobody can connect before it listens, so nobody does with other permissions than these.
    chmod(path, Mode::from_raw_mode(mode & 0o777))?;
    listen(&listener, BACKLOG)?;
    Ok(listener)
}

fn told(what: &str, error: Errno) -> Failure {
    let text = std::io::Error::from(error);
    failure(kind_of(error.raw_os_error()), error.raw_os_error(), format!("{what}: {text}"))
}
