//! What is in force inside, by witnesses other than the guest's own report.

use std::path::Path;
use std::time::Duration;

use sandbox_policy::{ByteSize, Control, CpuCount, Isolation, LimitsRequest, OpenFiles, ProcessCount};

use super::refusals::unenforceable;
use super::{Fixture, text};
use crate::{Event, Status, Verdict, testkit::Recorder};

pub async fn limits_are_in_force_inside(fixture: &Fixture) {
    let limits = LimitsRequest {
        cpus: Some(CpuCount::from_millis(500).unwrap()),
        memory: Some(ByteSize::mib(256)),
        processes: Some(ProcessCount::new(PROCESSES).unwrap()),
        open_files: Some(OpenFiles::new(200).unwrap()),
        ..LimitsRequest::default()
    };
    let sandbox = fixture.builder().limits(limits).start().await.unwrap();
    assert_eq!(text(&sandbox, "ulimit -Sn; ulimit -Hn; ulimit -c").await, "200\n200\n0");
    let holds = |control| !fixture.lacks(control);
    let either = |v1: &str, v2: &str| format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}");
    // gVisor shows limits of its own inside; those around it are compared by the attestation, and attacked in turn.
    let is_seen = fixture.runtime.isolation() == Isolation::Standard;
    if holds(Control::Memory) && is_seen {
        let found = text(&sandbox, &either("memory/memory.limit_in_bytes", "memory.max")).await;
        assert_eq!(found, (256 << 20).to_string());
        // A program that takes more is killed, and the reason is told.
        let hog = sandbox.command("sh").args(["-c", "x=$(head -c 600000000 /dev/zero | tr '\\0' x); echo survived"]);
        let output = hog.output().await.unwrap();
        assert!(!output.exit.status.eq(&Status::Code(0)) || output.stdout.is_empty(), "{output:?}");
        assert!(output.exit.out_of_memory, "{:?}", output.exit);
    }
    if holds(Control::Cpu) && is_seen {
        let script = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us 2>/dev/null \
                      || cat /sys/fs/cgroup/cpu.max";
        let numbers: Vec<u64> = text(&sandbox, script).await.split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert_eq!(numbers[0] * 2, numbers[1]);
    }
    if holds(Control::Pids) {
        assert_eq!(text(&sandbox, &either("pids/pids.max", "pids.max")).await, PROCESSES.to_string());
        // gVisor starts programs slowly, and each must still be there when the last is refused.
        let (nap, seconds) = if is_seen { (5, 2) } else { (60, 30) };
        let bomb = format!("i=0; while [ $i -lt {MANY} ]; do sleep {nap} & i=$((i+1)); done 2>&1; wait");
        let command = sandbox.command("sh").args(["-c", &bomb]).deadline(Duration::from_secs(seconds));
        let output = command.output().await.unwrap();
        let complaint = String::from_utf8_lossy(&output.stdout).to_lowercase();
        assert!(complaint.contains("fork") || complaint.contains("resource"), "{complaint:?}");
        // And the sandbox is as good as before.
        assert_eq!(text(&sandbox, "echo alive").await, "alive");
    }
    sandbox.destroy().await.unwrap();
    if holds(Control::Memory) && !is_seen {
        memory_is_not_had(fixture).await;
    }
}

pub async fn a_spin_has_no_more_than_its_share_of_the_processors(fixture: &Fixture) {
    let limits = LimitsRequest { cpus: Some(CpuCount::from_millis(SHARE).unwrap()), ..LimitsRequest::default() };
    if fixture.lacks(Control::Cpu) {
        let policy = fixture.policy_for(&[Control::Cpu]);
        let error = fixture.builder().policy(policy).limits(limits).start().await.unwrap_err();
        assert_eq!(unenforceable(&error), [Control::Cpu]);
        return;
    }
    let sandbox = fixture.builder().limits(limits).start().await.unwrap();
    let spin = "import os, resource, signal, time\n\
                def spinner():\n  child = os.fork()\n  while child == 0: pass\n  return child\n\
                began = time.monotonic()\n\
                children = [spinner() for _ in range(4)]\n\
                time.sleep(2)\n\
                for child in children: os.kill(child, signal.SIGKILL); os.waitpid(child, 0)\n\
                used = resource.getrusage(resource.RUSAGE_CHILDREN)\n\
                print(int(1000 * (used.ru_utime + used.ru_stime)), int(1000 * (time.monotonic() - began)))";
    let outside = match fixture.runtime.isolation() {
        // It counts time of its own, so what it uses of the host's is looked at there.
        Isolation::Gvisor => fixture.runtime.state(sandbox.container()).await.unwrap().pid,
        Isolation::Standard => None,
    };
    let before = outside.map(used_by_the_group_around);
    let said = text(&sandbox, &format!("python3 -c '{spin}'")).await;
    let numbers: Vec<u64> = said.split_whitespace().map(|number| number.parse().unwrap()).collect();
    let [inside, elapsed] = numbers[..] else { panic!("{said:?}") };
    let used = match outside.zip(before) {
        Some((pid, before)) => used_by_the_group_around(pid) - before,
        None => inside,
    };
    // A period may have begun with what was left of its quota, and one may end over it by a slice.
    let allowed = elapsed * u64::from(SHARE) / 1000;
    assert!(used <= allowed + allowed / 4 + 150, "{used} ms of {elapsed} ms, where {allowed} are allowed");
    assert!(used > 0, "nothing spun");
    sandbox.destroy().await.unwrap();
}

