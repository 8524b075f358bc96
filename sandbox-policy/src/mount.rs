//! What may be a workspace, and where it may lie inside.
//!
//! The words alone are judged: whoever makes the request follows symbolic links first, and whoever
//! mounts or reads looks again.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use crate::parse::clip;
use crate::{Access, CloneSource, Violation, Workspace, WorkspaceKind, WorkspaceRule, WorkspaceSource};

/// Notes everything that keeps a workspace from being had.
pub(crate) fn weigh(
    rule: WorkspaceRule,
    kinds: &BTreeSet<WorkspaceKind>,
    workspace: &Workspace,
    violations: &mut Vec<Violation>,
) {
    let Workspace { source, guest } = workspace;
    let mut deny = |field: &str, requested: &str, allowed: &str| {
        violations.push(Violation::Denied {
            field: field.to_owned(),
            requested: clip(requested),
            allowed: allowed.to_owned(),
        });
    };
    if !kinds.contains(&source.kind()) {
        let words: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        let allowed = if words.is_empty() { "none".to_owned() } else { words.join(" ") };
        deny("workspace.kind", source.kind().as_str(), &allowed);
    }
    let host = match source {
        WorkspaceSource::Bind { host, access } => {
            match (rule, access) {
                (WorkspaceRule::None, _) => deny("workspace", &host.to_string(), "no directory of the host"),
                (WorkspaceRule::ReadOnly, Access::ReadWrite) => {
                    deny("workspace.access", access.as_str(), Access::ReadOnly.as_str());
                }
                (WorkspaceRule::ReadOnly, Access::ReadOnly) | (WorkspaceRule::ReadWrite, _) => {}
            }
            Some(host)
        }
        WorkspaceSource::Clone { source: CloneSource::Local(host), .. } | WorkspaceSource::Copy { host } => Some(host),
        WorkspaceSource::Clone { source: CloneSource::Remote(_), .. } | WorkspaceSource::Volume { .. } => None,
    };
    if let Some(host) = host
        && let Some(allowed) = host_rule_broken_by(host.as_path())
    {
        deny("workspace.host", &host.to_string(), allowed);
    }
    if let Some(allowed) = guest_rule_broken_by(guest.as_path()) {
        deny("workspace.guest", guest.as_str(), allowed);
    }
}

fn host_rule_broken_by(path: &Path) -> Option<&'static str> {
    if SYSTEM_ON_HOST.iter().any(|system| overlaps(path, system)) {
        return Some("a directory that neither lies in nor holds one of the system");
    }
    if SHARED_ON_HOST.iter().any(|shared| path == Path::new(shared)) || path.parent() == Some(Path::new("/home")) {
        return Some("a directory further down, not one that many things share");
    }
    let names: Vec<&OsStr> = path.iter().collect();
    if names.iter().any(|name| SECRET_NAMES.iter().any(|secret| name == secret))
        || names.last().is_some_and(|name| *name == ".config")
    {
        return Some("a directory that does not hold credentials");
    }
    None
}

fn guest_rule_broken_by(path: &Path) -> Option<&'static str> {
    let is_in_var = path.starts_with("/var") && (path == Path::new("/var/tmp") || !path.starts_with("/var/tmp"));
    if is_in_var || path == Path::new("/tmp") || SYSTEM_INSIDE.iter().any(|system| overlaps(path, system)) {
        return Some("a directory that hides nothing of the system, such as /workspace");
    }
    None
}

/// Tells whether one path is the other, lies in it, or holds it.
fn overlaps(path: &Path, other: &str) -> bool {
    path.starts_with(other) || Path::new(other).starts_with(path)
}

/// `/run` and `/var/run` hold the sockets of engines; `/var/lib` holds their data.
const SYSTEM_ON_HOST: [&str; 16] = [
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run", "/sbin", "/sys", "/usr",
    "/var/lib", "/var/run", "/efi",
];
const SHARED_ON_HOST: [&str; 7] = ["/home", "/mnt", "/opt", "/root", "/srv", "/tmp", "/var"];
const SECRET_NAMES: [&str; 5] = [".aws", ".docker", ".gnupg", ".kube", ".ssh"];
const SYSTEM_INSIDE: [&str; 15] = [
    "/.sandbox",
    "/.sandbox-git",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_directories() {
        for path in [
            "/root/project",
            "/home/u/project",
            "/tmp/x",
            "/work/x",
            "/srv/x",
            "/var/tmp/x",
            "/usrlocal",
            "/home/u/.config/nvim",
            "/home/u/ssh",
        ] {
            assert_eq!(host_rule_broken_by(Path::new(path)), None, "{path}");
        }
        for path in [
            "/",
            "/proc",
            "/proc/1",
            "/sys/fs",
            "/dev",
            "/boot/x",
            "/etc/x",
            "/run/docker.sock",
            "/var",
            "/var/run",
            "/var/lib/docker",
            "/usr",
            "/usr/local/src/x",
            "/bin",
            "/lib64",
            "/home",
            "/home/u",
            "/root",
            "/tmp",
            "/opt",
            "/mnt",
            "/srv",
            "/root/.ssh",
            "/home/u/.ssh/keys",
            "/x/.aws",
            "/x/.gnupg",
            "/x/.docker",
            "/x/.kube",
            "/x/.config",
        ] {
            assert!(host_rule_broken_by(Path::new(path)).is_some(), "{path}");
        }
    }

    #[test]
    fn guest_directories() {
        for path in ["/workspace", "/tmp/x", "/var/tmp/x", "/home/agent/x", "/root/x", "/opt", "/srv/x"] {
            assert_eq!(guest_rule_broken_by(Path::new(path)), None, "{path}");
        }
        for path in [
            "/",
            "/usr/src",
            "/bin",
            "/etc/x",
            "/var",
            "/var/lib/x",
            "/var/tmp",
            "/tmp",
            "/run/x",
            "/.sandbox",
            "/.sandbox-git",
        ] {
            assert!(guest_rule_broken_by(Path::new(path)).is_some(), "{path}");
        }
    }
}
