//! A server that runs for as long as it is measured.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;

/// A process that listens, and that ends with this value.
#[derive(Debug)]
pub(super) struct Daemon {
    name: &'static str,
    child: Child,
}

/// What a process holds of the machine's memory, in KiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// At this moment.
    pub now: f64,
    /// At the most, so far.
    pub peak: f64,
}

impl Daemon {
    /// Starts a program, and waits until it listens.
    pub(super) fn start(
        name: &'static str,
        program: &str,
        arguments: &[&str],
        directory: &Path,
        at: SocketAddr,
    ) -> Result<Self> {
        let mut log = std::fs::File::options().create(true).append(true).read(true).open(directory.join("log"))?;
        // It is not to outlive a report that is killed (PR_SET_PDEATHSIG, prctl(2)).
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", &found(program)?])
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn()?;
        let mut daemon = Self { name, child };
        let begun = Instant::now();
        while TcpStream::connect(at).is_err() {
            let ended = daemon.child.try_wait()?;
            if ended.is_some() || begun.elapsed() > STARTS_WITHIN {
                let mut said = String::new();
                log.seek(SeekFrom::Start(0))?;
                log.read_to_string(&mut said)?;
                return Err(format!("{name} does not listen at {at} (ended: {ended:?}); it said: {said}").into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(daemon)
    }

    pub(super) fn memory(&self) -> Result<Memory> {
        Memory::of(self.child.id()).map_err(|error| format!("{}: {error}", self.name).into())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Memory {
    /// Asks the kernel (`proc_pid_status(5)`).
    ///
    /// # Errors
    /// If the process has ended.
    pub fn of(process: u32) -> Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        let field = |name: &str| -> Result<f64> {
            let value = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("the kernel tells no memory")?;
            Ok(value.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?)
        };
        Ok(Self { now: field("VmRSS")?, peak: field("VmHWM")? })
    }
}

/// Finds ports that nobody has.
pub(super) fn free_ports(address: IpAddr, count: usize) -> Result<Vec<u16>> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind((address, 0))).collect::<std::io::Result<_>>()?;
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// Finds a program where Debian has programs and servers.
fn found(program: &str) -> Result<String> {
    let places = ["/usr/local/bin", "/usr/bin", "/usr/sbin"];
    let path = places.map(|place| Path::new(place).join(program)).into_iter().find(|path| path.exists());
    let path = path.ok_or_else(|| format!("{program} is not installed: scripts/install benches installs it"))?;
    Ok(path.to_string_lossy().into_owned())
}

const STARTS_WITHIN: Duration = Duration::from_secs(30);
