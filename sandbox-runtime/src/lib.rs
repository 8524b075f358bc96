//! Engines that run sandboxes.
//!
//! [`DockerRuntime`] implements [`Runtime`](sandbox_core::Runtime). It takes what a policy has agreed to and says it in
//! the engine's words; it decides nothing and reads no policy. The guest that every sandbox starts with is part of
//! this crate, built for the same target: [`guest_program`].

mod docker;
mod engine;
mod guest;
mod seccomp;

pub use docker::DockerRuntime;
pub use engine::Endpoint;
pub use guest::guest_program;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
