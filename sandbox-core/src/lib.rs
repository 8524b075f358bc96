//! Containers for AI agents: one repository, one branch, and nothing comes out that the policy does not allow.
//!
//! A [`Sandbox`] is made by its [builder](Sandbox::builder): the [policy](sandbox_policy::Policy) checks the request, a
//! [`Runtime`] makes the container, its [`Guest`] connects, and what is in force is [read back](Attestation) and compared
//! with what was asked before anybody is handed the sandbox. Whatever was opened is closed again, in the reverse
//! order: by [`Sandbox::destroy`], by dropping the handle, by a failure, or by the end of the process.
//!
//! This library reads no environment variable, prints nothing, and leaves no task behind.

mod agent;
mod attest;
mod builder;
mod cover;
mod credential;
mod error;
mod event;
mod gateway;
mod guest;
mod id;
mod lifecycle;
mod owner;
mod ownership;
mod reaper;
mod resolve;
mod run_directory;
mod runtime;
mod sandbox;
mod sudo;
mod teardown;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
mod token;
mod work;
mod workspace;

pub use agent::Agent;
pub use attest::{Attestation, Finding, Verdict};
pub use builder::SandboxBuilder;
pub use cover::{Blank, Cover};
pub use credential::CredentialProvider;
pub use error::{Error, ErrorKind, Result};
pub use event::{Cause, Discard, EgressVerdict, Envelope, Event, EventSink, Events};
pub use gateway::{Gateway, OpenGateway};
pub use guest::{Command, Guest, Output, Process, Stdin, Terminal, TransferLimits};
pub use id::SandboxId;
pub use lifecycle::own_capabilities;
pub use owner::{Liveness, Owner};
pub use ownership::{Ownership, Whose};
pub use reaper::{Kept, Reaped, reap};
pub use resolve::{Resolve, SystemResolver};
pub use run_directory::RunRoot;
pub use runtime::{
    Bind, ContainerId, ContainerState, ContainerStatus, ContainerSummary, EffectiveSettings, FileSystem, Image,
    LABEL_OWNER, LABEL_SANDBOX, Runtime, RuntimeInfo, Setting, Signal, Transport, Underlay, Underlays, Wiring,
};
pub use sandbox::Sandbox;
pub use sandbox_guest::wire::{Entry, EntryKind, Exit, SkipReason, Skipped, Status, Summary, WindowSize};
pub use sandbox_policy as policy;
pub use sudo::SudoGateway;
pub use token::{RepoGrant, Token, TokenProvider};
pub use work::{Commit, Exposed, HostRepository, MirrorLimits, MirrorProxy, Mirrors, Rendering, Work, WorkLimits};
