//! Whether git would ever take a file along.
//!
//! Git is asked, since only git knows all its rules. A checkout may have been written by an agent, so git is told to
//! start nothing that the checkout's settings name.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sandbox_core::{Error, ErrorKind, Result};

/// What git says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ignored {
    /// It would be taken along, or has been already.
    No,
    /// It lies in no checkout.
    NoCheckout,
    /// It is ignored, and not tracked.
    Yes,
}

/// Asks git about a file of a directory; the file need not be there.
pub(super) fn ask(directory: &Path, name: &str) -> Result<Ignored> {
    let failed = |error| Error::io(format!("cannot ask git whether it ignores {name}"), error);
    let directory = directory.canonicalize().map_err(failed)?;
    if !directory.ancestors().any(|ancestor| ancestor.join(".git").symlink_metadata().is_ok()) {
        return Ok(Ignored::NoCheckout);
    }
    // Without --no-index, a file that is tracked counts as not ignored (git-check-ignore(1)).
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(&directory)
        .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "check-ignore", "--quiet", "--", name])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_CEILING_DIRECTORIES"] {
        command.env_remove(variable);
    }
    match code(command).map_err(failed)? {
        Some(0) => Ok(Ignored::Yes),
        Some(1) => Ok(Ignored::No),
        _ => Err(Error::new(ErrorKind::Denied, format!("git cannot say whether it ignores {name}"))
            .with_hint(format!("see what `git -C {} status` says, or keep tokens outside of it", directory.display()))),
    }
}

/// Runs a program to its end, and ends it when it takes too long.
fn code(mut command: Command) -> std::io::Result<Option<i32>> {
    let mut child = command.spawn()?;
    let waited = wait(child.id());
    if !matches!(waited, Ok(true)) {
        // One that has just ended cannot be killed any more, and need not be.
        let _ = child.kill();
    }
    let status = child.wait()?;
    if waited? { Ok(status.code()) } else { Err(std::io::ErrorKind::TimedOut.into()) }
}

/// Waits until a child has ended; `false` if it has not in time.
fn wait(pid: u32) -> std::io::Result<bool> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(std::io::ErrorKind::InvalidInput)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let within = Timespec::try_from(WITHIN).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    let mut descriptors = [PollFd::new(&process, PollFlags::IN)];
    Ok(rustix::io::retry_on_intr(|| rustix::event::poll(&mut descriptors, Some(&within)))? > 0)
}

/// How long git may take over one file.
const WITHIN: Duration = Duration::from_secs(10);
