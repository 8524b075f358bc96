//! A server of repositories: TLS, and git's own program behind it, as a stranger would run it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use crate::{Repository, Result};

/// A server with one repository, which ends with this value.
#[derive(Debug)]
pub struct Forge {
    /// Where it listens.
    pub address: SocketAddr,
    directory: TempDir,
    ended: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

impl Forge {
    /// Starts one that has what a repository has.
    ///
    /// # Errors
    /// The system's, and git's.
    pub fn start(of: &Repository) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let place = directory.path().join(format!("{REPOSITORY}.git"));
        let status = Command::new("git").args(["clone", "-q", "--bare"]).args([of.path(), &place]).status()?;
        if !status.success() {
            return Err(format!("git clone --bare ended with {status}").into());
        }
        crate::egress::certify(directory.path(), NAME)?;
        let config = Arc::new(config(directory.path())?);
        let listener = TcpListener::bind((own_address()?, 0))?;
        let address = listener.local_addr()?;
        let ended = Arc::new(AtomicBool::new(false));
        let (root, stop) = (directory.path().to_owned(), Arc::clone(&ended));
        let serving = std::thread::spawn(move || {
            for stream in listener.incoming().flatten().take_while(|_| !stop.load(Ordering::Relaxed)) {
                let (config, root) = (Arc::clone(&config), root.clone());
                // A client that breaks off, or does not trust, is told nothing.
                std::thread::spawn(move || serve(stream, config, &root).ok());
            }
        });
        Ok(Self { address, directory, ended, serving: Some(serving) })
    }

    /// The repository's address, by the server's name.
    pub fn url(&self) -> String {
        format!("https://{NAME}:{}/{REPOSITORY}", self.address.port())
    }

    /// The server's name.
    pub fn name(&self) -> &'static str {
        NAME
    }

    /// The authority that vouches for the server.
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join(crate::egress::AUTHORITY)
    }

    /// Clones the repository by git alone.
    ///
    /// # Errors
    /// If it fails.
    pub fn clone_to(&self, to: &Path) -> Result<Duration> {
        let begun = Instant::now();
        let status = Command::new("git")
            .args(["-c", &format!("http.curloptResolve={NAME}:{}:{}", self.address.port(), self.address.ip())])
            .args(["clone", "-q", &self.url()])
            .arg(to)
            // It counts for more than any setting, and may be set where the report is run.
            .env("GIT_SSL_CAINFO", self.authority())
            .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")])
            .status()?;
        if status.success() { Ok(begun.elapsed()) } else { Err(format!("git clone ended with {status}").into()) }
    }
}

impl Drop for Forge {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Its next client is its last.
        drop(TcpStream::connect(self.address));
        let _ = self.serving.take().map(JoinHandle::join);
    }
}

fn config(directory: &Path) -> Result<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(directory.join(crate::egress::CERTIFICATE))?;
    let key = PrivateKeyDer::from_pem_file(directory.join(crate::egress::KEY))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_no_client_auth().with_single_cert(vec![certificate], key)?)
}

/// An address of this machine's that a rule may name: no loopback one.
fn own_address() -> Result<IpAddr> {
    // Nothing is sent: the kernel looks up where it would be sent from (udp(7)).
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect("192.0.2.99:9")?;
    Ok(socket.local_addr()?.ip())
}

/// Answers requests, one after the other, until the client goes.
fn serve(stream: TcpStream, config: Arc<ServerConfig>, root: &Path) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, stream);
    let mut held = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = held.windows(4).position(|part| part == b"\r\n\r\n") {
                break at + 4;
            }
            if more(&mut stream, &mut held)? == 0 {
                return Ok(());
            }
        };
        let text: Vec<u8> = held.drain(..end).collect();
        let heading = String::from_utf8(text)?;
        let header = |name: &str| {
            let lines = heading.lines().filter_map(|line| line.split_once(": "));
            lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next()
        };
        let length = header("content-length").map_or(Ok(0), |length| length.parse())?;
        while held.len() < length {
            more(&mut stream, &mut held)?;
        }
        let body: Vec<u8> = held.drain(..length).collect();
        let mut words = heading.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut child = Command::new("git")
            .arg("http-backend")
            .env("GIT_CONFIG_COUNT", "1")
            .envs([("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")])
            .env("GIT_PROJECT_ROOT", root)
            .envs([
                ("GIT_HTTP_EXPORT_ALL", "1"),
                ("REQUEST_METHOD", method),
                ("PATH_INFO", path),
                ("QUERY_STRING", query),
            ])
            .env("CONTENT_TYPE", header("content-type").unwrap_or_default())
            .env("CONTENT_LENGTH", length.to_string())
            .env("HTTP_CONTENT_ENCODING", header("content-encoding").unwrap_or_default())
            .env("GIT_PROTOCOL", header("git-protocol").unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        child.stdin.take().ok_or("git has no input")?.write_all(&body)?;
        let mut answer = Vec::new();
        child.stdout.take().ok_or("git has no output")?.read_to_end(&mut answer)?;
        child.wait()?;
        let end = answer.windows(4).position(|part| part == b"\r\n\r\n").ok_or("git gave no head")? + 4;
        let (told, content) = answer.split_at(end);
        let status = if told.starts_with(b"Status: ") { &told[8..11] } else { b"200" };
        stream.write_all(&[b"HTTP/1.1 ", status, b" -\r\n"].concat())?;
        stream.write_all(format!("Content-Length: {}\r\n", content.len()).as_bytes())?;
        stream.write_all(told)?;
        stream.write_all(content)?;
        stream.flush()?;
    }
}

fn more(stream: &mut impl std::io::Read, held: &mut Vec<u8>) -> Result<usize> {
    let mut part = [0; 16 << 10];
    let count = stream.read(&mut part)?;
    held.extend_from_slice(&part[..count]);
    Ok(count)
}

const NAME: &str = "git.example";
const REPOSITORY: &str = "octo/widget";
