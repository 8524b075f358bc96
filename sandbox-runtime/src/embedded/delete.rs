//! Ending a container and removing all that it was made of, also what another process left behind.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitId, WaitIdOptions, waitid};
use sandbox_core::{ContainerId, Error, ErrorKind, Result};

use super::Machine;
use super::cgroups::{processes, remove as remove_group};
use super::process::{hold, send};
use super::record::{Group, Record};
use super::removal::remove;
use super::store::unusable;

impl Machine {
    /// Removes a container; when this returns `Ok`, it is gone.
    pub(super) fn delete(&self, id: &ContainerId) -> Result<()> {
        let (_, directory) = self.store.container(id)?;
        let deadline = Instant::now() + GONE;
        // Without a record, or with one of another version, the name says enough.
        let record = Record::read(&directory).ok().flatten();
        let mut groups = self.every_cgroup.groups(id.as_str());
        if let Some(record) = &record {
            groups.extend(record.cgroups.iter().filter(|group| is_named(group, id)).cloned());
            if let Some(first) = record.first {
                let held = first.hold().map_err(|error| Error::io("cannot look at process 1", error))?;
                end(held.into_iter().collect(), deadline)?;
            }
        }
        // The kernel ends a process namespace with its process 1; what is in the groups and not in it goes now.
        for group in &groups {
            empty(&group.directory, deadline)?;
        }
        for group in &groups {
            remove_until(&group.directory, deadline)?;
        }
        // Out of the list at once, and then away.
        let aside = self.store.temporary_path()?;
        match std::fs::rename(&directory, &aside) {
            Ok(()) => remove(&aside).map_err(|error| unusable(&aside, error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(unusable(&directory, error)),
        }
    }
}

/// A record is no reason to remove a group that is not the container's own.
fn is_named(group: &Group, id: &ContainerId) -> bool {
    group.directory.file_name().is_some_and(|name| name == id.as_str())
}

/// Kills whatever is in a group, until nothing is.
fn empty(group: &Path, deadline: Instant) -> Result<()> {
    loop {
        let mut held = Vec::new();
        let listed = processes(group)?;
        if listed.is_empty() {
            return Ok(());
        }
        for pid in listed {
            held.extend(
                hold(pid).map_err(|error| Error::io(format!("cannot look at process {pid}"), error))?.map(|p| (pid, p)),
            );
        }
        // Who is still listed now is who is held: an id that was used again meanwhile is another's.
        let listed = processes(group)?;
        let ours = held.into_iter().filter(|(pid, _)| listed.contains(pid)).map(|(_, process)| process).collect();
        end(ours, deadline)?;
    }
}

/// Kills processes and waits until they have ended.
fn end(held: Vec<OwnedFd>, deadline: Instant) -> Result<()> {
    for process in &held {
        send(process, Signal::KILL).map_err(|error| Error::io("cannot end a process of the sandbox", error))?;
    }
    for process in held {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
            match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Err(late("a process of the sandbox")),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::io("cannot wait for a process of the sandbox", error.into())),
            }
        }
        // It is a child of this process where this process takes in orphans (`PR_SET_CHILD_SUBREAPER`, prctl(2)).
        let _ = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
    Ok(())
}

/// Removes a group. The last of its processes may have ended and not yet left it, and nothing tells when it has.
fn remove_until(group: &Path, deadline: Instant) -> Result<()> {
    let mut pause = FIRST_PAUSE;
    while !remove_group(group)? {
        if Instant::now() >= deadline {
            return Err(late(&format!("the control group {}", group.display())));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}

fn late(what: &str) -> Error {
    let message = format!("{what} was ended and is still there after {} s", GONE.as_secs());
    Error::new(ErrorKind::Residue, message)
        .with_hint("a process that waits for a broken disk cannot be ended; `sandbox cleanup` tries again")
}

/// How long what was ended may take to go.
const GONE: Duration = Duration::from_secs(20);
const FIRST_PAUSE: Duration = Duration::from_micros(200);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
