//! Makes a container and starts its process 1: the guest's other mode, for a runtime that has no engine.
//!
//! Two processes do it. This one stays outside, with whatever privilege it was started with: it makes the second in
//! new namespaces, says who is who in them, and prepares what only the outside can, in a mount namespace of its own. The
//! second builds the tree and becomes process 1. Each step that fails is told, and then nothing is left: what was
//! mounted goes with the two mount namespaces, and nothing else was made.

mod bundle;
mod filesystems;
mod inside;
mod mounts;
mod outside;
mod paths;
mod sys;

use std::io;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, setsid, umask, waitpid};
use rustix::stdio::{dup2_stdin, stdin};
use sandbox_guest::frame::{receive, send};
use sandbox_guest::launch::{Launch, MAX_LAUNCH, MAX_OUTCOME, Outcome, Step};

/// A step that failed.
#[derive(Debug)]
pub(crate) struct Broken {
    step: Step,
    doing: String,
    error: io::Error,
}

impl Broken {
    fn outcome(self) -> Outcome {
        let mut doing = self.doing;
        doing.truncate(doing.floor_char_boundary(MAX_DOING));
        if self.error.raw_os_error().is_none() {
            doing = format!("{doing}: {}", self.error);
        }
        Outcome::Failed { step: self.step, doing, errno: self.error.raw_os_error().unwrap_or(0) }
    }
}

/// Says which step a call belongs to, and what it does.
trait During<T> {
    fn during(self, step: Step, doing: impl Into<String>) -> Result<T, Broken>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, step: Step, doing: impl Into<String>) -> Result<T, Broken> {
        self.map_err(|error| Broken { step, doing: doing.into(), error: error.into() })
    }
}

/// The longest words about a step, in bytes.
const MAX_DOING: usize = 1 << 10;

/// Carries out the launch that comes over the standard input.
pub(crate) fn run() -> ExitCode {
    crate::sys::close_inherited();
    let Ok(channel) = take_channel() else { return ExitCode::FAILURE };
    let (outcome, first) = match launch(&channel) {
        Ok((first, loop_device)) => {
            let pid = first.as_raw_nonzero().get().unsigned_abs();
            (Outcome::Started { pid, loop_device }, Some(first))
        }
        Err(broken) => (broken.outcome(), None),
    };
    if send(&channel, &outcome, &[], MAX_OUTCOME).is_ok() {
        return ExitCode::SUCCESS;
    }
    // Nobody wants it any more.
    if let Some(first) = first {
        end(first);
    }
    ExitCode::FAILURE
}

/// Takes the socket from the standard input, so that nothing started later finds it there.
fn take_channel() -> io::Result<UnixStream> {
    let channel = stdin().try_clone_to_owned()?;
    let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    dup2_stdin(&null)?;
    Ok(UnixStream::from(channel))
}

fn launch(channel: &UnixStream) -> Result<(Pid, Option<u32>), Broken> {
    let received = receive::<Launch>(channel, MAX_LAUNCH).during(Step::Request, "read the request")?;
    let Some((launch, descriptors)) = received else {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).during(Step::Request, "read the request");
    };
    umask(Mode::WGRP | Mode::WOTH);
    // A signal to the caller's terminal is none of the sandbox's; a process that leads its group already is as good.
    let _ = setsid();
    match &launch.bundle {
        None => outside::launch(&launch),
        Some(bundle) => {
            let stream = descriptors.into_iter().next().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput));
            bundle::launch(&launch, bundle, &stream.during(Step::Request, "take the container's stream")?)
        }
    }
}

/// Ends a process that was made here, and waits until it is gone.
fn end(child: Pid) {
    // It may have ended by itself.
    let _ = kill_process(child, Signal::KILL);
    let _ = rustix::io::retry_on_intr(|| waitpid(Some(child), WaitOptions::empty()));
}
