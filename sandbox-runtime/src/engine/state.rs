//! Reading back what an engine says of a container.

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, HostConfig, HostConfigCgroupnsModeEnum, MountPoint,
};
use sandbox_core::{Bind, ContainerState, ContainerStatus, EffectiveSettings, Result, Setting};

use sandbox_policy::Isolation;

use super::Product;
use super::create::HOSTS_TARGET;
use super::error::senseless;

/// The state of a container that does not exist.
pub(crate) fn gone() -> ContainerState {
    ContainerState { status: ContainerStatus::Gone, pid: None, settings: EffectiveSettings::default() }
}

/// Says what an answer means.
pub(crate) fn state(
    inspected: ContainerInspectResponse,
    product: Product,
    granted: &[String],
    gvisor: &str,
) -> Result<ContainerState> {
    let state = inspected.state.ok_or_else(|| senseless("a container has no state"))?;
    let status = match state.status {
        Some(ContainerStateStatusEnum::CREATED) => ContainerStatus::Created,
        Some(
            ContainerStateStatusEnum::RUNNING
            | ContainerStateStatusEnum::PAUSED
            | ContainerStateStatusEnum::RESTARTING
            | ContainerStateStatusEnum::STOPPING,
        ) => ContainerStatus::Running,
        _ => ContainerStatus::Exited,
    };
    let config = inspected.host_config.ok_or_else(|| senseless("a container has no host configuration"))?;
    let is_gvisor = config.runtime.as_deref() == Some(gvisor);
    let network_disabled = inspected.config.and_then(|config| config.network_disabled).unwrap_or(false);
    let mounts = inspected.mounts.unwrap_or_default();
    Ok(ContainerState {
        status,
        pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0),
        settings: EffectiveSettings {
            isolation: Some(if is_gvisor { Isolation::Gvisor } else { Isolation::Standard }),
            ..settings(product, granted, &config, network_disabled, mounts)
        },
    })
}

/// A limit that the engine says is not set becomes the largest number, so that it differs from any that was asked for.
fn settings(
    product: Product,
    granted: &[String],
    config: &HostConfig,
    network_disabled: bool,
    mounts: Vec<MountPoint>,
) -> EffectiveSettings {
    let limit = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value != 0);
    let or_unlimited = |value: Option<u64>| Some(value.unwrap_or(u64::MAX));
    // Podman knows the mode alone.
    let network_disabled = network_disabled || product == Product::Podman;
    let no_network = network_disabled && config.network_mode.as_deref() == Some("none");
    let no_new_privileges = config.security_opt.iter().flatten().any(|option| {
        matches!(option.as_str(), "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true")
    });
    EffectiveSettings {
        memory: or_unlimited(limit(config.memory)),
        memory_and_swap: or_unlimited(limit(config.memory_swap)),
        milli_cpus: or_unlimited(milli_cpus(config)),
        pids: or_unlimited(limit(config.pids_limit)),
        isolation: None,
        cgroup: None,
        disk: config.storage_opt.as_ref().and_then(|options| options.get("size")?.parse().ok()),
        readonly_rootfs: Some(config.readonly_rootfs.unwrap_or(false).into()),
        no_new_privileges: Some(no_new_privileges.into()),
        isolated: Some(isolated(product, config)),
        no_network: Some(no_network.into()),
        capabilities: Some(capabilities(config, granted)),
        binds: Some(binds(mounts)),
        users: None,
        blanks: Some(blanks(config)),
        underlays: None,
    }
}

fn milli_cpus(config: &HostConfig) -> Option<u64> {
    if let Some(nanos) = config.nano_cpus.filter(|nanos| *nanos > 0) {
        return Some(nanos.unsigned_abs() / 1_000_000);
    }
    let (quota, period) = (config.cpu_quota?, config.cpu_period?);
    (quota > 0 && period > 0).then(|| quota.unsigned_abs().saturating_mul(1_000) / period.unsigned_abs())
}

fn isolated(product: Product, config: &HostConfig) -> Setting {
    let own = |mode: &Option<String>| match product {
        Product::Docker => matches!(mode.as_deref(), None | Some("" | "private" | "none")),
        // Another container may be given a namespace that is shareable, which this one has made all the same.
        Product::Podman => matches!(mode.as_deref(), Some("private" | "shareable" | "none")),
    };
    let none = |list: Option<usize>| list.unwrap_or(0) == 0;
    let seccomp = |profile: &str| config.security_opt.iter().flatten().any(|option| option.starts_with(profile));
    // Podman prints neither what is masked, nor the namespace of control groups, nor a profile that it was given here.
    let told_in_full = match product {
        Product::Docker => {
            config.cgroupns_mode == Some(HostConfigCgroupnsModeEnum::PRIVATE)
                && !none(config.masked_paths.as_ref().map(Vec::len))
                && !none(config.readonly_paths.as_ref().map(Vec::len))
                && seccomp("seccomp={")
        }
        Product::Podman => !seccomp("seccomp="),
    };
    let users = match (product, config.userns_mode.as_deref().unwrap_or_default()) {
        (_, "") | (Product::Podman, "private") => true,
        (Product::Docker | Product::Podman, _) => false,
    };
    let isolated = !config.privileged.unwrap_or(false)
        && own(&config.pid_mode)
        && own(&config.ipc_mode)
        && own(&config.uts_mode)
        && users
        && config.network_mode.as_deref() == Some("none")
        && none(config.devices.as_ref().map(Vec::len))
        && none(config.device_requests.as_ref().map(Vec::len))
        && none(config.device_cgroup_rules.as_ref().map(Vec::len))
        && none(config.volumes_from.as_ref().map(Vec::len))
        && told_in_full;
    isolated.into()
}

