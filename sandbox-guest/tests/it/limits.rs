//! Guests that have less than root has, and what limits do to them.

use std::fs;
use std::path::{Path, PathBuf};

use sandbox_guest::wire::{FailureKind, Identity, Reply, Request, Setup, Status};

use crate::exec::STUBBORN;
use crate::harness::{Host, eventually, exec, setup, shell, without_root};

/// A user that nobody is.
const STRANGER: Identity = Identity { uid: 61_234, gid: 61_235 };

#[test]
fn two_capabilities_are_all_that_it_takes() {
    if without_root("a guest with few capabilities") {
        return;
    }
    let host = Host::through(&setup(), &["setpriv", "--bounding-set=-all,+setuid,+setgid"]);
    let mut asked = shell(STUBBORN);
    (asked.deadline, asked.grace) = (Some(200), 100);
    let finished = host.exec(asked).finish().unwrap();
    assert_eq!((finished.exit.status, finished.exit.timed_out), (Status::Signal(9), true));
    assert_eq!(host.shell("id -u; id -G").text(), "1000\n1000\n");
    assert_eq!(host.shell("kill -KILL $PPID; echo still").text(), "still\n");
}

#[test]
fn without_the_right_to_drop_nothing_runs() {
    if without_root("a guest with no capability") {
        return;
    }
    let host = Host::through(&setup(), &["setpriv", "--bounding-set=-all"]);
    let failure = host.exec(exec(&["true"])).finish().unwrap_err();
    assert!(failure.message.contains("privileges"), "{failure:?}");
    let Reply::Failed(failure) = host.request(&Request::Attest, &[]).reply() else { panic!("a report") };
    assert_eq!(failure.kind, FailureKind::Io);
}

#[test]
fn root_as_the_agent_has_no_capability_left() {
    if without_root("root as the agent") {
        return;
    }
    let host = Host::with_setup(&Setup { agent: Identity { uid: 0, gid: 0 }, ..setup() });
    let text = host.shell("grep -E '^Cap(Prm|Eff|Bnd)' /proc/self/status").text().to_owned();
    assert_eq!(text.matches(&"0".repeat(16)).count(), 3, "{text}");
}

#[test]
fn a_guest_that_is_the_agent_serves_it_until_processes_run_out() {
    if without_root("a guest that is another user") {
        return;
    }
    let setup = Setup { agent: STRANGER, ..setup() };
    let user = ["setpriv", "--reuid=61234", "--regid=61235", "--clear-groups"];
    let host = Host::through(&setup, &user);
    assert_eq!(host.shell("id -u; id -g").text(), "61234\n61235\n");
    let crowded = Host::through(&setup, &[&user[..], &["prlimit", "--nproc=2:2"]].concat());
    assert_eq!(crowded.exec(exec(&["true"])).finish().unwrap_err().kind, FailureKind::Exhausted);
    let full = Host::through(&setup, &[&user[..], &["prlimit", "--nproc=1:1"]].concat());
    for _ in 0..3 {
        assert_eq!(full.exec(exec(&["true"])).finish().unwrap_err().kind, FailureKind::Exhausted);
    }
}

#[test]
fn a_guest_that_is_not_root_serves_nobody_else() {
    if without_root("a guest that is another user") {
        return;
    }
    let host = Host::through(&setup(), &["setpriv", "--reuid=61236", "--regid=61236", "--clear-groups"]);
    let (status, text) = host.wait();
    assert!(!status.success() && text.contains("can only be itself"), "{status} {text}");
}

#[test]
fn the_memory_limit_is_reported_and_its_victims_are_told() {
    const LIMIT: u64 = 64 << 20;
    let Some(group) = Group::new(LIMIT) else { return };
    let procs = group.0.join("cgroup.procs");
    let enter = format!("echo $$ > {} && exec \"$0\" \"$1\"", procs.display());
    let host = Host::through(&setup(), &["/bin/sh", "-c", &enter]);
    let Reply::Observed(observed) = host.request(&Request::Attest, &[]).reply() else { panic!("no report") };
    assert_eq!(observed.cgroup.memory, Some(LIMIT));
    assert!(!host.shell("exit 3").exit.out_of_memory);
    // It holds all of a line that never ends.
    let finished = host.shell("tail -n 1 /dev/zero & wait $!");
    assert!(finished.exit.out_of_memory, "{finished:?}");
    assert_eq!(finished.code(), 137);
    assert!(!host.shell("exit 3").exit.out_of_memory);
}

/// A control group with a memory limit, which goes with its test.
struct Group(PathBuf);

impl Group {
    fn new(limit: u64) -> Option<Self> {
        if without_root("a control group of its own") {
            return None;
        }
        let name = format!("sandbox-guest-test-{}", std::process::id());
        let places = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        for (top, file) in places {
            let group = Path::new(top).join(&name);
            if fs::create_dir(&group).is_ok() {
                let group = Self(group);
                if fs::write(group.0.join(file), limit.to_string()).is_ok() {
                    return Some(group);
                }
            }
        }
        eprintln!("SKIPPED: a control group of its own: none can be made here");
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        eventually(|| fs::remove_dir(&self.0).ok());
    }
}
