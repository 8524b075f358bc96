//! A session bus of a test's own, and a real keyring on it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A session bus, and a keyring on it; both end with the test.
pub(crate) struct Session {
    bus: Child,
    keyring: Option<Child>,
    directory: TempDir,
    pub(crate) address: String,
}

impl Session {
    pub(crate) fn bus() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = directory.path().join("bus.conf");
        let listen = directory.path().join("bus").display().to_string();
        std::fs::write(&settings, SETTINGS.replace("LISTEN", &listen)).unwrap();
        let mut bus = Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile", "--print-address", "--config-file"])
            .arg(&settings)
            .env_clear()
            .env("HOME", directory.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("dbus-daemon does not start: {error}"));
        let mut address = String::new();
        BufReader::new(bus.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { bus, keyring: None, directory, address: address.trim().to_owned() }
    }

    /// The same with a keyring, once that answers.
    pub(crate) fn with_keyring(answers: impl Fn(&Self) -> bool) -> Self {
        let mut session = Self::bus();
        let mut keyring = Command::new("gnome-keyring-daemon")
            .args(["--foreground", "--components=secrets", "--unlock"])
            .env_clear()
            .env("HOME", session.directory.path())
            .env("XDG_RUNTIME_DIR", session.directory.path())
            .env("DBUS_SESSION_BUS_ADDRESS", &session.address)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("gnome-keyring-daemon does not start: {error}"));
        keyring.stdin.take().unwrap().write_all(b"a passphrase of the test's").unwrap();
        session.keyring = Some(keyring);
        let started = Instant::now();
        while !answers(&session) {
            assert!(started.elapsed() < Duration::from_secs(30), "the keyring does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        session
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for child in self.keyring.iter_mut().chain([&mut self.bus]) {
            // One that has ended already needs no end.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A bus that starts nobody: what is not there must not answer.
const SETTINGS: &str = "<busconfig><type>session</type><listen>unix:path=LISTEN</listen><auth>EXTERNAL</auth>\
    <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/>\
    <allow own=\"*\"/></policy></busconfig>";
