//! The proxies that ours is measured beside, as Debian has them, each with files of its own and without a log.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tempfile::TempDir;

use super::daemon::{Daemon, Memory, free_ports};
use crate::{Result, scratch};

/// A proxy that runs, at a port of the loopback.
#[derive(Debug)]
pub(super) struct Rival {
    daemon: Daemon,
    pub(super) at: SocketAddr,
    directory: TempDir,
}

impl Rival {
    pub(super) fn squid(origin: IpAddr) -> Result<Self> {
        Self::start("squid", |path, at| {
            let path = path.display();
            let configuration = format!(
                "http_port {at}\nacl origin dst {origin}\nhttp_access allow origin\nhttp_access deny all\ncache deny all\n\
                 access_log none\ncache_log {path}/cache.log\npid_filename {path}/squid.pid\ncoredump_dir {path}\n\
                 visible_hostname bench\nmax_filedescriptors 20000\npinger_enable off\nnetdb_filename none\n\
                 shutdown_lifetime 0 seconds\n"
            );
            std::fs::write(format!("{path}/squid.conf"), configuration)?;
            Ok(vec!["-N".to_owned(), "-f".to_owned(), format!("{path}/squid.conf")])
        })
    }

    pub(super) fn tinyproxy() -> Result<Self> {
        Self::start("tinyproxy", |path, at| {
            let path = path.join("tinyproxy.conf");
            let configuration = format!(
                "Listen {}\nPort {}\nTimeout 600\nMaxClients 1000\nLogLevel Critical\nDisableViaHeader Yes\n",
                at.ip(),
                at.port()
            );
            std::fs::write(&path, configuration)?;
            Ok(vec!["-d".to_owned(), "-c".to_owned(), path.display().to_string()])
        })
    }

    /// Ends TLS, and passes large answers on as they come.
    pub(super) fn mitmdump(authority: &Path) -> Result<Self> {
        Self::start("mitmdump", |path, at| {
            let settings = [
                format!("confdir={}", path.display()),
                format!("ssl_verify_upstream_trusted_ca={}", authority.display()),
                "stream_large_bodies=1m".to_owned(),
            ];
            let mut arguments = ["-q", "--listen-host"].map(str::to_owned).to_vec();
            arguments.extend([at.ip().to_string(), "--listen-port".to_owned(), at.port().to_string()]);
            arguments.extend(settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting]));
            Ok(arguments)
        })
    }

    fn start(name: &'static str, configure: impl FnOnce(&Path, SocketAddr) -> Result<Vec<String>>) -> Result<Self> {
        let directory = scratch()?;
        // Squid lets go of root before it writes its files.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777))?;
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, free_ports(Ipv4Addr::LOCALHOST.into(), 1)?[0]));
        let arguments = configure(directory.path(), at)?;
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let daemon = Daemon::start(name, name, &arguments, directory.path(), at)?;
        Ok(Self { daemon, at, directory })
    }

    /// A file of its own.
    pub(super) fn file(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn memory(&self) -> Result<Memory> {
        self.daemon.memory()
    }
}
