//! Drives the real guest over its socket, as a host does.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test that cannot go on says so by panicking"
)]

mod attest;
mod channel;
mod exec;
mod files;
mod harness;
mod limits;
mod listen;
