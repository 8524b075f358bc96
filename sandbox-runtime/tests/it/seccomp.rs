//! The filter of system calls, tried call by call in a real container, against the same container without one.

use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType};
use bollard::query_parameters::{CreateContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions};
use sandbox_core::Runtime as _;
use sandbox_policy::PullRule;
use serde_json::{Value, json};

use crate::engine::{debian, engine, spec, stranger};
use crate::inside::{Container, Inside, write};

/// A system call, and how it has to end.
struct Probe {
    what: &'static str,
    /// The number on x86-64; a negative one is that of the 32-bit interface.
    number: i64,
    arguments: Vec<Value>,
    /// The error number in a sandbox, 0 for success, or minus the signal that ends the caller.
    sandbox: i64,
    /// The same without a filter, where that tells the filter's answer from the kernel's own.
    unfiltered: Option<i64>,
}

/// Fails with `EPERM` by the filter, and in another way without it.
fn denied(what: &'static str, number: i64, arguments: Value, unfiltered: i64) -> Probe {
    Probe { what, number, arguments: list(arguments), sandbox: EPERM, unfiltered: Some(unfiltered) }
}

/// Fails with `EPERM` by the filter, and would also for want of a capability.
fn denied_twice(what: &'static str, number: i64, arguments: Value) -> Probe {
    Probe { what, number, arguments: list(arguments), sandbox: EPERM, unfiltered: None }
}

/// Passes the filter, so that it ends as without one.
fn allowed(what: &'static str, number: i64, arguments: Value, outcome: i64) -> Probe {
    Probe { what, number, arguments: list(arguments), sandbox: outcome, unfiltered: Some(outcome) }
}

fn list(arguments: Value) -> Vec<Value> {
    let Value::Array(arguments) = arguments else { panic!("arguments are a list") };
    arguments
}

/// `null` stands for the address of a buffer of zeros.
fn probes() -> Vec<Probe> {
    let mut probes = reaching_out();
    probes.extend(changing_the_host());
    probes.extend(sockets());
    probes.extend(by_argument());
    probes.extend(ordinary());
    probes
}

fn reaching_out() -> Vec<Probe> {
    vec![
        denied("add_key", 248, json!([0, 0, 0, 0, 0]), EFAULT),
        denied("request_key", 249, json!([0, 0, 0, 0]), EFAULT),
        denied("keyctl", 250, json!([9_999]), EOPNOTSUPP),
        denied("io_uring_setup", 425, json!([1, 0]), EFAULT),
        denied("io_uring_enter", 426, json!([-1, 0, 0, 0, 0, 0]), EBADF),
        denied("io_uring_register", 427, json!([-2, 0, 0, 0]), EBADF),
        denied("userfaultfd", 323, json!([0x100_0001]), EINVAL),
        denied("process_vm_readv", 310, json!([1, 0, 0, 0, 0, 1]), EINVAL),
        denied("process_vm_writev", 311, json!([1, 0, 0, 0, 0, 1]), EINVAL),
        denied("pidfd_getfd", 438, json!([-1, 0, 0]), EBADF),
        denied("process_madvise", 440, json!([-1, 0, 0, 0, 1]), EINVAL),
        denied("kcmp", 312, json!([999_999, 999_999, 0, 0, 0]), ESRCH),
        denied("setns", 308, json!([-1, 0]), EBADF),
        denied("unshare", 272, json!([0x7fff_ffff]), EINVAL),
        denied("unshare of a user namespace", 272, json!([0x1000_0000]), 0),
        denied("name_to_handle_at", 303, json!([-1, 0, 0, 0, 0]), EFAULT),
        denied("modify_ldt", 154, json!([0, null, 0]), 0),
        denied("perf_event_open", 298, json!([0, 0, -1, -1, 0]), EFAULT),
        denied("open_tree", 428, json!([-100, 0, 0x7fff_ffff]), EINVAL),
        denied("mbind", 237, json!([0, 0, 99, 0, 0, 0]), EINVAL),
        denied("move_pages", 279, json!([0, 0, 0, 0, 0, 0x7fff]), EINVAL),
        denied("_sysctl", 156, json!([0]), ENOSYS),
        denied("getpid of the 32-bit interface", -20, json!([]), 0).killed(),
        denied("socketcall of the 32-bit interface", -102, json!([]), EINVAL).killed(),
        Probe { unfiltered: None, ..denied("getpid of the x32 interface", 0x4000_0027, json!([]), 0).killed() },
    ]
}

