//! The server behind all proxies: nginx, at the machine's own address.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use tempfile::TempDir;

use super::daemon::{Daemon, free_ports};
use super::tls;
use crate::{Result, scratch};

/// A server with a large file and a small one, in plain HTTP and in TLS, at ports of their own for each contender.
#[derive(Debug)]
pub(super) struct Origin {
    _daemon: Daemon,
    pub(super) address: IpAddr,
    /// One port for each contender.
    pub(super) plain: Vec<u16>,
    /// One port for each contender.
    pub(super) secure: Vec<u16>,
    directory: TempDir,
}

impl Origin {
    pub(super) fn start(contenders: usize) -> Result<Self> {
        let directory = scratch()?;
        let path = directory.path();
        tls::certify(path, HOST)?;
        std::fs::create_dir(path.join("www"))?;
        std::fs::write(path.join("www/large"), vec![b'x'; LARGE])?;
        std::fs::write(path.join("www/small"), vec![b'y'; SMALL])?;
        let address = own_address()?;
        let mut plain = free_ports(address, 2 * contenders)?;
        let secure = plain.split_off(contenders);
        std::fs::write(path.join("nginx.conf"), configuration(path, address, &plain, &secure)?)?;
        let file = path.join("nginx.conf").display().to_string();
        let prefix = path.display().to_string();
        let arguments = ["-e", "stderr", "-p", &prefix, "-c", &file];
        let daemon = Daemon::start("nginx", "nginx", &arguments, path, SocketAddr::new(address, plain[0]))?;
        Ok(Self { _daemon: daemon, address, plain, secure, directory })
    }

    /// Where the authority that vouches for it lies.
    pub(super) fn authority(&self) -> std::path::PathBuf {
        self.directory.path().join(tls::AUTHORITY)
    }
}

fn configuration(path: &Path, address: IpAddr, plain: &[u16], secure: &[u16]) -> Result<String> {
    let mut listen = String::new();
    for port in plain {
        writeln!(listen, "listen {};", SocketAddr::new(address, *port))?;
    }
    for port in secure {
        writeln!(listen, "listen {} ssl;", SocketAddr::new(address, *port))?;
    }
    let path = path.display();
    let (certificate, key) = (tls::CERTIFICATE, tls::KEY);
    Ok(format!(
        "daemon off; master_process off; user root; pid {path}/nginx.pid;
        events {{ worker_connections 15000; }}
        http {{
            access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream;
            keepalive_timeout 900s; keepalive_requests 100000000; client_header_timeout 900s;
            client_body_temp_path {path}/body; proxy_temp_path {path}/proxy; fastcgi_temp_path {path}/fastcgi;
            uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;
            ssl_certificate {path}/{certificate}; ssl_certificate_key {path}/{key}; ssl_protocols TLSv1.3;
            server {{ {listen} root {path}/www; }}
        }}\n"
    ))
}

/// An address of this machine that is not its loopback, which no rule may name.
fn own_address() -> Result<IpAddr> {
    // Nothing is sent: the kernel looks up where it would be sent from (udp(7)).
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect("192.0.2.99:9")?;
    let address = socket.local_addr()?.ip();
    if address.is_loopback() { Err("this machine has no address of its own".into()) } else { Ok(address) }
}

/// What it is called.
pub(super) const HOST: &str = "origin.example";
/// Bytes of the file `/large`.
pub(super) const LARGE: usize = 100_000_000;
/// Bytes of the file `/small`.
const SMALL: usize = 100;
