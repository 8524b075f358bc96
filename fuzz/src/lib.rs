//! The parsers of the egress gateway, and what must hold of them whatever they are given.
//!
//! They are the gateway's own files, so that nothing of it becomes public for this.
#![allow(dead_code, reason = "not all that the gateway uses is used here")]

mod egress;

pub use egress::checks::{head, hello, host};
