//! Attends a program: joins its streams to this process's own, hands signals on, and waits for its end.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use rustix::fs::{FileType, fstat, major, minor};
use sandbox_core::{Command, ErrorKind, Exit, Process, Stdin, Terminal};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::exit;
use crate::failure::{Failure, Result};
use crate::pump::Pump;
use crate::signals::Signals;
use crate::terminal::{self, Raw};

/// How long a program may take to end after a signal.
const GRACE: Duration = Duration::from_secs(10);

/// How long the sandbox may take to say that a program that was killed has ended.
const KILL_WITHIN: Duration = Duration::from_secs(5);

/// How a program ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    /// The first signal that this process got meanwhile.
    signal: Option<i32>,
}

impl Ended {
    /// The code to exit with.
    pub(crate) fn code(&self) -> u8 {
        self.signal.map_or_else(|| exit::of(self.exit), exit::after_signal)
    }
}

/// What a program's streams are joined to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streams {
    /// This process's own, through pipes.
    Pipes,
    /// This process's terminal, through one of its own.
    Terminal,
}

/// Runs a program to its end.
pub(crate) async fn attend(command: Command, streams: Streams, signals: &mut Signals) -> Result<Ended> {
    let mut joined = match streams {
        Streams::Pipes => Joined::pipes(command).await?,
        Streams::Terminal => Joined::terminal(command).await?,
    };
    let mut urge = Urge::default();
    let exit = loop {
        let given = tokio::select! {
            exit = joined.program.wait() => break exit?,
            () = window_changed(&mut joined.resized) => {
                joined.program.resize()?;
                continue;
            }
            given = urge.next(signals) => given,
        };
        // A program that has just ended cannot be signalled, and need not be.
        let _ = match given {
            Push::GiveUp => {
                let message = "the program was killed, and the sandbox does not say that it has ended";
                return Err(Failure::new(ErrorKind::DeadlineExceeded, message));
            }
            Push::Kill => joined.program.kill(),
            Push::Signal(signal) => joined.program.signal(signal),
        };
    };
    joined.finish(signals, &mut urge).await?;
    Ok(Ended { exit, signal: urge.signal })
}

/// A program whose streams are joined to this process's own.
#[derive(Debug)]
struct Joined {
    program: Program,
    input: Option<Pump>,
    output: Vec<Pump>,
    resized: Option<Signal>,
    raw: Option<Raw>,
}

impl Joined {
    async fn pipes(command: Command) -> Result<Self> {
        let stdin = if is_input_given() { Stdin::Pipe } else { Stdin::Null };
        let mut process = command.stdin(stdin).spawn().await?;
        let stdout = process.take_stdout()?.into_nonblocking_fd().map_err(unjoined)?;
        let stderr = process.take_stderr()?.into_nonblocking_fd().map_err(unjoined)?;
        let input = match process.take_stdin() {
            Some(pipe) => {
                let target = pipe.into_nonblocking_fd().map_err(unjoined)?;
                Some(Pump::start("stdin", rustix::stdio::stdin(), target).map_err(unjoined)?)
            }
            None => None,
        };
        let output = vec![
            Pump::start("stdout", stdout, rustix::stdio::stdout()).map_err(unjoined)?,
            Pump::start("stderr", stderr, rustix::stdio::stderr()).map_err(unjoined)?,
        ];
        Ok(Self { program: Program::Pipes(process), input, output, resized: None, raw: None })
    }

    async fn terminal(command: Command) -> Result<Self> {
        let resized = Some(signal(SignalKind::window_change()).map_err(unjoined)?);
        let terminal = command.terminal(terminal::size()).await?;
        let end = || terminal.as_fd().try_clone_to_owned().map_err(unjoined);
        let raw = Some(Raw::enter().map_err(unjoined)?);
        let input = Some(Pump::start("keys", rustix::stdio::stdin(), end()?).map_err(unjoined)?);
        let output = vec![Pump::start("screen", end()?, rustix::stdio::stdout()).map_err(unjoined)?];
        Ok(Self { program: Program::Terminal(terminal), input, output, resized, raw })
    }

    /// Passes on what the program wrote last.
    async fn finish(mut self, signals: &mut Signals, urge: &mut Urge) -> Result<()> {
        drop(self.input.take());
        for stream in &self.output {
            stream.drain();
        }
        for stream in &mut self.output {
            tokio::select! {
                moved = stream.done() => match moved {
                    // What nobody reads any more has told the program so, by SIGPIPE or EPIPE.
                    Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                        return Err(Failure::io("cannot pass on the program's output", error));
                    }
                    _ => {}
                },
                // A reader that is stuck is not waited for.
                signal = signals.next() => {
                    urge.signal.get_or_insert(signal);
                    break;
                }
            }
        }
        drop(self.raw);
        Ok(())
    }
}

#[derive(Debug)]
enum Program {
    Pipes(Process),
    Terminal(Terminal),
}

impl Program {
    async fn wait(&mut self) -> sandbox_core::Result<Exit> {
        match self {
            Self::Pipes(process) => process.wait().await,
            Self::Terminal(terminal) => terminal.wait().await,
        }
    }

    fn signal(&self, signal: i32) -> sandbox_core::Result<()> {
        match self {
            Self::Pipes(process) => process.signal(signal),
            Self::Terminal(terminal) => terminal.signal(signal),
        }
    }

    fn kill(&self) -> sandbox_core::Result<()> {
        match self {
            Self::Pipes(process) => process.kill(),
            Self::Terminal(terminal) => terminal.kill(),
        }
    }

    fn resize(&self) -> sandbox_core::Result<()> {
        match self {
            Self::Pipes(_) => Ok(()),
            Self::Terminal(terminal) => terminal.resize(terminal::size()),
        }
    }
}

/// A program's end, as this process's own signals ask for it.
#[derive(Debug, Default)]
struct Urge {
    /// The first signal.
    signal: Option<i32>,
    /// When patience ends.
    patience: Option<Instant>,
    killed: bool,
}

/// What a program is given to make it end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Push {
    GiveUp,
    Kill,
    Signal(i32),
}

impl Urge {
    /// Waits for a signal, which the program gets; for a second one or the end of patience, which kills it; and for the
    /// end of patience after that, since whoever is asked to kill it is inside as well.
    async fn next(&mut self, signals: &mut Signals) -> Push {
        let patience = self.patience;
        let over = async move {
            match patience {
                Some(instant) => tokio::time::sleep_until(instant).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            signal = signals.next() => {
                if self.signal.is_none() {
                    self.signal = Some(signal);
                    self.patience = Some(Instant::now() + GRACE);
                    return Push::Signal(signal);
                }
            }
            () = over => {}
        }
        if self.killed {
            return Push::GiveUp;
        }
        self.killed = true;
        self.patience = Some(Instant::now() + KILL_WITHIN);
        Push::Kill
    }
}

async fn window_changed(resized: &mut Option<Signal>) {
    match resized {
        Some(resized) => {
            resized.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Whether standard input holds anything: it is not `/dev/null`, the character device 1:3 (null(4)), which also
/// stands in where it was closed.
fn is_input_given() -> bool {
    fstat(rustix::stdio::stdin()).is_ok_and(|stat| {
        let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
        !(device && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3))
    })
}

fn unjoined(error: io::Error) -> Failure {
    Failure::io("cannot join the program's streams", error)
}
