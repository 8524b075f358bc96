//! Finding out who answers at an address.

use std::fmt;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bollard::models::SystemInfo;
use bollard::{API_DEFAULT_VERSION, Docker};
use sandbox_core::{Error, ErrorKind, Result, RuntimeInfo, Transport};
use tokio::net::UnixStream;

use super::error::{Answer, within};
use super::probe::{self, has_security_option};
use super::product::Product;
use super::{CONNECT, Engine, INSPECT, podman, quota, state};

/// Says where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// A Unix socket at an absolute path.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
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
            Error::new(ErrorKind::InvalidInput, message).with_hint("write unix:// and the socket's absolute path")
        };
        match text.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') && !path.contains('\0') => Ok(Self::Unix(path.into())),
            Some(("unix", _)) => Err(refuse("the path is not absolute")),
            Some((scheme @ ("tcp" | "http" | "https" | "ssh" | "npipe" | "fd"), _)) => Err(refuse(&format!(
                "engines behind {scheme}:// are not supported, since a sandbox needs files of the engine's host"
            ))),
            Some(_) => Err(refuse("no such scheme is known")),
            None => Err(refuse("it has no scheme")),
        }
    }
}

/// Connects to an engine, of one product or of any, and probes what it enforces.
pub(crate) async fn connect(endpoint: Endpoint, wanted: Option<Product>) -> Result<Engine> {
    let Endpoint::Unix(path) = &endpoint;
    look(&endpoint, path)?;
    let socket = path.to_str().ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, format!("engine address {endpoint}: the path is not UTF-8"))
            .with_hint("give the engine a socket whose path is")
    })?;
    // Deadlines are our own, call by call; this one must only be longer.
    let docker = Docker::connect_with_unix(socket, UNUSED.as_secs(), API_DEFAULT_VERSION)
        .map_err(|failure| super::error::answer(&endpoint, "connect", failure).into_error())?;

    let greeted = async {
        let docker = docker.negotiate_version().await?;
        let version = docker.version().await?;
        Ok((docker, version))
    };
    let (docker, version) = match within(&endpoint, CONNECT, "connect", greeted).await {
        Ok(greeted) => greeted,
        Err(answer) => return Err(unavailable(&endpoint, answer)),
    };
    let product = Product::of(&endpoint, &version, wanted)?;
    let info = within(&endpoint, INSPECT, "ask the engine what it can do", docker.info()).await;
    let info = info.map_err(Answer::into_error)?;
    if info.os_type.as_deref() != Some("linux") {
        let given = info.os_type.as_deref().unwrap_or("nothing");
        return Err(unfit(
            &endpoint,
            &format!("runs containers of {given}"),
            "give the address of an engine for Linux",
        ));
    }

    let report = match product {
        Product::Docker => None,
        Product::Podman => Some(podman::Info::ask(&endpoint).await?),
    };
    let root = match &report {
        Some(report) => report.root(),
        None if has_security_option(&info, "rootless") => listener(&endpoint, path).await?,
        None => remapped(&info),
    };
    let runtime = RuntimeInfo {
        name: product.name().to_owned(),
        version: version.version.clone().unwrap_or_default(),
        api: docker.client_version().to_string(),
        endpoint: endpoint.to_string(),
        root_uid: root.uid,
        root_gid: root.gid,
    };
    let capabilities = match &report {
        Some(report) => report.capabilities(&runtime),
        None => probe::capabilities(&runtime, &info, quota::probe(&docker, &endpoint, &info).await?),
    };
    Ok(Engine {
        product,
        capabilities,
        granted: report.map_or_else(|| state::DOCKER_GRANTS.map(str::to_owned).to_vec(), |report| report.granted()),
        architecture: probe::image_architecture(info.architecture.as_deref().unwrap_or_default()).to_owned(),
        docker,
        endpoint,
        transport: Transport::Socket,
        info: runtime,
    })
}

/// A user and a group of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Looks at the socket before anything is sent to it.
fn look(endpoint: &Endpoint, path: &Path) -> Result<()> {
    let unavailable = |why: &str, hint: &str| {
        Error::new(
            ErrorKind::EngineUnavailable,
            format!("cannot connect: the engine at {endpoint} cannot be reached: {why}"),
        )
        .with_hint(hint)
    };
    match std::fs::metadata(path) {
        Ok(data) if data.file_type().is_socket() => Ok(()),
        Ok(_) => Err(unavailable("this is no socket", "give the address of an engine's socket")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(unavailable("there is no such socket", "start the engine, or give the address of another"))
        }
        Err(error) => {
            Err(unavailable("its socket cannot be looked at", "run as a user who may use it").with_source(error))
        }
    }
}

