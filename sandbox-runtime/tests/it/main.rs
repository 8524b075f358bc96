//! What needs an engine: those of `scripts/engine`, with the images of `scripts/image`.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails by panicking, as the test does")]

mod clone;
mod connect;
mod containers;
mod contract;
mod covered;
mod covers;
mod egress;
mod embedded;
mod engine;
mod failures;
mod git;
mod images;
mod inside;
mod podman;
mod registry;
mod remote;
#[cfg(target_arch = "x86_64")]
mod seccomp;
mod sizes;
mod termination;
mod users;
mod whole;
mod work;
