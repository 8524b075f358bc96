//! Becomes root inside for one program that the host has decided on: with the capabilities of sudo, and no way to more.

use std::io;

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, no_new_privs, set_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use sandbox_guest::sudo::CAPABILITIES;
use sandbox_guest::wire::Setup;

use crate::agent::{Refusal, set_limits};
use crate::sys;

/// Turns this process into one that runs as root inside. There is no way back to the guest's own capabilities.
pub(crate) fn become_root(setup: &Setup) -> Result<(), Refusal> {
    set_limits(setup)?;
    give_up().and_then(|()| verify()).map_err(Refusal::Privileges)
}

fn give_up() -> io::Result<()> {
    if !geteuid().is_root() {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    // Kernels before 4.3 have no ambient set to clear; `verify` looks at what matters.
    let _ = clear_ambient_capability_set();
    // A program of user 0 gets what the bounding set has (capabilities(7)).
    sys::limit_bounding_set(CAPABILITIES)?;
    set_thread_groups(&[])?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    set_capabilities(None, KEPT)?;
    Ok(set_no_new_privs(true)?)
}

fn verify() -> io::Result<()> {
    let holds = sys::identities()? == ([0; 3], [0; 3])
        && capabilities(None)? == KEPT
        && sys::bounding_set() == CAPABILITIES
        && no_new_privs()?;
    if holds { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

const KEPT: CapabilitySets = CapabilitySets {
    effective: CapabilitySet::from_bits_retain(CAPABILITIES),
    permitted: CapabilitySet::from_bits_retain(CAPABILITIES),
    inheritable: CapabilitySet::empty(),
};
