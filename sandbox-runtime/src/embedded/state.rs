//! What a container does, and what is in force in the kernel's eyes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, openat, openat2, statat};
use sandbox_core::{Bind, ContainerId, ContainerState, ContainerStatus, EffectiveSettings, Error, Result};

use sandbox_policy::{Isolation, LinuxCapability};

use super::Machine;
use super::cgroups::{Ceilings, read_ceilings};
use super::gvisor;
use super::launch::{DISK, LAYER};
use super::mountinfo::{self, Mounted};
use super::process::Process;
use super::record::{Mount, Record};

impl Machine {
    /// Says what a container does.
    pub(super) fn state(&self, id: &ContainerId) -> Result<ContainerState> {
        let (_, directory) = self.store.container(id)?;
        let Some(record) = Record::read(&directory)? else {
            return Ok(ContainerState {
                status: ContainerStatus::Gone,
                pid: None,
                settings: EffectiveSettings::default(),
            });
        };
        let status = status(&record)?;
        let running = record.first.filter(|_| status == ContainerStatus::Running);
        let settings = match running {
            Some(first) if record.gvisor.is_some() => gvisor::settings(id, &record, &directory, first),
            Some(first) => settings(&record, &directory, first),
            None => EffectiveSettings::default(),
        };
        Ok(ContainerState { status, pid: running.map(|first| first.pid), settings })
    }
}

/// What a container does, by its record and the kernel.
pub(super) fn status(record: &Record) -> Result<ContainerStatus> {
    let Some(first) = record.first else { return Ok(ContainerStatus::Created) };
    let runs = first.runs().map_err(|error| Error::io(format!("cannot look at process {}", first.pid), error))?;
    Ok(if runs { ContainerStatus::Running } else { ContainerStatus::Exited })
}

/// Asks the kernel. What it does not say of a process that ends meanwhile stays open, and differs from what was asked.
fn settings(record: &Record, directory: &Path, first: Process) -> EffectiveSettings {
    let Ceilings { memory, memory_and_swap, milli_cpus, pids } = read_ceilings(&record.cgroups);
    let limited = |value: Option<u64>| Some(value.unwrap_or(u64::MAX)).filter(|_| !record.cgroups.is_empty());
    let file = |name: &str| fs::read(format!("/proc/{}/{name}", first.pid)).unwrap_or_default();
    let mounts = mountinfo::parse(&file("mountinfo"));
    let status = String::from_utf8_lossy(&file("status")).into_owned();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    let root = mounts.iter().rfind(|mount| mount.target == Path::new("/"));
    EffectiveSettings {
        users: None,
        memory: limited(memory),
        memory_and_swap: limited(memory_and_swap),
        milli_cpus: limited(milli_cpus),
        pids: limited(pids),
        isolation: Some(Isolation::Standard),
        cgroup: None,
        disk: match record.loop_device {
            Some(number) => loop_size(number, &directory.join(DISK)),
            None => record.disk.and_then(|_| memory_size(first)),
        },
        readonly_rootfs: Some(root.is_some_and(Mounted::is_read_only).into()),
        no_new_privileges: Some((field("NoNewPrivs") == Some("1")).into()),
        isolated: Some(isolated(first, field("Seccomp")).into()),
        no_network: Some(only_loopback(&file("net/dev")).into()),
        capabilities: Some(capabilities(field("CapBnd").zip(field("CapPrm")))),
        binds: Some(binds(record, &mounts, first)),
        blanks: Some(blanks(record, directory, &mounts)),
        underlays: Some(underlays(record, &mounts)),
    }
}

/// Bytes of the file system in memory on which the root of a process is written: an overlay tells those of what it writes to.
fn memory_size(first: Process) -> Option<u64> {
    let data = rustix::fs::statvfs(format!("/proc/{}/root", first.pid)).ok()?;
    data.f_blocks.checked_mul(data.f_frsize)
}

/// Bytes of a loop device, if it still stands for a container's own file.
pub(super) fn loop_size(number: u32, file: &Path) -> Option<u64> {
    let attribute = |name: &str| fs::read_to_string(format!("/sys/block/loop{number}/{name}")).ok();
    let behind = attribute("loop/backing_file")?;
    if !is_behind(&behind, file) {
        return None;
    }
    attribute("size")?.trim().parse::<u64>().ok()?.checked_mul(SECTOR)
}

/// Whether a loop device's file, as the kernel tells it, is a container's own. The name was removed when the file was mounted,
/// which is said behind it; and the mount that it was found by is gone, so that the way there begins where the file system
/// was mounted. The last two parts, of which one is the container's name, are no other's.
fn is_behind(told: &str, file: &Path) -> bool {
    let mut own = file.iter().rev();
    let (Some(name), Some(container)) = (own.next(), own.next()) else { return false };
    told.trim_end()
        .strip_suffix(" (deleted)")
        .is_some_and(|told| Path::new(told).ends_with(Path::new(container).join(name)))
}

/// Bytes of a sector, whatever the device's own are (<https://docs.kernel.org/block/stat.html>).
const SECTOR: u64 = 512;

/// Whether each namespace is another than this process's, and a filter is in force.
fn isolated(first: Process, seccomp: Option<&str>) -> bool {
    let namespace = |process: &str, kind: &str| fs::read_link(format!("/proc/{process}/ns/{kind}")).ok();
    let other = |kind: &str| {
        let theirs = namespace(&first.pid.to_string(), kind);
        theirs.is_some() && theirs != namespace("self", kind)
    };
    ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"].into_iter().all(other) && seccomp == Some("2")
}

