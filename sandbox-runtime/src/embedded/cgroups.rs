//! Control groups of both versions, which set a sandbox's ceilings and hold its processes together (cgroups(7)).
//!
//! All groups lie below one of the runtime's own, `sandbox`. Where a controller is mounted as version 1, it is used so, and
//! as version 2 elsewhere: a machine may have both.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sandbox_core::{Error, ErrorKind, Result};
use sandbox_policy::Control;

use super::mountinfo::{self, Mounted};
use super::record::Group;

/// The hierarchies that the machine has for the controllers that sandboxes need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hierarchy {
    /// Below which directory groups are made.
    base: PathBuf,
    /// The controllers that are mounted together in version 1; none in version 2.
    controllers: Vec<String>,
    /// What it limits.
    limits: Vec<Control>,
}

/// Ceilings of a container; what is `None` is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ceilings {
    /// Bytes of memory, with no swap beside it.
    pub(super) memory: Option<u64>,
    /// Bytes of memory and swap together, when read back.
    pub(super) memory_and_swap: Option<u64>,
    /// Thousandths of a CPU.
    pub(super) milli_cpus: Option<u64>,
    /// Processes and threads.
    pub(super) pids: Option<u64>,
}

impl Cgroups {
    /// Finds out what is mounted. Whoever is not root can only use what was delegated: a group by the user's own name.
    pub(super) fn discover() -> Result<Self> {
        let path = Path::new("/proc/self/mountinfo");
        let text = fs::read(path).map_err(|error| Error::io("cannot read /proc/self/mountinfo", error))?;
        let user = rustix::process::geteuid();
        let (first, second) = if user.is_root() {
            (PathBuf::from(BASE), PathBuf::from(BASE))
        } else {
            let own = fs::read_to_string("/proc/self/cgroup")
                .map_err(|error| Error::io("cannot read /proc/self/cgroup", error))?;
            let name = format!("{BASE}-{user}");
            (PathBuf::from(&name), beside(&own).join(&name))
        };
        Ok(Self::of(&mountinfo::parse(&text), [&first, &second], |mount| {
            let directory = second.parent().map_or_else(|| mount.to_owned(), |parent| mount.join(parent));
            fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default()
        }))
    }

    fn of(mounts: &[Mounted], bases: [&Path; 2], controllers_of: impl Fn(&Path) -> String) -> Self {
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for (controller, control) in LIMITING {
            let first = mounts
                .iter()
                .find(|mount| mount.kind == "cgroup" && mount.super_options.iter().any(|option| option == controller));
            let second = || {
                mounts.iter().find(|mount| {
                    mount.kind == "cgroup2" && controllers_of(&mount.target).split_whitespace().any(|c| c == controller)
                })
            };
            let Some(mount) = first.or_else(second) else { continue };
            let base = mount.target.join(bases[usize::from(mount.kind == "cgroup2")]);
            match hierarchies.iter_mut().find(|hierarchy| hierarchy.base == base) {
                Some(hierarchy) => hierarchy.limits.push(control),
                None => hierarchies.push(Hierarchy { base, controllers: first_version(mount), limits: vec![control] }),
            }
        }
        Self { hierarchies }
    }

    /// The directories below which groups are made.
    pub(super) fn bases(&self) -> impl Iterator<Item = &Path> {
        self.hierarchies.iter().map(|hierarchy| hierarchy.base.as_path())
    }

    /// Whether nothing limits a thing on this machine.
    pub(super) fn lacks(&self, control: Control) -> bool {
        !self.hierarchies.iter().any(|hierarchy| hierarchy.limits.contains(&control))
    }

    /// Leaves a limit alone from now on.
    pub(super) fn without(mut self, control: Control) -> Self {
        for hierarchy in &mut self.hierarchies {
            hierarchy.limits.retain(|limit| *limit != control);
        }
        self.hierarchies.retain(|hierarchy| !hierarchy.limits.is_empty());
        self
    }

