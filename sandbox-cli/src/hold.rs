//! What the holder of a sandbox does for other commands: it listens on the control socket in the run directory.
//!
//! Only processes of the same user are let in. A client that misbehaves loses its connection, and nothing else.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sandbox_core::{ErrorKind, Guest, RunRoot, Sandbox, SandboxId};
use sandbox_guest::wire::Request;
use sandbox_policy::{Access, Workspace};
use sandbox_runtime::LedgerEntry;
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::failure::{Failure, Result};
use crate::inspection::Inspection;
use crate::outward::{Outward, Reloaded};
use crate::protocol::{Answer, Ask, Attached, Exposure, SOCKET, receive, send};

/// The most connections at once.
const MAX_CONNECTIONS: usize = 128;

/// How long a client may take until it has said what it wants.
const ASK_WITHIN: Duration = Duration::from_secs(5);

/// Serves other commands for one sandbox.
#[derive(Debug)]
pub(crate) struct Holder {
    listener: UnixListener,
    service: Arc<Service>,
    connections: JoinSet<()>,
    down: mpsc::Receiver<UnixStream>,
    /// Clients who wait for the sandbox's end.
    waiting: Vec<UnixStream>,
}

#[derive(Debug)]
struct Service {
    guest: Guest,
    attached: Attached,
    inspection: Inspection,
    egress: Option<Outward>,
    sandbox: SandboxId,
    room: Semaphore,
    down: mpsc::Sender<UnixStream>,
}

impl Holder {
    /// Listens in the sandbox's run directory, which only this user may enter.
    pub(crate) fn open(sandbox: &Sandbox, egress: Option<Outward>, root: &RunRoot) -> Result<Self> {
        let path = socket_of(root, sandbox);
        let listener = UnixListener::bind(&path)
            .map_err(|error| Failure::io(format!("cannot listen on {}", path.display()), error))?;
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (ask_down, down) = mpsc::channel(MAX_CONNECTIONS);
        let service = Arc::new(Service {
            guest: sandbox.guest().clone(),
            attached: attached(sandbox),
            inspection: Inspection::of(sandbox, started),
            egress,
            sandbox: sandbox.id(),
            room: Semaphore::new(MAX_CONNECTIONS),
            down: ask_down,
        });
        Ok(Self { listener, service, connections: JoinSet::new(), down, waiting: Vec::new() })
    }

    /// Serves until somebody asks that the sandbox be taken down.
    pub(crate) async fn serve(&mut self) {
        loop {
            tokio::select! {
                stream = self.listener.accept() => match stream {
                    Ok((stream, _)) => {
                        let service = Arc::clone(&self.service);
                        self.connections.spawn(async move { service.meet(stream).await });
                    }
                    // Descriptors are short: those that are in use will come back.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                },
                Some(_) = self.connections.join_next() => {}
                Some(stream) = self.down.recv() => {
                    self.waiting.push(stream);
                    return;
                }
            }
        }
    }

    /// Tells those who asked for the end how it went.
    pub(crate) async fn finish(mut self, ended: &Result<()>) {
        self.connections.abort_all();
        while let Ok(stream) = self.down.try_recv() {
            self.waiting.push(stream);
        }
        let answer = match ended {
            Ok(()) => Answer::Down,
            Err(failure) => Answer::failed(failure),
        };
        for stream in self.waiting {
            // Who has stopped waiting needs no answer.
            let _ = send(&stream, &answer).await;
        }
    }
}

impl Service {
    async fn meet(&self, stream: UnixStream) {
        let mine = stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw());
        if !mine {
            return;
        }
        let Ok(_place) = self.room.try_acquire() else {
            let message = format!("this sandbox serves {MAX_CONNECTIONS} commands already");
            // Who is turned away need not hear it.
            let _ = send(&stream, &Answer::failed(&Failure::new(ErrorKind::Exhausted, message))).await;
            return;
        };
        let Ok(Ok(Some((ask, _)))) = tokio::time::timeout(ASK_WITHIN, receive::<Ask>(&stream)).await else { return };
        match ask {
            Ask::Attach => {
                if send(&stream, &Answer::Attached(self.attached.clone())).await.is_ok() {
                    self.pass_on(&stream).await;
                }
            }
            Ask::Egress => tell(&stream, &self.ledger(), Answer::Egress).await,
            Ask::Reload => match self.reload() {
                Ok(reloaded) => tell(&stream, &reloaded, Answer::Reloaded).await,
                // Who has gone needs no answer.
                Err(failure) => drop(send(&stream, &Answer::failed(&failure)).await),
            },
            Ask::Inspect => tell(&stream, &self.inspection, Answer::Inspected).await,
            // Whoever receives it holds it until the end; if nobody does, the end has come.
            Ask::Down => drop(self.down.send(stream).await),
        }
    }

    /// Where the sandbox went; nowhere, if it has no way out.
    fn ledger(&self) -> Vec<LedgerEntry> {
        self.egress.as_ref().and_then(|egress| egress.ledger(self.sandbox)).unwrap_or_default()
    }

    fn reload(&self) -> Result<Reloaded> {
        let none =
            || Failure::new(ErrorKind::InvalidInput, "this sandbox reaches nothing, so there is nothing to tighten");
        self.egress.as_ref().ok_or_else(none)?.reload()
    }

    /// Hands requests to the guest until the client or the guest has gone. Each brings its own control, so answers and
    /// output pass this process by.
    async fn pass_on(&self, stream: &UnixStream) {
        loop {
            let received = tokio::select! {
                received = receive::<Request>(stream) => received,
                () = self.guest.closed() => return,
            };
            let Ok(Some((request, descriptors))) = received else { return };
            if descriptors.is_empty() || self.guest.forward(request, descriptors).await.is_err() {
                return;
            }
        }
    }
}

/// Answers with JSON.
async fn tell(stream: &UnixStream, what: &impl Serialize, answer: impl FnOnce(String) -> Answer) {
    let answer = match serde_json::to_string(what) {
        Ok(json) => answer(json),
        Err(error) => Answer::failed(&Failure::new(ErrorKind::Io, error.to_string())),
    };
    // Who has gone needs no answer.
    let _ = send(stream, &answer).await;
}

/// The path of the control socket.
fn socket_of(root: &RunRoot, sandbox: &Sandbox) -> PathBuf {
    root.of(sandbox.id()).join(SOCKET)
}

fn attached(sandbox: &Sandbox) -> Attached {
    let spec = sandbox.spec();
    let directory = spec.workspace().map(|workspace| workspace.guest.as_path().display().to_string());
    let writable = spec.workspace().and_then(Workspace::mounted).filter(|(_, access)| *access == Access::ReadWrite);
    let exposed = writable.map(|(host, _)| Exposure {
        directory: host.as_path().display().to_string(),
        covered: spec.workspace_covered().iter().map(|part| part.as_path().display().to_string()).collect(),
    });
    let variables = spec.environment().iter();
    let environment = variables.map(|(name, value)| (name.as_str().to_owned(), value.as_str().to_owned())).collect();
    Attached { directory, exposed, environment }
}
