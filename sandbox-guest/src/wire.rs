//! The messages between a host and the guest, and their bounds.
//!
//! One socket, the *channel*, carries [`Hello`] up, [`Setup`] down and then [`Request`]s down. Nothing else ever
//! comes up it: each request brings a socket of its own, its *control*, over which the guest answers with
//! [`Reply`]s and the host may send [`Command`]s. A control that closes ends what its request started, so that a
//! dropped future, a cancelled task and a killed host all end the same way.
//!
//! | request | descriptors, in this order | replies |
//! | --- | --- | --- |
//! | [`Request::Attest`] | control | `Observed` |
//! | [`Request::Exec`] | control, standard input, output, error | `Started`, `Exited` |
//! | [`Request::Exec`] with a terminal | control | `Started` with the terminal's master, `Exited` |
//! | [`Request::List`] | control | `Entries` …, `Done` |
//! | [`Request::Listen`] | control | `Listening` with the listener |
//! | [`Request::MakeDirectory`], [`Request::Remove`], [`Request::Share`] | control | `Done` |
//! | [`Request::Pack`], [`Request::Read`] | control, pipe to write to | `Done` |
//! | [`Request::Stat`] | control | `Entry` |
//! | [`Request::Place`], [`Request::Unpack`], [`Request::Write`] | control, pipe to read from | `Done`, after [`Command::Commit`] |
//!
//! Any request may be answered by `Failed` instead. A control that closes before the last reply means that whoever
//! served it was killed, as the agent may do to what runs as itself: the request then failed, and may have left a part
//! behind. Paths, arguments and names are bytes, as the kernel has them.

use serde::{Deserialize, Serialize};

/// The version of these messages; both sides must speak the same one.
pub const PROTOCOL: u32 = 7;

/// The directory inside the container that holds the guest and its socket.
pub const GUEST_DIRECTORY: &str = "/.sandbox";

/// The name of the guest's program inside [`GUEST_DIRECTORY`].
pub const GUEST_PROGRAM: &str = "guest";

/// The name of the host's socket inside [`GUEST_DIRECTORY`].
pub const GUEST_SOCKET: &str = "socket";

/// The largest frame that a guest accepts, in bytes: room for the 2 MiB of arguments that Linux allows (execve(2)).
pub const MAX_TO_GUEST: usize = 4 << 20;

/// The largest frame that a host accepts, in bytes.
pub const MAX_TO_HOST: usize = 256 << 10;

/// The most descriptors that one frame carries.
pub const MAX_DESCRIPTORS: usize = 4;

/// The most directory entries in one [`Reply::Entries`].
pub const MAX_ENTRIES: usize = 256;

/// The guest's first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] as the guest was built with it.
    pub protocol: u32,
}

/// The host's first message: what holds for all that the guest starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// [`PROTOCOL`] as the host was built with it.
    pub protocol: u32,
    /// The user that every program and every file request runs as.
    pub agent: Identity,
    /// The user that the image names, with a group perhaps ([`crate::user::split`]), to be looked up inside; the agent's ids above
    /// count where it turns out to be root.
    pub user: Option<String>,
    /// Seconds after which the guest ends, and the container with it.
    pub lifetime: u64,
    /// The limit of open files in each process (`RLIMIT_NOFILE`, soft and hard).
    pub open_files: u64,
    /// The limit of processes and threads, where the kernel inside is the sandbox's own and keeps it.
    pub processes: Option<u64>,
    /// Variables of every program, where neither the image nor a request sets them.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// Whether programs may be run as root inside, and the agent finds whom to ask for it.
    pub sudo: Sudo,
    /// A directory in the container's own layer that is made for the agent before anything of the agent's runs.
    pub workspace: Option<Vec<u8>>,
}

/// Whether the agent may ask for root inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "a question with two answers")]
pub enum Sudo {
    /// It may not, and no program is run as root.
    Denied,
    /// It may: a program `sudo` is put where it finds it.
    Offered,
}

/// A user and its group inside the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The user id; every value but 4294967295, which means "no change" to the kernel (setresuid(2)).
    pub uid: u32,
    /// The group id, with the same bound; the process has no other group.
    pub gid: u32,
}