    /// What enforces a limit, for people.
    pub(super) fn enforcer(&self, control: Control) -> String {
        let found = self.hierarchies.iter().find(|hierarchy| hierarchy.limits.contains(&control));
        format!("cgroup v{}", if found.is_some_and(|found| found.controllers.is_empty()) { 2 } else { 1 })
    }

    /// The groups of a container.
    pub(super) fn groups(&self, name: &str) -> Vec<Group> {
        let group = |hierarchy: &Hierarchy| Group {
            directory: hierarchy.base.join(name),
            controllers: hierarchy.controllers.clone(),
        };
        self.hierarchies.iter().map(group).collect()
    }

    /// Makes a container's groups, with their ceilings. On failure says for which control.
    pub(super) fn create(&self, name: &str, ceilings: &Ceilings) -> Result<(), (Control, Error)> {
        for hierarchy in &self.hierarchies {
            let directory = hierarchy.base.join(name);
            let first = hierarchy.limits.first().copied().unwrap_or(Control::Memory);
            hierarchy.make(&directory).map_err(|error| {
                (first, Error::io(format!("cannot make the control group {}", directory.display()), error))
            })?;
            for control in &hierarchy.limits {
                for (file, value) in settings(*control, hierarchy.controllers.is_empty(), ceilings) {
                    let path = directory.join(file);
                    fs::write(&path, &value).map_err(|error| {
                        (*control, Error::io(format!("cannot write {value} to {}", path.display()), error))
                    })?;
                }
            }
        }
        Ok(())
    }
}

impl Hierarchy {
    /// Makes a group. The base may be removed meanwhile, by whoever ended the last container.
    fn make(&self, directory: &Path) -> io::Result<()> {
        for _ in 0..MAX_ATTEMPTS {
            let made = make_directory(&self.base).and_then(|()| self.enable()).and_then(|()| make_directory(directory));
            match made {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                made => return made,
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }

    /// Hands the controllers of version 2 down to the container's group.
    fn enable(&self) -> io::Result<()> {
        if !self.controllers.is_empty() {
            return Ok(());
        }
        let names = LIMITING.iter().filter(|(_, control)| self.limits.contains(control)).map(|(name, _)| *name);
        let line = names.map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
        for directory in self.base.parent().into_iter().chain([self.base.as_path()]) {
            let path = directory.join("cgroup.subtree_control");
            let enabled = fs::read_to_string(&path)?;
            if line.split(' ').any(|name| !enabled.split_whitespace().any(|enabled| enabled == &name[1..])) {
                fs::write(&path, &line)?;
            }
        }
        Ok(())
    }
}

/// The group above this process's own in version 2, by the text of `/proc/self/cgroup`: what is delegated to a user holds
/// that user's processes, and a group with processes has no others below it.
fn beside(own: &str) -> PathBuf {
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    Path::new(own).parent().map(Path::to_owned).unwrap_or_default()
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// What is written to which file for a limit, in this order. Both versions of the kernel's documentation:
/// <https://docs.kernel.org/admin-guide/cgroup-v1/index.html>, <https://docs.kernel.org/admin-guide/cgroup-v2.html>.
fn settings(control: Control, is_second: bool, ceilings: &Ceilings) -> Vec<(&'static str, String)> {
    let quota = |milli: u64| (milli.saturating_mul(CPU_PERIOD) / 1_000).to_string();
    match (control, is_second) {
        (Control::Memory, false) => ceilings.memory.map(|bytes| {
            let bytes = bytes.to_string();
            vec![("memory.limit_in_bytes", bytes.clone()), ("memory.memsw.limit_in_bytes", bytes)]
        }),
        (Control::Memory, true) => {
            ceilings.memory.map(|bytes| vec![("memory.max", bytes.to_string()), ("memory.swap.max", "0".to_owned())])
        }
        (Control::Pids, _) => ceilings.pids.map(|count| vec![("pids.max", count.to_string())]),
        (Control::Cpu, false) => ceilings
            .milli_cpus
            .map(|milli| vec![("cpu.cfs_period_us", CPU_PERIOD.to_string()), ("cpu.cfs_quota_us", quota(milli))]),
        (Control::Cpu, true) => {
            ceilings.milli_cpus.map(|milli| vec![("cpu.max", format!("{} {CPU_PERIOD}", quota(milli)))])
        }
        _ => None,
    }
    .unwrap_or_default()
}

/// Reads the ceilings that are in force in a container's groups.
pub(super) fn read_ceilings(groups: &[Group]) -> Ceilings {
    let mut ceilings = Ceilings::default();
    for Group { directory, controllers } in groups {
        let text = |file: &str| fs::read_to_string(directory.join(file)).ok();
        let number = |file: &str| text(file)?.trim().parse::<u64>().ok().filter(|&value| value < NO_LIMIT);
        let has = |name: &str| controllers.iter().any(|controller| controller == name);
        let (quota, period) = if controllers.is_empty() {
            let line = text("cpu.max").unwrap_or_default();
            let mut fields = line.split_whitespace().map(|field| field.parse::<u64>().ok());
            (fields.next().flatten(), fields.next().flatten())
        } else {
            (number("cpu.cfs_quota_us"), number("cpu.cfs_period_us"))
        };
        let milli = quota.zip(period).and_then(|(quota, period)| quota.saturating_mul(1_000).checked_div(period));
        ceilings.milli_cpus = ceilings.milli_cpus.or(milli);
        ceilings.pids = ceilings.pids.or_else(|| number("pids.max"));
        if controllers.is_empty() {
            let bytes = number("memory.max");
            ceilings.memory = ceilings.memory.or(bytes);
            let both = bytes.zip(number("memory.swap.max")).map(|(bytes, swap)| bytes.saturating_add(swap));
            ceilings.memory_and_swap = ceilings.memory_and_swap.or(both);
        } else if has("memory") {
            ceilings.memory = number("memory.limit_in_bytes");
            ceilings.memory_and_swap = number("memory.memsw.limit_in_bytes");
        }
    }
    ceilings
}

/// The processes in a group and in those below it, in this process's numbering.
pub(super) fn processes(directory: &Path) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for group in below(directory) {
        all.extend(processes_of(&group)?);
    }
    all.extend(processes_of(directory)?);
    Ok(all)
}

/// The groups below a group, those that lie deepest first: a program in gVisor's place may have made some.
fn below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // What cannot be read has gone, or is told when it is used.
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(below(&entry.path()));
            found.push(entry.path());
        }
    }
    found
}

