//! The egress gateway: what passes, what does not, and what whoever asked is told.
//!
//! The origin is a server at an address of this machine's own, which rules name; a resolver of the test's own says where
//! names lead. On the fake runtime, the inside is this machine's loopback, so that a test is the client itself.

mod bounds;
mod differential;
mod engine;
pub(crate) mod harness;
mod requests;
mod resolution;
pub(crate) mod stray;
mod tunnels;