/// What a host asks of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "both sides are built from this crate, and must match in full")]
pub enum Request {
    /// Report what is in force, seen from the agent's own place.
    Attest,
    /// Run a program as the agent.
    Exec(Exec),
    /// Report the entries of a directory.
    List {
        /// The directory.
        path: Vec<u8>,
    },
    /// Listen inside, and pass the listener out.
    Listen(Socket),
    /// Make a directory, and its parents where they are missing.
    MakeDirectory {
        /// The directory.
        path: Vec<u8>,
    },
    /// Send the tree below a directory, or one file, as a tree stream.
    Pack {
        /// The directory or file.
        path: Vec<u8>,
    },
    /// Receive the bytes of a file as container root, who owns it and the directories above it that are made.
    Place {
        /// The file.
        path: Vec<u8>,
        /// Its permission bits; set-id bits are ignored.
        mode: u32,
    },
    /// Send the bytes of a regular file.
    Read {
        /// The file.
        path: Vec<u8>,
    },
    /// Remove a file, a link or a whole directory; nothing is followed.
    Remove {
        /// What to remove.
        path: Vec<u8>,
    },
    /// Let everybody write a directory, if it is container root's.
    Share {
        /// The directory.
        path: Vec<u8>,
    },
    /// Report one entry; a final symbolic link is reported, not followed.
    Stat {
        /// The entry.
        path: Vec<u8>,
    },
    /// Receive a tree stream into a directory, which is made if it is missing.
    Unpack {
        /// The directory.
        path: Vec<u8>,
    },
    /// Receive the bytes of a file, which replaces what is there only when all of it has come.
    Write {
        /// The file.
        path: Vec<u8>,
        /// Its permission bits; set-id bits are ignored.
        mode: u32,
    },
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "both sides are built from this crate, and must match in full")]
pub enum Socket {
    /// At 127.0.0.1, by TCP.
    Loopback {
        /// The port; 0 is any that is free.
        port: u16,
    },
    /// At a path, as a stream; the directories above it are made where they are missing.
    Unix {
        /// The path, which nothing may be at yet.
        path: Vec<u8>,
        /// Its permission bits: who may connect.
        mode: u32,
    },
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// The program and its arguments; a program without a slash is looked up in `PATH`.
    pub argv: Vec<Vec<u8>>,
    /// Variables that are set beside, or instead of, those of the image.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// The working directory; the agent's home if there is none.
    pub directory: Option<Vec<u8>>,
    /// Milliseconds after which the program and all that it started are ended.
    pub deadline: Option<u64>,
    /// Milliseconds between the signal that asks (`SIGTERM`) and the one that does not (`SIGKILL`).
    pub grace: u64,
    /// A terminal of this size instead of three pipes.
    pub terminal: Option<WindowSize>,
    /// Whom it runs as.
    pub run_as: RunAs,
}

/// Whom a program runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "both sides are built from this crate, and must match in full")]
pub enum RunAs {
    /// The agent, without a capability.
    Agent,
    /// Root inside, with the capabilities of [`crate::sudo::CAPABILITIES`]; only where [`Sudo::Offered`].
    Root,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// What a host may say about a request that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "both sides are built from this crate, and must match in full")]
pub enum Command {
    /// All data has been written: make it last.
    Commit,
    /// End the program and all that it started, at once.
    Kill,
    /// Change the terminal's size; only where the host does not hold the terminal itself.
    Resize(WindowSize),
    /// Send a signal to the program's process group.
    Signal(i32),
}

/// What the guest answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "both sides are built from this crate, and must match in full")]
pub enum Reply {
    /// The request is done.
    Done(Summary),
    /// Some entries of a directory; more may follow.
    Entries(Vec<Entry>),
    /// One entry.
    Entry(Entry),
    /// The program has ended.
    Exited(Exit),
    /// The request was not carried out.
    Failed(Failure),
    /// The listener comes with this.
    Listening,
    /// What is in force.
    Observed(Box<Observed>),
    /// The program runs.
    Started {
        /// Its process id inside the container.
        pid: u32,
    },
}

/// What was moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Entries that were made or sent.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Entries that were left out, with the reason; at most [`MAX_ENTRIES`] are named.
    pub skipped: Vec<Skipped>,
    /// How many were left out, named or not.
    pub skipped_entries: u64,
}

/// An entry that does not travel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its path below the tree's root.
    pub path: Vec<u8>,
    /// Why it was left out.
    pub why: SkipReason,
}

/// Why an entry does not travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "both sides are built from this crate, and must match in full")]
pub enum SkipReason {
    /// A symbolic link whose target is absolute or outside the tree.
    EscapingLink,
    /// A device, a named pipe or a socket.
    Special,
    /// The agent may not read it.
    Unreadable,
}

