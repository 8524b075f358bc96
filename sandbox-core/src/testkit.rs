//! For those who write a runtime: a fake to stand in for one, and the contract that every one must keep.
//!
//! ```no_run
//! use sandbox_core::testkit::contract::Fixture;
//!
//! async fn fixture() -> Fixture {
//!     todo!("connect to the engine and name an image")
//! }
//!
//! // One test for each case of the contract.
//! sandbox_core::contract!(fixture);
//! ```

#![expect(clippy::missing_panics_doc, reason = "a case of the contract fails by panicking, as any test does")]
#![expect(clippy::unwrap_used, reason = "a case of the contract fails by panicking")]

pub mod contract;
mod fake;
mod sinks;

pub use fake::{FakeRuntime, Fault, Verb};
pub use sinks::{Recorder, Refuser};
