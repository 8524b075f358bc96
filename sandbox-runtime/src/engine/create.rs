//! Saying in Docker's words what a specification asks for.
//!
//! Invariant: what is written here is all that a container is told; nothing is left to a default of the engine that an
//! image or a daemon's configuration could change.

use std::collections::HashMap;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount,
    MountBindOptions, MountBindOptionsPropagationEnum, MountType, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};
use sandbox_core::{Blank, Error, ErrorKind, FileSystem, Result, Transport, Wiring};
use sandbox_guest::relay;
use sandbox_guest::wire::{GUEST_DIRECTORY, GUEST_PROGRAM};
use sandbox_policy::{Access, AgentUser, Control, Limits, SandboxSpec, Tmpfs};

use super::gvisor::{self, Gvisor};
use crate::{hidden, seccomp};

/// Tells whether the engine's storage takes a size for a container's own layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quota {
    /// It does not.
    None,
    /// It does, and the disk limit is set.
    Set,
}

/// Says what to make.
///
/// # Errors
/// A host path that the engine's JSON cannot hold, or a limit that is no number of Docker's.
pub(crate) fn body(
    spec: &SandboxSpec,
    wiring: &Wiring,
    quota: Quota,
    transport: Transport,
    gvisor: Option<&Gvisor>,
) -> Result<ContainerCreateBody> {
    let relayed = transport == Transport::Relay;
    Ok(ContainerCreateBody {
        hostname: Some("sandbox".to_owned()),
        domainname: Some(String::new()),
        // The guest starts as root, with the capabilities below and no others, and becomes the agent for all it runs.
        user: Some("0:0".to_owned()),
        attach_stdin: Some(relayed),
        attach_stdout: Some(relayed),
        attach_stderr: Some(false),
        tty: Some(false),
        open_stdin: Some(relayed),
        // Its end is the guest's, as soon as the one who attached has gone.
        stdin_once: Some(relayed),
        env: Some(Vec::new()),
        entrypoint: Some(vec![format!("{GUEST_DIRECTORY}/{GUEST_PROGRAM}")]),
        cmd: Some(if relayed { vec![relay::ARGUMENT.to_owned()] } else { Vec::new() }),
        working_dir: Some("/".to_owned()),
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() }),
        stop_signal: Some("SIGKILL".to_owned()),
        image: Some(wiring.image.id.clone()),
        labels: Some(wiring.labels().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        // Beside the mode `none`, this keeps the engine from building a network sandbox, which takes half of a start.
        network_disabled: Some(true),
        host_config: Some(host_config(spec, wiring, quota, gvisor)?),
        ..Default::default()
    })
}

fn host_config(spec: &SandboxSpec, wiring: &Wiring, quota: Quota, gvisor: Option<&Gvisor>) -> Result<HostConfig> {
    // The lifetime is the guest's to keep.
    let Limits { cpus, memory, disk, processes, open_files, lifetime: _ } = spec.limits();
    let memory = signed("memory", memory.bytes())?;
    let (files, cpus) = (i64::from(open_files.get()), i64::from(cpus.millis()));
    let storage = match quota {
        Quota::None => None,
        Quota::Set => Some(HashMap::from([("size".to_owned(), disk.bytes().to_string())])),
    };
    Ok(HostConfig {
        // A quota rather than `NanoCpus`, which Docker refuses where it is more than the machine has.
        cpu_period: Some(CPU_PERIOD),
        cpu_quota: Some(cpus.saturating_mul(CPU_PERIOD) / 1_000),
        memory: Some(memory),
        // Memory and swap together: so there is no swap.
        memory_swap: Some(memory),
        pids_limit: Some(match gvisor {
            None => i64::from(processes.get()),
            Some(_) => gvisor::processes_around(processes.get()),
        }),
        runtime: gvisor.map(|gvisor| gvisor.runtime().to_owned()),
        ulimits: Some(vec![ulimit("core", 0), ulimit("nofile", files)]),
        storage_opt: storage,
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(spec.capabilities().into_iter().map(|capability| capability.to_string()).collect()),
        security_opt: Some(vec!["no-new-privileges".to_owned(), format!("seccomp={}", seccomp::profile())]),
        privileged: Some(false),
        masked_paths: Some(hidden::MASKED.map(str::to_owned).to_vec()),
        readonly_paths: Some(hidden::READ_ONLY.map(str::to_owned).to_vec()),
        readonly_rootfs: Some(spec.required().contains(&Control::ReadonlyRootfs)),
        tmpfs: Some(in_memory(spec, wiring)?),
        mounts: Some(mounts(spec, wiring)?),
        shm_size: Some(SHARED_MEMORY),
        network_mode: Some("none".to_owned()),
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        pid_mode: Some(String::new()),
        uts_mode: Some(String::new()),
        // What a container prints would fill the host's disk; all that counts goes through the guest.
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: Some(HashMap::new()) }),
        auto_remove: Some(true),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: Some(0) }),
        init: Some(false),
        ..Default::default()
    })
}

