//! The host's end of the guest's channel.
//!
//! A [`Guest`] is a handle that can be cloned and sent: behind it, one task owns the socket, announces each request
//! to the audit sink and only then sends it. Everything else travels over the request's own *control* socket, so
//! dropping a future, at any point, closes the control and thereby ends what it started inside.

mod control;
mod exec;
mod files;
mod listen;
mod relay;
mod streams;
mod terminal;

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use sandbox_guest::frame::{self, Outgoing};
use sandbox_guest::wire::{Failure, FailureKind, MAX_DESCRIPTORS, MAX_TO_GUEST, MAX_TO_HOST, Reply, Request, Socket};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Notify, mpsc, watch};

pub(crate) use control::Control;
pub use exec::{Command, Output, Process, Stdin};
pub use files::TransferLimits;
pub(crate) use relay::relayed;
pub(crate) use streams::Kept;
pub use terminal::Terminal;

use crate::{Error, ErrorKind, Event, Events, Result};

/// How long the guest may take to answer a request that moves nothing.
pub(crate) const ANSWER: Duration = Duration::from_secs(30);

/// Speaks to the first process of a sandbox.
#[derive(Clone, Debug)]
pub struct Guest {
    requests: mpsc::Sender<Outbound>,
    closing: Arc<Notify>,
    closed: watch::Receiver<bool>,
}

/// A request on its way, with the descriptors that it gives away.
#[derive(Debug)]
struct Outbound {
    request: Request,
    /// The control first, then what the request's kind asks for.
    descriptors: Vec<OwnedFd>,
}

impl Guest {
    /// Speaks over a connected channel on which the greetings are done, announcing each request to `events`.
    pub(crate) fn new(channel: UnixStream, events: Option<Events>) -> Self {
        let (requests, queue) = mpsc::channel(64);
        let (ended, closed) = watch::channel(false);
        let closing = Arc::new(Notify::new());
        let asked = Arc::clone(&closing);
        // The task ends with the last handle, or with the guest, or when it is told to: it outlives nothing.
        #[expect(clippy::disallowed_methods, reason = "this is the channel's one owner")]
        tokio::spawn(async move {
            tokio::select! {
                () = carry(channel, queue, events) => {}
                () = asked.notified() => {}
            }
            ended.send_replace(true);
        });
        Self { requests, closing, closed }
    }

    /// Speaks through another process that holds the sandbox and audits what passes, such as the command's supervisor.
    ///
    /// # Errors
    /// `Io` if the socket cannot be registered with the runtime.
    pub fn attach(socket: StdUnixStream) -> Result<Self> {
        socket.set_nonblocking(true).map_err(|error| Error::io("cannot use the supervisor's socket", error))?;
        let socket =
            UnixStream::from_std(socket).map_err(|error| Error::io("cannot use the supervisor's socket", error))?;
        Ok(Self::new(socket, None))
    }

    /// Passes on a request that another process made, as it came: a supervisor's half of [`attach`](Self::attach).
    ///
    /// # Errors
    /// `SandboxGone` when the guest has ended.
    pub async fn forward(&self, request: Request, descriptors: Vec<OwnedFd>) -> Result<()> {
        self.requests.send(Outbound { request, descriptors }).await.map_err(|_| gone())
    }

    /// Waits until the guest has ended, and the sandbox with it.
    pub async fn closed(&self) {
        // An error means that the task is gone, and the channel with it.
        let _ = self.closed.clone().wait_for(|closed| *closed).await;
    }

    /// Closes the channel, whoever else holds a handle: the guest ends, and the sandbox's programs with it.
    pub(crate) fn close(&self) {
        self.closing.notify_one();
    }

    /// Makes a request; `give` holds the descriptors that its kind asks for after the control.
    pub(crate) async fn request(&self, request: Request, give: Vec<OwnedFd>) -> Result<Control> {
        let (ours, theirs) = StdUnixStream::pair().map_err(|error| Error::io("cannot make a control socket", error))?;
        ours.set_nonblocking(true).map_err(|error| Error::io("cannot make a control socket", error))?;
        let control = UnixStream::from_std(ours).map_err(|error| Error::io("cannot make a control socket", error))?;
        let mut descriptors = Vec::with_capacity(MAX_DESCRIPTORS);
        descriptors.push(OwnedFd::from(theirs));
        descriptors.extend(give);
        tokio::time::timeout(ANSWER, self.forward(request, descriptors))
            .await
            .unwrap_or_else(|_| Err(Error::deadline("taking the request", ANSWER)))?;
        Ok(Control::new(control, self.closed.clone()))
    }
}

