//! What is done outside the new namespaces.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::thread::UnshareFlags;
use sandbox_guest::frame::receive;
use sandbox_guest::launch::{Cgroup, Identities, Launch, MAX_OUTCOME, Outcome, Step};

use super::filesystems::{Namespaces, enter_scratch, gather};
use super::{Broken, During as _, end, inside, sys};

/// Makes the container, and gives its process 1 and the number of the loop device below its layer.
pub(super) fn launch(launch: &Launch) -> Result<(Pid, Option<u32>), Broken> {
    let groups = open_groups(&launch.cgroups)?;
    if launch.identities.privileged {
        leave_mount_namespace().during(Step::Namespaces, "make a mount namespace")?;
        enter_scratch(launch)?;
    }
    let (ours, theirs) = UnixStream::pair().during(Step::Namespaces, "make a pair of sockets")?;
    let mut own = Some((ours, groups));
    let namespaces =
        libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
    let made = sys::spawn_into(namespaces, &mut || {
        if let Some((ours, groups)) = own.take() {
            // So that its end is heard.
            drop(ours);
            inside::run(launch, &theirs, groups);
        }
    });
    let first = made.during(Step::Namespaces, "make the namespaces")?;
    drop(theirs);
    let Some((gate, groups)) = own else { return Err(gone()) };
    drop(groups);
    let started = prepare(launch, first).and_then(|number| pass(gate, first).map(|()| number));
    started.map(|number| (first, number)).inspect_err(|_| end(first))
}

/// Opens the files by which a process joins its groups, as who may write to them (cgroups(7)).
///
/// A single thread that moves itself by `tasks` takes no lock that would wait for the whole machine; version 2 has no
/// such file for a group of processes.
pub(super) fn open_groups(cgroups: &[Cgroup]) -> Result<Vec<File>, Broken> {
    let open = |group: &Cgroup| {
        let directory = Path::new(std::ffi::OsStr::from_bytes(&group.directory));
        let name = if group.controllers.is_empty() { "cgroup.procs" } else { "tasks" };
        let path = directory.join(name);
        OpenOptions::new().write(true).open(&path).during(Step::Cgroup, format!("open {}", path.display()))
    };
    cgroups.iter().map(open).collect()
}

/// Makes a mount namespace of this process's own, to which nothing comes back.
pub(super) fn leave_mount_namespace() -> io::Result<()> {
    sys::unshare(UnshareFlags::NEWNS)?;
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

fn prepare(launch: &Launch, first: Pid) -> Result<Option<u32>, Broken> {
    map_ids(first, &launch.identities).during(Step::Namespaces, "say who is who in the user namespace")?;
    if !launch.identities.privileged {
        return Ok(None);
    }
    let namespace = user_namespace(first).during(Step::Namespaces, "open the user namespace")?;
    gather(launch, &Namespaces::Outside(namespace))
}

/// Lets the second process go on, and waits until it has become its program or says why it has not.
fn pass(mut gate: UnixStream, first: Pid) -> Result<(), Broken> {
    gate.write_all(&[1]).during(Step::Namespaces, "speak to the new process")?;
    let mut ready = false;
    loop {
        match receive::<Outcome>(&gate, MAX_OUTCOME).during(Step::Namespaces, "hear from the new process")? {
            Some((Outcome::Started { .. }, _)) => ready = true,
            Some((Outcome::Failed { step, doing, errno }, _)) => {
                return Err(Broken { step, doing, error: io::Error::from_raw_os_error(errno) });
            }
            None if ready => return Ok(()),
            None => {
                // It has ended or is about to; the caller waits for it.
                let _ = waitpid(Some(first), WaitOptions::NOHANG);
                return Err(gone());
            }
        }
    }
}

fn gone() -> Broken {
    let error = io::Error::new(io::ErrorKind::UnexpectedEof, "it was ended before it ran its program");
    Broken { step: Step::Program, doing: "start process 1".to_owned(), error }
}

/// Writes the maps of a process's user namespace (`user_namespaces(7)`).
pub(super) fn map_ids(process: Pid, identities: &Identities) -> io::Result<()> {
    let lines = |map: &[(u32, u32, u32)]| {
        let line = |(inside, outside, length): &(u32, u32, u32)| format!("{inside} {outside} {length}\n");
        map.iter().map(line).collect::<Vec<_>>().concat()
    };
    let directory = format!("/proc/{}", process.as_raw_nonzero());
    if !identities.privileged {
        fs::write(format!("{directory}/setgroups"), "deny")?;
    }
    fs::write(format!("{directory}/uid_map"), lines(&identities.users))?;
    fs::write(format!("{directory}/gid_map"), lines(&identities.groups))
}

/// The user namespace of a process.
pub(super) fn user_namespace(process: Pid) -> io::Result<OwnedFd> {
    let path = format!("/proc/{}/ns/user", process.as_raw_nonzero());
    Ok(openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Makes a user namespace in which nobody is, for the sake of its maps.
pub(super) fn empty_user_namespace(identities: &Identities) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut own = Some(ours);
    let holder = sys::spawn_into(libc::CLONE_NEWUSER, &mut || {
        own.take();
        // It ends with the other side of the pair.
        let _ = rustix::io::read(theirs.as_fd(), &mut [0_u8; 1]);
    })?;
    let namespace = map_ids(holder, identities).and_then(|()| user_namespace(holder));
    end(holder);
    namespace
}
