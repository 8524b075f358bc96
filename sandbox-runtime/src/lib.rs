//! Engines that run sandboxes.
//!
//! [`DockerRuntime`], [`PodmanRuntime`] and [`EmbeddedRuntime`] implement [`Runtime`](sandbox_core::Runtime). They take
//! what a policy has agreed to and say it in the words of the engine, or of the kernel; they decide nothing and read no
//! policy. [`EgressProxy`] is the gateway through which a sandbox reaches what its policy allows. The guest that every sandbox starts with is part of this crate, built for the same target: [`guest_program`].

mod advisories;
mod connect;
mod docker;
mod egress;
mod embedded;
mod engine;
mod guest;
mod hidden;
mod podman;
mod seccomp;

pub use advisories::{Advisory, advisories};
pub use connect::{connect, connect_for};
pub use docker::DockerRuntime;
pub use egress::{EgressProxy, LedgerEntry, Outcome, Resolve, Roots, SystemResolver, Upstream};
pub use embedded::{EmbeddedOptions, EmbeddedRuntime, HOST_IMAGE, RegistryAccess, RegistryAccount, Trial};
pub use engine::{Endpoint, SshEndpoint, TcpEndpoint};
pub use guest::guest_program;
pub use podman::PodmanRuntime;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
