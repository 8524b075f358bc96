//! The process that owns one program: starts it, watches it, ends it and says how it ended.
//!
//! It stays root inside the container, so that the program cannot signal it, and it is a subreaper, so that nothing the
//! program starts can leave its sight while the program runs.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, getpid, set_child_subreaper};
use sandbox_guest::wire::{Command, Exec, Exit, Failure, FailureKind, Reply, RunAs, Status, Sudo};

use crate::control::Control;
use crate::deadline;
use crate::exec::{Program, Stdio, Stop};
use crate::failure::{failed, failure, invalid};
use crate::family::{Family, drain};
use crate::init::Guest;
use crate::sys;
use crate::terminal::Terminal;

/// Runs a program to its end.
pub(crate) fn run(guest: &Guest, exec: Exec, control: Control, streams: Vec<OwnedFd>) {
    match Supervisor::start(guest, exec, control, streams) {
        Ok(supervisor) => supervisor.supervise(guest),
        Err((control, failure)) => {
            // A host that does not take the answer has gone.
            let _ = control.post(&Reply::Failed(failure), &[]);
        }
    }
}

/// The status of a child that could not become its program; only its supervisor sees it.
const FAILED_TO_RUN: u8 = 127;

#[derive(Debug)]
struct Supervisor {
    control: Control,
    /// Readable when a child has ended.
    signals: OwnedFd,
    /// Closes when the program runs; else says why it does not.
    report: Option<OwnedFd>,
    program: Program,
    pid: Pid,
    family: Family,
    master: Option<OwnedFd>,
    deadline: Option<Instant>,
    grace: Duration,
    timed_out: bool,
    /// The memory limit's victims before the program started.
    victims: u64,
}

/// Whether there is more to watch.
enum Next {
    /// There is.
    Watch,
    /// The program and all that it started must end, and the host is told.
    End,
    /// The same, and nobody is left to be told.
    Vanish,
}

impl Supervisor {
    fn start(guest: &Guest, exec: Exec, control: Control, streams: Vec<OwnedFd>) -> Result<Self, (Control, Failure)> {
        let deadline = exec.deadline.map(|span| deadline::after(Duration::from_millis(span)));
        let grace = Duration::from_millis(exec.grace);
        let victims = guest.memory.victims();
        let prepared = || -> Result<_, Failure> {
            let environment = match (exec.run_as, guest.setup.sudo) {
                (RunAs::Agent, _) => &guest.environment,
                (RunAs::Root, Sudo::Offered) => &guest.root_environment,
                (RunAs::Root, Sudo::Denied) => {
                    return Err(failure(
                        FailureKind::Denied,
                        libc::EPERM,
                        "nothing may be run as root here".to_owned(),
                    ));
                }
            };
            let environment = environment.with(exec.environment, exec.terminal.is_some())?;
            let program = Program::new(exec.argv, exec.directory, &environment)?;
            let (stdio, master) = match exec.terminal {
                Some(size) => {
                    let terminal = Terminal::open(guest.setup.agent, size)
                        .map_err(|error| failed("terminal could not be opened", &error))?;
                    (Stdio::Terminal(terminal.slave), Some(terminal.master))
                }
                None => (Stdio::Pipes(three(streams)?), None),
            };
            let (signals, report, pid) = fork(guest, &program, exec.run_as, &stdio)
                .map_err(|error| failed("program could not be started", &error))?;
            Ok((program, master, signals, report, pid))
        };
        match prepared() {
            Ok((program, master, signals, report, pid)) => Ok(Self {
                control,
                signals,
                report: Some(report),
                program,
                pid,
                family: Family::new(guest.setup.agent, guest.territory, Some(pid)),
                master,
                deadline,
                grace,
                timed_out: false,
                victims,
            }),
            Err(failure) => Err((control, failure)),
        }
    }

    fn supervise(mut self, guest: &Guest) {
        loop {
            match self.step(guest) {
                Ok(Next::Watch) => {}
                Ok(Next::End) => {
                    return self.end(guest);
                }
                Ok(Next::Vanish) | Err(_) => return self.family.outlast(&self.signals),
            }
            if let (Some(_), None) = (self.family.status(), &self.report) {
                return if self.timed_out { self.end(guest) } else { self.tell(guest) };
            }
        }
    }

    /// Ends all of the family and tells the host; who takes longer to vanish than a host should wait is not let go.
    fn end(&mut self, guest: &Guest) {
        self.family.end(&self.signals);
        self.tell(guest);
        self.family.outlast(&self.signals);
    }

