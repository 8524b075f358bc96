//! One comparison for each control.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use sandbox_guest::wire::{CgroupLimits, GUEST_DIRECTORY, Identity, Mount, Observed};
use sandbox_policy::{Access, Control, Isolation, LinuxCapability, RootFilesystem, SUDO_CAPABILITIES, SandboxSpec};

use crate::guest::shown;
use crate::{Bind, Blank, EffectiveSettings, FileSystem, Setting, Wiring};

/// All that a comparison looks at.
pub(super) struct Seen<'a> {
    pub(super) spec: &'a SandboxSpec,
    pub(super) wiring: &'a Wiring,
    pub(super) inside: &'a Observed,
    pub(super) outside: &'a EffectiveSettings,
}

/// What was asked of one control and what was found.
pub(super) struct Comparison {
    pub(super) asked: String,
    pub(super) found: String,
    pub(super) holds: bool,
}

impl Seen<'_> {
    /// Looks at one control. What nothing looks at does not hold.
    pub(super) fn compare(&self, control: Control) -> Comparison {
        match control {
            Control::AgentUser => self.agent_user(),
            Control::CapabilityDrop => self.capability_drop(),
            Control::Cpu => self.cpu(),
            Control::Disk => self.disk(),
            // Nothing inside can see these; the gateway that reports one is what enforces it.
            Control::EgressAllowlist | Control::GitBroker | Control::ShortLivedToken | Control::TokenScope => {
                found("a gateway on the host", true).asked("a gateway on the host")
            }
            Control::HostFilesystem => self.host_filesystem(),
            Control::Isolation => self.isolation(),
            Control::Memory => self.memory(),
            Control::NoNetwork => found(self.inside.interfaces.join("+"), self.inside.interfaces == ["lo"])
                .and_switch(self.outside.no_network)
                .asked("lo"),
            Control::NoNewPrivileges => switch(self.inside.agent.no_new_privileges)
                .and_switch(self.outside.no_new_privileges)
                .asked(switch_name(Setting::On)),
            Control::OpenFiles => self.open_files(),
            Control::Pids => self.pids(),
            Control::ReadonlyRootfs => {
                let word = if self.inside.root_writable { "writable" } else { "read-only" };
                found(word, !self.inside.root_writable)
                    .and_switch(self.outside.readonly_rootfs)
                    .asked(RootFilesystem::ReadOnly.as_str())
            }
            Control::Seccomp => self.seccomp(),
            Control::Sudo => self.sudo(),
            Control::UserNamespace => self.user_namespace(),
            Control::WallClock => {
                let asked = u64::from(self.spec.limits().lifetime.as_seconds());
                let left = self.inside.remaining;
                found(format!("{left} s left"), left <= asked).asked(format!("{asked} s"))
            }
            unknown => found("nothing looks at it", false).asked(unknown.as_str()),
        }
    }

    fn agent_user(&self) -> Comparison {
        let agent = &self.inside.agent;
        // Where the image names its user, the guest has looked up who that is.
        let asked = match self.wiring.agent.ids() {
            Some(ids) => Some(Identity { uid: ids.uid(), gid: ids.gid() }),
            None => self.inside.identity,
        };
        let Some(Identity { uid, gid }) = asked else {
            return found("nobody of that name", false).asked("the image's user");
        };
        let others = agent.groups.iter().filter(|group| **group != gid).count();
        let is_whom_it_takes = self.inside.identity == asked && uid != 0 && gid != 0;
        let holds = agent.uid == [uid; 4] && agent.gid == [gid; 4] && others == 0 && is_whom_it_takes;
        found(format!("{}:{}, {others} other groups", agent.uid[0], agent.gid[0]), holds)
            .asked(format!("{uid}:{gid}, 0 other groups"))
    }

    fn capability_drop(&self) -> Comparison {
        let agent = self.inside.agent.capabilities.iter().fold(0, |all, set| all | set);
        let guest = self.inside.guest.capabilities.iter().fold(0, |all, set| all | set);
        let allowed = self.spec.capabilities();
        let bits = bits(&allowed);
        found(format!("agent {agent:#x}, guest {guest:#x}"), agent == 0 && guest & !bits == 0)
            .and(self.outside.capabilities.as_ref(), |added| {
                let strange = added.iter().find(|name| allowed.iter().all(|known| known.as_str() != name.as_str()));
                strange.map(|name| format!("{name} added"))
            })
            .asked(format!("agent 0x0, guest within {bits:#x}"))
    }

    /// The gateway decides; what it allows must be in the guest's power, and in nobody else's.
    fn sudo(&self) -> Comparison {
        let needed = bits(&SUDO_CAPABILITIES);
        let [_, permitted, ..] = self.inside.guest.capabilities;
        found(format!("guest {:#x}", permitted & needed), permitted & needed == needed)
            .asked(format!("a gateway on the host, guest {needed:#x}"))
    }

    /// The kernel that answers inside is gVisor's, which has a version of its own, and the engine says so too.
    fn isolation(&self) -> Comparison {
        let kernel = &self.inside.kernel;
        let is_gvisor = GVISOR_KERNELS.iter().any(|known| kernel.contains(known));
        let by_engine = match self.outside.isolation {
            Some(Isolation::Gvisor) => "",
            Some(_) => "another runtime by the engine",
            None => "nothing by the engine",
        };
        found(format!("the kernel {kernel}"), is_gvisor)
            .also(by_engine, by_engine.is_empty())
            .asked(Isolation::Gvisor.as_str())
    }

    /// Where gVisor answers, what it shows inside is its own, and the group around it is the one that counts.
    fn cgroup(&self) -> &CgroupLimits {
        self.outside.cgroup.as_ref().unwrap_or(&self.inside.cgroup)
    }

    fn cpu(&self) -> Comparison {
        let asked = u64::from(self.spec.limits().cpus.millis());
        let cgroup = self.cgroup();
        let milli = cgroup.cpu_quota.zip(cgroup.cpu_period);
        let milli = milli.and_then(|(quota, period)| quota.saturating_mul(1000).checked_div(period));
        found(format!("{} milli-CPUs", number(milli)), milli == Some(asked))
            .and_number(self.outside.milli_cpus, asked)
            .asked(format!("{asked} milli-CPUs"))
    }

    /// A quota cannot be told from inside before it is spent, so the engine's word is compared. Where everything that can be
    /// written is memory, that is seen.
    fn disk(&self) -> Comparison {
        let asked = self.spec.limits().disk.bytes();
        if self.spec.is_disk_in_memory() {
            return self.disk_in_memory();
        }
        let said = self.outside.disk.map_or_else(|| "no limit".to_owned(), |bytes| format!("{bytes} bytes"));
        found(said, self.outside.disk == Some(asked)).asked(format!("{asked} bytes"))
    }

    /// What can be written beside the workspace is memory, which counts as such.
    fn disk_in_memory(&self) -> Comparison {
        let disk = self.spec.limits().disk.bytes();
        let memory = self.cgroup().memory;
        let binds = self.expected_binds();
        let on_disk = self.inside.mounts.iter().filter(|mount| {
            !mount.read_only
                && !KERNEL_FILE_SYSTEMS.contains(&mount.kind.as_str())
                && mount.kind != DEVICES
                && binds.iter().all(|bind| bind.target != path(mount))
        });
        let all = found(format!("{} bytes of memory", number(memory)), memory.is_some_and(|memory| memory <= disk));
        on_disk
            .fold(all, |all, mount| all.also(format!("{} on a disk", shown(&mount.target)), false))
            .asked(format!("nothing but memory, at most {disk} bytes"))
    }

    fn memory(&self) -> Comparison {
        let asked = self.spec.limits().memory.bytes();
        let (memory, both) = (self.cgroup().memory, self.cgroup().memory_and_swap);
        let holds = memory == Some(asked) && both == Some(asked);
        found(format!("{} bytes, {} with swap", number(memory), number(both)), holds)
            .and_number(self.outside.memory, asked)
            .and_number(self.outside.memory_and_swap, asked)
            .asked(format!("{asked} bytes, {asked} with swap"))
    }

    fn open_files(&self) -> Comparison {
        let asked = u64::from(self.spec.limits().open_files.get());
        let (soft, hard) = self.inside.open_files;
        found(format!("{soft} soft, {hard} hard"), (soft, hard) == (asked, asked))
            .asked(format!("{asked} soft, {asked} hard"))
    }

    fn pids(&self) -> Comparison {
        let asked = u64::from(self.spec.limits().processes.get());
        found(number(self.inside.cgroup.pids), self.inside.cgroup.pids == Some(asked))
            .and_number(self.outside.pids, asked)
            .and(self.outside.cgroup.as_ref(), |around| around.pids.is_none().then(|| "no limit around it".to_owned()))
            .asked(asked.to_string())
    }

    /// A filter is there, and it is one that stops what ours stops.
    fn seccomp(&self) -> Comparison {
        let mode = self.inside.agent.seccomp;
        let through = &self.inside.unfiltered;
        let passed = if through.is_empty() { "none".to_owned() } else { through.join(" and ") };
        found(format!("mode {mode}, {passed} of the tried calls passed"), mode == SECCOMP_FILTER && through.is_empty())
            .asked("mode 2, none of the tried calls passed")
    }

    /// Whoever is root inside, if anybody is, must be somebody else outside.
    fn user_namespace(&self) -> Comparison {
        let map = self.outside.users.as_ref().unwrap_or(&self.inside.uid_map);
        let is_apart = !map.is_empty() && map.iter().all(|(_, beyond, length)| *beyond != 0 && *length > 0);
        let words: Vec<String> = map.iter().map(|(within, beyond, _)| format!("{within} is {beyond}")).collect();
        found(words.join(", "), is_apart).asked("nobody is 0 outside")
    }

    /// Nothing of the host is mounted but the workspace and the guest's own directory.
    fn host_filesystem(&self) -> Comparison {
        let expected = self.expected_binds();
        // From inside, a mount's source cannot be told; that it is there, how, and that there is no other, can.
        let own = self.wiring.blanks.iter().map(|blank| &blank.target).chain(self.underlay());
        let own = own.map(|target| format!("{} its own", target.display()));
        let words: Vec<String> = expected.iter().map(show).chain(own).collect();
        let mut seen = found(if expected.is_empty() { NOTHING } else { "" }, true);
        for bind in &expected {
            let mount = self.inside.mounts.iter().rfind(|mount| path(mount) == bind.target);
            let word = match mount {
                None => "missing",
                Some(mount) if mount.read_only => "read-only",
                Some(_) => "read-write",
            };
            let holds = mount.is_some_and(|mount| mount.read_only != bind.writable);
            seen = seen.also(format!("{} {word}", bind.target.display()), holds);
        }
        for blank in &self.wiring.blanks {
            let mount = self.inside.mounts.iter().rfind(|mount| path(mount) == blank.target);
            let word = if mount.is_none() { "missing" } else { "its own" };
            seen = seen.also(format!("{} {word}", blank.target.display()), mount.is_some_and(|mount| !mount.read_only));
        }
        for target in self.underlay() {
            let mount = self.inside.mounts.iter().rfind(|mount| path(mount) == *target);
            let word = if mount.is_none() { "missing" } else { "its own" };
            let holds = mount.is_some_and(|mount| mount.kind == OVERLAY && !mount.read_only);
            seen = seen.also(format!("{} {word}", target.display()), holds);
        }
        let strangers = self.inside.mounts.iter().filter(|mount| {
            let target = path(mount);
            !KERNEL_FILE_SYSTEMS.contains(&mount.kind.as_str())
                && target != Path::new("/")
                && !(self.wiring.image.id == HOST_IMAGE
                    && mount.kind == OVERLAY
                    && HOST_TREES.iter().any(|tree| Path::new(tree) == target))
                && expected.iter().all(|bind| bind.target != target)
                && self.wiring.blanks.iter().all(|blank| blank.target != target)
                && self.underlay().all(|own| own != target)
                && ENGINE_FILES.iter().all(|file| Path::new(file) != target)
                && !(mount.kind == DEVICES && HARMLESS_DEVICES.iter().any(|device| Path::new(device) == target))
                && MASKED.iter().all(|masked| !target.starts_with(masked))
        });
        for stranger in strangers {
            seen = seen.also(format!("{} unasked", shown(&stranger.target)), false);
        }
        seen.and(self.outside.binds.as_ref(), |binds| {
            (*binds != expected).then(|| binds.iter().map(show).collect::<Vec<_>>().join(" + "))
        })
        .and(self.outside.blanks.as_ref(), |blanks| {
            let is_missing = |blank: &&Blank| !blanks.contains(&blank.target);
            let missing = self.wiring.blanks.iter().find(is_missing);
            missing.map(|blank| format!("{} not its own", blank.target.display()))
        })
        .and(self.underlay().next(), |target| {
            let laid = self.outside.underlays.as_ref().is_some_and(|laid| laid.contains(target));
            (!laid).then(|| format!("{} not laid", target.display()))
        })
        .and(self.outside.isolated.as_ref(), |isolated| {
            (*isolated == Setting::Off).then(|| "a namespace of the host".to_owned())
        })
        .asked(if words.is_empty() { NOTHING.to_owned() } else { words.join(", ") })
    }

    /// Where a tree of the host's lies below what the agent writes.
    fn underlay(&self) -> impl Iterator<Item = &PathBuf> {
        self.wiring.underlay.iter().map(|underlay| &underlay.target)
    }

    fn expected_binds(&self) -> Vec<Bind> {
        let mut expected = Vec::new();
        // An engine apart was sent the guest, which lies in the container's own file system.
        if self.wiring.file_system == FileSystem::Shared {
            let source = self.wiring.guest_directory.clone();
            expected.push(Bind { target: GUEST_DIRECTORY.into(), source, writable: false });
        }
        if let Some(workspace) = self.spec.workspace()
            && let Some((host, access)) = workspace.mounted()
        {
            let (target, source) = (workspace.guest.as_path().to_owned(), host.as_path().to_owned());
            expected.push(Bind { target, source, writable: access == Access::ReadWrite });
        }
        expected.extend(self.wiring.covers.iter().map(|cover| Bind {
            target: cover.target.clone(),
            source: cover.source.clone(),
            writable: cover.access == Access::ReadWrite,
        }));
        expected.sort();
        expected
    }
}

