//! What happens to a sandbox, told before it happens.
//!
//! Each effect is preceded by its event; a sink that refuses an event stops the effect. Events hold no secret, no
//! environment value and no argument of a program but its name.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sandbox_policy::{Control, Violation};
use serde::Serialize;

use crate::{Error, ErrorKind, Result, SandboxId};

/// Seam 4: where the audit goes.
#[cfg_attr(test, mockall::automock)]
pub trait EventSink: fmt::Debug + Send + Sync + 'static {
    /// Records an event; called in order, and never twice at the same time for one sandbox.
    ///
    /// # Errors
    /// Whatever keeps it from being recorded: then the effect that it announces does not happen.
    fn record(&self, envelope: &Envelope) -> Result<()>;
}

/// An event and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Envelope {
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Counts the sandbox's events from 0, without a gap.
    pub sequence: u64,
    /// Milliseconds since 1970.
    pub time: u64,
    /// What happens.
    #[serde(flatten)]
    pub event: Event,
}

/// What happens to a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// What is in force was compared with what was asked.
    Attested {
        /// Controls that hold.
        enforced: Vec<Control>,
        /// Controls that the policy waives.
        waived: Vec<Control>,
    },
    /// A container is about to be made.
    Creating {
        /// The image's id.
        image: String,
    },
    /// A credential is about to be added to a request on its way out.
    CredentialAdding {
        /// Its name in the policy.
        credential: String,
        /// The host that it is for.
        host: String,
    },
    /// Everything is about to be undone.
    Destroying {
        /// Why.
        cause: Cause,
    },
    /// Everything has been undone.
    Destroyed {
        /// What could not be undone, in words; empty if nothing was left.
        residue: Vec<String>,
    },
    /// A destination was asked for; where it is allowed, it is about to be reached.
    EgressDecided {
        /// The host, as a URL has it.
        host: String,
        /// The port.
        port: u16,
        /// The request's method, where it can be seen.
        method: Option<String>,
        /// What the policy says.
        verdict: EgressVerdict,
        /// Which rule allows or denies it.
        rule: String,
        /// Why it is denied.
        reason: Option<String>,
    },
    /// A program is about to run.
    Executing {
        /// The program's name, without its arguments.
        program: String,
    },
    /// A socket is about to be opened inside, on which the host accepts.
    Listening {
        /// Its address inside: `127.0.0.1:3128`, or a path.
        socket: String,
    },
    /// A file request is about to be made.
    Transferring {
        /// What is asked.
        operation: &'static str,
        /// The path inside.
        path: String,
    },
    /// A gateway is about to be opened.
    GatewayOpening {
        /// Its name.
        gateway: String,
    },
    /// An image is being pulled.
    Pulling {
        /// Its name.
        image: String,
        /// Bytes that have come.
        received: u64,
        /// Bytes that are known to be due.
        total: u64,
    },
    /// The policy refused; nothing was touched.
    Refused {
        /// Why, in full.
        violations: Vec<Violation>,
    },
    /// A repository is about to be fetched from its server, as far as this machine lacks it.
    RepositoryFetching {
        /// Its address.
        repository: String,
    },
    /// The container is about to be started.
    Starting {
        /// The engine's id of it.
        container: String,
    },
    /// The default branch's protection is about to be looked at, since the policy requires it.
    ProtectionChecking {
        /// The repository, `owner/name`.
        repository: String,
    },
    /// Somebody inside asked for root inside, and the policy has decided; what is allowed is about to be run.
    SudoDecided {
        /// The program's name, without its arguments.
        program: String,
        /// `allow` or `deny`.
        decision: &'static str,
        /// The rule that decided.
        rule: String,
    },
    /// A token was given out; it is told by its digest.
    TokenMinted {
        /// The repository that it is for.
        repository: String,
        /// The token's SHA-256 in base64, as GitHub's audit log has it.
        sha256: String,
    },
    /// A token is about to be asked for.
    TokenMinting {
        /// The repository, `owner/name`.
        repository: String,
    },
    /// The policy waives a control that cannot be enforced.
    Waived {
        /// The control.
        control: Control,
        /// Why it cannot be enforced here.
        why: String,
    },
    /// A host directory is about to be mounted, or what it holds to be copied, or a repository to be checked out.
    WorkspacePreparing {
        /// Where it appears inside.
        target: String,
    },
}

/// What a policy says of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "there is nothing between them")]
pub enum EgressVerdict {
    /// It may be reached.
    Allowed,
    /// It may not.
    Denied,
}

/// Why a sandbox ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Cause {
    /// Its start was given up.
    Cancelled,
    /// Its handle was dropped.
    Dropped,
    /// Its start failed.
    Failed,
    /// Its guest ended by itself.
    GuestEnded,
    /// Its lifetime is over.
    LifetimeOver,
    /// Someone asked.
    Requested,
}

/// Numbers the events of one sandbox and hands them to its sink.
#[derive(Clone, Debug)]
pub struct Events {
    sandbox: SandboxId,
    sink: Arc<dyn EventSink>,
    next: Arc<std::sync::Mutex<u64>>,
    dropped: Arc<AtomicU64>,
}

impl Events {
    /// Makes the numbering of a sandbox's events.
    pub fn new(sandbox: SandboxId, sink: Arc<dyn EventSink>) -> Self {
        Self { sandbox, sink, next: Arc::default(), dropped: Arc::default() }
    }

    /// The sandbox whose events these are.
    pub fn sandbox(&self) -> SandboxId {
        self.sandbox
    }

    /// Records an event that announces an effect.
    ///
    /// # Errors
    /// `EventRefused` if the sink refuses: do not go on.
    pub fn announce(&self, event: Event) -> Result<()> {
        let mut next = self.next.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        let envelope = Envelope { sandbox: self.sandbox, sequence: *next, time, event };
        self.sink.record(&envelope).map_err(|error| {
            Error::new(ErrorKind::EventRefused, "the audit sink refused an event, so its effect did not happen")
                .with_source(error)
        })?;
        *next += 1;
        Ok(())
    }

    /// Records an event of what must happen all the same: an end is not put off because it cannot be told.
    pub fn report(&self, event: Event) {
        if self.announce(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many reports the sink refused.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// A sink that keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Discard;

impl EventSink for Discard {
    fn record(&self, _: &Envelope) -> Result<()> {
        Ok(())
    }
}
