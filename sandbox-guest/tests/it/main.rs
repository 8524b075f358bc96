//! Drives the real guest over its socket, as a host does.

mod channel;
mod exec;
mod harness;