/// A root without capabilities may do none of this; the filter stands before that.
fn changing_the_host() -> Vec<Probe> {
    [
        ("acct", 163),
        ("adjtimex", 159),
        ("bpf", 321),
        ("chroot", 161),
        ("clock_settime", 227),
        ("delete_module", 176),
        ("fanotify_init", 300),
        ("finit_module", 313),
        ("fsconfig", 431),
        ("fsmount", 432),
        ("fsopen", 430),
        ("fspick", 433),
        ("init_module", 175),
        ("ioperm", 173),
        ("iopl", 172),
        ("kexec_file_load", 320),
        ("kexec_load", 246),
        ("lookup_dcookie", 212),
        ("mount", 165),
        ("mount_setattr", 442),
        ("move_mount", 429),
        ("open_by_handle_at", 304),
        ("pivot_root", 155),
        ("quotactl", 179),
        ("reboot", 169),
        ("setdomainname", 171),
        ("sethostname", 170),
        ("settimeofday", 164),
        ("swapoff", 168),
        ("swapon", 167),
        ("syslog", 103),
        ("umount2", 166),
        ("vhangup", 153),
    ]
    .into_iter()
    .map(|(what, number)| denied_twice(what, number, json!([0, 0, 0, 0, 0])))
    .collect()
}

fn sockets() -> Vec<Probe> {
    const SOCKET: i64 = 41;
    const SOCKETPAIR: i64 = 53;
    let socket = |family: i64, kind: i64, protocol: i64| json!([family, kind, protocol]);
    vec![
        allowed("a Unix socket", SOCKET, socket(1, 1, 0), 0),
        allowed("a TCP socket", SOCKET, socket(2, 1, 6), 0),
        allowed("a UDP socket", SOCKET, socket(2, 2, 17), 0),
        allowed("a TCP socket over IPv6", SOCKET, socket(10, 1, 0), 0),
        allowed("a route netlink", SOCKET, socket(16, 3, 0), 0),
        allowed("a family with bits that the kernel drops", SOCKET, socket((1 << 32) | 1, 1, 0), 0),
        allowed("a pair of Unix sockets", SOCKETPAIR, json!([1, 1, 0, null]), 0),
        denied("a pair of internet sockets", SOCKETPAIR, json!([2, 1, 0, null]), EOPNOTSUPP),
        denied("a netfilter netlink", SOCKET, socket(16, 3, 12), 0),
        denied("an audit netlink", SOCKET, socket(16, 3, 9), 0),
        denied("a socket of the hypervisor", SOCKET, socket(40, 1, 0), 0),
        denied("the same with bits that the kernel drops", SOCKET, socket((1 << 32) | 0x28, 1, 0), 0),
        denied("an unknown family", SOCKET, socket(99, 1, 0), EAFNOSUPPORT),
        denied("an unknown protocol", SOCKET, socket(2, 1, 200), EPROTONOSUPPORT),
        denied("MPTCP", SOCKET, socket(2, 1, 262), 0),
        denied_twice("the kernel's ciphers", SOCKET, socket(38, 5, 0)),
        denied_twice("a packet socket", SOCKET, socket(17, 3, 0)),
        denied_twice("an XDP socket", SOCKET, socket(44, 3, 0)),
        denied_twice("a Bluetooth socket", SOCKET, socket(31, 3, 1)),
        denied_twice("a raw socket", SOCKET, socket(2, 3, 1)),
    ]
}

fn by_argument() -> Vec<Probe> {
    const IOCTL: i64 = 16;
    const PERSONALITY: i64 = 135;
    let mut probes = vec![
        denied("clone into a user namespace", 56, json!([0x1000_0200, 0, 0, 0, 0]), EINVAL),
        denied_twice("clone into a mount namespace", 56, json!([0x0002_0011, 0, 0, 0, 0])),
        denied_twice("clone into a network namespace", 56, json!([0x4000_0011, 0, 0, 0, 0])),
        Probe { sandbox: ENOSYS, ..denied("clone3", 435, json!([0, 0]), EINVAL) },
        denied("TIOCSTI", IOCTL, json!([0, 0x5412, null]), ENOTTY),
        denied("TIOCSTI with bits that the kernel drops", IOCTL, json!([0, 0x1_0000_5412_u64, null]), ENOTTY),
        denied("TIOCLINUX", IOCTL, json!([0, 0x541c, null]), ENOTTY),
        denied("TIOCLINUX with bits that the kernel drops", IOCTL, json!([0, 0xffff_ffff_0000_541c_u64, null]), ENOTTY),
        denied("no randomised addresses", PERSONALITY, json!([0x0004_0000]), 0),
        denied("all that is readable is executable", PERSONALITY, json!([0x0040_0000]), 0),
        allowed("asking for the personality", PERSONALITY, json!([0xffff_ffff_u64]), 0),
        allowed("a 32-bit personality", PERSONALITY, json!([8]), 0),
    ];
    // All neighbours of what is denied, and TCGETS, pass; /dev/null is no terminal.
    let neighbours = (0x5401..=0x5430).filter(|number| ![0x5412, 0x541c, 0x5421].contains(number));
    probes.extend(neighbours.map(|number| allowed("another ioctl", IOCTL, json!([0, number, null]), ENOTTY)));
    probes
}