/// Milliseconds of a processor that the control group of a process on the host has used.
fn used_by_the_group_around(pid: u32) -> u64 {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let group = |controller: &str| {
        groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|name| name == controller).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let root = Path::new("/sys/fs/cgroup");
    let (accounted, limited) = (group("cpuacct"), group("cpu"));
    if accounted.is_none() || accounted == limited {
        return used_by_the_whole(root, accounted.or_else(|| group("")).unwrap());
    }
    // Where the kernel accounts for other groups than it limits, it is its processes' own, and of those that they waited for.
    let processes = std::fs::read_to_string(root.join("cpu").join(limited.unwrap()).join("cgroup.procs")).unwrap();
    let used = |process: &str| {
        // It may have ended meanwhile, and is counted by whoever waited for it.
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(11)
            .take(4)
            .filter_map(|field| field.parse().ok())
            .collect();
        fields.iter().sum::<u64>()
    };
    processes.lines().map(used).sum::<u64>() * 1000 / TICKS
}

fn used_by_the_whole(root: &Path, path: String) -> u64 {
    if root.join("cpuacct").join(&path).exists() {
        let text = std::fs::read_to_string(root.join("cpuacct").join(&path).join("cpuacct.usage")).unwrap();
        return text.trim().parse::<u64>().unwrap() / 1_000_000;
    }
    let text = std::fs::read_to_string(root.join(path).join("cpu.stat")).unwrap();
    let used = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
    used.parse::<u64>().unwrap() / 1000
}

/// To the host's kernel all inside is gVisor's: who takes more than there is is ended, and with it the sandbox may be.
async fn memory_is_not_had(fixture: &Fixture) {
    let limits = LimitsRequest { memory: Some(ByteSize::mib(256)), ..LimitsRequest::default() };
    let sandbox = fixture.builder().limits(limits).start().await.unwrap();
    let take = |mebibytes: u32| {
        let script = format!("x = bytearray({mebibytes} << 20); x[::4096] = b'x' * len(x[::4096]); print('had it')");
        sandbox.command("python3").args(["-c", &script]).deadline(Duration::from_mins(1))
    };
    assert_eq!(take(64).output().await.unwrap().stdout, b"had it\n", "what there is can be had");
    if let Ok(output) = take(600).output().await {
        assert!(output.stdout.is_empty() && output.exit.status != Status::Code(0), "{output:?}");
    }
    // It may be that there is nothing left to end.
    let _ = sandbox.destroy().await;
}

pub async fn privilege_is_out_of_reach(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let status = text(&sandbox, "cat /proc/self/status").await;
    let line = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default();
        value.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let (uid, gid) = (fixture.agent.uid(), fixture.agent.gid());
    assert_eq!(line("Uid"), format!("{uid} {uid} {uid} {uid}"));
    assert_eq!(line("Gid"), format!("{gid} {gid} {gid} {gid}"));
    if fixture.runtime.isolation() == Isolation::Gvisor {
        // Of these two gVisor's file says nothing, and the calls do (PR_GET_NO_NEW_PRIVS, PR_CAP_AMBIENT_IS_SET).
        let ask = "import ctypes; ask = ctypes.CDLL(None).prctl; \
                   print(ask(39, 0, 0, 0, 0), [n for n in range(41) if ask(47, 1, n, 0, 0) > 0])";
        assert_eq!(text(&sandbox, &format!("python3 -c '{ask}'")).await, "1 []");
    } else {
        assert_eq!(line("NoNewPrivs"), "1");
        assert!(uid == 0 || line("CapAmb") == "0000000000000000");
    }
    if uid != 0 {
        for set in ["CapInh", "CapPrm", "CapEff"] {
            assert_eq!(line(set), "0000000000000000", "{set}");
        }
    }
    if !fixture.lacks(Control::CapabilityDrop) {
        assert_eq!(line("CapBnd"), "0000000000000000");
    }
    if !fixture.lacks(Control::Seccomp) {
        assert_eq!(line("Seccomp"), "2");
    }
    if !fixture.lacks(Control::NoNetwork) {
        let interfaces = text(&sandbox, "tail -n +3 /proc/net/dev | sed 's/:.*//'").await;
        assert_eq!(interfaces.trim(), "lo");
    }
    sandbox.destroy().await.unwrap();
}

pub async fn the_attestation_says_what_was_asked(fixture: &Fixture) {
    let recorder = Recorder::default();
    let sandbox = fixture.start_with(recorder.clone()).await;
    let findings = sandbox.attestation().findings();
    let required = sandbox.spec().required();
    let holding: Vec<Control> =
        findings.iter().filter(|finding| finding.verdict == Verdict::Holds).map(|finding| finding.control).collect();
    assert_eq!(holding, required.iter().copied().collect::<Vec<_>>());
    let waived: Vec<Control> =
        findings.iter().filter(|finding| finding.verdict == Verdict::Waived).map(|finding| finding.control).collect();
    assert_eq!(waived, sandbox.spec().waived().keys().copied().collect::<Vec<_>>());
    assert!(findings.iter().all(|finding| !finding.asked.is_empty() && !finding.found.is_empty()), "{findings:#?}");
    assert!(recorder.events().contains(&Event::Attested { enforced: holding, waived }));
    sandbox.destroy().await.unwrap();
}

/// Thousandths of a processor that four programs share which could use four.
const SHARE: u32 = 200;

/// Processes and threads that the sandbox may have.
const PROCESSES: u32 = 60;

/// More than that.
const MANY: u32 = 2 * PROCESSES;

/// Clock ticks of a second in the kernel's answers: 100 on each architecture that sandboxes run on (`proc_pid_stat(5)`, time(7)).
const TICKS: u64 = 100;
