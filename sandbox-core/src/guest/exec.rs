//! Programs inside: three pipes, an exit status, and an end that nothing inside can put off.
//!
//! The program writes straight into the pipes that the host reads: no process and no copy stands between.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use sandbox_guest::wire::{Command as Order, Exec, Exit, Reply, Request, RunAs, WindowSize};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::time::Instant;

use super::control::unexpected;
use super::streams::{Kept, Mover, Outlet, pipe, sender, writing};
use super::terminal::Terminal;
use super::{ANSWER, Control, Guest, failed, shown};
use crate::{Error, ErrorKind, Result};

/// How long the guest may take to end what is past its deadline and its grace.
const UNWINDING: Duration = Duration::from_secs(30);

/// Bytes of each stream that [`Command::output`] keeps unless told otherwise.
const OUTPUT_LIMIT: usize = 16 << 20;

impl Guest {
    /// Prepares to run a program as the agent. A name without a slash is looked up in the sandbox's `PATH`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        Command {
            guest: self.clone(),
            exec: Exec {
                argv: vec![program.as_ref().as_bytes().to_vec()],
                environment: Vec::new(),
                directory: None,
                deadline: None,
                grace: 2000,
                terminal: None,
                run_as: RunAs::Agent,
            },
            stdin: Stdin::Null,
            output_limit: OUTPUT_LIMIT,
        }
    }
}

/// A program to run, in the manner of [`std::process::Command`].
#[derive(Clone, Debug)]
#[must_use = "a command does nothing until it is run"]
pub struct Command {
    guest: Guest,
    exec: Exec,
    stdin: Stdin,
    output_limit: usize,
}

/// What a program reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stdin {
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// The end at once.
    #[default]
    Null,
    /// What [`Process::take_stdin`] is given.
    Pipe,
}