/// Sends requests until no handle is left or the guest breaks off. The guest never speaks here again, so anything
/// that can be read is its end.
async fn carry(channel: UnixStream, mut queue: mpsc::Receiver<Outbound>, events: Option<Events>) {
    loop {
        let outbound = tokio::select! {
            biased;
            outbound = queue.recv() => outbound,
            () = hung_up(&channel) => None,
        };
        let Some(outbound) = outbound else { return };
        let control = outbound.descriptors.first();
        let refused = match (&events, announcement(&outbound.request)) {
            (Some(events), Some(event)) => events.announce(event).err(),
            _ => None,
        };
        let frame = match refused {
            Some(error) => Err((FailureKind::Denied, error.to_string())),
            None => Outgoing::new(&outbound.request, MAX_TO_GUEST)
                .map_err(|error| (FailureKind::Invalid, error.to_string())),
        };
        match frame {
            Ok(frame) => {
                if send(&channel, frame, &outbound.descriptors).await.is_err() {
                    return;
                }
            }
            Err((kind, message)) => {
                if let Some(control) = control {
                    // A requester that has gone needs no answer.
                    let failure = Reply::Failed(Failure { kind, errno: 0, message });
                    let _ = frame::send(control, &failure, &[], MAX_TO_HOST);
                }
            }
        }
    }
}

/// Waits until the guest has closed the channel, or has said something out of turn.
async fn hung_up(channel: &UnixStream) {
    let mut byte = [0];
    while channel.readable().await.is_ok() {
        match channel.try_read(&mut byte) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

/// Sends a whole frame.
pub(crate) async fn send(channel: &UnixStream, mut frame: Outgoing, descriptors: &[OwnedFd]) -> std::io::Result<()> {
    let borrowed: Vec<_> = descriptors.iter().map(|descriptor| descriptor.as_fd()).collect();
    loop {
        channel.writable().await?;
        match channel.try_io(Interest::WRITABLE, || frame.advance(channel, &borrowed)) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The event that precedes a request; looking changes nothing and needs none.
fn announcement(request: &Request) -> Option<Event> {
    let (operation, path) = match request {
        Request::Attest | Request::List { .. } | Request::Stat { .. } => return None,
        Request::Exec(exec) => {
            return Some(Event::Executing { program: exec.argv.first().map_or_else(String::new, |name| shown(name)) });
        }
        Request::Listen(socket) => {
            let socket = match socket {
                Socket::Loopback { port } => format!("127.0.0.1:{port}"),
                Socket::Unix { path, mode: _ } => shown(path),
            };
            return Some(Event::Listening { socket });
        }
        Request::MakeDirectory { path } => ("make-directory", path),
        Request::Pack { path } => ("download", path),
        Request::Place { path, mode: _ } => ("place", path),
        Request::Share { path } => ("share", path),
        Request::Read { path } => ("read", path),
        Request::Remove { path } => ("remove", path),
        Request::Unpack { path } => ("upload", path),
        Request::Write { path, mode: _ } => ("write", path),
    };
    Some(Event::Transferring { operation, path: shown(path) })
}

/// Bytes for a log: escaped, so that no line and no terminal can be forged, and bounded.
pub(crate) fn shown(bytes: &[u8]) -> String {
    const MOST: usize = 256;
    let mut text = bytes[..bytes.len().min(MOST)].escape_ascii().to_string();
    if bytes.len() > MOST {
        text.push('…');
    }
    text
}

/// The error of a sandbox whose guest has ended.
pub(crate) fn gone() -> Error {
    Error::new(ErrorKind::SandboxGone, "the sandbox has ended")
}

/// How long after a request's control the sandbox's own end is seen, if it is what closed the control.
const SETTLE: Duration = Duration::from_secs(2);

/// The error for a control that closed before its last answer: the sandbox has ended, or only whoever served it has.
async fn broken_off(mut closed: watch::Receiver<bool>) -> Error {
    match tokio::time::timeout(SETTLE, closed.wait_for(|closed| *closed)).await {
        Ok(_) => gone(),
        Err(_) => Error::new(ErrorKind::Guest, "what served the request inside was killed before it was done"),
    }
}

/// The error for what the guest could not do.
pub(crate) fn failed(what: &str, failure: &Failure) -> Error {
    let kind = match failure.kind {
        FailureKind::Denied => ErrorKind::Denied,
        FailureKind::Exhausted => ErrorKind::Exhausted,
        FailureKind::Invalid | FailureKind::WrongKind => ErrorKind::InvalidInput,
        FailureKind::Io => ErrorKind::Io,
        FailureKind::NotFound => ErrorKind::NotFound,
        FailureKind::ProgramNotFound => ErrorKind::CommandNotFound,
        FailureKind::NotRunnable => ErrorKind::CommandNotRunnable,
    };
    let message: String = failure.message.chars().filter(|c| !c.is_control()).take(1024).collect();
    Error::new(kind, format!("{what}: {message}"))
}

#[cfg(test)]
mod tests;
