//! The control group around a container, as the host's kernel has it (cgroups(7)).
//!
//! Invariant: a group whose name does not hold the container's id is never taken for the container's; the engine's number
//! for a process may be somebody else's where this program sees other processes than the engine.

use std::path::{Path, PathBuf};

use sandbox_core::ContainerId;
use sandbox_guest::wire::CgroupLimits;

/// Reads the limits around a container's first process; none where they cannot be seen.
pub(crate) fn limits_of(container: &ContainerId, process: Option<u32>) -> CgroupLimits {
    let Some(process) = process else { return CgroupLimits::default() };
    let groups = std::fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
    limits(Path::new(MOUNTED), container.as_str(), &groups)
}

fn limits(mounted: &Path, container: &str, groups: &str) -> CgroupLimits {
    let find = |controller: &str| Group::find(mounted, container, groups, controller);
    let (memory, pids, cpu) = (find("memory"), find("pids"), find("cpu"));
    let version = [&memory, &pids, &cpu].into_iter().flatten().map(|group| group.version).min().unwrap_or(0);
    let (bytes, with_swap) = match &memory {
        Some(group @ Group { version: 1, .. }) => {
            (group.limit("memory.limit_in_bytes"), group.limit("memory.memsw.limit_in_bytes"))
        }
        Some(group) => {
            let (bytes, swap) = (group.limit("memory.max"), group.limit("memory.swap.max"));
            (bytes, bytes.zip(swap).map(|(bytes, swap)| bytes.saturating_add(swap)))
        }
        None => (None, None),
    };
    let (cpu_quota, cpu_period) = match &cpu {
        Some(group @ Group { version: 1, .. }) => (group.limit("cpu.cfs_quota_us"), group.limit("cpu.cfs_period_us")),
        Some(group) => {
            let text = group.text("cpu.max");
            let mut fields = text.split_whitespace().map(number);
            (fields.next().flatten(), fields.next().flatten())
        }
        None => (None, None),
    };
    CgroupLimits {
        version,
        memory: bytes,
        memory_and_swap: with_swap,
        pids: pids.and_then(|group| group.limit("pids.max")),
        cpu_quota,
        cpu_period,
    }
}

/// A directory of a mounted hierarchy.
struct Group {
    version: u8,
    directory: PathBuf,
}

impl Group {
    /// Finds the group of a controller: of version 1 where there is one, since what is left over is version 2's.
    fn find(mounted: &Path, container: &str, groups: &str, controller: &str) -> Option<Self> {
        let named = |wanted: &dyn Fn(&str) -> bool| {
            groups.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                wanted(controllers).then_some(path)
            })
        };
        let first = named(&|controllers| controllers.split(',').any(|name| name == controller));
        let (version, path) = first.map(|path| (1, path)).or_else(|| named(&str::is_empty).map(|path| (2, path)))?;
        let is_theirs = container.len() >= LEAST_ID && path.contains(container) && !path.contains("..");
        let top = if version == 1 { mounted.join(controller) } else { mounted.to_owned() };
        is_theirs.then(|| Self { version, directory: top.join(path.trim_start_matches('/')) })
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.join(name)).unwrap_or_default()
    }

    fn limit(&self, name: &str) -> Option<u64> {
        number(self.text(name).trim())
    }
}

/// `max`, `-1` and the greatest values are no limit.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|value| *value < NO_LIMIT)
}

/// Where every distribution mounts them (file-hierarchy(7)).
const MOUNTED: &str = "/sys/fs/cgroup";
/// A value from here on is how version 1 writes "no limit" (the page counter's greatest value, in bytes).
const NO_LIMIT: u64 = 1 << 62;
/// Characters of an id that is nobody else's.
const LEAST_ID: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef";

    fn mounted(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        directory
    }

    #[test]
    fn both_versions_are_read() {
        let first = mounted(&[
            ("memory/docker/0123456789abcdef/memory.limit_in_bytes", "1024\n"),
            ("memory/docker/0123456789abcdef/memory.memsw.limit_in_bytes", "1024\n"),
            ("pids/docker/0123456789abcdef/pids.max", "max\n"),
            ("cpu/docker/0123456789abcdef/cpu.cfs_quota_us", "-1\n"),
            ("cpu/docker/0123456789abcdef/cpu.cfs_period_us", "100000\n"),
        ]);
        let groups = format!("9:pids:/docker/{ID}\n4:memory:/docker/{ID}\n1:cpu,cpuacct:/docker/{ID}\n0::/\n");
        let found = limits(first.path(), ID, &groups);
        assert_eq!((found.version, found.memory, found.memory_and_swap), (1, Some(1_024), Some(1_024)));
        assert_eq!((found.pids, found.cpu_quota, found.cpu_period), (None, None, Some(100_000)));

        let second = mounted(&[
            ("system.slice/docker-0123456789abcdef.scope/memory.max", "2048\n"),
            ("system.slice/docker-0123456789abcdef.scope/memory.swap.max", "0\n"),
            ("system.slice/docker-0123456789abcdef.scope/pids.max", "7\n"),
            ("system.slice/docker-0123456789abcdef.scope/cpu.max", "50000 100000\n"),
        ]);
        let found = limits(second.path(), ID, &format!("0::/system.slice/docker-{ID}.scope\n"));
        assert_eq!((found.version, found.memory, found.memory_and_swap), (2, Some(2_048), Some(2_048)));
        assert_eq!((found.pids, found.cpu_quota, found.cpu_period), (Some(7), Some(50_000), Some(100_000)));
    }

    #[test]
    fn a_strangers_group_is_not_looked_at() {
        let here = mounted(&[("memory/docker/stranger/memory.limit_in_bytes", "1024")]);
        for groups in ["4:memory:/docker/stranger\n", "", "nonsense\n:::\n", "4:memory:/../0123456789abcdef\n"] {
            assert_eq!(limits(here.path(), ID, groups), CgroupLimits::default(), "{groups}");
        }
        assert_eq!(limits(here.path(), "", "4:memory:/docker/stranger\n"), CgroupLimits::default());
    }
}
