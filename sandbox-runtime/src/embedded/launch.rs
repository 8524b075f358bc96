//! Starting a container: the guest's program makes it, in a process of its own with a single thread.
//!
//! The program is kept in sealed memory, so that it is the one that this library carries, and no file needs to be found.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use sandbox_core::{Error, ErrorKind, Result};
use sandbox_guest::frame::{receive, send};
use sandbox_guest::launch::{
    ARGUMENT, Bind, Blank, Cgroup, Launch, Layer, MAX_LAUNCH, MAX_OUTCOME, Outcome, Step, Tmpfs, Underlay,
};
use sandbox_guest::wire::{GUEST_DIRECTORY, GUEST_PROGRAM, Identity};

use super::identities::Ids;
use super::record::Record;
use crate::hidden;

/// What every launch has in common.
#[derive(Debug)]
pub(super) struct Launcher {
    program: OwnedFd,
    filters: Vec<Vec<u8>>,
    ids: Ids,
}

/// What was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Started {
    /// The id of process 1, in this process's numbering.
    pub(super) pid: u32,
    /// The number of the loop device below the container's own layer.
    pub(super) loop_device: Option<u32>,
}

/// A launch that failed: at which step, where it came to one.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) step: Option<Step>,
    pub(super) error: Error,
}

impl Launcher {
    /// Takes a program and the filters that are installed for what it starts.
    pub(super) fn new(program: &[u8], filters: Vec<Vec<u8>>, ids: Ids) -> Result<Self> {
        let hold = || -> io::Result<OwnedFd> {
            let memory = memfd_create("sandbox-guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
            let mut file = File::from(memory);
            file.write_all(program)?;
            fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
            Ok(file.into())
        };
        let program = hold().map_err(|error| Error::io("cannot hold the guest's program in memory", error))?;
        Ok(Self { program, filters, ids })
    }

    /// Says what to make of a container whose directory is given.
    pub(super) fn request(&self, record: &Record, directory: &Path) -> Launch {
        let agent = Identity { uid: record.agent.0, gid: record.agent.1 };
        let disk = directory.join(DISK);
        let identities = self.ids.identities(agent);
        let first = identities.first;
        Launch {
            scratch: bytes(&directory.join(SCRATCH)),
            cgroups: record
                .cgroups
                .iter()
                .map(|group| Cgroup { directory: bytes(&group.directory), controllers: group.controllers.clone() })
                .collect(),
            identities,
            image: bytes(&record.rootfs),
            trees: record.trees.iter().map(|tree| bytes(tree)).collect(),
            layer: match (record.disk, self.ids) {
                (Some(size), Ids::Own { .. }) => Layer::Memory { bytes: size, inodes: inodes_of(size) },
                (Some(_), Ids::Range { .. }) => Layer::Image(bytes(&disk)),
                (None, _) => Layer::Directory(bytes(&directory.join(LAYER))),
            },
            writable: record.writable,
            files: FILES.map(|(path, content)| (path.as_bytes().to_vec(), content.as_bytes().to_vec())).to_vec(),
            tmpfs: record.tmpfs.iter().map(|(target, size)| memory_file_system(target, *size, agent, first)).collect(),
            underlays: record
                .underlays
                .iter()
                .map(|mount| Underlay {
                    source: bytes(&mount.resolved),
                    target: bytes(&mount.target),
                    owner: mount.owner.map(|(uid, gid)| (Identity { uid, gid }, self.ids.outside(agent))),
                    writer: agent,
                })
                .collect(),
            binds: record
                .binds
                .iter()
                .map(|mount| Bind {
                    source: bytes(&mount.resolved),
                    target: bytes(&mount.target),
                    writable: mount.writable,
                    owner: mount.owner.map(|(uid, gid)| (Identity { uid, gid }, self.ids.outside(agent))),
                })
                .collect(),
            blanks: record.blanks.iter().map(|target| Blank { target: bytes(target), owner: agent }).collect(),
            masked: hidden::MASKED.map(|path| path.as_bytes().to_vec()).to_vec(),
            read_only: hidden::READ_ONLY.map(|path| path.as_bytes().to_vec()).to_vec(),
            hostname: b"sandbox".to_vec(),
            shared_memory: SHARED_MEMORY,
            open_files: record.open_files,
            capabilities: self.ids.capabilities(record.capabilities),
            filters: self.filters.clone(),
            program: vec![format!("{GUEST_DIRECTORY}/{GUEST_PROGRAM}").into_bytes()],
            environment: record.environment.iter().map(|variable| variable.clone().into_bytes()).collect(),
            bundle: None,
        }
    }

    /// Makes a container and starts its process 1, with a stream where another runtime runs it.
    pub(super) fn launch(&self, launch: &Launch, stream: Option<BorrowedFd<'_>>) -> Result<Started, Failure> {
        let own = |error| Failure { step: None, error: Error::io("cannot start the launch of a container", error) };
        let (ours, theirs) = UnixStream::pair().map_err(own)?;
        ours.set_read_timeout(Some(PATIENCE)).map_err(own)?;
        let mut child = Command::new(format!("/proc/self/fd/{}", self.program.as_raw_fd()))
            .arg(ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(own)?;
        let answered =
            send(&ours, launch, stream.as_slice(), MAX_LAUNCH).and_then(|()| receive::<Outcome>(&ours, MAX_OUTCOME));
        if answered.is_err() {
            // It may have ended; either way it must not go on.
            let _ = child.kill();
        }
        // Its answer is what counts.
        let _ = child.wait();
        match answered.map_err(own)? {
            Some((Outcome::Started { pid, loop_device }, _)) => Ok(Started { pid, loop_device }),
            Some((Outcome::Failed { step, doing, errno }, _)) => {
                Err(Failure { step: Some(step), error: failed(step, &doing, errno) })
            }
            None => Err(own(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

fn failed(step: Step, doing: &str, errno: i32) -> Error {
    let source = io::Error::from_raw_os_error(errno);
    let message = format!("cannot make the container: cannot {doing}");
    let error = match (step, source.raw_os_error()) {
        (_, None | Some(0)) => Error::new(ErrorKind::Engine, message),
        _ => Error::io(message, source),
    };
    match hint(step) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

fn hint(step: Step) -> Option<&'static str> {
    match step {
        Step::Namespaces => Some("the kernel must allow user namespaces: see user.max_user_namespaces (sysctl(8))"),
        Step::Layer => Some("a disk limit needs loop devices (/dev/loop-control) and ext4, or without root Linux 6.6"),
        Step::Image => {
            Some("the state directory must lie on a file system whose owners can be mapped: ext4, XFS, btrfs, tmpfs")
        }
        Step::Overlay => {
            Some("the kernel must have overlayfs, 5.19 or later, and the state directory must not lie on one")
        }
        Step::Bundle => {
            Some("gVisor must be of 2023 or later, and run here: try `runsc --network=none do true` as root")
        }
        Step::System => Some("/proc and /sys of the caller must be whole: inside another container they often are not"),
        Step::Bind => Some("no part of the path may be a link, and its file system must let owners be mapped"),
        Step::Request | Step::Cgroup | Step::Files | Step::Root | Step::Network | Step::Privileges | Step::Program => {
            None
        }
    }
}

/// A home is its user's alone, `/run` is root's (or who is first where there is no root), and the rest are everybody's, as in an ordinary system
/// (<https://man7.org/linux/man-pages/man7/hier.7.html>).
fn memory_file_system(target: &str, size: u64, agent: Identity, first: Identity) -> Tmpfs {
    let (mode, owner) = match target {
        home if Path::new(home).starts_with("/home") => (0o700, agent),
        "/run" => (0o755, first),
        "/tmp" | "/var/tmp" => (0o1777, first),
        _ => (0o700, agent),
    };
    Tmpfs { target: target.as_bytes().to_vec(), size, inodes: inodes_of(size), mode, owner }
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// Where a container's directory is covered by what its launch gathers.
pub(super) const SCRATCH: &str = "scratch";
/// The file system of the container's own layer, until it is mounted.
pub(super) const DISK: &str = "disk";
/// The container's own layer, where nothing limits it.
pub(super) const LAYER: &str = "layer";

/// What programs look up about names of hosts: that there is this one (hosts(5), resolv.conf(5)).
const FILES: [(&str, &str); 3] = [
    ("/etc/hostname", "sandbox\n"),
    ("/etc/hosts", "127.0.0.1\tlocalhost sandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
    ("/etc/resolv.conf", "# There is no network.\n"),
];

/// How many files a file system in memory may have: as on disk (mke2fs.conf(5), `inode_ratio`).
fn inodes_of(bytes: u64) -> u64 {
    (bytes / BYTES_PER_FILE).max(1)
}

/// Bytes for which there may be one file.
const BYTES_PER_FILE: u64 = 16 << 10;

/// Bytes of `/dev/shm`: what engines give, on which many programs count. It counts as memory of the sandbox.
const SHARED_MEMORY: u64 = 64 << 20;

/// How long a launch may take; a busy disk is slow.
const PATIENCE: Duration = Duration::from_mins(1);
