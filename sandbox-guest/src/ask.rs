//! The program `sudo`: asks the host for root inside, and waits for what comes of it.
//!
//! It is the guest's own program under another name, run by the agent and with no more rights than the agent has. It decides
//! nothing: its streams are passed on, and what it is told is written down.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use sandbox_guest::frame::{receive, send};
use sandbox_guest::sudo::{Answer, Ask, MAX_ANSWER, MAX_ASK, MAX_COMMAND, NAME, SOCKET};
use sandbox_guest::wire::{Command, Status};

use crate::sys;

/// Whether this program was called by that name.
pub(crate) fn is_called() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == NAME))
}

/// Asks, and gives the status to end with.
pub(crate) fn run() -> u8 {
    match ask() {
        Ok(status) => status,
        Err(error) => {
            // Whoever called may not read it.
            let _ = writeln!(io::stderr(), "sudo: the host could not be asked: {error}");
            1
        }
    }
}

fn ask() -> io::Result<u8> {
    let ask = Ask {
        arguments: std::env::args_os().skip(1).map(OsStringExt::into_vec).collect(),
        environment: std::env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec())).collect(),
        // A directory that is gone is as good as none.
        directory: std::env::current_dir().map_or_else(|_| b"/".to_vec(), |path| path.into_os_string().into_vec()),
    };
    let signals = sys::signal_descriptor(&PASSED_ON)?;
    let socket = UnixStream::connect(SOCKET)?;
    let (input, output, error) = (io::stdin(), io::stdout(), io::stderr());
    send(&socket, &ask, &[input.as_fd(), output.as_fd(), error.as_fd()], MAX_ASK)?;
    loop {
        let mut ready = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut ready, None))?;
        let [answered, signalled] = ready.map(|one| !one.revents().is_empty());
        if signalled {
            let mut told = [0; sys::SIGNAL_INFO];
            let length = rustix::io::read(&signals, &mut told)?;
            if let Some(number) = told[..length].first_chunk::<4>() {
                // A host that does not take it has answered, or has gone.
                let _ = send(&socket, &Command::Signal(i32::from_le_bytes(*number)), &[], MAX_COMMAND);
            }
        }
        if answered {
            let Some((answer, _)) = receive::<Answer>(&socket, MAX_ANSWER)? else {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it did not answer"));
            };
            return Ok(end(&answer));
        }
    }
}

fn end(answer: &Answer) -> u8 {
    match answer {
        Answer::Exited(exit) => match exit.status {
            Status::Code(code) => code,
            // As shells have it.
            Status::Signal(signal) => 128 | signal,
        },
        Answer::Said { status, output, error } => {
            // Whoever called may not read it.
            let _ = io::stdout().write_all(output.as_bytes());
            let _ = io::stderr().write_all(error.as_bytes());
            *status
        }
    }
}

/// What is meant for the program that runs.
const PASSED_ON: [i32; 7] =
    [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH];
