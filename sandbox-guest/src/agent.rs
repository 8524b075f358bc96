//! Becomes the agent: limits first, then every privilege goes, and what is left is checked.

use std::io;

use rustix::fs::Mode;
use rustix::process::{Gid, Resource, Rlimit, Uid, geteuid, getgroups, nice, setrlimit, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, no_new_privs, set_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use sandbox_guest::wire::{Identity, Setup};

use crate::sys;

/// What could not be done on the way.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// A resource limit.
    Limits(io::Error),
    /// A privilege that did not go.
    Privileges(io::Error),
}

/// Turns this process into one that the agent may own. There is no way back.
pub(crate) fn become_agent(setup: &Setup) -> Result<(), Refusal> {
    set_limits(setup)?;
    become_nobody_else(setup.agent).map_err(Refusal::Privileges)
}

/// Sets what holds for every program, whoever it runs as.
pub(crate) fn set_limits(setup: &Setup) -> Result<(), Refusal> {
    let files = Rlimit { current: Some(setup.open_files), maximum: Some(setup.open_files) };
    setrlimit(Resource::Nofile, files).map_err(|error| Refusal::Limits(error.into()))?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|error| Refusal::Limits(error.into()))?;
    umask(Mode::WGRP | Mode::WOTH);
    step_back();
    Ok(())
}

/// Lets the guest go first: where processors are short, its supervisors are to run before what they supervise, and where
/// memory is, the agent's processes are to be killed before them (`oom_score_adj`, proc(5)). The agent can take back the
/// second, for itself alone, and not the first.
fn step_back() {
    // Whoever has stepped back already may not be able to go further.
    let _ = nice(NICE);
    // Without /proc, the kernel weighs by size alone, and the guest is small.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}

/// How far the agent's processes are behind the guest's.
const NICE: i32 = 10;

/// Whether this process, if it is not root, already is the agent and nobody else.
pub(crate) fn is_agent(agent: Identity) -> io::Result<bool> {
    Ok(sys::identities()? == ([agent.uid; 3], [agent.gid; 3]))
}

/// Runs a call with the agent's effective ids and comes back. What counts for whoever would signal or trace this process
/// are the other ids, which stay root's (kill(2), ptrace(2)).
pub(crate) fn as_agent<T>(agent: Identity, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if !geteuid().is_root() {
        return call();
    }
    set_thread_res_gid(None, Gid::from_raw(agent.gid), None)?;
    set_thread_res_uid(None, Uid::from_raw(agent.uid), None)?;
    let result = call();
    set_thread_res_uid(None, Uid::ROOT, None)?;
    set_thread_res_gid(None, Gid::ROOT, None)?;
    result
}

/// Runs a call that may signal what the agent may and nothing of root's: kill(2) asks for the sender's effective and real
/// ids, of which one becomes the agent's and the other nobody's. The saved one stays root's, so that there is a way back,
/// and neither of those that count for whoever would signal this process is the agent's.
pub(crate) fn with_agents_reach<T>(agent: Identity, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if !geteuid().is_root() {
        return call();
    }
    let nobody = if agent.uid == NOBODY { NOBODY - 1 } else { NOBODY };
    set_thread_res_uid(Uid::from_raw(nobody), Uid::from_raw(agent.uid), None)?;
    let result = call();
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    result
}

/// The kernel's own user of that name (`user_namespaces(7)`, "overflowuid").
const NOBODY: u32 = 65534;

/// Gives up every id and privilege but the agent's.
fn become_nobody_else(agent: Identity) -> io::Result<()> {
    let privileged = geteuid().is_root();
    drop_privileges(agent, privileged)?;
    verify(agent, privileged)
}

fn drop_privileges(agent: Identity, privileged: bool) -> io::Result<()> {
    // Kernels before 4.3 have no ambient set to clear; `verify` looks at what matters.
    let _ = clear_ambient_capability_set();
    if privileged {
        match sys::limit_bounding_set(0) {
            // Without CAP_SETPCAP the set stays; no_new_privs and the user id keep it from ever being used.
            Err(error) if error.raw_os_error() != Some(libc::EPERM) => return Err(error),
            _ => {}
        }
        let (uid, gid) = (Uid::from_raw(agent.uid), Gid::from_raw(agent.gid));
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
    }
    set_capabilities(None, NO_CAPABILITIES)?;
    set_no_new_privs(true)?;
    Ok(())
}

const NO_CAPABILITIES: CapabilitySets = CapabilitySets {
    effective: CapabilitySet::empty(),
    permitted: CapabilitySet::empty(),
    inheritable: CapabilitySet::empty(),
};

fn verify(agent: Identity, privileged: bool) -> io::Result<()> {
    let sets = capabilities(None)?;
    let holds = is_agent(agent)?
        && (!privileged || getgroups()?.is_empty())
        && sets == NO_CAPABILITIES
        && no_new_privs()?
        // A program of user 0 gets what the bounding set has (capabilities(7)); for others it is out of reach.
        && (!privileged || agent.uid != 0 || sys::bounding_set() == 0);
    if holds { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}