impl Command {
    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.exec.argv.push(argument.as_ref().as_bytes().to_vec());
        self
    }

    /// Adds arguments.
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.exec.argv.extend(arguments.into_iter().map(|argument| argument.as_ref().as_bytes().to_vec()));
        self
    }

    /// Sets a variable for this program alone.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.exec.environment.push((name.as_ref().as_bytes().to_vec(), value.as_ref().as_bytes().to_vec()));
        self
    }

    /// Sets variables for this program alone.
    pub fn envs<N: AsRef<OsStr>, V: AsRef<OsStr>>(self, variables: impl IntoIterator<Item = (N, V)>) -> Self {
        variables.into_iter().fold(self, |command, (name, value)| command.env(name, value))
    }

    /// Sets the working directory; without it, the program starts in the workspace, or in the agent's home.
    pub fn directory(mut self, path: impl AsRef<OsStr>) -> Self {
        self.exec.directory = Some(path.as_ref().as_bytes().to_vec());
        self
    }

    /// Ends the program and everything that it started after this time.
    pub fn deadline(mut self, after: Duration) -> Self {
        self.exec.deadline = Some(u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// Sets the time between the signal that asks for the end (`SIGTERM`) and the one that brings it; 2 s without it.
    pub fn grace(mut self, time: Duration) -> Self {
        self.exec.grace = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Sets what the program reads.
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Sets how many bytes of each stream [`output`](Self::output) keeps; 16 MiB without it.
    pub fn output_limit(mut self, bytes: usize) -> Self {
        self.output_limit = bytes;
        self
    }

    /// Starts the program.
    ///
    /// # Errors
    /// `CommandNotFound`, `CommandNotRunnable`, `NotFound` for the working directory, `Exhausted` where no process can be
    /// made, `SandboxGone`.
    pub async fn spawn(self) -> Result<Process> {
        let what = self.what();
        let latest = self.latest();
        let (stdin_theirs, stdin_ours) = pipe()?;
        let (stdout_ours, stdout_theirs) = pipe()?;
        let (stderr_ours, stderr_theirs) = pipe()?;
        let stdin = match &self.stdin {
            Stdin::Null => None,
            Stdin::Bytes(_) | Stdin::Pipe => Some(sender(stdin_ours)?),
        };
        let (stdout, stderr) = (Outlet::new(stdout_ours)?, Outlet::new(stderr_ours)?);
        let give = vec![stdin_theirs, stdout_theirs, stderr_theirs];
        let mut control = self.guest.request(Request::Exec(self.exec), give).await?;
        let pid = match control.answer(&what, ANSWER).await? {
            (Reply::Started { pid }, _) => pid,
            (reply, _) => return Err(unexpected(&what, &reply)),
        };
        let input = match self.stdin {
            Stdin::Bytes(bytes) => bytes,
            Stdin::Null | Stdin::Pipe => Vec::new(),
        };
        Ok(Process { control, pid, latest, stdin, input, stdout, stderr, exit: None })
    }

    /// Runs the program to its end and keeps what it wrote.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub async fn output(self) -> Result<Output> {
        let limit = self.output_limit;
        let mut process = self.spawn().await?;
        let (mut stdout, mut stderr) = (Kept::new(limit), Kept::new(limit));
        let exit = process.copy_output(&mut stdout, &mut stderr).await?;
        Ok(Output {
            exit,
            stdout: stdout.bytes,
            stderr: stderr.bytes,
            stdout_dropped: stdout.dropped,
            stderr_dropped: stderr.dropped,
        })
    }

    /// Starts the program on a terminal of its own.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub async fn terminal(mut self, size: WindowSize) -> Result<Terminal> {
        let what = self.what();
        let latest = self.latest();
        self.exec.terminal = Some(size);
        let mut control = self.guest.request(Request::Exec(self.exec), Vec::new()).await?;
        match control.answer(&what, ANSWER).await? {
            (Reply::Started { pid }, descriptors) => Terminal::new(control, pid, latest, descriptors),
            (reply, _) => Err(unexpected(&what, &reply)),
        }
    }

    /// When the guest must have said that the program has ended, whatever it is busy with.
    fn latest(&self) -> Option<Instant> {
        let deadline = Duration::from_millis(self.exec.deadline?);
        Instant::now().checked_add(deadline + Duration::from_millis(self.exec.grace) + UNWINDING)
    }

    fn what(&self) -> String {
        format!("running {}", self.exec.argv.first().map_or_else(String::new, |program| shown(program)))
    }
}

/// A running program. Dropping it ends the program and everything that it started.
#[derive(Debug)]
pub struct Process {
    control: Control,
    pid: u32,
    latest: Option<Instant>,
    stdin: Option<pipe::Sender>,
    input: Vec<u8>,
    stdout: Outlet,
    stderr: Outlet,
    exit: Option<Exit>,
}

impl Process {
    /// The process id inside.
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// Takes the end that the program reads from; closing it is the end of its input.
    pub fn take_stdin(&mut self) -> Option<pipe::Sender> {
        self.stdin.take()
    }

    /// The program's standard output.
    ///
    /// # Errors
    /// `Exhausted` or `Io` where tokio cannot watch one more pipe.
    pub fn stdout(&mut self) -> Result<&mut pipe::Receiver> {
        self.stdout.watched()
    }

    /// The program's standard error.
    ///
    /// # Errors
    /// As [`stdout`](Self::stdout).
    pub fn stderr(&mut self) -> Result<&mut pipe::Receiver> {
        self.stderr.watched()
    }

    /// Takes the program's standard output, for a caller who moves the bytes without a copy; here, it is at its end.
    ///
    /// # Errors
    /// As [`stdout`](Self::stdout).
    pub fn take_stdout(&mut self) -> Result<pipe::Receiver> {
        self.stdout.take()
    }

    /// Takes the program's standard error, as [`take_stdout`](Self::take_stdout) takes its output.
    ///
    /// # Errors
    /// As [`take_stdout`](Self::take_stdout).
    pub fn take_stderr(&mut self) -> Result<pipe::Receiver> {
        self.stderr.take()
    }

