//! What gVisor is told of a container: its command line, and the configuration of the Open Container Initiative
//! (<https://github.com/opencontainers/runtime-spec/blob/main/config.md>).

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use sandbox_core::{Error, ErrorKind, Result};
use sandbox_guest::launch::{BUNDLE_PID, BUNDLE_ROOT, BUNDLE_STATE, Bundle, LAYER_NAME, Launch, bind_name, blank_name};
use sandbox_guest::relay;
use sandbox_policy::LinuxCapability;
use serde_json::{Value, json};

use super::{KEPT, NAME};
use crate::seccomp;

/// Says how gVisor runs what a launch gathers in a container's directory.
pub(crate) fn bundle(program: &Path, launch: &Launch, directory: &Path) -> Result<Bundle> {
    let place = place(program)?;
    let configuration = configuration(launch, place)?;
    let tmpfs = launch.tmpfs.iter().map(|tmpfs| tmpfs.target.clone());
    // What is mounted over a part of the workspace finds its place there.
    let is_within = |target: &[u8]| {
        launch
            .binds
            .iter()
            .any(|bind| target.strip_prefix(bind.target.as_slice()).is_some_and(|rest| rest.first() == Some(&b'/')))
    };
    let binds = launch.binds.iter().map(|bind| bind.target.clone()).filter(|target| !is_within(target));
    let command = [
        program.as_os_str().as_bytes().to_vec(),
        format!("--root={}", place.join(BUNDLE_STATE).display()).into_bytes(),
        b"--network=none".to_vec(),
        // The groups are joined before it is started.
        b"--ignore-cgroups".to_vec(),
        b"--oci-seccomp".to_vec(),
        // What is written goes to the container's own layer, whose size is limited.
        b"--overlay2=none".to_vec(),
        b"run".to_vec(),
        b"--detach".to_vec(),
        format!("--pid-file={BUNDLE_PID}").into_bytes(),
        NAME.as_bytes().to_vec(),
    ];
    Ok(Bundle {
        command: command.to_vec(),
        configuration: configuration.to_string().into_bytes(),
        directory: place.as_os_str().as_bytes().to_vec(),
        state: directory.join(KEPT).as_os_str().as_bytes().to_vec(),
        places: tmpfs.chain(binds).collect(),
    })
}

/// Where a launch shows gVisor the parts of a container: a directory of every system (hier(7)) in which its program does not lie.
fn place(program: &Path) -> Result<&'static Path> {
    let found = PLACES.into_iter().map(Path::new).find(|place| place.is_dir() && !program.starts_with(place));
    found.ok_or_else(|| {
        let message = format!("there is none of the directories {}", PLACES.join(", "));
        Error::new(ErrorKind::Engine, message).with_hint("make one of them; it stays empty")
    })
}

const PLACES: [&str; 3] = ["/mnt", "/srv", "/media"];

fn configuration(launch: &Launch, place: &Path) -> Result<Value> {
    let capabilities: Vec<String> = LinuxCapability::ALL
        .iter()
        .filter(|capability| launch.capabilities & (1 << capability.number()) != 0)
        .map(|capability| format!("CAP_{capability}"))
        .collect();
    let map = |lines: &[(u32, u32, u32)]| -> Vec<Value> {
        let line = |(inside, outside, length): &(u32, u32, u32)| json!({"containerID": inside, "hostID": outside, "size": length});
        lines.iter().map(line).collect()
    };
    let texts = |list: &[Vec<u8>]| list.iter().map(|bytes| text(bytes)).collect::<Result<Vec<_>>>();
    let mut arguments = texts(&launch.program)?;
    arguments.push(relay::ARGUMENT.to_owned());
    let namespaces = ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"];
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": launch.identities.first.uid, "gid": launch.identities.first.gid },
            "args": arguments,
            "env": texts(&launch.environment)?,
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "rlimits": [
                { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
                { "type": "RLIMIT_NOFILE", "soft": launch.open_files, "hard": launch.open_files },
            ],
            "noNewPrivileges": true,
        },
        "root": { "path": place.join(BUNDLE_ROOT), "readonly": !launch.writable },
        "hostname": text(&launch.hostname)?,
        "mounts": mounts(launch, place)?,
        "linux": {
            "uidMappings": map(&launch.identities.users),
            "gidMappings": map(&launch.identities.groups),
            "namespaces": namespaces.map(|kind| json!({ "type": kind })),
            "seccomp": filter()?,
            "maskedPaths": texts(&launch.masked)?,
            "readonlyPaths": texts(&launch.read_only)?,
        },
    }))
}

fn mounts(launch: &Launch, place: &Path) -> Result<Vec<Value>> {
    let kernel = |target: &str, kind: &str, options: &[&str]| json!({ "destination": target, "type": kind, "source": kind, "options": options });
    let shared = format!("size={}", launch.shared_memory);
    let mut mounts = vec![
        kernel("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        kernel("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        kernel("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        kernel("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", &shared]),
        kernel("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        kernel("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        kernel("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    for tmpfs in &launch.tmpfs {
        let (size, mode) = (format!("size={}", tmpfs.size), format!("mode={:o}", tmpfs.mode));
        let (uid, gid) = (format!("uid={}", tmpfs.owner.uid), format!("gid={}", tmpfs.owner.gid));
        mounts.push(kernel(&text(&tmpfs.target)?, "tmpfs", &["nosuid", "nodev", &size, &mode, &uid, &gid]));
    }
    let bind = |source: &Path, target: &[u8], access: &str| -> Result<Value> {
        let options = ["bind", "nosuid", "nodev", access];
        Ok(json!({ "destination": text(target)?, "type": "bind", "source": source, "options": options }))
    };
    for (index, asked) in launch.binds.iter().enumerate() {
        let access = if asked.writable { "rw" } else { "ro" };
        mounts.push(bind(&source_of_bind(place, index), &asked.target, access)?);
    }
    for (index, blank) in launch.blanks.iter().enumerate() {
        mounts.push(bind(&source_of_blank(place, index), &blank.target, "rw")?);
    }
    Ok(mounts)
}

/// Where a launch has put a directory of the host's, in the bundle's directory.
pub(super) fn source_of_bind(place: &Path, index: usize) -> PathBuf {
    place.join(bind_name(index))
}

/// Where a launch has put an empty directory of the container's own.
pub(super) fn source_of_blank(place: &Path, index: usize) -> PathBuf {
    place.join(LAYER_NAME).join(blank_name(index))
}

/// The profile without what only engines read, for this machine.
fn filter() -> Result<Value> {
    let broken = |error| Error::new(ErrorKind::Engine, "the system call filter is no JSON").with_source(error);
    let mut profile: Value = serde_json::from_str(seccomp::profile()).map_err(broken)?;
    if let Some(fields) = profile.as_object_mut() {
        fields.remove("archMap");
        fields.insert("architectures".to_owned(), json!([seccomp::architecture()]));
    }
    Ok(profile)
}

fn text(bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| {
        let message = format!("{} is no UTF-8, and gVisor takes nothing else", bytes.escape_ascii());
        Error::new(ErrorKind::InvalidInput, message)
    })
}
