//! Process 1 of a container, told from whoever gets its id later.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process, by its id and the time of its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    /// Its id.
    pub(super) pid: u32,
    /// Clock ticks between boot and its start (`proc_pid_stat(5)`, field 22).
    pub(super) start: u64,
}

impl Process {
    /// Looks at the process that has an id now; `None` where there is none, or only what is left of one that ended.
    pub(super) fn find(pid: u32) -> io::Result<Option<Self>> {
        let stat = match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(parse(&stat).map(|start| Self { pid, start }))
    }

    /// Whether it runs.
    pub(super) fn runs(self) -> io::Result<bool> {
        Ok(Self::find(self.pid)? == Some(self))
    }

    /// Holds the process, so that its id means nobody else; `None` where it has ended.
    pub(super) fn hold(self) -> io::Result<Option<OwnedFd>> {
        let Some(held) = hold(self.pid)? else { return Ok(None) };
        // Only now is it sure that the id is not used again between the look and the hold.
        Ok(self.runs()?.then_some(held))
    }

    /// Sends it a signal, if it runs.
    pub(super) fn signal(self, signal: Signal) -> io::Result<()> {
        match self.hold()? {
            Some(held) => send(&held, signal),
            None => Ok(()),
        }
    }
}

/// Holds whatever process has an id.
pub(super) fn hold(pid: u32) -> io::Result<Option<OwnedFd>> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(held) => Ok(Some(held)),
        Err(Errno::SRCH) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sends a signal to a process that is held.
pub(super) fn send(held: &OwnedFd, signal: Signal) -> io::Result<()> {
    match pidfd_send_signal(held, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// The start of the process that a stat file speaks of; none for a zombie. The second field may hold blanks and
/// parentheses, so fields are counted from its last one.
fn parse(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let state = *fields.first()?;
    if matches!(state, "Z" | "X" | "x") { None } else { fields.get(19)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_and_another_of_the_same_id_is_not() {
        let me = Process::find(std::process::id()).unwrap().unwrap();
        assert!(me.runs().unwrap() && me.hold().unwrap().is_some());
        let earlier = Process { start: me.start + 1, ..me };
        assert!(!earlier.runs().unwrap() && earlier.hold().unwrap().is_none());
        // A signal to one that has ended reaches nobody.
        earlier.signal(Signal::KILL).unwrap();
        assert_eq!(Process::find(u32::MAX).unwrap(), None);
    }

    #[test]
    fn a_name_may_look_like_fields() {
        let rest = "1 1 1 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4242 0";
        assert_eq!(parse(&format!("7 (a) Z ) S {rest}")), Some(4242));
        assert_eq!(parse(&format!("7 (a) Z {rest}")), None);
        assert_eq!(parse("7 (a"), None);
    }
}
