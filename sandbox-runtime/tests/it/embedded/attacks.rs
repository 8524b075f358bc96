//! What attacks the limits, and what a sandbox of the machine's own programs can see.

use std::time::{Duration, Instant};

use sandbox_core::policy::{CpuCount, LimitsRequest, Policy, ProcessCount};
use sandbox_core::testkit::contract::Fixture;
use sandbox_core::{ErrorKind, Sandbox, Status};

use super::fixture;

/// Runs a shell script to its end, and gives what it wrote.
pub(super) async fn sh(sandbox: &Sandbox, script: &str) -> String {
    let output = sandbox.command("sh").args(["-c", script]).deadline(Duration::from_mins(1)).output().await.unwrap();
    assert_eq!(output.exit.status, Status::Code(0), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

async fn limited(fixture: &Fixture, limits: LimitsRequest) -> Sandbox {
    fixture.builder().limits(limits).start().await.unwrap()
}

#[tokio::test]
async fn a_program_that_spins_gets_its_share() {
    let fixture = fixture().await;
    let limits = LimitsRequest { cpus: Some(CpuCount::from_millis(250).unwrap()), ..LimitsRequest::default() };
    let sandbox = limited(&fixture, limits).await;
    // Two at once, since the share is the sandbox's and not each program's.
    let script = "import os, time\nos.fork()\nend = time.monotonic() + 2\nwhile time.monotonic() < end: pass\n\
                  print(time.process_time())";
    let output = sandbox.command("python3").args(["-c", script]).output().await.unwrap();
    let used: f64 = String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse::<f64>().unwrap()).sum();
    assert!((0.1..1.0).contains(&used), "{used} s of CPU time in 2 s, 0.5 s are allowed");
    sandbox.destroy().await.unwrap();
}

#[tokio::test]
async fn a_fork_bomb_keeps_nobody_from_working_or_ending() {
    let fixture = fixture().await;
    let limits = LimitsRequest { processes: Some(ProcessCount::new(64).unwrap()), ..LimitsRequest::default() };
    let sandbox = limited(&fixture, limits).await;
    let bomb = "import os, time\nwhile True:\n    try: os.fork()\n    except OSError: time.sleep(0.001)";
    let running = sandbox.command("python3").args(["-c", bomb]).spawn().await.unwrap();
    let id = sandbox.id();
    // The host's processes are not the sandbox's: files are looked at by one of their own, or it says why not.
    if let Err(error) = sandbox.stat("/tmp").await {
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{error:?}");
    }
    let started = Instant::now();
    sandbox.destroy().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    drop(running);
    fixture.assert_nothing_left(id).await;
}

#[tokio::test]
async fn the_kernels_doors_are_shut() {
    let fixture = fixture().await;
    let sandbox = fixture.start().await;
    let shut = "for f in /proc/kcore /proc/kallsyms /proc/keys /proc/cmdline; do cat $f | head -c 1 | wc -c; done; \
                ls -A /sys/kernel /sys/firmware /sys/module 2>&1 | grep -vc '^/sys' || true; \
                (echo x >/proc/sys/kernel/core_pattern) 2>/dev/null || echo refused; \
                unshare -U true 2>/dev/null || echo refused; \
                mount -t tmpfs x /mnt 2>/dev/null || echo refused; \
                find / -xdev -perm /6000 -type f 2>/dev/null | wc -l; ls /dev | tr '\\n' ' '";
    let expected = "0\n0\n0\n0\n2\nrefused\nrefused\nrefused\n0\n\
                    fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert_eq!(sh(&sandbox, shut).await, expected);
    sandbox.destroy().await.unwrap();
}

#[tokio::test]
async fn maximum_is_in_force() {
    let fixture = fixture().await;
    let sandbox = fixture.builder().policy(Policy::maximum()).start().await.unwrap();
    let script = "touch /x 2>/dev/null || touch /usr/x 2>/dev/null || echo refused; touch ~/x && echo home";
    assert_eq!(sh(&sandbox, script).await, "refused\nhome");
    sandbox.destroy().await.unwrap();
}

#[tokio::test]
async fn the_machines_own_programs_run_and_its_secrets_are_not_there() {
    let fixture = Fixture { image: "host".to_owned(), ..fixture().await };
    let sandbox = fixture.start().await;
    assert_eq!(sh(&sandbox, "id -un; pwd; ls -A /home; ls -A /var/lib").await, "agent\n/home/agent\nagent");
    let secrets = "for f in /etc/shadow /etc/ssh /etc/ssl/private /root/.ssh /etc/sudoers; do test -e $f && echo $f; done; \
                   wc -l </etc/passwd; ls -A /root 2>/dev/null | wc -l";
    assert_eq!(sh(&sandbox, secrets).await, "3\n0");
    // What is installed for everybody can be used, and neither it nor anything else of the machine changes.
    let mark = format!("/usr/share/sandbox-test-{}", sandbox.id());
    assert_eq!(
        sh(&sandbox, &format!("(echo x >{mark}) 2>/dev/null || echo refused; perl -e 'print 6*7'")).await,
        "refused\n42"
    );
    assert!(!std::path::Path::new(&mark).exists());
    sandbox.destroy().await.unwrap();
    let strict = fixture.builder().policy(Policy::maximum()).start().await.unwrap();
    assert_eq!(sh(&strict, "touch /usr/x 2>&1 | grep -c Read-only").await, "1");
    strict.destroy().await.unwrap();
}
