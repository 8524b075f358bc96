//! The crate against a GitHub that is played, and held to GitHub's own description.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod app;
mod calls;
mod description;
mod mock;
mod personal;