/// What has been found so far.
struct Found {
    words: Vec<String>,
    holds: bool,
}

fn found(word: impl Into<String>, holds: bool) -> Found {
    Found { words: Vec::new(), holds: true }.also(word, holds)
}

fn switch(on: bool) -> Found {
    found(switch_name(on.into()), on)
}

impl Found {
    /// What the guest sees must hold.
    fn also(mut self, word: impl Into<String>, holds: bool) -> Self {
        let word = word.into();
        self.words.extend((!word.is_empty()).then_some(word));
        self.holds &= holds;
        self
    }

    /// What the engine says must hold too, where it says anything; a difference is named.
    fn and<T>(self, said: Option<T>, difference: impl FnOnce(T) -> Option<String>) -> Self {
        match said.and_then(difference) {
            Some(difference) => self.also(format!("{difference} by the engine"), false),
            None => self,
        }
    }

    fn and_number(self, said: Option<u64>, asked: u64) -> Self {
        self.and(said, |said| (said != asked).then(|| said.to_string()))
    }

    fn and_switch(self, said: Option<Setting>) -> Self {
        self.and(said, |said| (said == Setting::Off).then(|| switch_name(said).to_owned()))
    }

    fn asked(self, asked: impl Into<String>) -> Comparison {
        Comparison { asked: asked.into(), found: self.words.join(", "), holds: self.holds }
    }
}

