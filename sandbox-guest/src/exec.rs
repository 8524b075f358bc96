//! A program of the agent, up to the moment when it runs.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::{Resource, chdir, getrlimit, ioctl_tiocsctty, setsid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use sandbox_guest::wire::{Failure, FailureKind, RunAs, Setup};

use crate::agent::{Refusal, become_agent};
use crate::environment::Environment;
use crate::failure::{failure, invalid, kind_of, printable};
use crate::root::become_root;
use crate::sys;

/// What a program has as its standard streams.
#[derive(Debug)]
pub(crate) enum Stdio {
    /// Input, output and error.
    Pipes([OwnedFd; 3]),
    /// A terminal's slave, for all three.
    Terminal(OwnedFd),
}

/// A program that is ready to be run.
#[derive(Debug)]
pub(crate) struct Program {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    directory: Option<CString>,
    home: CString,
    candidates: Vec<CString>,
}

impl Program {
    /// Checks a request, and looks up where in `PATH` the program may be.
    pub(crate) fn new(
        argv: Vec<Vec<u8>>,
        directory: Option<Vec<u8>>,
        environment: &Environment,
    ) -> Result<Self, Failure> {
        let arguments = argv.into_iter().map(|argument| text("argv", argument)).collect::<Result<Vec<_>, _>>()?;
        let Some(program) = arguments.first() else {
            return Err(invalid("argv: no program given, at least one argument is needed"));
        };
        if directory.as_ref().is_some_and(|directory| !directory.starts_with(b"/")) {
            return Err(invalid("directory: a relative path, an absolute one is needed"));
        }
        let candidates = candidates(program.as_bytes(), environment.value("PATH").unwrap_or_default());
        Ok(Self {
            environment: environment.strings(),
            directory: directory.map(|directory| text("directory", directory)).transpose()?,
            home: text("HOME", environment.value("HOME").unwrap_or(b"/").to_vec())?,
            arguments,
            candidates,
        })
    }

    /// Turns this process into the program; returns only if that failed.
    pub(crate) fn run(&self, run_as: RunAs, setup: &Setup, stdio: &Stdio) -> Stop {
        match self.prepare(run_as, setup, stdio) {
            Ok(()) => self.execute(),
            Err(stop) => stop,
        }
    }

    fn prepare(&self, run_as: RunAs, setup: &Setup, stdio: &Stdio) -> Result<(), Stop> {
        sys::default_signals();
        let attach = || -> rustix::io::Result<()> {
            setsid()?;
            let [input, output, error] = match stdio {
                Stdio::Pipes(pipes) => pipes.each_ref(),
                Stdio::Terminal(slave) => {
                    ioctl_tiocsctty(slave)?;
                    [slave; 3]
                }
            };
            dup2_stdin(input)?;
            dup2_stdout(output)?;
            dup2_stderr(error)
        };
        attach().map_err(|error| Stop::new(Stage::Streams, &error.into()))?;
        let become_user = match run_as {
            RunAs::Agent => become_agent,
            RunAs::Root => become_root,
        };
        become_user(setup).map_err(|refusal| match refusal {
            Refusal::Limits(error) => Stop::new(Stage::Limits, &error),
            Refusal::Privileges(error) => Stop::new(Stage::Privileges, &error),
        })?;
        let entered = match &self.directory {
            Some(directory) => chdir(directory),
            None => chdir(&self.home).or_else(|_| chdir("/")),
        };
        entered.map_err(|error| Stop::new(Stage::Directory, &error.into()))?;
        sys::close_on_execute();
        Ok(())
    }

    /// Tries every candidate as execvp(3) does, but hands no script without an interpreter to a shell, and takes what
    /// is in a directory of `PATH` that the agent may not enter for missing, as shells do.
    fn execute(&self) -> Stop {
        let named = self.arguments.first().is_some_and(|program| program.as_bytes().contains(&b'/'));
        let mut stop = Stop { stage: Stage::Program, errno: libc::ENOENT };
        for candidate in &self.candidates {
            let error = sys::execute(candidate, &self.arguments, &self.environment);
            let exists = || accessat(CWD, candidate, Access::EXISTS, AtFlags::empty()).is_ok();
            match error.raw_os_error() {
                Some(libc::EACCES) if named || exists() => stop = Stop::new(Stage::Program, &error),
                Some(libc::ENOENT | libc::ENOTDIR) if stop.errno == libc::ENOENT && exists() => {
                    stop = Stop::new(Stage::Interpreter, &error);
                }
                Some(libc::EACCES | libc::ENOENT | libc::ENOTDIR) => {}
                _ => return Stop::new(Stage::Program, &error),
            }
        }
        stop
    }

