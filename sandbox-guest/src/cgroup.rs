//! The control group's limits, and its count of processes killed for memory (cgroups(7)).
//!
//! Both versions are read. Where a group is depends on what the container sees: with a cgroup namespace the mount shows
//! the container's own group at its top, without one a subdirectory of it is named by `/proc/self/cgroup`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sandbox_guest::wire::CgroupLimits;

use crate::procfs::{MountLine, parse_mounts, read};

/// A value from here on is how version 1 writes "no limit" (the page counter's greatest value, in bytes).
const NO_LIMIT: u64 = 1 << 62;

/// Counts the processes that the memory limit has killed.
#[derive(Debug)]
pub(crate) struct MemoryEvents {
    file: Option<PathBuf>,
}

impl MemoryEvents {
    /// Finds the counter of this process's group.
    pub(crate) fn find() -> Self {
        let file = Groups::read().find("memory").map(|group| match group.version {
            1 => group.directory.join("memory.oom_control"),
            _ => group.directory.join("memory.events"),
        });
        Self { file }
    }

    /// Reads the counter; 0 where there is none.
    pub(crate) fn victims(&self) -> u64 {
        let text = self.file.as_deref().and_then(text_of).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }
}

/// Reads the limits of this process's group.
pub(crate) fn limits() -> CgroupLimits {
    let groups = Groups::read();
    let memory = groups.find("memory");
    let processes = groups.find("pids");
    let cpu = groups.find("cpu");
    let value = |group: &Option<Group>, name: &str| {
        group.as_ref().and_then(|group| text_of(&group.directory.join(name))).and_then(|text| limit(&text))
    };
    let version = [&memory, &processes, &cpu].into_iter().flatten().map(|group| group.version).min().unwrap_or(0);
    let first = |group: &Option<Group>| group.as_ref().is_some_and(|group| group.version == 1);
    let (bytes, with_swap) = if first(&memory) {
        (value(&memory, "memory.limit_in_bytes"), value(&memory, "memory.memsw.limit_in_bytes"))
    } else {
        let bytes = value(&memory, "memory.max");
        let swap = value(&memory, "memory.swap.max");
        (bytes, bytes.zip(swap).map(|(bytes, swap)| bytes.saturating_add(swap)))
    };
    let (cpu_quota, cpu_period) = if first(&cpu) {
        (value(&cpu, "cpu.cfs_quota_us"), value(&cpu, "cpu.cfs_period_us"))
    } else {
        let text = cpu.as_ref().and_then(|group| text_of(&group.directory.join("cpu.max"))).unwrap_or_default();
        let mut fields = text.split_whitespace();
        (fields.next().and_then(limit), fields.next().and_then(limit))
    };
    CgroupLimits {
        version,
        memory: bytes,
        memory_and_swap: with_swap,
        pids: value(&processes, "pids.max"),
        cpu_quota,
        cpu_period,
    }
}

/// Sets the most processes and threads of this process's group.
pub(crate) fn limit_processes(most: u64) -> io::Result<()> {
    let group = Groups::read().find("pids").ok_or(io::ErrorKind::NotFound)?;
    std::fs::write(group.directory.join("pids.max"), most.to_string())
}

/// Reads one limit: `max`, `-1` and the greatest values are none.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|&value| value < NO_LIMIT)
}

/// A directory of a mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    version: u8,
    directory: PathBuf,
}

/// Which hierarchies are mounted, and where this process is in them.
#[derive(Debug)]
struct Groups {
    mounts: Vec<MountLine>,
    own: Vec<u8>,
}

impl Groups {
    fn read() -> Self {
        let mounts = read("/proc/self/mountinfo").unwrap_or_default();
        let mounts = parse_mounts(&mounts).filter(|mount| mount.kind.starts_with("cgroup")).collect();
        Self { mounts, own: read("/proc/self/cgroup").unwrap_or_default() }
    }

