//! The command as people run it: the real program against a real engine.
//!
//! What needs an engine is in the module `engine`; it takes `DOCKER_HOST` and `SANDBOX_TEST_IMAGE`, and fails without.

#![expect(clippy::unwrap_used, reason = "tests")]

mod clone;
#[path = "../../../sandbox-github/tests/it/description.rs"]
mod description;
mod embedded;
mod engine;
mod github;
mod harness;
#[allow(dead_code, reason = "the GitHub of another crate's tests, which use more of it")]
#[path = "../../../sandbox-github/tests/it/mock.rs"]
mod mock;
#[path = "../../../sandbox-runtime/tests/it/remote/server.rs"]
mod server;
#[allow(dead_code, reason = "as above")]
#[path = "../../../sandbox-github/tests/it/session.rs"]
mod session;
mod text;
