//! What a Docker enforces, by what it says of itself.
//!
//! Invariant: a limit that the engine would take and not apply is reported as unsupported.

use bollard::models::{SystemInfo, SystemInfoCgroupDriverEnum, SystemInfoCgroupVersionEnum};
use sandbox_core::RuntimeInfo;
use sandbox_policy::{Capabilities, Control, Support};

/// Reports on each control that an engine can enforce; `disk` is what trying it has shown.
pub(crate) fn capabilities(runtime: &RuntimeInfo, info: &SystemInfo, disk: Support) -> Capabilities {
    let cgroup = match info.cgroup_version {
        Some(SystemInfoCgroupVersionEnum::_2) => "cgroup v2",
        _ => "cgroup v1",
    };
    let engine = format!("Docker {}", runtime.version);
    let by = |what: &str| Support::Enforced { by: format!("{engine}, {what}") };
    let limit = |kernel: Kernel| match no_limits(info).or_else(|| kernel.missing()) {
        Some(support) => support,
        None => by(cgroup),
    };
    let memory = match (info.memory_limit, info.swap_limit) {
        (Some(true), Some(true)) => Kernel::Can,
        (Some(true), _) => Kernel::Lacks("the kernel does not count swap, which would be had beside the memory"),
        _ => Kernel::Lacks("the kernel has no memory controller for the engine"),
    };
    let cpu = match (info.cpu_cfs_quota, info.cpu_cfs_period) {
        (Some(true), Some(true)) => Kernel::Can,
        _ => Kernel::Lacks("the kernel has no CPU quota for the engine"),
    };
    let pids = match info.pids_limit {
        Some(true) => Kernel::Can,
        _ => Kernel::Lacks("the kernel has no pids controller for the engine"),
    };
    Capabilities::new()
        .with(Control::CapabilityDrop, by("capability sets"))
        .with(Control::Cpu, limit(cpu))
        .with(Control::Disk, disk)
        .with(Control::HostFilesystem, by("mount namespace"))
        .with(Control::Memory, limit(memory))
        .with(Control::NoNetwork, by("network namespace with nothing but lo"))
        .with(Control::NoNewPrivileges, by("no_new_privs"))
        .with(Control::Pids, limit(pids))
        .with(Control::ReadonlyRootfs, by("read-only mount"))
        .with(Control::Seccomp, seccomp(info, by))
        .with(Control::UserNamespace, user_namespace(info, by))
}

/// Reports on what cannot be had of an engine that does not see this machine's files: it takes no file into a container
/// whose root is read-only, and so the guest could not be sent there.
pub(crate) fn apart() -> Capabilities {
    let unsupported = Support::Unsupported {
        why: "an engine that shares no file system with this machine is sent the guest, which a read-only root does not take"
            .to_owned(),
        hint: "use an engine of this machine, or leave the root file system writable".to_owned(),
    };
    Capabilities::new().with(Control::ReadonlyRootfs, unsupported)
}

/// Tells whether an engine names a security option, such as `name=seccomp,profile=default`.
pub(crate) fn has_security_option(info: &SystemInfo, name: &str) -> bool {
    let options = info.security_options.iter().flatten();
    options.flat_map(|option| option.split(',')).any(|part| part.strip_prefix("name=") == Some(name))
}