fn processes_of(directory: &Path) -> Result<Vec<u32>> {
    let path = directory.join("cgroup.procs");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect()),
        Err(error) if is_gone(&error) => Ok(Vec::new()),
        Err(error) => Err(Error::io(format!("cannot read {}", path.display()), error)),
    }
}

/// Removes a group that is empty with those below it, and the runtime's own above it after the last. `false`: the kernel is not
/// done with it.
pub(super) fn remove(directory: &Path) -> Result<bool> {
    for group in below(directory) {
        // One that is still in use keeps the group itself.
        let _ = fs::remove_dir(group);
    }
    match fs::remove_dir(directory) {
        Ok(()) => {}
        Err(error) if is_gone(&error) => {}
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Ok(false),
        Err(error) => {
            let message = format!("cannot remove the control group {}", directory.display());
            return Err(Error::new(ErrorKind::Residue, message).with_source(error));
        }
    }
    if let Some(base) = directory.parent() {
        // Other containers keep it.
        let _ = fs::remove_dir(base);
    }
    Ok(true)
}

/// A group that is removed while it is read answers `ENODEV`.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// The controllers of version 1 that are mounted together.
fn first_version(mount: &Mounted) -> Vec<String> {
    if mount.kind == "cgroup2" {
        return Vec::new();
    }
    mount.super_options.iter().filter(|option| CONTROLLERS.contains(&option.as_str())).cloned().collect()
}

/// The runtime's own group.
const BASE: &str = "sandbox";

/// The controllers that limit, and what.
const LIMITING: [(&str, Control); 3] = [("cpu", Control::Cpu), ("memory", Control::Memory), ("pids", Control::Pids)];

/// All controllers of version 1 (cgroups(7)).
const CONTROLLERS: [&str; 13] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
];