    fn find(&self, controller: &str) -> Option<Group> {
        let mounted = |version: u8| {
            self.mounts.iter().rev().find(|mount| match version {
                1 => mount.kind == "cgroup" && mount.super_options.split(',').any(|option| option == controller),
                _ => mount.kind == "cgroup2",
            })
        };
        let (version, mount) = mounted(1).map(|mount| (1, mount)).or_else(|| mounted(2).map(|mount| (2, mount)))?;
        let top = PathBuf::from(OsStr::from_bytes(&mount.target));
        let below = own_path(&self.own, version, controller).and_then(|own| below(own, &mount.root));
        let directory = below.map(|below| top.join(OsStr::from_bytes(below))).filter(|directory| directory.is_dir());
        Some(Group { version, directory: directory.unwrap_or(top) })
    }
}

/// Finds this process's path in a hierarchy, in the text of `/proc/self/cgroup`.
fn own_path<'a>(text: &'a [u8], version: u8, controller: &str) -> Option<&'a [u8]> {
    text.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(3, |&byte| byte == b':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = match version {
            1 => controllers.split(|&byte| byte == b',').any(|name| name == controller.as_bytes()),
            _ => number == b"0" && controllers.is_empty(),
        };
        ours.then_some(path)
    })
}

/// The part of a path that is below a mount's root; none if it is elsewhere or climbs.
fn below<'a>(path: &'a [u8], root: &[u8]) -> Option<&'a [u8]> {
    let rest = if root == b"/" { path } else { path.strip_prefix(root)? };
    let rest = if rest.is_empty() { rest } else { rest.strip_prefix(b"/")? };
    (!rest.split(|&byte| byte == b'/').any(|part| part == b"..")).then_some(rest)
}

fn text_of(path: &Path) -> Option<String> {
    String::from_utf8(read(path.to_str()?).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWN: &[u8] = b"8:pids:/docker/abc\n4:cpu,cpuacct:/\n1:name=systemd:/\n0::/system.slice/x:y\n";

    #[test]
    fn the_own_path_is_found_in_each_hierarchy() {
        assert_eq!(own_path(OWN, 1, "pids"), Some(&b"/docker/abc"[..]));
        assert_eq!(own_path(OWN, 1, "cpuacct"), Some(&b"/"[..]));
        assert_eq!(own_path(OWN, 2, "pids"), Some(&b"/system.slice/x:y"[..]));
        assert_eq!(own_path(OWN, 1, "memory"), None);
    }

    #[test]
    fn a_path_is_taken_relative_to_its_mount() {
        assert_eq!(below(b"/docker/abc/sub", b"/docker/abc"), Some(&b"sub"[..]));
        assert_eq!(below(b"/docker/abc", b"/docker/abc"), Some(&b""[..]));
        assert_eq!(below(b"/docker/abcd", b"/docker/abc"), None);
        assert_eq!(below(b"/a", b"/"), Some(&b"a"[..]));
        assert_eq!(below(b"/../x", b"/"), None);
    }

    #[test]
    fn no_limit_is_written_in_many_ways() {
        for text in ["max\n", "-1\n", "9223372036854771712\n", "4611686018427387904", "", "x"] {
            assert_eq!(limit(text), None, "{text:?}");
        }
        assert_eq!(limit("67108864\n"), Some(67_108_864));
    }

    #[test]
    fn a_second_version_is_used_only_where_the_first_does_not_manage() {
        let mount = |kind: &str, target: &str, options: &str| MountLine {
            root: b"/".into(),
            target: target.into(),
            options: "rw".into(),
            kind: kind.into(),
            super_options: options.into(),
        };
        let mounts = vec![mount("cgroup", "/x/pids", "rw,pids"), mount("cgroup2", "/x/unified", "rw")];
        let groups = Groups { mounts, own: b"8:pids:/\n0::/\n".to_vec() };
        assert_eq!(groups.find("pids").unwrap().version, 1);
        assert_eq!(groups.find("memory"), Some(Group { version: 2, directory: "/x/unified".into() }));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fail(own in proptest::collection::vec(any::<u8>(), 0..200), root in "[/.a]{0,12}") {
            for version in [1, 2] {
                if let Some(path) = own_path(&own, version, "memory") {
                    below(path, root.as_bytes());
                }
            }
        }
    }
}
