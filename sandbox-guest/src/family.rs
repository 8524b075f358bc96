//! The children of one process and theirs, and their end.
//!
//! A program's group is not all that it started: a child may call `setsid(2)`, fork twice and ignore every signal that
//! can be ignored. What it cannot do is leave the family, since its supervisor is a subreaper (prctl(2)): whoever
//! loses its parent becomes the supervisor's child. So the family has ended when there is no child left to wait for.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, wait};
use sandbox_guest::wire::{Identity, Status};

use crate::agent::{as_agent, with_agents_reach};
use crate::descendants::{Process, children, descendants};
use crate::{deadline, sys};

/// How often a family is looked at anew while it is being stopped.
const MAX_STOPS: usize = 64;

/// How often its children are killed before all of it is looked at again.
const MAX_KILLS: usize = 1000;

/// How long a family is chased before all that the agent runs is ended with it.
const MAX_CHASE: Duration = Duration::from_secs(2);

/// How long a family may take to vanish before its end is told all the same; only a process that the kernel itself holds
/// takes longer.
const MAX_END: Duration = Duration::from_secs(5);

/// How long the end of a child that was killed is waited for before its siblings are looked at again.
const MOMENT: Duration = Duration::from_millis(1);

/// How long one wait for a child's end lasts.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Whose processes the guest may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Territory {
    /// The sandbox's alone: the guest is process 1 of their namespace.
    Namespace,
    /// The host's as well.
    Shared,
}

/// The processes below this one.
#[derive(Debug)]
pub(crate) struct Family {
    agent: Identity,
    territory: Territory,
    program: Option<Pid>,
    status: Option<Status>,
}

/// Whether there is a child, alive or not yet reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Children {
    /// There is none.
    None,
    /// There is one at least.
    Some,
}

impl Family {
    /// A family in which one child's status is wanted, or none's.
    pub(crate) fn new(agent: Identity, territory: Territory, program: Option<Pid>) -> Self {
        Self { agent, territory, program, status: None }
    }

    /// How the program ended, if it has.
    pub(crate) fn status(&self) -> Option<Status> {
        self.status
    }

    /// Reaps every child that has ended.
    pub(crate) fn reap(&mut self) {
        self.reap_all();
    }

    fn reap_all(&mut self) -> Children {
        loop {
            let (child, status) = match wait(WaitOptions::NOHANG) {
                Ok(Some(ended)) => ended,
                Err(Errno::CHILD) => return Children::None,
                Ok(None) | Err(_) => return Children::Some,
            };
            if Some(child) == self.program {
                self.status = status
                    .exit_status()
                    .and_then(|code| u8::try_from(code).ok().map(Status::Code))
                    .or_else(|| status.terminating_signal().and_then(|n| u8::try_from(n).ok().map(Status::Signal)));
            }
        }
    }

    /// Ends all of the family, and tells whether any of it is left; `signals` becomes readable when a child ends.
    ///
    /// It is stopped first, so that it holds still. Whoever forks and exits faster than it can be found is met by killing
    /// its group, in which no fork escapes, or else as our own child, over and over; and who outruns even that takes all
    /// else that the agent runs along.
    pub(crate) fn end(&mut self, signals: impl AsFd) -> Children {
        let (patient, latest) = (deadline::after(MAX_CHASE), deadline::after(MAX_END));
        let (mut killed, mut outrun) = (HashSet::new(), false);
        while self.reap_all() == Children::Some {
            if Instant::now() >= latest {
                return Children::Some;
            }
            if Instant::now() < patient {
                self.stop(patient);
                outrun = Instant::now() >= patient;
            }
            if outrun {
                self.end_agent();
            }
            // Without /proc only the program's own group can be named.
            if let Some(program) = self.program.filter(|_| self.status.is_none()) {
                self.kill(-program.as_raw_nonzero().get(), libc::SIGKILL);
            }
            let found = descendants(latest);
            let mut fresh = found.is_err();
            let found = found.unwrap_or_default();
            self.signal_all(&found, Signal::KILL, latest);
            // Who was killed and is still there is held by the kernel: it forks no more, and is waited for.
            for process in found {
                fresh |= killed.insert(process.pid);
            }
            for _ in 0..MAX_KILLS {
                if self.reap_all() == Children::None {
                    return Children::None;
                }
                let found = match children() {
                    Ok(found) if !found.is_empty() && Instant::now() < patient => found,
                    _ => break,
                };
                self.signal_all(&found, Signal::KILL, patient);
                // Who forks on is not waited for; who was killed already has only to be reaped, which a signal tells.
                let mut is_chase = false;
                for process in &found {
                    is_chase |= killed.insert(process.pid);
                }
                wait_for_child(&signals, if is_chase { Duration::ZERO } else { MOMENT });
            }
            outrun |= fresh && Instant::now() >= patient;
            wait_for_child(&signals, if fresh { LOOK_AGAIN } else { LOOK_AGAIN * 10 });
        }
        Children::None
    }