/// Finds who listens at a socket: root below a rootless daemon is the daemon's own user
/// (<https://docs.docker.com/engine/security/rootless/>). The socket's owner would not tell, since the daemon gives it to
/// a group of its own namespace.
async fn listener(endpoint: &Endpoint, path: &Path) -> Result<Ids> {
    let asked = async { UnixStream::connect(path).await?.peer_cred() };
    match asked.await {
        Ok(peer) => Ok(Ids { uid: peer.uid(), gid: peer.gid() }),
        Err(error) => {
            let message = format!("cannot tell whose engine listens at {endpoint}");
            Err(Error::new(ErrorKind::EngineUnavailable, message).with_source(error))
        }
    }
}

/// Finds who is root inside the containers of a daemon that runs as root: one with `userns-remap` keeps its data in a
/// folder that ends in the remapped root's ids (<https://docs.docker.com/engine/security/userns-remap/>).
fn remapped(info: &SystemInfo) -> Ids {
    let ids = info.docker_root_dir.as_deref().and_then(|folder| {
        let (uid, gid) = Path::new(folder).file_name()?.to_str()?.split_once('.')?;
        Some(Ids { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    });
    match ids {
        Some(ids) if has_security_option(info, "userns") => ids,
        _ => Ids { uid: 0, gid: 0 },
    }
}

/// Whoever does not answer when greeted is no engine at all.
fn unavailable(endpoint: &Endpoint, answer: Answer) -> Error {
    let Some(status) = answer.status() else { return answer.into_error() };
    let message = format!("cannot connect: what answers at {endpoint} does not speak Docker's API (status {status})");
    Error::new(ErrorKind::EngineUnavailable, message).with_hint("give the address of an engine's socket")
}

pub(crate) fn unfit(endpoint: &Endpoint, what: &str, hint: &str) -> Error {
    Error::new(ErrorKind::EngineUnavailable, format!("the engine at {endpoint} {what}")).with_hint(hint)
}

const UNUSED: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_docker_host_holds() {
        let endpoint: Endpoint = "unix:///run/docker.sock".parse().unwrap();
        assert_eq!(endpoint, Endpoint::Unix("/run/docker.sock".into()));
        assert_eq!(endpoint.to_string(), "unix:///run/docker.sock");
        for (text, word) in [
            ("", "no scheme"),
            ("/run/docker.sock", "no scheme"),
            ("unix://", "not absolute"),
            ("unix://docker.sock", "not absolute"),
            ("tcp://127.0.0.1:2375", "tcp:// are not supported"),
            ("ssh://me@there", "ssh:// are not supported"),
            ("gopher://x", "no such scheme"),
        ] {
            let error = text.parse::<Endpoint>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(word), "{error}");
            assert!(error.hint().is_some());
        }
    }

    #[test]
    fn finds_who_root_is_on_the_host() {
        let info = |option: &str, folder: &str| SystemInfo {
            security_options: Some(vec![format!("name={option}")]),
            docker_root_dir: Some(folder.to_owned()),
            ..Default::default()
        };
        let ids = |uid, gid| Ids { uid, gid };
        assert_eq!(remapped(&info("userns", "/var/lib/docker/231072.231073")), ids(231_072, 231_073));
        for folder in ["/var/lib/docker", "/var/lib/docker/1.2"] {
            assert_eq!(remapped(&info("seccomp,profile=default", folder)), ids(0, 0));
        }
    }

    #[tokio::test]
    async fn a_listener_is_known_by_itself_and_not_by_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _listener = tokio::net::UnixListener::bind(&path).unwrap();
        let me = ids_of_this_process();
        assert_eq!(listener(&Endpoint::Unix(path.clone()), &path).await.unwrap(), me);
        // Whoever may give the socket away changes nothing by it.
        let _ = std::os::unix::fs::chown(&path, None, Some(me.gid + 1));
        assert_eq!(listener(&Endpoint::Unix(path.clone()), &path).await.unwrap(), me);
    }

    fn ids_of_this_process() -> Ids {
        Ids { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }
}
