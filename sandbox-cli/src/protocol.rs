//! What a client and the process that holds a sandbox say to each other, over `ROOT/ID/control`.
//!
//! The first frame is an [`Ask`]. After [`Answer::Attached`], the stream carries the guest's own requests with their
//! descriptors, which the holder passes on; every other answer is the last. Text in JSON is bounded by the frame.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use sandbox_guest::frame::{Incoming, Outgoing};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::failure::Failure;
use crate::progress::Step;

/// The name of the holder's socket in the run directory.
pub(crate) const SOCKET: &str = "control";

/// The largest frame of this protocol, in bytes; a list of 1 MiB of environment fits.
pub(crate) const MAX_FRAME: usize = 4 << 20;

/// How long a frame may take, once it has begun.
pub(crate) const FRAME_WITHIN: Duration = Duration::from_secs(10);

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// To speak to the guest.
    Attach,
    /// To see where the sandbox went.
    Egress,
    /// To see the report.
    Inspect,
    /// That the policy is read anew, from where it was read.
    Reload,
    /// That the sandbox is taken down.
    Down,
}

/// What the holder answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Requests may follow.
    Attached(Attached),
    /// The sandbox is gone.
    Down,
    /// Where the sandbox went, as JSON.
    Egress(String),
    /// A [`Failure`], as JSON.
    Failed(String),
    /// The report, as JSON.
    Inspected(String),
    /// What the policy says by now, as JSON.
    Reloaded(String),
}

/// What every program of a sandbox starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attached {
    /// The workspace's path inside.
    pub(crate) directory: Option<String>,
    /// What of the host the agent may write to.
    pub(crate) exposed: Option<Exposure>,
    /// Variables.
    pub(crate) environment: Vec<(String, String)>,
}

/// A directory of the host that the agent may write to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exposure {
    /// The directory.
    pub(crate) directory: String,
    /// The parts of it that are covered.
    pub(crate) covered: Vec<String>,
}

/// What a supervisor tells `up` until the sandbox is ready, each as JSON in a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum News {
    /// It did not start.
    Failed(Failure),
    /// It is ready: its id.
    Ready(String),
    /// It is under way.
    Step(Step),
    /// Something that people should know.
    Warning(String),
}

/// What `up` says at last: its user has the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Taken {
    Taken,
}

impl Answer {
    pub(crate) fn failed(failure: &Failure) -> Self {
        Self::Failed(serde_json::to_string(failure).unwrap_or_default())
    }
}

/// Sends one message.
pub(crate) async fn send(stream: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut frame = Outgoing::new(message, MAX_FRAME)?;
    let sending = async {
        loop {
            stream.writable().await?;
            match stream.try_io(Interest::WRITABLE, || frame.advance(stream, &[])) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    };
    tokio::time::timeout(FRAME_WITHIN, sending).await?
}

/// Receives one message and its descriptors, or nothing at the stream's end. It may begin at any time, and must then be
/// there soon.
pub(crate) async fn receive<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    stream.readable().await?;
    let mut frame = Incoming::new(MAX_FRAME);
    let receiving = async {
        loop {
            match stream.try_io(Interest::READABLE, || frame.advance(stream)) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.readable().await?,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && frame.is_empty() => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    };
    let complete = tokio::time::timeout(FRAME_WITHIN, receiving).await??;
    if complete { frame.finish().map(Some) } else { Ok(None) }
}

/// Waits until a peer who has nothing more to say has gone, or has spoken all the same.
pub(crate) async fn ended(stream: &UnixStream) {
    let mut byte = [0];
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        match stream.try_read(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}