/// Microseconds; the kernel's own default (<https://docs.kernel.org/scheduler/sched-bwc.html>).
const CPU_PERIOD: u64 = 100_000;

/// A value from here on is how version 1 writes "no limit".
const NO_LIMIT: u64 = 1 << 62;

/// How often the base may be removed under a container that is being made.
const MAX_ATTEMPTS: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(kind: &str, target: &str, options: &str) -> Mounted {
        Mounted {
            root: "/".into(),
            target: target.into(),
            options: Vec::new(),
            kind: kind.to_owned(),
            super_options: options.split(',').map(str::to_owned).collect(),
        }
    }

    #[test]
    fn the_first_version_is_used_where_it_is_mounted() {
        let mounts = [
            mounted("cgroup", "/c/cpu", "rw,cpu,cpuacct,clone_children"),
            mounted("cgroup", "/c/memory", "rw,memory"),
            mounted("cgroup2", "/c/unified", "rw"),
        ];
        let cgroups = Cgroups::of(&mounts, [Path::new("sandbox"), Path::new("sandbox")], |_| "memory pids".to_owned());
        let groups = cgroups.groups("x");
        let found: Vec<_> = groups.iter().map(|g| (g.directory.to_str().unwrap(), g.controllers.join(","))).collect();
        assert_eq!(
            found,
            [
                ("/c/cpu/sandbox/x", "cpu,cpuacct".to_owned()),
                ("/c/memory/sandbox/x", "memory".to_owned()),
                ("/c/unified/sandbox/x", String::new())
            ]
        );
        assert_eq!(cgroups.enforcer(Control::Pids), "cgroup v2");
        let fewer = cgroups.without(Control::Memory);
        assert!(fewer.lacks(Control::Memory) && !fewer.lacks(Control::Cpu) && fewer.groups("x").len() == 2);
    }

    #[test]
    fn a_single_hierarchy_serves_all() {
        let cgroups = Cgroups::of(&[mounted("cgroup2", "/c", "rw")], [Path::new("s"), Path::new("user/s")], |_| {
            "cpuset cpu io memory pids".to_owned()
        });
        assert_eq!(cgroups.groups("x"), [Group { directory: "/c/user/s/x".into(), controllers: Vec::new() }]);
        assert_eq!(beside("1:name=systemd:/x\n0::/user.slice/app.slice/me.scope\n"), Path::new("user.slice/app.slice"));
        assert_eq!((beside("0::/\n"), beside("")), (PathBuf::new(), PathBuf::new()));
        assert!(LIMITING.iter().all(|(_, control)| !cgroups.lacks(*control)));
    }

    #[test]
    fn ceilings_are_written_in_the_words_of_each_version() {
        let ceilings = Ceilings { memory: Some(5), milli_cpus: Some(1_500), pids: Some(7), memory_and_swap: None };
        let lines = |control, second| {
            settings(control, second, &ceilings).into_iter().map(|(f, v)| format!("{f}={v}")).collect::<Vec<_>>()
        };
        assert_eq!(lines(Control::Memory, false), ["memory.limit_in_bytes=5", "memory.memsw.limit_in_bytes=5"]);
        assert_eq!(lines(Control::Memory, true), ["memory.max=5", "memory.swap.max=0"]);
        assert_eq!(lines(Control::Cpu, true), ["cpu.max=150000 100000"]);
        assert_eq!(lines(Control::Cpu, false), ["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=150000"]);
        assert_eq!(lines(Control::Pids, true), ["pids.max=7"]);
    }

    #[test]
    fn what_is_in_force_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        for (file, text) in
            [("memory.max", "4096\n"), ("memory.swap.max", "0\n"), ("pids.max", "max\n"), ("cpu.max", "50000 100000\n")]
        {
            fs::write(directory.path().join(file), text).unwrap();
        }
        let groups = [Group { directory: directory.path().to_owned(), controllers: Vec::new() }];
        let found = read_ceilings(&groups);
        let expected = Ceilings { memory: Some(4096), memory_and_swap: Some(4096), milli_cpus: Some(500), pids: None };
        assert_eq!(found, expected);
    }
}
