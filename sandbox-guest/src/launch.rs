//! What a runtime without an engine tells the guest's program, so that it makes a container and becomes its process 1.
//!
//! The program is started with [`ARGUMENT`] and a Unix socket as its standard input. It receives one [`Launch`], makes
//! the container step by step, answers with one [`Outcome`] and ends; process 1 stays. Nothing here comes from inside
//! a sandbox, but the image's files do: no path below the new root is followed out of it.

use serde::{Deserialize, Serialize};

use crate::wire::Identity;

/// The argument that asks for a launch.
pub const ARGUMENT: &str = "--launch";

/// The largest [`Launch`], in bytes.
pub const MAX_LAUNCH: usize = 1 << 20;

/// The largest [`Outcome`], in bytes.
pub const MAX_OUTCOME: usize = 8 << 10;

/// A container to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// An empty directory of the host, on which the parts are gathered in a mount namespace of the launch's own.
    pub scratch: Vec<u8>,
    /// The control groups to join.
    pub cgroups: Vec<Cgroup>,
    /// Who is who in the user namespace.
    pub identities: Identities,
    /// The unpacked image: a directory of the host, shared and never written to.
    pub image: Vec<u8>,
    /// Directories of the host that belong to the image: each is shown at its own path, never written to, below a layer of
    /// the container's own.
    pub trees: Vec<Vec<u8>>,
    /// Where the container's own layer lies.
    pub layer: Layer,
    /// Whether the root file system can be written once all is in place.
    pub writable: bool,
    /// Files to write over the image's own, readable for all: path and content.
    pub files: Vec<(Vec<u8>, Vec<u8>)>,
    /// Memory file systems, in the order of mounting.
    pub tmpfs: Vec<Tmpfs>,
    /// Trees of the host that appear inside below what the container writes, in the order of mounting, before the binds.
    pub underlays: Vec<Underlay>,
    /// Directories of the host, in the order of mounting.
    pub binds: Vec<Bind>,
    /// Empty directories of the container's own layer, in the order of mounting, after the host's.
    pub blanks: Vec<Blank>,
    /// Paths to hide, if they exist.
    pub masked: Vec<Vec<u8>>,
    /// Paths to make read-only, if they exist.
    pub read_only: Vec<Vec<u8>>,
    /// The host name inside.
    pub hostname: Vec<u8>,
    /// Bytes of `/dev/shm`.
    pub shared_memory: u64,
    /// `RLIMIT_NOFILE` of process 1, soft and hard.
    pub open_files: u64,
    /// The capabilities that process 1 keeps, as a mask of their numbers (capabilities(7)).
    pub capabilities: u64,
    /// System call filters in the kernel's form, eight bytes for each instruction, installed in this order (seccomp(2)).
    pub filters: Vec<Vec<u8>>,
    /// The program of process 1 inside and its arguments.
    pub program: Vec<Vec<u8>>,
    /// Its environment, as `NAME=value`.
    pub environment: Vec<Vec<u8>>,
    /// What runs the container in the place of this machine's kernel; then the program, its limits and the kernel's file systems are
    /// its business, and the container's streams are the descriptor that comes with the launch.
    pub bundle: Option<Bundle>,
}

/// A container as a runtime of the Open Container Initiative takes it
/// (<https://github.com/opencontainers/runtime-spec/blob/main/bundle.md>). The tree lies in `r` of the bundle's directory, with a
/// place for every mount, and the other parts beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// The runtime's program and its arguments. It ends when the container runs, and leaves the id of its first process in a file.
    pub command: Vec<Vec<u8>>,
    /// What `config.json` says.
    pub configuration: Vec<u8>,
    /// The bundle's directory, over which the scratch directory is shown to the runtime alone: whoever is root inside must get there,
    /// and the way to the scratch directory is the caller's.
    pub directory: Vec<u8>,
    /// The directory of the host where the runtime keeps what it knows of the container; it is `k` in the bundle's.
    pub state: Vec<u8>,
    /// Where mounts go: directories, made where they are missing.
    pub places: Vec<Vec<u8>>,
}

/// The tree of such a container, in the bundle's directory.
pub const BUNDLE_ROOT: &str = "r";

/// What the directory of the runtime's own is called there: the path of a socket in it must be short (unix(7)).
pub const BUNDLE_STATE: &str = "k";

