//! The way out: a gateway on the host that a sandbox without a network reaches through its own loopback.
//!
//! ```text
//! program ─ 127.0.0.1:3128 inside ─ listener that the guest passed out ─ EgressProxy ─ policy? ─ resolve ─ check ─ dial
//! ```
//!
//! The policy decides, here it is obeyed: on each connection and each request anew, before a name is resolved, and on every
//! address that it resolves to. What was decided on is the value that is dialled. Everything that comes from inside is
//! bounded and has a deadline.

mod answer;
mod authority;
mod body;
mod budget;
mod buffer;
mod chance;
mod connect;
mod dial;
mod environment;
mod exchange;
mod forward;
#[cfg(test)]
mod fuzzed;
mod head;
mod hello;
mod intercept;
mod keystore;
mod ledger;
mod proxy;
mod serve;
mod session;
mod socks;
mod stray;
mod target;
mod termination;
mod thread;
mod trust;
mod tunnel;
mod upstream;
mod vault;

pub use ledger::{LedgerEntry, Outcome};
pub use proxy::EgressProxy;
pub use sandbox_core::{Resolve, SystemResolver};
pub use trust::Roots;
pub use upstream::Upstream;
