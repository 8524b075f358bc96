//! Listeners that are made inside and passed out.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};

use sandbox_guest::wire::{FailureKind, Reply, Request, Setup, Socket};

use crate::harness::{Host, exec, setup, shell};

#[test]
fn a_loopback_listener_is_passed_and_closed_inside() {
    let host = Host::start();
    let control = host.request(&Request::Listen(Socket::Loopback { port: 0 }), &[]);
    let (reply, mut passed) = control.receive().unwrap();
    assert_eq!((reply, passed.len()), (Reply::Listening, 1));
    let listener = TcpListener::from(passed.remove(0));
    let address = listener.local_addr().unwrap();
    assert!(address.ip().is_loopback() && address.port() != 0);
    let mut client = TcpStream::connect(address).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"x").unwrap();
    server.read_exact(&mut [0]).unwrap();
    let taken = host.request(&Request::Listen(Socket::Loopback { port: address.port() }), &[]);
    assert!(taken.failure().message.contains(&address.port().to_string()));
    // Nobody inside holds it any more.
    drop(listener);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_path_is_made_with_its_directories_and_its_permissions() {
    let host = Host::start();
    let path = host.workspace().join("a/b/socket");
    let socket = Socket::Unix { path: path.as_os_str().as_bytes().to_vec(), mode: 0o2662 };
    let (reply, mut passed) = host.request(&Request::Listen(socket.clone()), &[]).receive().unwrap();
    assert_eq!(reply, Reply::Listening);
    let listener = UnixListener::from(passed.remove(0));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o662);
    let _client = UnixStream::connect(&path).unwrap();
    listener.accept().unwrap();
    assert!(host.request(&Request::Listen(socket), &[]).failure().message.contains("in use"));
}

#[test]
fn a_path_that_can_be_none_is_refused() {
    let host = Host::start();
    for path in [b"relative".to_vec(), b"/a\0b".to_vec(), Vec::new(), [b"/", [b'x'; 200].as_slice()].concat()] {
        let failure = host.request(&Request::Listen(Socket::Unix { path, mode: 0o600 }), &[]).failure();
        assert_eq!(failure.kind, FailureKind::Invalid, "{failure:?}");
    }
    assert_eq!(host.exec(exec(&["true"])).finish().unwrap().code(), 0);
}

#[test]
fn the_hosts_variables_are_the_weakest() {
    let pair = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let environment = vec![pair("SEEN", "host"), pair("ASKED", "host"), pair("USER", "host"), pair("PATH", "/nowhere")];
    let host = Host::with_setup(&Setup { environment, ..setup() });
    let mut asking = shell("echo $SEEN $ASKED; test $USER != host && test $PATH != /nowhere");
    asking.environment = vec![pair("ASKED", "request")];
    let finished = host.exec(asking).finish().unwrap();
    assert_eq!((finished.text(), finished.code()), ("host request\n", 0));
}