    /// Tells why the program did not run.
    pub(crate) fn explain(&self, stop: Stop, setup: &Setup) -> Failure {
        let error = io::Error::from_raw_os_error(stop.errno);
        let name = printable(self.arguments.first().map(CString::as_bytes).unwrap_or_default());
        let (kind, message) = match stop.stage {
            Stage::Directory => {
                let directory = printable(self.directory.as_ref().unwrap_or(&self.home).as_bytes());
                (kind_of(stop.errno), format!("directory \"{directory}\": {error}"))
            }
            Stage::Interpreter => (
                FailureKind::ProgramNotFound,
                format!("program \"{name}\" exists, and the interpreter that it names does not"),
            ),
            Stage::Limits => {
                let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
                let asked = setup.open_files;
                (FailureKind::Io, format!("open files: {asked} asked, at most {most} are allowed here: {error}"))
            }
            Stage::Privileges => (FailureKind::Io, format!("privileges could not be dropped: {error}")),
            Stage::Program => (program_kind(stop.errno), format!("program \"{name}\": {error}")),
            Stage::Streams => (FailureKind::Io, format!("standard streams could not be set: {error}")),
        };
        failure(kind, stop.errno, message)
    }
}

fn program_kind(errno: i32) -> FailureKind {
    match errno {
        libc::ENOENT => FailureKind::ProgramNotFound,
        libc::E2BIG | libc::ENAMETOOLONG => FailureKind::Invalid,
        libc::EAGAIN | libc::EMFILE | libc::ENFILE | libc::ENOMEM => FailureKind::Exhausted,
        _ => FailureKind::NotRunnable,
    }
}

fn text(field: &str, bytes: Vec<u8>) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|error| {
        invalid(format!("{field}: \"{}\" holds a NUL, which no string of the kernel may", printable(&error.into_vec())))
    })
}

fn candidates(program: &[u8], path: &[u8]) -> Vec<CString> {
    if program.is_empty() {
        return Vec::new();
    }
    if program.contains(&b'/') {
        return CString::new(program).into_iter().collect();
    }
    let below = |directory: &[u8]| {
        let directory = if directory.is_empty() { b"." } else { directory };
        CString::new([directory, b"/", program].concat()).ok()
    };
    path.split(|&byte| byte == b':').filter_map(below).collect()
}

/// Where a program stopped on its way, and the error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    stage: Stage,
    errno: i32,
}

/// A step on a program's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Directory,
    Interpreter,
    Limits,
    Privileges,
    Program,
    Streams,
}

const STAGES: [Stage; 6] =
    [Stage::Directory, Stage::Interpreter, Stage::Limits, Stage::Privileges, Stage::Program, Stage::Streams];

impl Stop {
    /// How many bytes one takes on the way to its supervisor: few enough for a pipe to carry them whole (pipe(7)).
    pub(crate) const SIZE: usize = 5;

    fn new(stage: Stage, error: &io::Error) -> Self {
        Self { stage, errno: error.raw_os_error().unwrap_or(libc::EIO) }
    }

    /// Writes it down.
    pub(crate) fn to_bytes(self) -> [u8; Self::SIZE] {
        let [a, b, c, d] = self.errno.to_le_bytes();
        [self.stage as u8, a, b, c, d]
    }

    /// Reads what [`Stop::to_bytes`] wrote.
    pub(crate) fn from_bytes([stage, a, b, c, d]: [u8; Self::SIZE]) -> Option<Self> {
        Some(Self { stage: *STAGES.get(usize::from(stage))?, errno: i32::from_le_bytes([a, b, c, d]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_survives_its_pipe() {
        for stage in STAGES {
            let stop = Stop { stage, errno: libc::ENOEXEC };
            assert_eq!(Stop::from_bytes(stop.to_bytes()), Some(stop));
        }
        assert_eq!(Stop::from_bytes([6, 0, 0, 0, 0]), None);
    }

    #[test]
    fn a_program_is_looked_up_as_a_shell_does() {
        let strings = |list: &[&str]| list.iter().map(|s| CString::new(*s).unwrap()).collect::<Vec<_>>();
        assert_eq!(candidates(b"ls", b"/bin::/opt"), strings(&["/bin/ls", "./ls", "/opt/ls"]));
        assert_eq!(candidates(b"./ls", b"/bin"), strings(&["./ls"]));
        assert!(candidates(b"", b"/bin").is_empty());
    }
}
