//! What is in force inside, by witnesses other than the guest's own report.

use sandbox_policy::{ByteSize, Control, CpuCount, LimitsRequest, OpenFiles, ProcessCount};

use super::{Fixture, text};
use crate::{Event, Verdict, testkit::Recorder};

pub async fn limits_are_in_force_inside(fixture: &Fixture) {
    let limits = LimitsRequest {
        cpus: Some(CpuCount::from_millis(500).unwrap()),
        memory: Some(ByteSize::mib(256)),
        processes: Some(ProcessCount::new(100).unwrap()),
        open_files: Some(OpenFiles::new(200).unwrap()),
        ..LimitsRequest::default()
    };
    let sandbox = fixture.builder().limits(limits).start().await.unwrap();
    assert_eq!(text(&sandbox, "ulimit -Sn; ulimit -Hn; ulimit -c").await, "200\n200\n0");
    let holds = |control| !fixture.lacks(control);
    let either = |v1: &str, v2: &str| format!("cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}");
    if holds(Control::Memory) {
        let found = text(&sandbox, &either("memory/memory.limit_in_bytes", "memory.max")).await;
        assert_eq!(found, (256 << 20).to_string());
        // A program that takes more is killed, and the reason is told.
        let hog = sandbox.command("sh").args(["-c", "x=$(head -c 600000000 /dev/zero | tr '\\0' x); echo survived"]);
        let output = hog.output().await.unwrap();
        assert!(!output.exit.status.eq(&crate::Status::Code(0)) || output.stdout.is_empty(), "{output:?}");
        assert!(output.exit.out_of_memory, "{:?}", output.exit);
    }
    if holds(Control::Cpu) {
        let script = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us 2>/dev/null \
                      || cat /sys/fs/cgroup/cpu.max";
        let numbers: Vec<u64> = text(&sandbox, script).await.split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert_eq!(numbers[0] * 2, numbers[1]);
    }
    if holds(Control::Pids) {
        assert_eq!(text(&sandbox, &either("pids/pids.max", "pids.max")).await, "100");
        let bomb = "i=0; while [ $i -lt 200 ]; do sleep 5 & i=$((i+1)); done 2>&1; wait";
        let command = sandbox.command("sh").args(["-c", bomb]).deadline(std::time::Duration::from_secs(2));
        let output = command.output().await.unwrap();
        let complaint = String::from_utf8_lossy(&output.stdout).to_lowercase();
        assert!(complaint.contains("fork") || complaint.contains("resource"), "{complaint:?}");
        // And the sandbox is as good as before.
        assert_eq!(text(&sandbox, "echo alive").await, "alive");
    }
    sandbox.destroy().await.unwrap();
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
    assert_eq!(line("NoNewPrivs"), "1");
    if uid != 0 {
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
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
