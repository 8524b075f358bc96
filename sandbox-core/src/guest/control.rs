//! One request's own socket: its answers come up, its commands go down, and its end ends the request.

use std::os::fd::OwnedFd;
use std::time::Duration;

use sandbox_guest::frame::{Incoming, Outgoing};
use sandbox_guest::wire::{Command, Failure, MAX_TO_GUEST, MAX_TO_HOST, Reply};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::{broken_off, failed, gone};
use crate::{Error, ErrorKind, Result};

/// The host's end of a request. Closing it ends what the request started.
#[derive(Debug)]
pub(crate) struct Control {
    socket: UnixStream,
    incoming: Incoming,
    /// Whether the sandbox has ended, too.
    closed: watch::Receiver<bool>,
}

impl Control {
    pub(super) fn new(socket: UnixStream, closed: watch::Receiver<bool>) -> Self {
        Self { socket, incoming: Incoming::new(MAX_TO_HOST), closed }
    }

    /// The next reply and what came with it. May be dropped and called again: nothing is lost.
    pub(crate) async fn reply(&mut self) -> Result<(Reply, Vec<OwnedFd>)> {
        loop {
            self.socket.readable().await.map_err(|_| gone())?;
            match self.socket.try_io(Interest::READABLE, || self.incoming.advance(&self.socket)) {
                Ok(()) => {
                    let frame = std::mem::replace(&mut self.incoming, Incoming::new(MAX_TO_HOST));
                    return frame.finish().map_err(broken);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == std::io::ErrorKind::InvalidData => return Err(broken(error)),
                Err(_) => return Err(broken_off(self.closed.clone()).await),
            }
        }
    }

    /// The next reply, which must come in time and must not be a failure.
    pub(crate) async fn answer(&mut self, what: &str, within: Duration) -> Result<(Reply, Vec<OwnedFd>)> {
        match tokio::time::timeout(within, self.reply()).await {
            Err(_) => Err(Error::deadline(what, within)),
            Ok(Ok((Reply::Failed(failure), _))) => Err(failed(what, &failure)),
            Ok(answer) => answer,
        }
    }

    /// Sends a command. It is a few bytes, and so goes whole or not at all.
    pub(crate) fn command(&self, command: &Command) -> Result<()> {
        let mut frame = Outgoing::new(command, MAX_TO_GUEST).map_err(broken)?;
        match frame.advance(&self.socket, &[]) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::new(ErrorKind::Guest, "the guest does not read its commands")),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Err(Error::new(ErrorKind::Guest, "the guest does not read its commands"))
            }
            Err(_) => Err(gone()),
        }
    }
}

/// The error for a reply that does not belong here.
pub(super) fn unexpected(what: &str, reply: &Reply) -> Error {
    let name = match reply {
        Reply::Done(_) => "done",
        Reply::Entries(_) => "entries",
        Reply::Entry(_) => "entry",
        Reply::Exited(_) => "exited",
        Reply::Failed(Failure { .. }) => "failed",
        Reply::Listening => "listening",
        Reply::Observed(_) => "observed",
        Reply::Started { .. } => "started",
    };
    Error::new(ErrorKind::Guest, format!("{what}: the guest answered with {name:?}, out of turn"))
}

fn broken(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Guest, "the guest broke its protocol").with_source(error)
}