fn bits<'a>(capabilities: impl IntoIterator<Item = &'a LinuxCapability>) -> u64 {
    capabilities.into_iter().fold(0, |bits, capability| bits | 1 << capability.number())
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "no limit".to_owned(), |value| value.to_string())
}

fn switch_name(setting: Setting) -> &'static str {
    match setting {
        Setting::Off => "off",
        Setting::On => "on",
    }
}

fn show(bind: &Bind) -> String {
    format!("{} {}", bind.target.display(), if bind.writable { "read-write" } else { "read-only" })
}

fn path(mount: &Mount) -> &Path {
    Path::new(OsStr::from_bytes(&mount.target))
}

const OVERLAY: &str = "overlay";
const NOTHING: &str = "nothing mounted";

/// The mode that `/proc/PID/status` shows for a filter (seccomp(2)).
const SECCOMP_FILTER: u32 = 2;

/// What gVisor says in the place of a kernel's version, in older releases and in newer ones
/// (<https://github.com/google/gvisor/blob/master/pkg/sentry/syscalls/linux/linux64.go>).
const GVISOR_KERNELS: [&str; 2] = ["4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016", "-gvisor "];

/// File systems that hold no file of the host's disks.
const KERNEL_FILE_SYSTEMS: [&str; 7] = ["cgroup", "cgroup2", "devpts", "mqueue", "proc", "sysfs", "tmpfs"];

/// The id of the image that is the machine's own programs. Its directories are mounted one by one, each below a layer of
/// the sandbox's own.
const HOST_IMAGE: &str = "host";

const HOST_TREES: [&str; 7] = ["/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr"];

/// Files that engines write for each container and mount over the image's own.
const ENGINE_FILES: [&str; 4] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/.containerenv"];

/// The file system in which a host keeps its devices.
const DEVICES: &str = "devtmpfs";

/// In a user namespace no device can be made, so engines mount the host's own: those that every container has
/// (<https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#default-devices>).
const HARMLESS_DEVICES: [&str; 6] = ["/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero"];

/// Below these, engines mount the null device and nothing else over what they mask.
const MASKED: [&str; 2] = ["/proc", "/sys"];