fn mounts(spec: &SandboxSpec, wiring: &Wiring) -> Result<Vec<Mount>> {
    if wiring.file_system == FileSystem::Apart {
        return Ok(Vec::new());
    }
    let mut mounts =
        vec![bind("run directory", &wiring.guest_directory, Path::new(GUEST_DIRECTORY), Access::ReadOnly)?];
    mounts.push(bind("run directory", &wiring.guest_directory.join(HOSTS), Path::new(HOSTS_TARGET), Access::ReadOnly)?);
    if let Some(workspace) = spec.workspace()
        && let Some((host, access)) = workspace.mounted()
    {
        mounts.push(bind("workspace", host.as_path(), workspace.guest.as_path(), access)?);
    }
    for cover in &wiring.covers {
        mounts.push(bind("workspace", &cover.source, &cover.target, cover.access)?);
    }
    Ok(mounts)
}

/// One mount alone: file systems that are mounted below the source stay out, since an engine may leave them writable
/// where the rest is read-only (<https://docs.docker.com/engine/storage/bind-mounts/#recursive-mounts>).
fn bind(field: &str, source: &Path, target: &Path, access: Access) -> Result<Mount> {
    Ok(Mount {
        typ: Some(MountType::BIND),
        source: Some(utf8(field, source)?.to_owned()),
        target: Some(utf8(field, target)?.to_owned()),
        read_only: Some(access == Access::ReadOnly),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            non_recursive: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    })
}

pub(super) fn utf8<'a>(field: &str, path: &'a Path) -> Result<&'a str> {
    path.to_str().ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, format!("{field} {} is not UTF-8", path.display()))
            .with_hint("this engine takes paths in JSON: name a folder whose path is UTF-8")
    })
}

fn in_memory(spec: &SandboxSpec, wiring: &Wiring) -> Result<HashMap<String, String>> {
    let agent = wiring.agent.ids();
    let mut all: HashMap<String, String> =
        spec.tmpfs().iter().map(|tmpfs| memory_file_system(tmpfs, spec, agent)).collect();
    for Blank { target, size } in &wiring.blanks {
        all.insert(
            utf8("workspace", target)?.to_owned(),
            format!("rw,exec,nosuid,nodev,size={},{}", size.bytes(), own(agent)),
        );
    }
    Ok(all)
}

/// The options by which a memory file system is the agent's alone, where it is known who that is.
fn own(agent: Option<AgentUser>) -> String {
    match agent {
        Some(agent) => format!("mode=0700,uid={},gid={}", agent.uid(), agent.gid()),
        None => "mode=1777".to_owned(),
    }
}

/// A home and a workspace are their user's alone, `/run` is root's, and the rest are everybody's, as in an ordinary system
/// (<https://man7.org/linux/man-pages/man7/hier.7.html>); runc 1.1 keeps the mode that the directory has in the image. The home and the workspace of a
/// user that only the image knows are everybody's too, of whom there is one. Programs may be run from each: agents build there.
fn memory_file_system(tmpfs: &Tmpfs, spec: &SandboxSpec, agent: Option<AgentUser>) -> (String, String) {
    let Tmpfs { path, size } = tmpfs;
    let is_workspace = spec.workspace().is_some_and(|workspace| workspace.guest == *path);
    let is_own = path.as_path().starts_with("/home") || is_workspace;
    let owner = if is_own {
        own(agent)
    } else if path.as_str() == "/run" {
        "mode=0755".to_owned()
    } else {
        "mode=1777".to_owned()
    };
    let options = format!("rw,exec,nosuid,nodev,size={},nr_inodes={},{owner}", size.bytes(), tmpfs.inodes());
    (path.to_string(), options)
}

/// Writes the host names of a sandbox beside its guest.
///
/// An engine that builds no network sandbox leaves `/etc/hosts` empty, and then programs do not find `localhost`.
pub(crate) async fn write_hosts(directory: &Path) -> Result<()> {
    write(&directory.join(HOSTS), HOSTS_CONTENT).await
}

/// Writes a file that the agent and the engine may read.
pub(super) async fn write(path: &Path, content: &str) -> Result<()> {
    let written = async {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o444);
        let mut file = tokio::fs::OpenOptions::from(options).open(path).await?;
        tokio::io::AsyncWriteExt::write_all(&mut file, content.as_bytes()).await?;
        // Readable to everybody, whatever the caller's umask is.
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o444)).await?;
        tokio::io::AsyncWriteExt::flush(&mut file).await
    };
    written.await.map_err(|error| Error::io(format!("cannot write {}", path.display()), error))
}

fn ulimit(name: &str, limit: i64) -> ResourcesUlimits {
    ResourcesUlimits { name: Some(name.to_owned()), soft: Some(limit), hard: Some(limit) }
}

pub(super) fn signed(field: &str, value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| {
        Error::new(ErrorKind::InvalidInput, format!("limits.{field} is {value}; at most {} is allowed", i64::MAX))
    })
}

/// What a failed creation most often comes from.
pub(crate) const HINT: &str = "the engine must see the workspace and the run directory under the same paths as this \
                               program does";

/// The file beside the guest that is mounted at [`HOSTS_TARGET`].
pub(super) const HOSTS: &str = "hosts";
/// Where programs look up host names (<https://man7.org/linux/man-pages/man5/hosts.5.html>).
pub(crate) const HOSTS_TARGET: &str = "/etc/hosts";
pub(super) const HOSTS_CONTENT: &str = "127.0.0.1\tlocalhost sandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// Microseconds; the kernel's own default (<https://docs.kernel.org/scheduler/sched-bwc.html>).
pub(super) const CPU_PERIOD: i64 = 100_000;

/// Bytes of `/dev/shm`: Docker's default, which many programs count on. It counts as memory of the sandbox.
pub(super) const SHARED_MEMORY: i64 = 64 << 20;