fn ordinary() -> Vec<Probe> {
    vec![
        allowed("ptrace(TRACEME)", 101, json!([0, 0, 0, 0]), 0),
        allowed("memfd_create", 319, json!([null, 0]), 0),
        allowed("landlock_create_ruleset", 444, json!([0, 0, 1]), 0),
        allowed("inotify_init1", 294, json!([0]), 0),
        allowed("eventfd2", 290, json!([0, 0]), 0),
        allowed("timerfd_create", 283, json!([1, 0]), 0),
        allowed("epoll_create1", 291, json!([0]), 0),
        allowed("pidfd_open", 434, json!([1, 0]), 0),
        allowed("io_setup", 206, json!([1, null]), 0),
        allowed("shmget", 29, json!([0, 4_096, 0o600]), 0),
        allowed("mq_unlink", 241, json!([null]), ENOENT),
        allowed("membarrier", 324, json!([0, 0, 0]), 0),
        allowed("close_range", 436, json!([100, 200, 0]), 0),
        allowed("fork", 57, json!([]), 0),
        allowed("getxattr", 191, json!([null, null, 0, 0]), ERANGE),
        allowed("seccomp", 317, json!([2, 0, null]), 0),
        allowed("sched_setaffinity", 203, json!([0, 0, null]), EINVAL),
    ]
}

impl Probe {
    /// Ends the caller rather than failing: the call is of an interface that the filter does not know.
    fn killed(self) -> Self {
        Self { sandbox: -SIGSYS, ..self }
    }
}

async fn run(inside: &mut Inside, probes: &[Probe]) -> Vec<i64> {
    let calls: Vec<Value> = probes.iter().map(|probe| json!([probe.number, probe.arguments])).collect();
    let calls = serde_json::to_string(&calls).unwrap().replace("null", "None");
    let answer = inside.ask(&format!("probes = {calls}\n{}", include_str!("probe.py"))).await;
    serde_json::from_value(answer).unwrap()
}

/// Says which probes ended in another way than they had to.
fn differences(probes: &[Probe], found: &[i64], expected: impl Fn(&Probe) -> Option<i64>) -> Vec<String> {
    assert_eq!(probes.len(), found.len());
    let judged = probes.iter().zip(found).filter_map(|(probe, found)| Some((probe, *found, expected(probe)?)));
    judged
        .filter(|(_, found, expected)| found != expected)
        .map(|(Probe { what, number, arguments, .. }, found, expected)| {
            format!("{what} ({number} {}): {found}, not {expected}", json!(arguments))
        })
        .collect()
}

#[tokio::test]
async fn each_call_ends_as_the_filter_says() {
    let engine = engine().await;
    let spec = spec(&engine, debian(), PullRule::Never);
    let probes = probes();
    let mut container = Container::start(&engine, &spec).await;
    let found = run(&mut container.inside, &probes).await;
    engine.delete(&container.id).await.unwrap();
    assert_eq!(differences(&probes, &found, |probe| Some(probe.sandbox)), Vec::<String>::new());
}

/// The control of the control: without the filter, and with the same capabilities, the kernel answers itself.
#[tokio::test]
async fn without_the_filter_the_same_calls_reach_the_kernel() {
    let (engine, docker) = (engine().await, stranger().await);
    let directory = tempfile::tempdir().unwrap();
    let listener = write((engine.info().root_uid, engine.info().root_gid), directory.path());
    let mount = Mount {
        typ: Some(MountType::BIND),
        source: Some(directory.path().to_str().unwrap().to_owned()),
        target: Some("/.sandbox".to_owned()),
        ..Default::default()
    };
    let body = ContainerCreateBody {
        image: Some(debian().to_string()),
        entrypoint: Some(vec!["/.sandbox/guest".to_owned()]),
        host_config: Some(HostConfig {
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(["KILL", "SETGID", "SETPCAP", "SETUID"].map(str::to_owned).to_vec()),
            security_opt: Some(vec!["no-new-privileges".to_owned(), "seccomp=unconfined".to_owned()]),
            network_mode: Some("none".to_owned()),
            mounts: Some(vec![mount]),
            ..Default::default()
        }),
        ..Default::default()
    };
    let id = docker.create_container(None::<CreateContainerOptions>, body).await.unwrap().id;
    docker.start_container(&id, None::<StartContainerOptions>).await.unwrap();
    let probes = probes();
    let found = run(&mut Inside::accept(&listener).await, &probes).await;
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    docker.remove_container(&id, Some(options)).await.unwrap();
    assert_eq!(differences(&probes, &found, |probe| probe.unfiltered), Vec::<String>::new());
    let told_apart = probes.iter().filter(|probe| probe.unfiltered.is_some_and(|ended| ended != probe.sandbox)).count();
    assert!(told_apart >= 40, "{told_apart} calls show the filter at work");
}

// Error numbers (errno(3)) and a signal (signal(7)).
const EPERM: i64 = 1;
const ENOENT: i64 = 2;
const ESRCH: i64 = 3;
const EBADF: i64 = 9;
const EFAULT: i64 = 14;
const EINVAL: i64 = 22;
const ENOTTY: i64 = 25;
const ERANGE: i64 = 34;
const ENOSYS: i64 = 38;
const EPROTONOSUPPORT: i64 = 93;
const EOPNOTSUPP: i64 = 95;
const EAFNOSUPPORT: i64 = 97;
const SIGSYS: i64 = 31;
