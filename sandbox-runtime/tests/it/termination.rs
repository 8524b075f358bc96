//! TLS that ends in the gateway: each request seen and decided on, and credentials added on the way out.
//!
//! Origins are servers on this machine's loopback, which no rule could name: they are reached by way of a proxy beyond the
//! gateway, as an organisation's would be, that sends each name where the test says.

mod credentials;
mod engine;
mod harness;
pub(crate) mod origin;
mod requests;