/// What was added, and what was not dropped of what the engine grants: Podman names each one that it dropped.
fn capabilities(config: &HostConfig, granted: &[String]) -> Vec<String> {
    let plain = |name: &String| name.trim_start_matches("CAP_").to_owned();
    let dropped: Vec<String> = config.cap_drop.iter().flatten().map(plain).collect();
    let kept = granted.iter().filter(|name| !dropped.iter().any(|dropped| dropped == "ALL" || dropped == *name));
    let mut names: Vec<String> = config.cap_add.iter().flatten().map(plain).chain(kept.cloned()).collect();
    names.sort();
    names.dedup();
    names
}

/// Where memory is mounted, which holds nothing of the host's.
fn blanks(config: &HostConfig) -> Vec<PathBuf> {
    let mut blanks: Vec<PathBuf> = config.tmpfs.iter().flat_map(HashMap::keys).map(PathBuf::from).collect();
    blanks.sort();
    blanks
}

/// The file of host names is this crate's own, in place of the engine's, which engines do not list either.
fn binds(mounts: Vec<MountPoint>) -> Vec<Bind> {
    let mut binds: Vec<Bind> = mounts
        .into_iter()
        .filter(|mount| mount.typ.as_deref() != Some("tmpfs"))
        .map(|mount| Bind {
            target: PathBuf::from(mount.destination.unwrap_or_default()),
            source: PathBuf::from(mount.source.unwrap_or_default()),
            writable: mount.rw.unwrap_or(true),
        })
        .filter(|bind| bind.writable || bind.target.as_os_str() != HOSTS_TARGET)
        .collect();
    binds.sort();
    binds
}

/// What Docker grants where nothing is dropped
/// (<https://docs.docker.com/engine/containers/run/#runtime-privilege-and-linux-capabilities>).
pub(crate) const DOCKER_GRANTS: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn granted() -> Vec<String> {
        DOCKER_GRANTS.map(str::to_owned).to_vec()
    }

    /// What Podman 4.3 prints of a container that is made as ours are.
    fn podman() -> HostConfig {
        serde_json::from_value(serde_json::json!({
            "NetworkMode": "none", "IpcMode": "shareable", "PidMode": "private", "UTSMode": "private",
            "CapDrop": ["AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
                        "SETFCAP", "SYS_CHROOT"],
            "SecurityOpt": ["no-new-privileges"],
        }))
        .unwrap()
    }

    #[test]
    fn podmans_words_mean_the_same() {
        let found = settings(Product::Podman, &granted(), &podman(), false, Vec::new());
        assert_eq!((found.isolated, found.no_network), (Some(Setting::On), Some(Setting::On)));
        assert_eq!(found.no_new_privileges, Some(Setting::On));
        assert_eq!(found.capabilities.unwrap(), ["KILL", "SETGID", "SETPCAP", "SETUID"]);

        let host = |mode: &str| Some(mode.to_owned());
        for config in [
            HostConfig { pid_mode: host("host"), ..podman() },
            HostConfig { ipc_mode: host("host"), ..podman() },
            HostConfig { uts_mode: host(""), ..podman() },
            HostConfig { network_mode: host("slirp4netns"), ..podman() },
            HostConfig { privileged: Some(true), ..podman() },
            HostConfig { userns_mode: host("host"), ..podman() },
            HostConfig { userns_mode: host("keep-id"), ..podman() },
            HostConfig { security_opt: Some(vec!["seccomp=unconfined".to_owned()]), ..podman() },
        ] {
            let found = settings(Product::Podman, &granted(), &config, false, Vec::new());
            assert_eq!(found.isolated, Some(Setting::Off), "{config:?}");
        }
        let own = HostConfig { userns_mode: host("private"), ..podman() };
        let found = settings(Product::Podman, &granted(), &own, false, Vec::new());
        assert_eq!(found.isolated, Some(Setting::On), "the agent is kept as the engine's user");
        let more = HostConfig { cap_drop: Some(vec!["CHOWN".to_owned()]), ..podman() };
        assert_eq!(capabilities(&more, &granted()).len(), 13);
    }

    #[test]
    fn a_limit_that_is_not_set_is_no_limit() {
        let settings = settings(Product::Docker, &granted(), &HostConfig::default(), false, Vec::new());
        for limit in [settings.memory, settings.memory_and_swap, settings.milli_cpus, settings.pids] {
            assert_eq!(limit, Some(u64::MAX));
        }
        for setting in [settings.readonly_rootfs, settings.no_new_privileges, settings.isolated, settings.no_network] {
            assert_eq!(setting, Some(Setting::Off));
        }
        assert_eq!(settings.capabilities.unwrap().len(), 14);
    }

    #[test]
    fn both_ways_of_setting_cpus_are_read() {
        let quota = HostConfig { cpu_quota: Some(150_000), cpu_period: Some(100_000), ..Default::default() };
        let nanos = HostConfig { nano_cpus: Some(1_500_000_000), ..Default::default() };
        assert_eq!((milli_cpus(&quota), milli_cpus(&nanos)), (Some(1_500), Some(1_500)));
    }

    #[test]
    fn a_volume_and_a_writable_file_of_host_names_are_told() {
        let mount = |destination: &str, typ: &str, rw| MountPoint {
            typ: Some(typ.to_owned()),
            destination: Some(destination.to_owned()),
            source: Some("/s".to_owned()),
            rw: Some(rw),
            ..Default::default()
        };
        let found = binds(vec![
            mount("/v", "volume", true),
            mount("/etc/hosts", "bind", true),
            mount("/etc/hosts", "bind", false),
            mount("/tmp", "tmpfs", true),
        ]);
        let targets: Vec<_> = found.iter().map(|bind| bind.target.to_str().unwrap()).collect();
        assert_eq!(targets, ["/etc/hosts", "/v"]);
    }
}
