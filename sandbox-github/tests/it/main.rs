//! The crate against a GitHub that is played, and held to GitHub's own description.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod app;
mod audit;
mod calls;
mod description;
mod keyring;
mod leaks;
mod mock;
mod personal;
mod session;
mod sharp_edges;
