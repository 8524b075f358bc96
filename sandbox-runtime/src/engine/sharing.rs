//! Whether an engine sees this machine's files, found out by showing it one.
//!
//! An address does not tell: behind a Unix socket may be a virtual machine or, seen from a container, the host; and a port on
//! loopback may be a tunnel. So a file that nobody can guess is made, and the engine is asked for a container with that
//! file in it. It looks for the file first, and then finds that there is no such image: nothing is ever made.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType, SystemInfo};
use bollard::query_parameters::CreateContainerOptions;
use sandbox_core::{Error, ErrorKind, FileSystem, Result, SandboxId, Transport};

use super::error::{Answer, within};
use super::{Endpoint, INSPECT};

/// Finds out what the engine sees.
pub(super) async fn probe(docker: &Docker, endpoint: &Endpoint) -> Result<FileSystem> {
    // Where no file can be made, there is nothing to show; what cannot be mounted is then an error of its own.
    let Some(shown) = PLACES.iter().find_map(|place| Shown::make(Path::new(place))) else {
        return Ok(FileSystem::Shared);
    };
    let source = shown.0.to_str().map(str::to_owned);
    let mount = Mount { typ: Some(MountType::BIND), source, target: Some("/shown".to_owned()), ..Default::default() };
    let body = ContainerCreateBody {
        image: Some(NO_IMAGE.to_owned()),
        cmd: Some(vec!["/never".to_owned()]),
        host_config: Some(HostConfig { mounts: Some(vec![mount]), ..Default::default() }),
        ..Default::default()
    };
    let made = docker.create_container(None::<CreateContainerOptions>, body);
    match within(endpoint, INSPECT, "find out which files the engine sees", made).await {
        Ok(_) => Err(Error::new(ErrorKind::Engine, "the engine made a container of an image that does not exist")),
        // It found the file, and no image.
        Err(answer) if answer.status() == Some(404) => Ok(FileSystem::Shared),
        Err(answer) if answer.status() == Some(400) => Ok(FileSystem::Apart),
        Err(answer) => Err(Answer::into_error(answer)),
    }
}

/// Says how guests are spoken to: no socket leads into another machine, not even into one that shows its files there
/// (<https://docs.docker.com/desktop/>).
pub(super) fn transport(file_system: FileSystem, info: &SystemInfo) -> Transport {
    let is_desktop = info.operating_system.as_deref() == Some("Docker Desktop");
    if file_system == FileSystem::Shared && !is_desktop { Transport::Socket } else { Transport::Relay }
}

/// A file that is there for a moment.
struct Shown(PathBuf);

impl Shown {
    fn make(place: &Path) -> Option<Self> {
        let path = place.join(format!("sandbox-shown-{}", SandboxId::random().ok()?));
        let made: std::io::Result<File> = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        made.is_ok().then_some(Self(path))
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        // It is empty, and nobody needs it.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Where everybody may make a file (hier(7)).
const PLACES: [&str; 2] = ["/tmp", "/var/tmp"];
/// The id of an image that there cannot be: the digest of nothing that is known.
const NO_IMAGE: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_leads_only_to_what_shares_files_and_kernel() {
        let info = |system: &str| SystemInfo { operating_system: Some(system.to_owned()), ..Default::default() };
        for (file_system, system, expected) in [
            (FileSystem::Shared, "Debian GNU/Linux 12 (bookworm)", Transport::Socket),
            (FileSystem::Shared, "Docker Desktop", Transport::Relay),
            (FileSystem::Apart, "Debian GNU/Linux 12 (bookworm)", Transport::Relay),
        ] {
            assert_eq!(transport(file_system, &info(system)), expected, "{system}");
        }
    }

    #[test]
    fn what_is_shown_is_nobody_elses_and_goes_away() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let shown = Shown::make(directory.path()).unwrap();
        let path = shown.0.clone();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(shown);
        assert!(!path.exists());
        assert!(Shown::make(Path::new("/nowhere")).is_none());
    }
}