    /// Ends what is left of the family, however long it takes: whoever leaves it to process 1 lets it go free.
    pub(crate) fn outlast(&mut self, signals: impl AsFd) {
        while self.end(&signals) == Children::Some {}
    }

    /// Ends every process of the agent in this namespace: a kill of all is one step for the kernel, in which no fork
    /// escapes (kill(2)). It takes no new process, since whoever forks without end leaves no room for one.
    fn end_agent(&self) {
        if self.territory == Territory::Namespace {
            // Nobody may be left by now; else they are tried again.
            let _ = with_agents_reach(self.agent, || sys::kill(-1, libc::SIGKILL));
        }
    }

    /// Stops the family until nobody new appears in it, or time is up: where processors are short, each look is long.
    fn stop(&self, until: Instant) {
        let mut stopped = HashSet::new();
        for _ in 0..MAX_STOPS {
            let Ok(found) = descendants(until) else { return };
            let fresh: Vec<_> = found.into_iter().filter(|process| stopped.insert(process.pid)).collect();
            if fresh.is_empty() {
                return;
            }
            self.signal_all(&fresh, Signal::STOP, until);
        }
    }

    /// Sends a signal to processes and to their groups. A group cannot reach beyond the family: its members are of one
    /// session (credentials(7)), and the program began its own. When time is up, so is what one at a time can do.
    fn signal_all(&self, processes: &[Process], signal: Signal, until: Instant) {
        let ours = sys::group();
        let groups: HashSet<_> = processes.iter().map(|process| process.stat.group).collect();
        for group in groups.into_iter().filter(|&group| group > 1 && group != ours) {
            self.kill(-group, signal.as_raw());
        }
        for process in processes.iter().take_while(|_| Instant::now() < until) {
            self.signal(process, signal);
        }
    }

    fn signal(&self, process: &Process, signal: Signal) {
        match pidfd_open(process.pid, PidfdFlags::empty()) {
            Ok(descriptor) => {
                if process.is_still_ours() {
                    self.permitted(|| Ok(pidfd_send_signal(&descriptor, signal)?));
                }
            }
            Err(Errno::SRCH) => {}
            Err(_) => {
                self.kill(process.pid.as_raw_nonzero().get(), signal.as_raw());
            }
        }
    }

    /// Sends a signal to a process, or to a group if `target` is negative; one that has ended needs none.
    pub(crate) fn kill(&self, target: i32, signal: i32) -> bool {
        self.permitted(|| sys::kill(target, signal))
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

/// Waits until a child ends, or a span is over.
fn wait_for_child(signals: impl AsFd, span: Duration) {
    let again = deadline::until(deadline::after(span));
    // An interrupted or failed wait only means looking again sooner.
    let _ = poll(&mut [PollFd::new(&signals, PollFlags::IN)], Some(&again));
    drain(&signals);
}

/// Takes what a signal descriptor holds: one signal stands for any number of ended children.
pub(crate) fn drain(signals: impl AsFd) {
    let mut taken = [0; size_of::<libc::signalfd_siginfo>()];
    while rustix::io::read(&signals, &mut taken).is_ok_and(|length| length > 0) {}
}