/// The file there that the id of the first process goes to.
pub const BUNDLE_PID: &str = "pid";

/// What the host's directories are called there, by their places in the list.
pub fn bind_name(index: usize) -> String {
    format!("b{index}")
}

/// What the container's own layer is called there.
pub const LAYER_NAME: &str = "d";

/// A directory of a hierarchy of control groups (cgroups(7)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// The group's directory on the host.
    pub directory: Vec<u8>,
    /// The controllers of a hierarchy of version 1; none for version 2.
    pub controllers: Vec<String>,
}

/// The ids of a user namespace (`user_namespaces(7)`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identities {
    /// Users: inside, outside, length.
    pub users: Vec<(u32, u32, u32)>,
    /// Groups: inside, outside, length.
    pub groups: Vec<(u32, u32, u32)>,
    /// Whom process 1 runs as, inside.
    pub first: Identity,
    /// Whoever starts the launch has privilege on the host, so that any id may be mapped.
    pub privileged: bool,
}

/// Where a container's own layer lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "both sides are built from this crate, and must match in full")]
pub enum Layer {
    /// A directory of the host, without a limit of its own.
    Directory(Vec<u8>),
    /// An ext4 file system in a file, whose name is removed as soon as it is mounted.
    Image(Vec<u8>),
    /// A file system in memory, which counts as the container's.
    Memory {
        /// Bytes that it holds at most.
        bytes: u64,
        /// Files and directories that it holds at most.
        inodes: u64,
    },
}

/// A file system in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Where it is mounted.
    pub target: Vec<u8>,
    /// Bytes that it holds at most.
    pub size: u64,
    /// Files and directories that it holds at most.
    pub inodes: u64,
    /// Permission bits.
    pub mode: u32,
    /// Whom it belongs to, inside.
    pub owner: Identity,
}

/// A directory of the host that appears inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// The directory on the host.
    pub source: Vec<u8>,
    /// Where it appears.
    pub target: Vec<u8>,
    /// Whether it can be written.
    pub writable: bool,
    /// Who owns it on the host, and who that is inside; `None` leaves owners as the namespace shows them.
    pub owner: Option<(Identity, Identity)>,
}

/// A tree of the host's that appears inside as the container's own: never written to, below a part of its layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Underlay {
    /// The directory on the host.
    pub source: Vec<u8>,
    /// Where it appears.
    pub target: Vec<u8>,
    /// Who owns it on the host, and who that is inside; `None` leaves owners as the namespace shows them.
    pub owner: Option<(Identity, Identity)>,
    /// Whom it belongs to, inside.
    pub writer: Identity,
}

/// An empty directory of the container's own layer that appears inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blank {
    /// Where it appears.
    pub target: Vec<u8>,
    /// Whom it belongs to, inside.
    pub owner: Identity,
}

/// The name of such a directory in the layer, by its place in the list.
pub fn blank_name(index: usize) -> String {
    format!("b{index}")
}

/// What such a tree and its part of the layer are called, by the place in the list.
pub fn underlay_name(index: usize) -> String {
    format!("b{index}u")
}

/// How a launch ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "both sides are built from this crate, and must match in full")]
pub enum Outcome {
    /// A step failed, and nothing runs.
    Failed {
        /// Which step.
        step: Step,
        /// What was being done, for people.
        doing: String,
        /// The error number (errno(3)), or 0.
        errno: i32,
    },
    /// Process 1 runs its program.
    Started {
        /// Its process id, in the numbering of whoever launched it.
        pid: u32,
        /// The number of the loop device below the container's own layer.
        loop_device: Option<u32>,
    },
}

/// The steps of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "both sides are built from this crate, and must match in full")]
pub enum Step {
    /// The launch itself makes no sense.
    Request,
    /// Making the namespaces and the users in them.
    Namespaces,
    /// Joining a control group.
    Cgroup,
    /// Mounting the container's own layer.
    Layer,
    /// Showing the image's files with the namespace's owners.
    Image,
    /// Joining image and layer.
    Overlay,
    /// The kernel's file systems and the devices.
    System,
    /// The host's directories.
    Bind,
    /// Memory file systems and written files.
    Files,
    /// Leaving the host's tree.
    Root,
    /// The loopback interface and the host name.
    Network,
    /// Limits, capabilities and filters.
    Privileges,
    /// Running the program.
    Program,
    /// Having another runtime run the container.
    Bundle,
}