    /// Sends a signal, by number, to the program's process group.
    ///
    /// # Errors
    /// `InvalidInput` for a number that is no signal, `SandboxGone` when the program has ended.
    pub fn signal(&self, signal: i32) -> Result<()> {
        signal_over(&self.control, signal)
    }

    /// Ends the program and everything that it started, at once. [`wait`](Self::wait) tells when it is done.
    ///
    /// # Errors
    /// `SandboxGone` when the program has ended.
    pub fn kill(&self) -> Result<()> {
        self.control.command(&Order::Kill)
    }

    /// Waits for the program to end. What it left running goes on; what it wrote can still be read.
    ///
    /// # Errors
    /// `SandboxGone` if the sandbox ends first, `DeadlineExceeded` if the guest does not keep the program's deadline.
    pub async fn wait(&mut self) -> Result<Exit> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let exit = exited(&mut self.control, self.latest).await?;
        self.exit = Some(exit);
        Ok(exit)
    }

    /// Feeds the program its input, copies what it writes until it ends, and then what is still in the pipes.
    ///
    /// The end is the program's, not the pipes': a background process that keeps them open holds nobody up.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and `Io` if a writer fails.
    pub async fn copy_output(
        &mut self,
        mut stdout: impl AsyncWrite + Unpin,
        mut stderr: impl AsyncWrite + Unpin,
    ) -> Result<Exit> {
        let input = std::mem::take(&mut self.input);
        // Input is fed only where bytes were given; a pipe that the caller wants to feed stays the caller's.
        let pipe_end = if input.is_empty() { None } else { self.stdin.take() };
        let feed = async {
            if let Some(mut stdin) = pipe_end {
                // A program that does not read to the end is no error.
                let _ = stdin.write_all(&input).await;
            }
        };
        let (mut out, mut err) = (Mover::default(), Mover::default());
        let exit = {
            let streams = async {
                let out = out.copy(&mut self.stdout, &mut stdout);
                let err = err.copy(&mut self.stderr, &mut stderr);
                tokio::try_join!(out, err).map(|_| ())
            };
            let ended = async {
                match self.exit {
                    Some(exit) => Ok(exit),
                    None => exited(&mut self.control, self.latest).await,
                }
            };
            tokio::pin!(streams, ended, feed);
            let (mut copying, mut feeding) = (true, true);
            loop {
                tokio::select! {
                    exit = &mut ended => break exit?,
                    result = &mut streams, if copying => { result?; copying = false; }
                    () = &mut feed, if feeding => feeding = false,
                }
            }
        };
        self.exit = Some(exit);
        out.drain(&mut self.stdout, &mut stdout).await?;
        err.drain(&mut self.stderr, &mut stderr).await?;
        stdout.flush().await.map_err(writing)?;
        stderr.flush().await.map_err(writing)?;
        Ok(exit)
    }
}

/// What a program wrote, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output, up to the limit.
    pub stdout: Vec<u8>,
    /// Its standard error, up to the limit.
    pub stderr: Vec<u8>,
    /// Bytes of standard output beyond the limit.
    pub stdout_dropped: u64,
    /// Bytes of standard error beyond the limit.
    pub stderr_dropped: u64,
}

/// The program's end, as the guest tells it. A deadline is the guest's to keep; one that keeps it late is not waited for.
pub(super) async fn exited(control: &mut Control, latest: Option<Instant>) -> Result<Exit> {
    let reply = match latest {
        None => control.reply().await,
        Some(latest) => tokio::time::timeout_at(latest, control.reply())
            .await
            .unwrap_or_else(|_| Err(Error::deadline("the end of a program that is past its deadline", UNWINDING))),
    };
    match reply? {
        (Reply::Exited(exit), _) => Ok(exit),
        (Reply::Failed(failure), _) => Err(failed("running the program", &failure)),
        (reply, _) => Err(unexpected("running the program", &reply)),
    }
}

pub(super) fn signal_over(control: &Control, signal: i32) -> Result<()> {
    if !(1..=64).contains(&signal) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            format!("signal {signal} does not exist: 1 to 64 are allowed"),
        ));
    }
    control.command(&Order::Signal(signal))
}