    /// Waits for one thing to happen and deals with it.
    fn step(&mut self, guest: &Guest) -> io::Result<Next> {
        let mut ready = vec![PollFd::new(&self.control, PollFlags::IN), PollFd::new(&self.signals, PollFlags::IN)];
        ready.extend(self.report.as_ref().map(|report| PollFd::new(report, PollFlags::IN)));
        let timeout = self.deadline.map(deadline::until);
        match poll(&mut ready, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [commanded, ended, reported] = [0, 1, 2].map(|at| ready.get(at).is_some_and(|fd| !fd.revents().is_empty()));
        drop(ready);
        if reported && let Some(failure) = self.take_report(guest)? {
            self.control.post(&Reply::Failed(failure), &[])?;
            return Ok(Next::Vanish);
        }
        if ended {
            drain(&self.signals);
            self.family.reap();
        }
        if self.family.status().is_some() && self.report.is_none() {
            return Ok(Next::Watch);
        }
        if commanded && matches!(self.obey()?, Next::End) {
            return Ok(Next::End);
        }
        Ok(self.keep_time())
    }

    /// Learns whether the program runs, and tells the host if it does.
    fn take_report(&mut self, guest: &Guest) -> io::Result<Option<Failure>> {
        let Some(report) = self.report.take() else { return Ok(None) };
        let mut bytes = [0; Stop::SIZE];
        if rustix::io::retry_on_intr(|| rustix::io::read(&report, &mut bytes))? == Stop::SIZE
            && let Some(stop) = Stop::from_bytes(bytes)
        {
            return Ok(Some(self.program.explain(stop, &guest.setup)));
        }
        let started = Reply::Started { pid: self.pid.as_raw_nonzero().get().cast_unsigned() };
        // Ours goes with it: the program must be hung up on when the host closes its own.
        let master = self.master.take();
        let passed: Vec<_> = master.iter().map(AsFd::as_fd).collect();
        self.control.post(&started, &passed)?;
        Ok(None)
    }

    fn obey(&mut self) -> io::Result<Next> {
        while let Some(command) = self.control.next()? {
            match command {
                // A terminal that was passed out is resized out there; a relay resizes its own.
                Command::Commit | Command::Resize(_) => {}
                Command::Kill => return Ok(Next::End),
                Command::Signal(signal) => self.signal(signal),
            }
        }
        Ok(Next::Watch)
    }

    fn keep_time(&mut self) -> Next {
        if self.deadline.is_none_or(|deadline| Instant::now() < deadline) {
            return Next::Watch;
        }
        if self.timed_out {
            return Next::End;
        }
        self.timed_out = true;
        self.deadline = Some(deadline::after(self.grace));
        self.signal(libc::SIGTERM);
        Next::Watch
    }

    fn signal(&self, signal: i32) {
        let pid = self.pid.as_raw_nonzero().get();
        // Until the program leads its own group only it can be named.
        let _ = self.family.kill(-pid, signal) || self.family.kill(pid, signal);
    }

    fn tell(&self, guest: &Guest) {
        let exit = Exit {
            status: self.family.status().unwrap_or(Status::Signal(9)),
            timed_out: self.timed_out,
            out_of_memory: guest.memory.victims() > self.victims,
        };
        // A host that does not take the answer has gone.
        let _ = self.control.post(&Reply::Exited(exit), &[]);
    }
}

fn three(streams: Vec<OwnedFd>) -> Result<[OwnedFd; 3], Failure> {
    <[OwnedFd; 3]>::try_from(streams)
        .map_err(|streams| invalid(format!("{} standard streams passed, 3 are needed", streams.len())))
}

/// Forks the program; gives what becomes readable when a child ends, and what tells whether the program runs.
fn fork(guest: &Guest, program: &Program, run_as: RunAs, stdio: &Stdio) -> io::Result<(OwnedFd, OwnedFd, Pid)> {
    set_child_subreaper(Some(getpid()))?;
    let signals = sys::signal_descriptor(&[libc::SIGCHLD])?;
    let (report, tell) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut tell = File::from(tell);
    let pid = sys::spawn(&mut || {
        let stop = program.run(run_as, &guest.setup, stdio);
        // Nobody listens only if the supervisor has gone.
        let _ = tell.write_all(&stop.to_bytes());
        FAILED_TO_RUN
    })?;
    Ok((signals, report, pid))
}
