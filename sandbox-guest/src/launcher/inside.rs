//! What is done inside the new namespaces, up to the program of process 1.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{FileType, Mode, fstat, mkdirat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use rustix::process::{Gid, Resource, Rlimit, Uid, chdir, fchdir, pivot_root, setrlimit, setsid};
use rustix::system::sethostname;
use rustix::thread::{
    CapabilitySet, CapabilitySets, UnshareFlags, clear_ambient_capability_set, set_capabilities, set_no_new_privs,
    set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use sandbox_guest::frame::send;
use sandbox_guest::launch::{Cgroup, Launch, MAX_OUTCOME, Outcome, Step, Tmpfs, bind_name, blank_name, underlay_name};

use super::filesystems::{Namespaces, enter_scratch, gather, place};
use super::mounts::{HARMLESS, INERT, READ_ONLY, attach, attach_here, copy, copy_all, filesystem};
use super::{Broken, During as _, paths, sys};

/// Becomes process 1, or says why not.
pub(super) fn run(launch: &Launch, gate: &UnixStream, groups: Vec<File>) {
    let broken = match become_first(launch, gate, groups) {
        Ok(never) => match never {},
        Err(broken) => broken,
    };
    // Whoever does not listen has gone, and this process ends either way.
    let _ = send(gate, &broken.outcome(), &[], MAX_OUTCOME);
}

fn become_first(launch: &Launch, gate: &UnixStream, groups: Vec<File>) -> Result<Infallible, Broken> {
    let mut gate_reader = gate;
    gate_reader.read_exact(&mut [0]).during(Step::Namespaces, "wait for the users")?;
    crate::sys::default_signals();
    for mut group in groups {
        group.write_all(b"0").during(Step::Cgroup, "join a control group")?;
    }
    sys::unshare(UnshareFlags::NEWNS | UnshareFlags::NEWCGROUP).during(Step::Namespaces, "make the last namespaces")?;
    become_user(launch).during(Step::Namespaces, "become the first user")?;
    if !launch.identities.privileged {
        enter_scratch(launch)?;
        gather(launch, &Namespaces::Inside)?;
    }
    let root = overlay("l", "", HARMLESS).during(Step::Overlay, "mount the root file system")?;
    attach_here(&root, "r").during(Step::Overlay, "mount the root file system")?;
    let attributes = if launch.writable { HARMLESS } else { HARMLESS | READ_ONLY };
    for (index, tree) in launch.trees.iter().enumerate() {
        let lay = || {
            let overlay = overlay(&format!("t{index}"), &index.to_string(), attributes)?;
            attach(&overlay, &paths::plain_directory(root.as_fd(), tree)?)
        };
        lay().during(Step::Overlay, format!("mount the image's {}", tree.escape_ascii()))?;
    }
    system(launch, root.as_fd())?;
    fill(launch, root.as_fd())?;
    if !launch.writable {
        sys::set_mount_attributes(root.as_fd(), READ_ONLY, None).during(Step::Root, "make the root read-only")?;
    }
    change_root(&root).during(Step::Root, "change the root directory")?;
    sethostname(&launch.hostname).during(Step::Network, "set the host name")?;
    sys::loopback_up().during(Step::Network, "bring the loopback interface up")?;
    restrict(launch)?;
    send(gate, &Outcome::Started { pid: 1, loop_device: None }, &[], MAX_OUTCOME)
        .during(Step::Program, "say that all is in place")?;
    let error = execute(&launch.program, &launch.environment);
    Err(error).during(Step::Program, "run the program of process 1")
}

fn become_user(launch: &Launch) -> io::Result<()> {
    // A group of its own: signals to the caller's are none of the sandbox's.
    setsid()?;
    let first = launch.identities.first;
    let (uid, gid) = (Uid::from_raw(first.uid), Gid::from_raw(first.gid));
    if launch.identities.privileged {
        set_thread_groups(&[])?;
    }
    set_thread_res_gid(gid, gid, gid)?;
    Ok(set_thread_res_uid(uid, uid, uid)?)
}

/// Lays what is written over what the image holds. `userxattr` is what a user namespace may keep its marks in
/// (<https://docs.kernel.org/filesystems/overlayfs.html>).
pub(super) fn overlay(lower: &str, suffix: &str, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let (upper, work) = (format!("d/u{suffix}"), format!("d/w{suffix}"));
    let options =
        [("source", "sandbox"), ("lowerdir", lower), ("upperdir", &upper), ("workdir", &work), ("userxattr", "")];
    filesystem("overlay", &options, attributes)
}

/// Mounts the kernel's own file systems, and hides of them what no sandbox may see.
fn system(launch: &Launch, root: BorrowedFd<'_>) -> Result<(), Broken> {
    let mount = |kind: &str, options: &[(&str, &str)], attributes: MountAttrFlags, target: &str| {
        let place =
            || attach(&filesystem(kind, options, attributes)?, &paths::plain_directory(root, target.as_bytes())?);
        place().during(Step::System, format!("mount {target}"))
    };
    mount("proc", &[], INERT, "/proc")?;
    mount("sysfs", &[], INERT | READ_ONLY, "/sys")?;
    control_groups(&launch.cgroups, root).during(Step::System, "mount the control groups")?;
    let devices = || attach(&copy_all("dev")?, &paths::plain_directory(root, b"/dev")?);
    devices().during(Step::System, "mount /dev")?;
    let size = launch.shared_memory.to_string();
    let inodes = (launch.shared_memory / BYTES_PER_PAGE).to_string();
    mount("tmpfs", &[("size", &size), ("nr_inodes", &inodes), ("mode", "1777")], INERT, "/dev/shm")?;
    mount("mqueue", &[], INERT, "/dev/mqueue")?;
    let terminals = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mut options = vec![("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")];
    if launch.identities.groups.iter().any(|(inside, _, length)| TTY_GROUP >= *inside && TTY_GROUP - inside < *length) {
        options.push(("gid", TTY_GROUP_NAME));
    }
    mount("devpts", &options, terminals, "/dev/pts")?;
    for path in &launch.masked {
        mask(root, path).during(Step::System, format!("hide {}", path.escape_ascii()))?;
    }
    for path in &launch.read_only {
        let attributes = READ_ONLY;
        let keep = |target: OwnedFd| attach(&copy(target.as_fd(), "", attributes, None)?, &target);
        if_there(paths::find(root, path), keep)
            .during(Step::System, format!("make {} read-only", path.escape_ascii()))?;
    }
    Ok(())
}

/// The group of terminals on every system that has one (<https://wiki.debian.org/SystemGroups>).
const TTY_GROUP: u32 = 5;
const TTY_GROUP_NAME: &str = "5";

/// Shows the container's own groups where programs look for them (cgroups(7)).
fn control_groups(groups: &[Cgroup], root: BorrowedFd<'_>) -> io::Result<()> {
    const TARGET: &[u8] = b"/sys/fs/cgroup";
    if groups.is_empty() {
        return Ok(());
    }
    if groups.iter().all(|group| group.controllers.is_empty()) {
        return attach(&filesystem("cgroup2", &[], INERT | READ_ONLY)?, &paths::find(root, TARGET)?);
    }
    let top = filesystem("tmpfs", &[("size", "64k"), ("mode", "0755")], INERT)?;
    attach(&top, &paths::find(root, TARGET)?)?;
    for group in groups {
        let name = if group.controllers.is_empty() { "unified".to_owned() } else { group.controllers.join(",") };
        mkdirat(&top, &name, Mode::from_raw_mode(0o755))?;
        let options: Vec<(&str, &str)> = group.controllers.iter().map(|name| (name.as_str(), "")).collect();
        let kind = if group.controllers.is_empty() { "cgroup2" } else { "cgroup" };
        let path = [TARGET, b"/", name.as_bytes()].concat();
        attach(&filesystem(kind, &options, INERT | READ_ONLY)?, &paths::find(root, &path)?)?;
        if group.controllers.len() > 1 {
            for controller in &group.controllers {
                symlinkat(&name, &top, controller)?;
            }
        }
    }
    sys::set_mount_attributes(top.as_fd(), READ_ONLY, None)
}

/// Does something with a place, if it exists.
fn if_there(found: Result<OwnedFd, Errno>, work: impl FnOnce(OwnedFd) -> io::Result<()>) -> io::Result<()> {
    match found {
        Ok(place) => work(place),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Hides a directory behind an empty one, and a file behind the null device.
fn mask(root: BorrowedFd<'_>, path: &[u8]) -> io::Result<()> {
    if_there(paths::find(root, path), |target| {
        let cover = if FileType::from_raw_mode(fstat(&target)?.st_mode) == FileType::Directory {
            filesystem("tmpfs", &[("size", "4k"), ("mode", "0555")], INERT | READ_ONLY)?
        } else {
            copy(paths::find(root, b"/dev/null")?.as_fd(), "", READ_ONLY, None)?
        };
        attach(&cover, &target)
    })
}

/// Writes the files, and mounts memory and the host's directories.
fn fill(launch: &Launch, root: BorrowedFd<'_>) -> Result<(), Broken> {
    for (path, content) in &launch.files {
        paths::write_file(root, path, content).during(Step::Files, format!("write {}", path.escape_ascii()))?;
    }
    for tmpfs in &launch.tmpfs {
        memory(root, tmpfs).during(Step::Files, format!("mount memory at {}", tmpfs.target.escape_ascii()))?;
    }
    for (index, underlay) in launch.underlays.iter().enumerate() {
        let lay = || {
            let name = underlay_name(index);
            attach(&overlay(&name, &name, HARMLESS)?, &paths::directory(root, &underlay.target)?)
        };
        lay().during(Step::Bind, format!("lay {}", underlay.target.escape_ascii()))?;
    }
    let put = |name: &str, target: &[u8]| {
        // What is mounted over a part of the workspace finds it there, and no link in its place.
        let found = paths::find(root, target).or_else(|_| paths::directory(root, target));
        place(name, &found?)
    };
    for (index, bind) in launch.binds.iter().enumerate() {
        put(&bind_name(index), &bind.target).during(Step::Bind, format!("mount {}", bind.target.escape_ascii()))?;
    }
    for (index, blank) in launch.blanks.iter().enumerate() {
        let name = format!("d/{}", blank_name(index));
        put(&name, &blank.target).during(Step::Bind, format!("mount {}", blank.target.escape_ascii()))?;
    }
    Ok(())
}

fn memory(root: BorrowedFd<'_>, tmpfs: &Tmpfs) -> io::Result<()> {
    let (size, inodes, mode) = (tmpfs.size.to_string(), tmpfs.inodes.to_string(), format!("{:o}", tmpfs.mode));
    let (uid, gid) = (tmpfs.owner.uid.to_string(), tmpfs.owner.gid.to_string());
    let options = [("size", size.as_str()), ("nr_inodes", &inodes), ("mode", &mode), ("uid", &uid), ("gid", &gid)];
    attach(&filesystem("tmpfs", &options, HARMLESS)?, &paths::directory(root, &tmpfs.target)?)
}

/// A file of shared memory takes a page at least, so there is one for each.
const BYTES_PER_PAGE: u64 = 4_096;

/// Makes the new root the only one (`pivot_root(2)`, notes).
fn change_root(root: &OwnedFd) -> io::Result<()> {
    fchdir(root)?;
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(chdir("/")?)
}

/// Gives up all that process 1 does not need.
fn restrict(launch: &Launch) -> Result<(), Broken> {
    let limit = |value: u64| Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(Resource::Core, limit(0)).during(Step::Privileges, "limit core dumps")?;
    let files = format!("limit open files to {}", launch.open_files);
    setrlimit(Resource::Nofile, limit(launch.open_files)).during(Step::Privileges, files)?;
    let give_up = || -> io::Result<()> {
        // Kernels before 4.3 have no ambient set.
        let _ = clear_ambient_capability_set();
        sys::limit_bounding_set(launch.capabilities)?;
        let kept = CapabilitySet::from_bits_retain(launch.capabilities);
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
        set_capabilities(None, sets)?;
        Ok(set_no_new_privs(true)?)
    };
    give_up().during(Step::Privileges, "give up capabilities")?;
    for filter in &launch.filters {
        sys::install_filter(filter).during(Step::Privileges, "install the system call filter")?;
    }
    Ok(())
}

/// Becomes a program; returns why not.
pub(super) fn execute(program: &[Vec<u8>], environment: &[Vec<u8>]) -> io::Error {
    let strings = |list: &[Vec<u8>]| -> Result<Vec<CString>, io::Error> {
        list.iter().map(|bytes| CString::new(bytes.as_slice()).map_err(io::Error::from)).collect()
    };
    let (program, environment) = match (strings(program), strings(environment)) {
        (Ok(program), Ok(environment)) => (program, environment),
        (Err(error), _) | (_, Err(error)) => return error,
    };
    match program.first() {
        Some(path) => crate::sys::execute(path, &program, &environment),
        None => io::Error::from(io::ErrorKind::InvalidInput),
    }
}
