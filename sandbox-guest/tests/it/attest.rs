//! What the guest reports of the place that it is in.

use rustix::process::{geteuid, getuid};
use sandbox_guest::wire::{Observed, Reply, Request};

use crate::harness::{Host, agent};

fn observe(host: &Host) -> Observed {
    match host.request(&Request::Attest, &[]).reply() {
        Reply::Observed(observed) => *observed,
        other => panic!("{other:?} where a report was due"),
    }
}

#[test]
fn the_report_is_of_a_process_that_is_as_a_program() {
    let host = Host::start();
    let observed = observe(&host);
    let agent = agent();
    assert_eq!((observed.agent.uid, observed.agent.gid), ([agent.uid; 4], [agent.gid; 4]));
    assert!(observed.agent.no_new_privileges);
    let [inheritable, permitted, effective, bounding, ambient] = observed.agent.capabilities;
    assert_eq!([inheritable, permitted, effective, ambient], [0; 4]);
    if geteuid().is_root() {
        assert_eq!((bounding, observed.agent.groups.as_slice()), (0, &[][..]));
        assert_ne!(observed.guest.capabilities[2], 0);
    }
    assert_eq!((observed.open_files, observed.core_size), ((256, 256), (0, 0)));
    // No filter stands between these tests and the kernel, and the report says so.
    assert!(observed.unfiltered.iter().any(|call| call == "add_key"), "{:?}", observed.unfiltered);
    assert_eq!(observed.guest.uid, [getuid().as_raw(); 4]);
    let program = host.shell("grep -E '^(Seccomp|Seccomp_filters):' /proc/self/status");
    let wanted =
        format!("Seccomp:\t{}\nSeccomp_filters:\t{}\n", observed.agent.seccomp, observed.agent.seccomp_filters);
    assert_eq!(program.text(), wanted);
}

#[test]
fn the_place_is_as_the_kernel_shows_it() {
    let host = Host::start();
    let observed = observe(&host);
    assert!(observed.remaining <= 600 && observed.remaining > 500, "{}", observed.remaining);
    assert!(observed.interfaces.contains(&"lo".to_owned()));
    let root = observed.mounts.iter().rfind(|mount| mount.target == b"/").unwrap();
    assert_eq!(root.read_only, !observed.root_writable);
    let proc = observed.mounts.iter().find(|mount| mount.target == b"/proc").unwrap();
    assert_eq!((proc.kind.as_str(), proc.size), ("proc", None));
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let first: Vec<u32> = map.split_whitespace().take(3).map(|number| number.parse().unwrap()).collect();
    assert_eq!(observed.uid_map[0], (first[0], first[1], first[2]));
}
