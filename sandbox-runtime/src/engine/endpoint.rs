//! Where an engine listens, and how it is spoken to there.
//!
//! Invariant: whatever names a program's argument or a word of a remote shell is made of harmless characters.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sandbox_core::{Error, ErrorKind, Result};
use sandbox_policy::Host;

/// Says where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// A Unix socket at an absolute path.
    Unix(PathBuf),
    /// A port, with TLS unless it is on loopback.
    Tcp(TcpEndpoint),
    /// Whatever `ssh` leads to, and the engine's own command there.
    Ssh(SshEndpoint),
}

/// A port at which an engine listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TcpEndpoint {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) certificates: Option<PathBuf>,
}

/// A machine with an engine, as `ssh` knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SshEndpoint {
    pub(crate) user: Option<String>,
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    /// The engine's socket there, where it is not the usual one.
    pub(crate) socket: Option<String>,
    pub(crate) settings: Option<PathBuf>,
}

impl Endpoint {
    /// Speaks TLS to a port, with what lies in a directory as `ca.pem`, `cert.pem` and `key.pem`; the last two are the
    /// client's own, and both may be missing. Other endpoints stay as they are.
    #[must_use]
    pub fn with_certificates(self, directory: impl Into<PathBuf>) -> Self {
        match self {
            Self::Tcp(tcp) => Self::Tcp(TcpEndpoint { certificates: Some(directory.into()), ..tcp }),
            other => other,
        }
    }

    /// Has `ssh` read its settings from this file (`ssh_config(5)`) in place of the user's. Other endpoints stay as they are.
    #[must_use]
    pub fn with_ssh_settings(self, file: impl Into<PathBuf>) -> Self {
        match self {
            Self::Ssh(ssh) => Self::Ssh(SshEndpoint { settings: Some(file.into()), ..ssh }),
            other => other,
        }
    }

    /// Returns the path of the socket, if it is one of this machine.
    pub(crate) fn socket(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Ssh(_) | Self::Tcp(_) => None,
        }
    }

    /// Returns what connecting may take, until the engine has said who it is.
    pub(crate) fn patience(&self) -> Duration {
        match self {
            Self::Unix(_) => Duration::from_secs(5),
            Self::Ssh(_) | Self::Tcp(_) => Duration::from_secs(20),
        }
    }
}

impl TcpEndpoint {
    /// Refuses what would be sent in the clear to another machine.
    pub(crate) fn check(&self) -> Result<()> {
        if self.certificates.is_some() || self.is_loopback() {
            return Ok(());
        }
        let message = format!(
            "engine address tcp://{}:{}: without TLS, whoever is on the way is root on the engine's machine",
            self.host, self.port
        );
        Err(Error::new(ErrorKind::InvalidInput, message).with_hint(
            "give the certificates: DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH with ca.pem, cert.pem and key.pem",
        ))
    }

    fn is_loopback(&self) -> bool {
        match self.host.address() {
            Some(address) => address.is_loopback(),
            None => self.host.name() == Some("localhost"),
        }
    }

    /// Returns what a resolver takes; the name `localhost` is not left to it.
    pub(crate) fn target(&self) -> (String, u16) {
        let host = match self.host.address() {
            Some(address) => address.to_string(),
            None if self.is_loopback() => "127.0.0.1".to_owned(),
            None => self.host.to_string(),
        };
        (host, self.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(TcpEndpoint { host, port, certificates: _ }) => write!(f, "tcp://{host}:{port}"),
            Self::Ssh(SshEndpoint { user, host, port, socket, settings: _ }) => {
                f.write_str("ssh://")?;
                if let Some(user) = user {
                    write!(f, "{user}@")?;
                }
                f.write_str(host)?;
                if let Some(port) = port {
                    write!(f, ":{port}")?;
                }
                f.write_str(socket.as_deref().unwrap_or_default())
            }
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    /// Reads an address as `DOCKER_HOST` holds it.
    fn from_str(text: &str) -> Result<Self> {
        let shown: String = text.chars().filter(|c| !c.is_control()).take(256).collect();
        let refuse = |why: &str| {
            let message = format!("engine address {shown:?}: {why}");
            Error::new(ErrorKind::InvalidInput, message)
                .with_hint("write unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST")
        };
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') && !path.contains('\0') => Ok(Self::Unix(path.into())),
            Some(("unix", _)) => Err(refuse("the path is not absolute")),
            Some(("tcp", rest)) => tcp(rest).map(Self::Tcp).map_err(refuse),
            Some(("ssh", rest)) => ssh(rest).map(Self::Ssh).map_err(refuse),
            Some((scheme @ ("http" | "https" | "npipe" | "fd"), _)) => {
                Err(refuse(&format!("engines behind {scheme}:// are not supported")))
            }
            Some(_) => Err(refuse("no such scheme is known")),
            None => Err(refuse("it has no scheme")),
        }
    }
}

fn tcp(text: &str) -> Result<TcpEndpoint, &'static str> {
    let (host, port) = text.trim_end_matches('/').rsplit_once(':').ok_or("it names no port")?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or("its port is no number from 1 to 65535")?;
    let host = host.parse().map_err(|_| "its host is neither a name nor an address")?;
    Ok(TcpEndpoint { host, port, certificates: None })
}