/// Turns the kernel's name of an architecture into that which images use
/// (<https://go.dev/doc/install/source#environment>).
pub(crate) fn image_architecture(machine: &str) -> &str {
    match machine {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Whether the kernel has what a limit needs.
#[derive(Debug, Clone, Copy)]
enum Kernel {
    Can,
    Lacks(&'static str),
}

impl Kernel {
    fn missing(self) -> Option<Support> {
        match self {
            Self::Can => None,
            Self::Lacks(why) => Some(Support::Unsupported {
                why: why.to_owned(),
                hint: "boot a kernel with that controller; `docker info` warns of what is missing".to_owned(),
            }),
        }
    }
}

/// A rootless engine sets limits only below a control group that systemd has delegated to its user, which takes
/// version 2; without, it takes them and drops them
/// (<https://docs.docker.com/engine/security/rootless/tips/#limiting-resources>).
fn no_limits(info: &SystemInfo) -> Option<Support> {
    let is_rootless = has_security_option(info, "rootless");
    let is_old = info.cgroup_version != Some(SystemInfoCgroupVersionEnum::_2);
    let has_none = info.cgroup_driver == Some(SystemInfoCgroupDriverEnum::NONE);
    let drops_limits = has_none || (is_rootless && is_old);
    if !drops_limits {
        return None;
    }
    Some(no_limit(if is_rootless {
        "a rootless engine without delegated control groups takes limits and does not apply them"
    } else {
        "the engine manages no control groups"
    }))
}

/// Says that the engine has no control group to set a limit on.
pub(crate) fn no_limit(why: &str) -> Support {
    Support::Unsupported {
        why: why.to_owned(),
        hint: "use control groups of version 2, delegated by systemd, or an engine that runs as root".to_owned(),
    }
}

fn seccomp(info: &SystemInfo, by: impl Fn(&str) -> Support) -> Support {
    let runtime = info.default_runtime.as_deref().unwrap_or_default();
    seccomp_by(has_security_option(info, "seccomp"), runtime, by)
}

/// Only runtimes that hand the profile to the kernel count: gVisor, for one, answers system calls itself.
pub(crate) fn seccomp_by(offered: bool, runtime: &str, by: impl Fn(&str) -> Support) -> Support {
    if !offered {
        return Support::Unsupported {
            why: "the engine or its kernel has no seccomp".to_owned(),
            hint: "use a kernel with CONFIG_SECCOMP_FILTER and an engine that was built with seccomp".to_owned(),
        };
    }
    if !FILTERING_RUNTIMES.contains(&runtime) {
        return Support::Unsupported {
            why: format!("the engine's default runtime is {runtime:?}, which is not known to apply a profile"),
            hint: format!("make one of these the default runtime: {}", FILTERING_RUNTIMES.join(", ")),
        };
    }
    by(&format!("seccomp by {runtime}"))
}

fn user_namespace(info: &SystemInfo, by: impl Fn(&str) -> Support) -> Support {
    if has_security_option(info, "rootless") {
        by("rootless")
    } else if has_security_option(info, "userns") {
        by("userns-remap")
    } else {
        no_user_namespace()
    }
}

/// Says that the engine gives containers no user namespace.
pub(crate) fn no_user_namespace() -> Support {
    Support::Unsupported {
        why: "root inside a container of this engine is root on the host".to_owned(),
        hint: "use a rootless engine, or Docker with userns-remap".to_owned(),
    }
}

const FILTERING_RUNTIMES: [&str; 4] = ["crun", "io.containerd.runc.v2", "runc", "youki"];

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> RuntimeInfo {
        RuntimeInfo {
            name: "docker".to_owned(),
            version: "27.0".to_owned(),
            api: "1.46".to_owned(),
            endpoint: "unix:///x".to_owned(),
            root_uid: 0,
            root_gid: 0,
        }
    }

    fn rootful() -> SystemInfo {
        SystemInfo {
            cgroup_driver: Some(SystemInfoCgroupDriverEnum::SYSTEMD),
            cgroup_version: Some(SystemInfoCgroupVersionEnum::_2),
            cpu_cfs_period: Some(true),
            cpu_cfs_quota: Some(true),
            default_runtime: Some("runc".to_owned()),
            memory_limit: Some(true),
            pids_limit: Some(true),
            security_options: Some(vec!["name=seccomp,profile=default".to_owned(), "name=cgroupns".to_owned()]),
            swap_limit: Some(true),
            ..Default::default()
        }
    }

    /// The controls that are not enforced, apart from the disk, which is handed in.
    fn lacking(info: &SystemInfo) -> Vec<Control> {
        let disk = Support::Enforced { by: "trial".to_owned() };
        let capabilities = capabilities(&runtime(), info, disk);
        assert_eq!(capabilities.iter().count(), 11);
        capabilities.iter().map(|(control, _)| control).filter(|control| !capabilities.is_enforced(*control)).collect()
    }

    fn with_option(option: &str) -> SystemInfo {
        let mut info = rootful();
        info.security_options.get_or_insert_default().push(option.to_owned());
        info
    }

    #[test]
    fn an_ordinary_engine_lacks_user_namespaces_alone() {
        assert_eq!(lacking(&rootful()), [Control::UserNamespace]);
        assert_eq!(lacking(&with_option("name=userns")), []);
        assert_eq!(lacking(&with_option("name=rootless")), []);
    }

    #[test]
    fn limits_that_are_taken_and_dropped_are_not_reported() {
        let limits = [Control::Cpu, Control::Memory, Control::Pids];
        let old = SystemInfo { cgroup_version: Some(SystemInfoCgroupVersionEnum::_1), ..with_option("name=rootless") };
        assert_eq!(lacking(&old), limits);
        let unsaid = SystemInfo { cgroup_version: None, ..with_option("name=rootless") };
        assert_eq!(lacking(&unsaid), limits);
        let none = SystemInfo { cgroup_driver: Some(SystemInfoCgroupDriverEnum::NONE), ..with_option("name=rootless") };
        assert_eq!(lacking(&none), limits);
    }

    #[test]
    fn what_the_kernel_lacks_is_told_one_by_one() {
        let user = Control::UserNamespace;
        for (info, control) in [
            (SystemInfo { swap_limit: Some(false), ..rootful() }, Control::Memory),
            (SystemInfo { memory_limit: Some(false), ..rootful() }, Control::Memory),
            (SystemInfo { cpu_cfs_quota: Some(false), ..rootful() }, Control::Cpu),
            (SystemInfo { pids_limit: None, ..rootful() }, Control::Pids),
            (SystemInfo { security_options: None, ..rootful() }, Control::Seccomp),
            (SystemInfo { default_runtime: Some("runsc".to_owned()), ..rootful() }, Control::Seccomp),
        ] {
            assert_eq!(lacking(&info), [control, user]);
        }
    }

    #[test]
    fn an_option_is_matched_as_a_whole() {
        assert!(!has_security_option(&with_option("name=rootlesskit"), "rootless"));
        assert!(!has_security_option(&with_option("profile=rootless"), "rootless"));
    }
}
