//! A container that a runtime of the Open Container Initiative runs, such as one that brings a kernel of its own.
//!
//! The parts are gathered as for any other container and in a mount namespace of the launch's own, so that nothing of them is to
//! be seen on the host; the runtime is started there, in the container's control groups, and what it starts stays in both.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::process::{Pid, Signal, WaitOptions, fchdir, set_parent_process_death_signal, waitpid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::{capabilities, set_capabilities};
use sandbox_guest::launch::{BUNDLE_PID, BUNDLE_ROOT, BUNDLE_STATE, Bundle, Launch, Step};
use sandbox_guest::wire::Identity;

use super::filesystems::{Namespaces, enter_scratch, gather, outside};
use super::inside::{execute, overlay};
use super::mounts::{HARMLESS, attach, attach_here, copy, copy_all};
use super::outside::{empty_user_namespace, leave_mount_namespace, open_groups};
use super::{Broken, During as _, paths, sys};

/// Makes the container and has it run, with a stream as its standard input and output; gives its first process and the number of
/// the loop device below its layer.
pub(super) fn launch(launch: &Launch, bundle: &Bundle, stream: &OwnedFd) -> Result<(Pid, Option<u32>), Broken> {
    let groups = open_groups(&launch.cgroups)?;
    leave_mount_namespace().during(Step::Namespaces, "make a mount namespace")?;
    enter_scratch(launch)?;
    let namespace = empty_user_namespace(&launch.identities).during(Step::Namespaces, "make a user namespace")?;
    let number = gather(launch, &Namespaces::Outside(namespace))?;
    build(launch, bundle)?;
    let keep = || -> io::Result<()> {
        mkdirat(CWD, BUNDLE_STATE, Mode::RWXU)?;
        attach_here(&copy(CWD, bundle.state.as_slice(), HARMLESS, None)?, BUNDLE_STATE)?;
        let place = open_directory(&bundle.directory)?;
        let all = copy_all(".")?;
        attach(&all, &place)?;
        Ok(fchdir(&all)?)
    };
    keep().during(Step::Bundle, "make room for what the runtime keeps")?;
    fs::write("config.json", &bundle.configuration).during(Step::Bundle, "write its configuration")?;
    let ended = run(bundle, groups, stream).during(Step::Bundle, "start the runtime that runs it")?;
    if !ended.success() {
        return Err(io::Error::other(said(ended))).during(Step::Bundle, "have another runtime run it");
    }
    let pid = fs::read_to_string(BUNDLE_PID).during(Step::Bundle, "read the id of its first process")?;
    let first = pid.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| io::Error::other("it is no number"));
    Ok((first.during(Step::Bundle, "read the id of its first process")?, number))
}

/// Joins image and layer, writes the files and makes the places for mounts, as root inside.
fn build(launch: &Launch, bundle: &Bundle) -> Result<(), Broken> {
    let root = overlay("l", "", HARMLESS).during(Step::Overlay, "mount the root file system")?;
    attach_here(&root, BUNDLE_ROOT).during(Step::Overlay, "mount the root file system")?;
    for (index, tree) in launch.trees.iter().enumerate() {
        let lay = || {
            let overlay = overlay(&format!("t{index}"), &index.to_string(), HARMLESS)?;
            attach(&overlay, &paths::plain_directory(root.as_fd(), tree)?)
        };
        lay().during(Step::Overlay, format!("mount the image's {}", tree.escape_ascii()))?;
    }
    let own = Identity { uid: 0, gid: 0 };
    act_as(outside(&launch.identities, launch.identities.first)).during(Step::Files, "act as root inside")?;
    for (path, content) in &launch.files {
        paths::write_file(root.as_fd(), path, content).during(Step::Files, format!("write {}", path.escape_ascii()))?;
    }
    for place in &bundle.places {
        paths::directory(root.as_fd(), place)
            .during(Step::Files, format!("make a place for {}", place.escape_ascii()))?;
    }
    act_as(own).during(Step::Files, "act as oneself again")
}

fn open_directory(path: &[u8]) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

/// Makes files as somebody, and keeps every privilege: the kernel takes those over files from whoever is not root (capabilities(7),
/// at "Effect of user ID changes on capabilities").
fn act_as(whom: Identity) -> io::Result<()> {
    sys::act_on_files_as(whom.uid, whom.gid);
    let mut sets = capabilities(None)?;
    sets.effective = sets.permitted;
    Ok(set_capabilities(None, sets)?)
}

/// Runs the runtime in the container's groups until it has started the container.
fn run(bundle: &Bundle, groups: Vec<File>, stream: &OwnedFd) -> io::Result<ExitStatus> {
    let said = File::create(SAID)?;
    let mut groups = Some(groups);
    let child = crate::sys::spawn(&mut || {
        let mut become_it = || -> io::Result<()> {
            // It ends with this process, so that nobody waits for it in vain.
            set_parent_process_death_signal(Some(Signal::KILL))?;
            for mut group in groups.take().unwrap_or_default() {
                group.write_all(b"0")?;
            }
            dup2_stdin(stream)?;
            dup2_stdout(stream)?;
            Ok(dup2_stderr(&said)?)
        };
        let error = match become_it() {
            Ok(()) => execute(&bundle.command, &[]),
            Err(error) => error,
        };
        // Whoever reads it finds it where the runtime's own words would be.
        let _ = writeln!(&said, "{error}");
        FAILED
    })?;
    loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Ok(Some((_, status))) => return Ok(ExitStatus::from_raw(status.as_raw())),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// How the runtime ended and what it said, as far as it fits.
fn said(ended: ExitStatus) -> String {
    let mut words = Vec::new();
    // What could be read is as good.
    let _ = File::open(SAID).and_then(|file| file.take(MAX_SAID).read_to_end(&mut words));
    let words = String::from_utf8_lossy(&words).split_whitespace().collect::<Vec<_>>().join(" ");
    format!("it ended with {ended} and said: {words}")
}

/// What the runtime says, in the scratch directory.
const SAID: &str = "said";

/// The most bytes of it that are told.
const MAX_SAID: u64 = 900;

/// The status of a process that could not become the runtime.
const FAILED: u8 = 127;