/// The socket after the host is what Docker's own command understands there
/// (<https://github.com/docker/cli/blob/v23.0.0/cli/connhelper/connhelper.go>).
fn ssh(text: &str) -> Result<SshEndpoint, &'static str> {
    let (place, socket) = match text.find('/') {
        Some(at) => (&text[..at], Some(&text[at..]).filter(|socket| *socket != "/")),
        None => (text, None),
    };
    let (user, place) = match place.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, place),
    };
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) => {
            let port = port.parse::<u16>().ok().filter(|port| *port != 0);
            (host, Some(port.ok_or("its port is no number from 1 to 65535")?))
        }
        None => (place, None),
    };
    let plain = |text: &str, more: &[u8]| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte) || more.contains(&byte))
    };
    let word = |text: &str| !text.is_empty() && !text.starts_with('-') && plain(text, b"");
    if !word(host) {
        return Err("its host is no plain word");
    }
    if user.is_some_and(|user| !word(user)) {
        return Err("its user is no plain word: a password has no place there");
    }
    if socket.is_some_and(|socket| !plain(socket, b"/")) {
        return Err("the path of its socket has other characters than letters, digits and ._-/");
    }
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Ok(SshEndpoint { user: owned(user), host: host.to_owned(), port, socket: owned(socket), settings: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_docker_host_holds() {
        assert_eq!("unix:///run/docker.sock".parse::<Endpoint>().unwrap(), Endpoint::Unix("/run/docker.sock".into()));
        for text in [
            "unix:///run/docker.sock",
            "tcp://127.0.0.1:2375",
            "tcp://[::1]:2376",
            "tcp://engine.example:2376",
            "ssh://there",
            "ssh://me@there:22",
            "ssh://me@192.0.2.1/run/user/1000/docker.sock",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for (text, word) in [
            ("", "no scheme"),
            ("/run/docker.sock", "no scheme"),
            ("unix://", "not absolute"),
            ("unix://docker.sock", "not absolute"),
            ("tcp://engine.example", "no port"),
            ("tcp://engine.example:0", "no number"),
            ("tcp://a b:1", "neither a name"),
            ("ssh://", "no plain word"),
            ("ssh://-oProxyCommand=x", "no plain word"),
            ("ssh://-l@there", "no plain word"),
            ("ssh://me:secret@there", "no plain word"),
            ("ssh://there/run/x;reboot", "other characters"),
            ("ssh://there/run/$(x)", "other characters"),
            ("ssh://there:ssh", "no number"),
            ("https://there:2376", "https:// are not supported"),
            ("gopher://x", "no such scheme"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(word), "{error}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn nothing_goes_to_another_machine_in_the_clear() {
        let tcp = |text: &str| match text.parse::<Endpoint>().unwrap() {
            Endpoint::Tcp(tcp) => tcp,
            other => panic!("{other}"),
        };
        for text in ["tcp://127.0.0.1:1", "tcp://127.9.9.9:1", "tcp://[::1]:1", "tcp://localhost:1"] {
            tcp(text).check().unwrap();
        }
        assert_eq!(tcp("tcp://localhost:1").target(), ("127.0.0.1".to_owned(), 1));
        for text in ["tcp://192.0.2.1:1", "tcp://engine.example:1", "tcp://localhost.example:1", "tcp://0.0.0.0:1"] {
            let error = tcp(text).check().unwrap_err();
            assert!(error.to_string().contains("without TLS"), "{error}");
            TcpEndpoint { certificates: Some("/x".into()), ..tcp(text) }.check().unwrap();
        }
    }
}
