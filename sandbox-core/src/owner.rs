//! Who owns a sandbox, in words that survive the owner.
//!
//! A process id alone proves nothing: ids are used again. Together with the start time, the boot and the process
//! namespace it names one process for ever, so that a reaper can tell *gone* from *cannot tell*.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::{Error, ErrorKind, Result};

/// Names the process that holds a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Owner {
    /// The host's name.
    pub host: String,
    /// The kernel's random id of this boot.
    pub boot: String,
    /// The inode of the process's PID namespace.
    pub namespace: u64,
    /// The process id.
    pub pid: u32,
    /// Clock ticks between boot and the process's start (field 22 of `/proc/PID/stat`, proc(5)).
    pub start: u64,
}

/// What can be said of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "there is no fourth answer")]
pub enum Liveness {
    /// It runs.
    Alive,
    /// It is provably gone.
    Gone,
    /// It cannot be told from here: another host, or another PID namespace.
    Unknown,
}

impl Owner {
    /// Names this process.
    ///
    /// # Errors
    /// `Io` where `/proc` does not answer.
    pub fn current() -> Result<Self> {
        let pid = std::process::id();
        let start = start_time(pid)
            .map_err(|error| Error::io("cannot read this process's start time", error))?
            .ok_or_else(|| Error::new(ErrorKind::Io, "this process has no entry in /proc"))?;
        Ok(Self { host: host(), boot: boot()?, namespace: namespace()?, pid, start })
    }

    /// Finds out whether the owner still runs.
    pub fn liveness(&self) -> Liveness {
        if self.host != host() {
            return Liveness::Unknown;
        }
        match boot() {
            Ok(boot) if boot != self.boot => return Liveness::Gone,
            Ok(_) => {}
            Err(_) => return Liveness::Unknown,
        }
        if namespace().ok() != Some(self.namespace) {
            return Liveness::Unknown;
        }
        match start_time(self.pid) {
            Ok(Some(start)) if start == self.start => Liveness::Alive,
            Ok(_) => Liveness::Gone,
            Err(_) => Liveness::Unknown,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, boot, namespace, pid, start } = self;
        write!(f, "v1 {host} {boot} {namespace} {pid} {start}")
    }
}

impl FromStr for Owner {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let parsed = match words[..] {
            ["v1", host, boot, namespace, pid, start] => {
                namespace.parse().ok().zip(pid.parse().ok()).zip(start.parse().ok()).map(|((namespace, pid), start)| {
                    Self { host: host.to_owned(), boot: boot.to_owned(), namespace, pid, start }
                })
            }
            _ => None,
        };
        parsed
            .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "owner label is not `v1 HOST BOOT NAMESPACE PID START`"))
    }
}

fn host() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().replace(' ', "-");
    if name.is_empty() { "localhost".to_owned() } else { name }
}

fn boot() -> Result<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .map_err(|error| Error::io("cannot read the kernel's boot id", error))
}

fn namespace() -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self/ns/pid")
        .map(|data| data.ino())
        .map_err(|error| Error::io("cannot read this process's PID namespace", error))
}

/// Field 22 of `/proc/PID/stat`; the second field may hold spaces and parentheses, so count from its last `)`. A zombie
/// (field 3) has ended and holds nothing, though its parent may never look.
fn start_time(pid: u32) -> std::io::Result<Option<u64>> {
    let stat = match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let after = stat.iter().rposition(|&byte| byte == b')').map_or(&stat[..], |at| &stat[at + 1..]);
    let text = String::from_utf8_lossy(after);
    let mut fields = text.split_whitespace();
    if matches!(fields.next(), Some("Z" | "X")) {
        return Ok(None);
    }
    Ok(fields.nth(18).and_then(|field| field.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_survives_its_label() {
        let owner = Owner::current().unwrap();
        assert_eq!(owner.liveness(), Liveness::Alive);
        assert_eq!(owner.to_string().parse::<Owner>().unwrap(), owner);
    }

    #[test]
    fn a_zombie_is_gone() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let owner =
            Owner { pid: child.id(), start: start_time(child.id()).unwrap().unwrap(), ..Owner::current().unwrap() };
        assert_eq!(owner.liveness(), Liveness::Alive);
        drop(child.stdin.take());
        while owner.liveness() == Liveness::Alive {
            std::thread::yield_now();
        }
        assert_eq!(owner.liveness(), Liveness::Gone);
        child.wait().unwrap();
    }

    #[test]
    fn a_reused_pid_and_an_earlier_boot_are_gone() {
        let owner = Owner::current().unwrap();
        assert_eq!(Owner { start: owner.start + 1, ..owner.clone() }.liveness(), Liveness::Gone);
        assert_eq!(Owner { boot: "earlier".into(), ..owner.clone() }.liveness(), Liveness::Gone);
        assert_eq!(Owner { pid: u32::MAX, ..owner }.liveness(), Liveness::Gone);
    }

    #[test]
    fn what_cannot_be_told_is_kept() {
        let owner = Owner::current().unwrap();
        assert_eq!(Owner { host: "elsewhere".into(), ..owner.clone() }.liveness(), Liveness::Unknown);
        assert_eq!(Owner { namespace: 1, ..owner }.liveness(), Liveness::Unknown);
        assert!("v1 a b c d e".parse::<Owner>().is_err());
        assert!("v2 a b 1 2 3".parse::<Owner>().is_err());
    }
}
