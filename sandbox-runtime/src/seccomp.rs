//! Which system calls a sandbox may make.
//!
//! The engines' own profiles differ, and each lets through what another stops; so this crate brings its own, which is
//! the same everywhere. What is not listed fails with `EPERM`. The form is that of Docker's profiles
//! (<https://docs.docker.com/engine/security/seccomp/>), which runc, crun and youki understand.
//!
//! Invariant: only calls of the machine's own 64-bit interface pass. The 32-bit ones are left out on purpose: with
//! them, `socketcall(2)` would go around every rule about sockets.

mod table;

use std::sync::LazyLock;

use serde::Serialize;

use table::ALLOWED;

/// Returns the profile as JSON.
pub(crate) fn profile() -> &'static str {
    static PROFILE: LazyLock<String> = LazyLock::new(|| {
        serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": libc_errno::EPERM,
            "archMap": ARCHITECTURES.map(|name| serde_json::json!({ "architecture": name, "subArchitectures": [] })),
            "syscalls": rules(),
        })
        .to_string()
    });
    &PROFILE
}

/// The name of this machine's architecture in a profile.
pub(crate) fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { ARCHITECTURES[1] } else { ARCHITECTURES[0] }
}

/// One rule; its conditions must all hold. Rules about the same call are alternatives.
#[derive(Debug, Serialize)]
struct Rule {
    names: Vec<&'static str>,
    action: &'static str,
    #[serde(rename = "errnoRet", skip_serializing_if = "Option::is_none")]
    errno: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Condition>,
}

/// Holds where an argument's bits under a mask are those of a value.
///
/// Masks stay within 32 bits where the kernel takes an `int`: it drops the rest, and a comparison of all 64 bits could be
/// gone around by setting one of them (CVE-2019-10063).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Condition {
    index: u32,
    #[serde(rename = "value")]
    mask: u64,
    #[serde(rename = "valueTwo")]
    value: u64,
    op: &'static str,
}

impl Condition {
    const fn masked(index: u32, mask: u64, value: u64) -> Self {
        Self { index, mask, value, op: "SCMP_CMP_MASKED_EQ" }
    }

    const fn int(index: u32, value: u32) -> Self {
        Self::masked(index, INT, value as u64)
    }
}

fn rules() -> Vec<Rule> {
    let mut rules: Vec<Rule> = ALLOWED.iter().map(|names| allow(names.to_vec(), Vec::new())).collect();
    // No new namespace: with a user namespace of its own, a program is root there, and the kernel's rarest code answers
    // it. In clone(2), unlike clone3(2), the low byte is a signal, so CLONE_NEWTIME has no place.
    rules.push(allow(vec!["clone"], vec![Condition::masked(0, NEW_NAMESPACES, 0)]));
    // Its flags lie in memory, where no filter sees them. C libraries fall back to clone on ENOSYS.
    rules.push(Rule {
        names: vec!["clone3"],
        action: "SCMP_ACT_ERRNO",
        errno: Some(libc_errno::ENOSYS),
        args: Vec::new(),
    });
    // Nothing that turns off address randomisation or makes all that is readable executable.
    rules.extend(PERSONALITIES.map(|persona| allow(vec!["personality"], vec![Condition::int(0, persona)])));
    // Nothing that types into the terminal that a program was started from (CVE-2017-5226, CVE-2023-28339).
    rules.extend(all_but(1, &[TIOCSTI, TIOCLINUX]).map(|condition| allow(vec!["ioctl"], vec![condition])));
    // Sockets of the kinds that programs need. Protocols are named too, since asking for another loads its module.
    rules.push(allow(vec!["socket", "socketpair"], vec![Condition::int(0, AF_UNIX)]));
    rules.push(allow(vec!["socket"], vec![Condition::int(0, AF_NETLINK), Condition::int(2, NETLINK_ROUTE)]));
    for family in [AF_INET, AF_INET6] {
        rules.extend(
            INTERNET_PROTOCOLS
                .map(|protocol| allow(vec!["socket"], vec![Condition::int(0, family), Condition::int(2, protocol)])),
        );
    }
    rules
}

fn allow(names: Vec<&'static str>, args: Vec<Condition>) -> Rule {
    Rule { names, action: "SCMP_ACT_ALLOW", errno: None, args }
}

