//! The command as people run it: the real program against a real engine.
//!
//! What needs an engine is in the module `engine`; it takes `DOCKER_HOST` and `SANDBOX_TEST_IMAGE`, and fails without.

#![expect(clippy::unwrap_used, reason = "tests")]

mod embedded;
mod engine;
mod harness;
mod text;
