//! Saying in Podman's own words what a specification asks for.
//!
//! Docker's have none for a namespace of control groups, for what is masked and for a profile of system calls; Podman takes
//! them there and drops them, or takes them for something else
//! (<https://docs.podman.io/en/latest/_static/api.html#tag/containers/operation/ContainerCreateLibpod>).
//!
//! Invariant: what is written here is all that a container is told; nothing is left to a default of the engine that an
//! image or a configuration could change, but limits of processes, which Podman raises where it is not told them, and which
//! the guest sets itself.

use std::path::Path;

use sandbox_core::{Blank, ContainerId, Error, ErrorKind, Result, Transport, Wiring};
use sandbox_guest::relay;
use sandbox_guest::wire::{GUEST_DIRECTORY, GUEST_PROGRAM};
use sandbox_policy::{Access, Isolation, Limits, SandboxSpec};
use serde_json::{Value, json};

use super::super::create::{CPU_PERIOD, HOSTS, HOSTS_TARGET, SHARED_MEMORY, signed, utf8, write, write_hosts};
use super::super::error::{Answer, senseless};
use super::super::{CREATE, Endpoint, gvisor, raw};
use crate::{hidden, seccomp};

/// What of a container is not said by its specification.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    pub(crate) transport: Transport,
    pub(crate) isolation: Isolation,
    pub(crate) users: Users,
}

/// Who is who in a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Users {
    /// Root is the engine's own user, or root.
    Engines,
    /// The agent is the engine's own user.
    Kept,
}

/// Makes a container.
pub(crate) async fn create(
    endpoint: &Endpoint,
    spec: &SandboxSpec,
    wiring: &Wiring,
    how: How,
) -> Result<ContainerId, Answer> {
    write_hosts(&wiring.guest_directory).await?;
    // Podman reads the profile from a file; the container sees it, and cannot write it.
    write(&wiring.guest_directory.join(SECCOMP), seccomp::profile()).await?;
    let body = body(spec, wiring, how)?;
    let made = raw::post(endpoint, CREATE, "create the container", "/v4.0.0/libpod/containers/create", &body).await?;
    let id = made.get("Id").and_then(Value::as_str);
    id.map(ContainerId::new).ok_or_else(|| senseless("a container was made and has no id").into())
}

fn body(spec: &SandboxSpec, wiring: &Wiring, How { transport, isolation, users }: How) -> Result<Value> {
    let relayed = transport == Transport::Relay;
    // A quota of the disk and a read-only root are reported as unsupported; open files and the lifetime are the guest's.
    let Limits { cpus, memory, disk: _, processes, open_files: _, lifetime: _ } = spec.limits();
    let memory = signed("memory", memory.bytes())?;
    let directory = &wiring.guest_directory;
    let mut mounts = vec![
        bind("run directory", directory, Path::new(GUEST_DIRECTORY), Access::ReadOnly)?,
        bind("run directory", &directory.join(HOSTS), Path::new(HOSTS_TARGET), Access::ReadOnly)?,
    ];
    if let Some(workspace) = spec.workspace()
        && let Some((host, access)) = workspace.mounted()
    {
        mounts.push(bind("workspace", host.as_path(), workspace.guest.as_path(), access)?);
    }
    for cover in &wiring.covers {
        mounts.push(bind("workspace", &cover.source, &cover.target, cover.access)?);
    }
    for Blank { target, size } in &wiring.blanks {
        // Podman would fill it with what lies below, which is the host's, and takes no owner
        // (<https://docs.podman.io/en/v4.3/markdown/podman-run.1.html#mount-type-type-type-specific-option>).
        let size = format!("size={}", size.bytes());
        let options = ["rw", "exec", "nosuid", "nodev", "notmpcopyup", "mode=1777", &size];
        let target = utf8("workspace", target)?;
        mounts.push(json!({ "type": "tmpfs", "source": "tmpfs", "destination": target, "options": options }));
    }
    let own = json!({ "nsmode": "private" });
    // Podman makes `/dev/shm` on the host and mounts it from there, which to gVisor is a directory of the host like any other:
    // there the namespace has none of Podman's, and gVisor makes its own.
    let (processes, ipc, shared) = if isolation == Isolation::Gvisor {
        mounts.push(json!({
            "type": "tmpfs",
            "source": "tmpfs",
            "destination": "/dev/shm",
            "options": ["rw", "nosuid", "nodev", "noexec", "mode=1777", format!("size={SHARED_MEMORY}")],
        }));
        (gvisor::processes_around(processes.get()), json!({ "nsmode": "none" }), None)
    } else {
        (i64::from(processes.get()), own.clone(), Some(SHARED_MEMORY))
    };
    let capabilities: Vec<String> = spec.capabilities().iter().map(|name| format!("CAP_{name}")).collect();
    let labels: serde_json::Map<String, Value> =
        wiring.labels().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    // <https://docs.podman.io/en/v4.3/markdown/podman-run.1.html#userns-mode>
    let users = match (users, wiring.agent.ids()) {
        (Users::Kept, Some(agent)) => {
            json!({ "nsmode": "keep-id", "value": format!("uid={},gid={}", agent.uid(), agent.gid()) })
        }
        (Users::Kept, None) => {
            let message =
                "who the agent is has to be known before the container is made, for it to be the workspace's owner";
            return Err(Error::new(ErrorKind::InvalidInput, message).with_hint("name it: `--user`"));
        }
        (Users::Engines, _) => Value::Null,
    };
    Ok(json!({
        "name": wiring.container_name(),
        "image": wiring.image.id,
        "labels": labels,
        "hostname": "sandbox",
        "user": "0:0",
        "entrypoint": [format!("{GUEST_DIRECTORY}/{GUEST_PROGRAM}")],
        "command": if relayed { vec![relay::ARGUMENT] } else { Vec::new() },
        "work_dir": "/",
        "env": {},
        "httpproxy": false,
        "stdin": relayed,
        "terminal": false,
        "init": false,
        "stop_signal": SIGKILL,
        "healthconfig": { "Test": ["NONE"] },
        "restart_policy": "no",
        "remove": true,
        // What a container prints would fill the host's disk; all that counts goes through the guest.
        "log_configuration": { "driver": "none" },
        "privileged": false,
        "cap_drop": ["ALL"],
        "cap_add": capabilities,
        "no_new_privileges": true,
        "seccomp_profile_path": utf8("run directory", &directory.join(SECCOMP))?,
        "mask": hidden::MASKED,
        "mounts": mounts,
        "shm_size": shared,
        "userns": users,
        "netns": { "nsmode": "none" },
        "cgroupns": own,
        "ipcns": ipc,
        "pidns": own,
        "utsns": own,
        "resource_limits": {
            // Memory and swap together: so there is no swap.
            "memory": { "limit": memory, "swap": memory },
            "cpu": { "period": CPU_PERIOD, "quota": i64::from(cpus.millis()).saturating_mul(CPU_PERIOD) / 1_000 },
            "pids": { "limit": processes },
        },
    }))
}

/// One mount alone: file systems that are mounted below the source stay out.
fn bind(field: &str, source: &Path, target: &Path, access: Access) -> Result<Value> {
    let access = match access {
        Access::ReadWrite => "rw",
        Access::ReadOnly => "ro",
    };
    Ok(json!({
        "type": "bind",
        "source": utf8(field, source)?,
        "destination": utf8(field, target)?,
        "options": [access, "bind", "rprivate"],
    }))
}

/// The file beside the guest that holds the system call filter.
const SECCOMP: &str = "seccomp.json";
/// Its number (signal(7)).
const SIGKILL: u32 = 9;