/// Whether `/proc/net/dev`, whose first two lines are a heading, lists the loopback interface and no other.
pub(super) fn only_loopback(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let names: Vec<&str> = text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
    names == ["lo"]
}

/// The capabilities that process 1 has or could get; an unreadable set is full.
fn capabilities(sets: Option<(&str, &str)>) -> Vec<String> {
    let mask = |text: &str| u64::from_str_radix(text, 16).unwrap_or(u64::MAX);
    let held = sets.map_or(u64::MAX, |(bounding, permitted)| mask(bounding) | mask(permitted));
    let name = |number: u32| {
        let known = LinuxCapability::ALL.iter().find(|known| known.number() == number);
        known.map_or_else(|| number.to_string(), ToString::to_string)
    };
    let mut names: Vec<String> = (0..u64::BITS).filter(|bit| held & (1 << bit) != 0).map(name).collect();
    names.sort();
    names
}

/// The host's directories that are mounted, as asked for where they are what was asked for.
fn binds(record: &Record, mounts: &[Mounted], first: Process) -> Vec<Bind> {
    let mut binds: Vec<Bind> = record
        .binds
        .iter()
        .filter_map(|bind| {
            let mounted = mounts.iter().rfind(|mount| mount.target == bind.target)?;
            let same = is_same(bind, first).unwrap_or(false);
            let source = if same { bind.source.clone() } else { "another directory".into() };
            Some(Bind { target: bind.target.clone(), source, writable: !mounted.is_read_only() })
        })
        .collect();
    binds.sort();
    binds
}

/// Where directories of the container's own layer are mounted. Its file system shows them at its top where it is an image, and in the
/// container's directory, which has no other's name, where it is the host's.
fn blanks(record: &Record, directory: &Path, mounts: &[Mounted]) -> Vec<PathBuf> {
    let is_own = |(index, target): &(usize, &PathBuf)| {
        let name = sandbox_guest::launch::blank_name(*index);
        let mount = mounts.iter().rfind(|mount| mount.target == **target);
        mount.is_some_and(|mount| match (record.disk, directory.file_name()) {
            (Some(_), _) => mount.root == Path::new("/").join(&name),
            (None, Some(container)) => mount.root.ends_with(Path::new(container).join(LAYER).join(&name)),
            (None, None) => false,
        })
    };
    let mut blanks: Vec<PathBuf> =
        record.blanks.iter().enumerate().filter(is_own).map(|(_, target)| target.clone()).collect();
    blanks.sort();
    blanks
}

/// Where a tree of the host's lies below what the container writes, as it was laid: an overlay of the names that its launch gave out,
/// in which nobody else has made a mount since (overlayfs tells its options as they were given).
fn underlays(record: &Record, mounts: &[Mounted]) -> Vec<PathBuf> {
    let is_laid = |(index, asked): &(usize, &Mount)| {
        let name = sandbox_guest::launch::underlay_name(*index);
        let mount = mounts.iter().rfind(|mount| mount.target == asked.target);
        mount.is_some_and(|mount| {
            let says = |option: String| mount.super_options.contains(&option);
            mount.kind == "overlay" && says(format!("lowerdir={name}")) && says(format!("upperdir=d/u{name}"))
        })
    };
    record.underlays.iter().enumerate().filter(is_laid).map(|(_, asked)| asked.target.clone()).collect()
}

/// Whether what lies at the target inside is the source. Links inside lead nowhere else: they are not followed.
fn is_same(bind: &Mount, first: Process) -> io::Result<bool> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, format!("/proc/{}/root", first.pid), flags, Mode::empty())?;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let inside = openat2(&root, &bind.target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), within)?;
    let (inside, outside) = (statat(&inside, "", AtFlags::EMPTY_PATH)?, statat(CWD, &bind.resolved, AtFlags::empty())?);
    Ok((inside.st_dev, inside.st_ino) == (outside.st_dev, outside.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_named_and_an_unknown_set_is_full() {
        assert_eq!(capabilities(Some(("1e0", "20"))), ["KILL", "SETGID", "SETPCAP", "SETUID"]);
        assert_eq!(capabilities(Some(("200000", "0"))), ["21"]);
        assert_eq!(capabilities(None).len(), 64);
    }

    #[test]
    fn a_containers_file_is_known_wherever_its_file_system_was_mounted() {
        let file = Path::new("/var/lib/sandbox/containers/sandbox-1/disk");
        assert!(is_behind("/var/lib/sandbox/containers/sandbox-1/disk (deleted)\n", file));
        assert!(is_behind("/containers/sandbox-1/disk (deleted)", file));
        for other in [
            "/containers/sandbox-1/disk",
            "/containers/sandbox-2/disk (deleted)",
            "/containers/xsandbox-1/disk (deleted)",
            "/sandbox-1/other (deleted)",
            "",
        ] {
            assert!(!is_behind(other, file), "{other}");
        }
    }

    #[test]
    fn another_interface_is_seen() {
        let heading = "Inter-|\n face |\n";
        assert!(only_loopback(format!("{heading}    lo: 0 0\n").as_bytes()));
        assert!(!only_loopback(format!("{heading}    lo: 0\n  eth0: 0\n").as_bytes()));
        assert!(!only_loopback(b""));
    }

    #[test]
    fn this_process_is_not_isolated_from_itself() {
        let me = Process::find(std::process::id()).unwrap().unwrap();
        assert!(!isolated(me, Some("2")));
    }
}
