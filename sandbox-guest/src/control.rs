//! The socket of one request: replies up, commands down.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use sandbox_guest::frame::{Incoming, Outgoing};
use sandbox_guest::wire::{Command, Failure, MAX_TO_HOST, Reply};

/// The largest command that is accepted, in bytes.
const MAX_COMMAND: usize = 64;

/// A request's control. It never blocks a process that does not choose to wait.
#[derive(Debug)]
pub(crate) struct Control {
    socket: OwnedFd,
    incoming: Incoming,
}

impl Control {
    /// Takes over a socket that the host passed.
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self { socket, incoming: Incoming::new(MAX_COMMAND) })
    }

    /// Sends a reply if the socket takes it at once.
    pub(crate) fn post(&self, reply: &Reply, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let whole = Outgoing::new(reply, MAX_TO_HOST)?.advance(&self.socket, descriptors)?;
        if whole { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    /// Sends a reply, and waits for as long as the host is there and does not read.
    pub(crate) fn send(&self, reply: &Reply) -> io::Result<()> {
        let mut frame = Outgoing::new(reply, MAX_TO_HOST)?;
        loop {
            match frame.advance(&self.socket, &[]) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut ready = [PollFd::new(&self.socket, PollFlags::OUT)];
                    rustix::io::retry_on_intr(|| poll(&mut ready, None))?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Gives the next command, or `None` if none has come yet; the end of the socket is `UnexpectedEof`.
    pub(crate) fn next(&mut self) -> io::Result<Option<Command>> {
        match self.incoming.advance(&self.socket) {
            Ok(()) => {
                let frame = std::mem::replace(&mut self.incoming, Incoming::new(MAX_COMMAND));
                frame.finish().map(|(command, _)| Some(command))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for the next command.
    pub(crate) fn wait(&mut self) -> io::Result<Command> {
        loop {
            if let Some(command) = self.next()? {
                return Ok(command);
            }
            let mut ready = [PollFd::new(&self.socket, PollFlags::IN)];
            rustix::io::retry_on_intr(|| poll(&mut ready, None))?;
        }
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Tells a host that its request was not carried out, if it listens.
pub(crate) fn refuse(control: OwnedFd, failure: Failure) {
    if let Ok(control) = Control::new(control) {
        // A host that does not take the answer has gone, or will see the control close.
        let _ = control.post(&Reply::Failed(failure), &[]);
    }
}
