//! The way out: everybody's proxy between the same client and the same server, all of them on this machine.
//!
//! Each proxy is a process of its own, ours as well, and each is asked by the same client for the same things. The server
//! listens at the machine's own address, and has a port for each contender, so that nobody finds ports used up by another.

mod client;
mod contest;
mod daemon;
mod gateway;
mod origin;
mod rivals;
mod tls;

pub use client::{Entrant, Session, Via};
pub use contest::{CLIENTS, Contest};
pub use daemon::Memory;
pub use gateway::run as run_gateway;
pub use tls::Trust;
pub(crate) use tls::{AUTHORITY, CERTIFICATE, KEY, certify};

/// The argument that makes a program of ours the gateway's own process.
pub const GATEWAY: &str = "--gateway";
