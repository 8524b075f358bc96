//! Requests about files.

use std::os::fd::OwnedFd;

use sandbox_guest::wire::{Reply, Request};

use crate::control::Control;
use crate::failure::invalid;
use crate::init::Guest;

/// Answers a request about files.
pub(crate) fn run(_: &Guest, _: Request, control: &Control, _: Vec<OwnedFd>) {
    // A host that does not take the answer has gone.
    let _ = control.send(&Reply::Failed(invalid("requests about files are not served")));
}