/// A directory entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its last name.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits.
    pub mode: u32,
    /// Bytes, for a regular file.
    pub size: u64,
    /// Seconds since 1970 at which the content last changed.
    pub modified: i64,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "both sides are built from this crate, and must match in full")]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A device, a named pipe or a socket.
    Special,
    /// A symbolic link.
    Symlink,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its status.
    pub status: Status,
    /// Whether the deadline ended it.
    pub timed_out: bool,
    /// Whether the container's memory limit killed a process while it ran.
    pub out_of_memory: bool,
}

/// The status of a program that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "wait(2) knows these two")]
pub enum Status {
    /// It exited with this code.
    Code(u8),
    /// It was killed by this signal.
    Signal(u8),
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For code.
    pub kind: FailureKind,
    /// The error number (errno(3)), or 0.
    pub errno: i32,
    /// For people; at most 1 KiB.
    pub message: String,
}

/// The kinds of [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "both sides are built from this crate, and must match in full")]
pub enum FailureKind {
    /// The agent may not do this.
    Denied,
    /// The arguments make no sense.
    Invalid,
    /// Something else went wrong.
    Io,
    /// The directory or file does not exist.
    NotFound,
    /// The file exists and is not a program that can run.
    NotRunnable,
    /// The program, or the interpreter that it names, does not exist.
    ProgramNotFound,
    /// A limit was hit: processes, memory, descriptors or disk.
    Exhausted,
    /// The entry is of another kind than the request needs.
    WrongKind,
}

/// What is in force, seen from inside by a process that was made exactly as a program of the agent is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Whom the guest takes for the agent; none where the image does not know the user that it names.
    pub identity: Option<Identity>,
    /// The agent's process.
    pub agent: ProcessStatus,
    /// The guest's own process.
    pub guest: ProcessStatus,
    /// The control group's limits.
    pub cgroup: CgroupLimits,
    /// Calls that reach for the host and that no filter stopped, by name; the agent's process tried a few.
    pub unfiltered: Vec<String>,
    /// `RLIMIT_NOFILE` of the agent's process: soft and hard.
    pub open_files: (u64, u64),
    /// `RLIMIT_CORE` of the agent's process: soft and hard, in bytes.
    pub core_size: (u64, u64),
    /// The user namespace's map: inside, outside, length (`user_namespaces(7)`).
    pub uid_map: Vec<(u32, u32, u32)>,
    /// Network interfaces, by name.
    pub interfaces: Vec<String>,
    /// Mounts, in the order of `/proc/self/mountinfo`; at most [`MAX_ENTRIES`].
    pub mounts: Vec<Mount>,
    /// The kernel's release and version (uname(2)).
    pub kernel: String,
    /// Whether the agent could create a file in the root directory's file system.
    pub root_writable: bool,
    /// Seconds until the guest ends by itself.
    pub remaining: u64,
}

/// What `/proc/PID/status` says of a process (proc(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Real, effective, saved and file system user ids.
    pub uid: [u32; 4],
    /// Real, effective, saved and file system group ids.
    pub gid: [u32; 4],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capability sets: inheritable, permitted, effective, bounding, ambient.
    pub capabilities: [u64; 5],
    /// Whether `no_new_privs` is set (prctl(2)).
    pub no_new_privileges: bool,
    /// The seccomp mode: 0 none, 1 strict, 2 filter (seccomp(2)).
    pub seccomp: u32,
    /// How many seccomp filters are stacked.
    pub seccomp_filters: u32,
}

/// The limits of a control group; what has no limit, or cannot be read, is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupLimits {
    /// The version of the hierarchy, 1 or 2; 0 if none is mounted.
    pub version: u8,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together.
    pub memory_and_swap: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Microseconds of CPU time in each period.
    pub cpu_quota: Option<u64>,
    /// The period, in microseconds.
    pub cpu_period: Option<u64>,
}

/// A mount, as `/proc/self/mountinfo` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where it is mounted.
    pub target: Vec<u8>,
    /// The file system's type.
    pub kind: String,
    /// The mount's options and then the file system's, comma-separated.
    pub options: String,
    /// Whether it is read-only, by the mount or by the file system.
    pub read_only: bool,
    /// The file system's size in bytes (statvfs(3)), where it can be told.
    pub size: Option<u64>,
}
