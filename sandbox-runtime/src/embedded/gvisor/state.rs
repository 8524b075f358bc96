//! What is in force around a container that gVisor runs: by the kernel's word of gVisor, and by gVisor's of the container.

use std::fs;
use std::path::{Path, PathBuf};

use sandbox_core::{Bind, ContainerId, EffectiveSettings};
use sandbox_policy::Isolation;
use serde::Deserialize;
use serde_json::Value;

use super::super::cgroups::{Ceilings, read_ceilings};
use super::super::launch::DISK;
use super::super::process::Process;
use super::super::record::Record;
use super::super::state::{loop_size, only_loopback};
use super::configuration::{source_of_bind, source_of_blank};
use super::{KEPT, NAME};
use crate::engine::limits_of;

/// What gVisor keeps of a container (`container.Container` and `sandbox.Sandbox` of its program).
#[derive(Debug, Deserialize)]
struct Kept {
    spec: Value,
    sandbox: Sandbox,
}

#[derive(Debug, Deserialize)]
struct Sandbox {
    pid: Value,
}

/// Looks at gVisor, which is a container's first process. What it does not say stays open, or differs from what was asked.
pub(crate) fn settings(id: &ContainerId, record: &Record, directory: &Path, first: Process) -> EffectiveSettings {
    let Ceilings { memory, memory_and_swap, milli_cpus, pids: _ } = read_ceilings(&record.cgroups);
    let limited = |value: Option<u64>| Some(value.unwrap_or(u64::MAX)).filter(|_| !record.cgroups.is_empty());
    let file = |name: &str| fs::read(format!("/proc/{}/{name}", first.pid)).unwrap_or_default();
    let status = String::from_utf8_lossy(&file("status")).into_owned();
    let is_filtered = status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"]));
    let kept = kept(directory).filter(|kept| kept.sandbox.pid.as_u64() == Some(first.pid.into()));
    let spec = kept.map(|kept| kept.spec).unwrap_or_default();
    let is = |pointer: &str| spec.pointer(pointer) == Some(&Value::Bool(true));
    // Beside its root, wherever a launch has put that.
    let place = spec.pointer("/root/path").and_then(Value::as_str).and_then(|root| Path::new(root).parent());
    let place = place.unwrap_or_else(|| Path::new("/"));
    EffectiveSettings {
        memory: limited(memory),
        memory_and_swap: limited(memory_and_swap),
        milli_cpus: limited(milli_cpus),
        // The limit is there for gVisor's own threads; what counts inside is asked there.
        pids: None,
        isolation: Some(if spec.is_object() { Isolation::Gvisor } else { Isolation::Standard }),
        cgroup: Some(limits_of(id, Some(first.pid))),
        disk: record.loop_device.and_then(|number| loop_size(number, &directory.join(DISK))),
        readonly_rootfs: Some(is("/root/readonly").into()),
        no_new_privileges: Some(is("/process/noNewPrivileges").into()),
        isolated: Some((is_filtered && is_apart(first) && is_told_of_namespaces(&spec)).into()),
        no_network: Some(only_loopback(&file("net/dev")).into()),
        capabilities: Some(capabilities(&spec)),
        binds: Some(binds(&spec, record, place)),
        blanks: Some(blanks(&spec, record, place)),
        underlays: None,
        users: Some(users(&file("uid_map"))),
    }
}

/// Reads what gVisor keeps.
fn kept(directory: &Path) -> Option<Kept> {
    let path = directory.join(KEPT).join(format!("{NAME}_sandbox:{NAME}.state"));
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Users inside as the kernel maps gVisor's: inside, outside, how many; none where that cannot be read.
fn users(map: &[u8]) -> Vec<(u32, u32, u32)> {
    let line = |line: &str| {
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [inside, outside, length] = numbers[..] else { return (0, 0, 0) };
        (inside, outside, length)
    };
    String::from_utf8_lossy(map).lines().map(line).collect()
}

/// Whether gVisor has namespaces of its own, and whoever is root in it is nobody outside.
fn is_apart(first: Process) -> bool {
    let namespace = |process: &str, kind: &str| fs::read_link(format!("/proc/{process}/ns/{kind}")).ok();
    let other = |kind: &str| {
        let theirs = namespace(&first.pid.to_string(), kind);
        theirs.is_some() && theirs != namespace("self", kind)
    };
    ["ipc", "mnt", "net", "user", "uts"].into_iter().all(other)
}

fn is_told_of_namespaces(spec: &Value) -> bool {
    let told = spec.pointer("/linux/namespaces").and_then(Value::as_array);
    let is_new = |kind: &str| {
        let namespaces = told.into_iter().flatten();
        namespaces.filter(|namespace| namespace["type"] == kind).any(|namespace| namespace.get("path").is_none())
    };
    ["ipc", "mount", "network", "pid", "user", "uts"].into_iter().all(is_new)
}

/// The capabilities of any set, without `CAP_`; where nothing is told, a name that nobody asked for.
fn capabilities(spec: &Value) -> Vec<String> {
    let Some(sets) = spec.pointer("/process/capabilities").and_then(Value::as_object) else {
        return vec!["ALL".to_owned()];
    };
    let names = sets.values().filter_map(Value::as_array).flatten().filter_map(Value::as_str);
    let mut names: Vec<String> = names.map(|name| name.trim_start_matches("CAP_").to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

/// The mounts that show a directory of the host's or of the layer: where, from where, and whether they can be written.
fn shown(spec: &Value) -> impl Iterator<Item = (PathBuf, PathBuf, bool)> + '_ {
    let mounts = spec.pointer("/mounts").and_then(Value::as_array).into_iter().flatten();
    mounts.filter(|mount| mount["type"] == "bind").map(|mount| {
        let path = |name: &str| PathBuf::from(mount[name].as_str().unwrap_or_default());
        let options = mount["options"].as_array();
        let writable = !options.is_some_and(|options| options.iter().any(|option| option == "ro"));
        (path("destination"), path("source"), writable)
    })
}

/// The host's directories, as asked for where they are what was asked for.
fn binds(spec: &Value, record: &Record, place: &Path) -> Vec<Bind> {
    let own: Vec<PathBuf> = blanks(spec, record, place);
    let mut binds: Vec<Bind> = shown(spec)
        .filter(|(target, ..)| !own.contains(target))
        .map(|(target, from, writable)| {
            let asked = record.binds.iter().enumerate().find(|(index, _)| source_of_bind(place, *index) == from);
            let source = asked.map_or_else(|| from.clone(), |(_, asked)| asked.source.clone());
            Bind { target, source, writable }
        })
        .collect();
    binds.sort();
    binds
}

/// Where directories of the container's own layer are.
fn blanks(spec: &Value, record: &Record, place: &Path) -> Vec<PathBuf> {
    let is_own = |(target, from, _): &(PathBuf, PathBuf, bool)| {
        let mut asked = record.blanks.iter().enumerate();
        asked.any(|(index, blank)| blank == target && source_of_blank(place, index) == *from)
    };
    let mut blanks: Vec<PathBuf> = shown(spec).filter(is_own).map(|(target, ..)| target).collect();
    blanks.sort();
    blanks
}