/// Writes "an `int` that is none of these" as alternatives, one of which holds for every other number.
///
/// A rule cannot say it directly: runtimes take two conditions on one argument as alternatives, so that "not a, not b"
/// would always hold. Each alternative here shares the upper bits of a forbidden number and differs in the next.
fn all_but(index: u32, forbidden: &[u32]) -> impl Iterator<Item = Condition> {
    let mut conditions: Vec<Condition> = Vec::new();
    for bit in 0..u32::BITS {
        let mask = u32::MAX << bit;
        for number in forbidden {
            let value = (number ^ (1 << bit)) & mask;
            let condition = Condition::masked(index, u64::from(mask), u64::from(value));
            if forbidden.iter().all(|other| other & mask != value) && !conditions.contains(&condition) {
                conditions.push(condition);
            }
        }
    }
    conditions.into_iter()
}

/// Numbers of errors (<https://man7.org/linux/man-pages/man3/errno.3.html>), which are the same on both architectures.
mod libc_errno {
    pub(super) const EPERM: u32 = 1;
    pub(super) const ENOSYS: u32 = 38;
}

const ARCHITECTURES: [&str; 2] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"];

const INT: u64 = u32::MAX as u64;

/// The flags of clone(2) for control group, IPC, mount, network, PID, user and UTS namespaces
/// (`include/uapi/linux/sched.h`).
const NEW_NAMESPACES: u64 =
    0x0200_0000 | 0x0800_0000 | 0x0002_0000 | 0x4000_0000 | 0x2000_0000 | 0x1000_0000 | 0x0400_0000;

/// `PER_LINUX`, `PER_LINUX32`, each also with `UNAME26`, and the number that only asks
/// (<https://man7.org/linux/man-pages/man2/personality.2.html>).
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// <https://man7.org/linux/man-pages/man2/TIOCSTI.2const.html>
const TIOCSTI: u32 = 0x5412;
/// <https://man7.org/linux/man-pages/man2/TIOCLINUX.2const.html>
const TIOCLINUX: u32 = 0x541c;

/// Address families (<https://man7.org/linux/man-pages/man2/socket.2.html>).
const AF_UNIX: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const AF_NETLINK: u32 = 16;
/// The one netlink that lists interfaces and addresses (<https://man7.org/linux/man-pages/man7/netlink.7.html>).
const NETLINK_ROUTE: u32 = 0;
/// The default, ICMP, TCP, UDP, ICMP for IPv6 and UDP-Lite
/// (<https://www.iana.org/assignments/protocol-numbers/protocol-numbers.xhtml>).
const INTERNET_PROTOCOLS: [u32; 6] = [0, 1, 6, 17, 58, 136];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn holds(condition: Condition, value: u64) -> bool {
        value & condition.mask == condition.value
    }

    #[test]
    fn exactly_the_forbidden_numbers_are_left_out() {
        let conditions: Vec<_> = all_but(1, &[TIOCSTI, TIOCLINUX]).collect();
        assert!(conditions.len() <= 40, "{} alternatives", conditions.len());
        let far = (0..32).flat_map(|bit| [TIOCSTI ^ (1 << bit), TIOCLINUX ^ (1 << bit), 1 << bit, u32::MAX << bit]);
        for number in (0..=u32::from(u16::MAX)).chain(far) {
            for high in [0_u64, 1 << 32, u64::from(u32::MAX) << 32] {
                let passes = conditions.iter().any(|condition| holds(*condition, high | u64::from(number)));
                assert_eq!(passes, number != TIOCSTI && number != TIOCLINUX, "{number:#x} with {high:#x}");
            }
        }
    }

    #[test]
    fn each_call_is_listed_once_and_conditions_name_no_call_that_is_free() {
        let mut seen = BTreeSet::new();
        for name in ALLOWED.iter().copied().flatten() {
            assert!(seen.insert(*name), "{name} is listed twice");
        }
        for rule in rules().iter().filter(|rule| !rule.args.is_empty() || rule.errno.is_some()) {
            for name in &rule.names {
                assert!(!seen.contains(name), "{name} is also allowed as a whole");
            }
            let indices: BTreeSet<u32> = rule.args.iter().map(|condition| condition.index).collect();
            assert_eq!(indices.len(), rule.args.len(), "two conditions on one argument are alternatives to a runtime");
        }
    }

    #[test]
    fn names_nothing_that_reaches_beyond_a_sandbox() {
        let profile = profile();
        for name in [
            "add_key",
            "bpf",
            "fsopen",
            "init_module",
            "io_uring_setup",
            "kexec_load",
            "keyctl",
            "mount",
            "open_by_handle_at",
            "perf_event_open",
            "pidfd_getfd",
            "process_vm_readv",
            "reboot",
            "request_key",
            "setns",
            "unshare",
            "userfaultfd",
        ] {
            assert!(!profile.contains(&format!("\"{name}\"")), "{name}");
        }
        assert!(!profile.contains("SCMP_ARCH_X86\"") && !profile.contains("X32"));
    }
}
