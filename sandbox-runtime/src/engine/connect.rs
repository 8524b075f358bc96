//! Finding out who answers at an address.

use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use bollard::models::SystemInfo;
use sandbox_core::{Error, ErrorKind, FileSystem, Result, RuntimeInfo};
use sandbox_policy::{Control, Isolation};
use tokio::net::UnixStream;

use super::error::{Answer, within};
use super::gvisor::{self, Gvisor};
use super::probe::{self, has_security_option};
use super::product::Product;
use super::{Endpoint, Engine, INSPECT, dial, ownership, podman, quota, sharing, state};

/// Connects to an engine, of one product or of any, and probes what it enforces.
pub(crate) async fn connect(endpoint: Endpoint, wanted: Option<Product>) -> Result<Engine> {
    if let Some(path) = endpoint.socket() {
        look(&endpoint, path)?;
    }
    let docker = dial::client(&endpoint)?;

    let greeted = async {
        let docker = docker.negotiate_version().await?;
        let version = docker.version().await?;
        Ok((docker, version))
    };
    let (docker, version) = match within(&endpoint, endpoint.patience(), "connect", greeted).await {
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

    let file_system = match (product, endpoint.socket()) {
        (Product::Podman, None) => {
            let what = "is Podman on another machine, which reads the system call filter from a file there";
            return Err(unfit(&endpoint, what, "use Podman by a socket of this machine, or Docker there"));
        }
        (Product::Podman, Some(_)) => FileSystem::Shared,
        // Whose a rootless engine is, only its socket tells, so nothing can be given to it.
        (Product::Docker, None) if has_security_option(&info, "rootless") => FileSystem::Apart,
        (Product::Docker, _) => sharing::probe(&docker, &endpoint).await?,
    };
    let report = match product {
        Product::Docker => None,
        Product::Podman => Some(podman::Info::ask(&endpoint).await?),
    };
    let root = match &report {
        Some(report) => report.root(),
        // What stays here is the caller's own.
        None if file_system == FileSystem::Apart => caller(),
        None => match endpoint.socket() {
            Some(path) if has_security_option(&info, "rootless") => listener(&endpoint, path).await?,
            _ => remapped(&info),
        },
    };
    let ids = match &report {
        Some(report) => report.ids(),
        None if has_security_option(&info, "rootless") => ownership::Ids::Hidden,
        None => ownership::Ids::Shifted,
    };
    let runtime = RuntimeInfo {
        name: product.name().to_owned(),
        version: version.version.clone().unwrap_or_default(),
        api: docker.client_version().to_string(),
        endpoint: endpoint.to_string(),
        root_uid: root.uid,
        root_gid: root.gid,
    };
    let capabilities = if let Some(report) = &report {
        report.capabilities(&runtime)
    } else {
        let disk = quota::probe(&docker, &endpoint, &info).await?;
        let capabilities = probe::capabilities(&runtime, &info, disk);
        if file_system == FileSystem::Apart { capabilities.join(&probe::apart()) } else { capabilities }
    };
    Ok(Engine {
        product,
        capabilities: capabilities.with(Control::Isolation, gvisor::without(product)),
        gvisor: Gvisor::find(product, file_system, &info),
        isolation: Isolation::Standard,
        granted: report.map_or_else(|| state::DOCKER_GRANTS.map(str::to_owned).to_vec(), |report| report.granted()),
        architecture: probe::image_architecture(info.architecture.as_deref().unwrap_or_default()).to_owned(),
        docker,
        endpoint,
        transport: sharing::transport(file_system, &info),
        file_system,
        info: runtime,
        ids,
    })
}

/// A user and a group of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

fn caller() -> Ids {
    Ids { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let me = caller();
        assert_eq!(listener(&Endpoint::Unix(path.clone()), &path).await.unwrap(), me);
        // Whoever may give the socket away changes nothing by it.
        let _ = std::os::unix::fs::chown(&path, None, Some(me.gid + 1));
        assert_eq!(listener(&Endpoint::Unix(path.clone()), &path).await.unwrap(), me);
    }
}
