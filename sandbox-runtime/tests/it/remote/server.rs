//! A server of `ssh` for tests, on loopback and with keys of its own.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A server of `ssh` on loopback, with keys of its own, and settings by which a client finds it.
pub(crate) struct Server {
    directory: TempDir,
    process: Child,
}

impl Server {
    /// Starts one, and waits until it listens.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        for name in ["host", "mine"] {
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &path(name)]).status();
            assert!(made.unwrap().success());
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = std::fs::read_to_string(path("host.pub")).unwrap();
        let known: Vec<&str> = host.split_whitespace().take(2).collect();
        std::fs::write(path("known"), format!("[127.0.0.1]:{port} {}\n", known.join(" "))).unwrap();
        std::fs::write(
            path("server"),
            format!(
                "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
                 StrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n",
                path("host"),
                path("mine.pub")
            ),
        )
        .unwrap();
        std::fs::write(
            path("client"),
            format!(
                "Host engine\n HostName 127.0.0.1\n Port {port}\n IdentityFile {}\n IdentitiesOnly yes\n \
                 UserKnownHostsFile {}\n StrictHostKeyChecking yes\n",
                path("mine"),
                path("known")
            ),
        )
        .unwrap();
        std::fs::create_dir_all("/run/sshd").unwrap();
        let process = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &path("server")])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { directory, process };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "sshd does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// One of its files: `client` are the settings by which `ssh` finds it as `engine`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
