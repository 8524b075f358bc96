//! The tree of processes below one process, and its end.
//!
//! A program's group is not all that it started: a child may call `setsid(2)`, fork twice and ignore every signal that
//! can be ignored. What it cannot do is leave the tree, since its supervisor is a subreaper (prctl(2)): whoever
//! loses its parent becomes the supervisor's child. The tree is stopped first, so that it holds still, then killed.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, getpid, pidfd_open, pidfd_send_signal, wait};
use sandbox_guest::wire::{Identity, Status};

use crate::agent::as_agent;
use crate::{deadline, sys};

/// How often a tree is looked at anew while it is being stopped.
const MAX_ROUNDS: usize = 64;

/// How long a tree may take to vanish; only a process that the kernel itself holds takes longer.
const MAX_END: Duration = Duration::from_secs(5);

/// How long one wait for a child's end lasts before the tree is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How much of `/proc/PID/stat` is read, in bytes: far more than its first four fields can have.
const MAX_STAT: u64 = 512;

/// The children of this process, and theirs.
#[derive(Debug)]
pub(crate) struct Family {
    agent: Identity,
    program: Option<Pid>,
    status: Option<Status>,
}

impl Family {
    /// A family in which one child's status is wanted, or none's.
    pub(crate) fn new(agent: Identity, program: Option<Pid>) -> Self {
        Self { agent, program, status: None }
    }

    /// How the program ended, if it has.
    pub(crate) fn status(&self) -> Option<Status> {
        self.status
    }

    /// Reaps every child that has ended.
    pub(crate) fn reap(&mut self) {
        while let Ok(Some((child, status))) = wait(WaitOptions::NOHANG) {
            if Some(child) == self.program {
                self.status = status
                    .exit_status()
                    .and_then(|code| u8::try_from(code).ok().map(Status::Code))
                    .or_else(|| status.terminating_signal().and_then(|n| u8::try_from(n).ok().map(Status::Signal)));
            }
        }
    }

    /// Ends all of the family; `signals` becomes readable when a child ends.
    pub(crate) fn end(&mut self, signals: impl AsFd) {
        let latest = deadline::after(MAX_END);
        loop {
            self.stop_all();
            let Ok(found) = descendants(getpid()) else {
                // Without /proc the group and whoever was handed to us is all that can be named.
                if let Some(program) = self.program {
                    self.kill(-program.as_raw_nonzero().get(), libc::SIGKILL);
                }
                self.reap();
                return;
            };
            for process in found {
                self.signal(process, Signal::KILL);
            }
            self.reap();
            if descendants(getpid()).is_ok_and(|left| left.is_empty()) || Instant::now() >= latest {
                return;
            }
            let again = deadline::until(deadline::after(LOOK_AGAIN));
            // An interrupted or failed wait only means looking again sooner.
            let _ = poll(&mut [PollFd::new(&signals, PollFlags::IN)], Some(&again));
            drain(&signals);
            self.reap();
        }
    }

    /// Sends a signal to a process, or to a group if `target` is negative; one that has ended needs none.
    pub(crate) fn kill(&self, target: i32, signal: i32) -> bool {
        self.permitted(|| sys::kill(target, signal))
    }

    /// Stops the tree until nobody new appears in it.
    fn stop_all(&self) {
        let mut stopped = HashSet::new();
        for _ in 0..MAX_ROUNDS {
            let found = descendants(getpid()).unwrap_or_default();
            let fresh: Vec<_> = found.into_iter().filter(|process| stopped.insert(process.pid)).collect();
            if fresh.is_empty() {
                return;
            }
            for process in fresh {
                self.signal(process, Signal::STOP);
            }
        }
    }

    /// Sends a signal if the process still has the parent that made it one of ours.
    fn signal(&self, process: Process, signal: Signal) {
        match pidfd_open(process.pid, PidfdFlags::empty()) {
            Ok(descriptor) => {
                if read_stat(process.pid).is_some_and(|parent| parent == process.parent || parent == own()) {
                    self.permitted(|| Ok(pidfd_send_signal(&descriptor, signal)?));
                }
            }
            Err(Errno::SRCH) => {}
            Err(_) => {
                self.kill(process.pid.as_raw_nonzero().get(), signal.as_raw());
            }
        }
    }

    /// Does what root may do, or else what the agent may: a guest without `CAP_KILL` may signal the agent's processes only
    /// with the agent's id.
    fn permitted(&self, call: impl Fn() -> io::Result<()>) -> bool {
        match call() {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => as_agent(self.agent, call).is_ok(),
            result => result.is_ok(),
        }
    }
}

/// Takes what a signal descriptor holds: one signal stands for any number of ended children.
pub(crate) fn drain(signals: impl AsFd) {
    let mut taken = [0; size_of::<libc::signalfd_siginfo>()];
    while rustix::io::read(&signals, &mut taken).is_ok_and(|length| length > 0) {}
}

/// A process as it was seen: the number may have gone to another since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: Pid,
    parent: i32,
}

fn own() -> i32 {
    getpid().as_raw_nonzero().get()
}

/// Finds all processes below one.
fn descendants(root: Pid) -> io::Result<Vec<Process>> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        // A process may end between its name and its status.
        let Ok(entry) = entry else { continue };
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if let Some(pid) = number
            && let Some(parent) = read_stat(pid)
        {
            children.entry(parent).or_default().push(Process { pid, parent });
        }
    }
    let mut found = children.remove(&root.as_raw_nonzero().get()).unwrap_or_default();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        let below = children.remove(&process.pid.as_raw_nonzero().get()).unwrap_or_default();
        found.extend(below);
        next += 1;
    }
    Ok(found)
}

fn read_stat(pid: Pid) -> Option<i32> {
    let mut text = Vec::new();
    let file = File::open(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    file.take(MAX_STAT).read_to_end(&mut text).ok()?;
    parse_parent(&text)
}

/// Finds the parent in `/proc/PID/stat`. The name before it is the process's own choice, brackets and all (proc(5)).
fn parse_parent(text: &[u8]) -> Option<i32> {
    let end = text.iter().rposition(|&byte| byte == b')')?;
    let mut fields = text[end + 1..].split(|&byte| byte == b' ').filter(|field| !field.is_empty());
    fields.next()?;
    str::from_utf8(fields.next()?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_cannot_pretend_to_be_a_parent() {
        assert_eq!(parse_parent(b"7 (sh) S 3 7 7 0"), Some(3));
        assert_eq!(parse_parent(b"7 (a) S 1 (b\n) R 99 7"), Some(99));
        assert_eq!(parse_parent(b"7 (a"), None);
        assert_eq!(parse_parent(b""), None);
    }

    proptest! {
        #[test]
        fn the_parent_is_found_behind_any_name(name in proptest::collection::vec(any::<u8>(), 0..64), parent: i32) {
            let text = [b"12 (", &name[..], format!(") S {parent} 1 1").as_bytes()].concat();
            prop_assert_eq!(parse_parent(&text), Some(parent));
        }

        #[test]
        fn no_text_makes_it_fail(text in proptest::collection::vec(any::<u8>(), 0..128)) {
            parse_parent(&text);
        }
    }
}
