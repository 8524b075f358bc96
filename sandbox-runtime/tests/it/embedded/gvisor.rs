//! gVisor without an engine: what stands between is told and compared, what lies about it is caught, and nothing stays behind.

use std::path::{Path, PathBuf};

use sandbox_core::policy::{Isolation, Policy};
use sandbox_core::testkit::contract::Fixture;
use sandbox_core::{ErrorKind, Sandbox};

use super::attacks::sh;
use super::{on, on_gvisor, runsc, runtime};

/// A program in the place of gVisor's.
fn program(directory: &Path, script: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = directory.join("runsc");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

async fn started(fixture: &Fixture) -> sandbox_core::Result<Sandbox> {
    fixture.builder().policy(fixture.policy().with_isolation(Isolation::Gvisor)).start().await
}

#[tokio::test]
async fn what_answers_inside_is_gvisor() {
    let fixture = on_gvisor().await;
    let sandbox = started(&fixture).await.unwrap();
    assert_eq!(sh(&sandbox, "uname -r").await, "4.4.0");
    sandbox.destroy().await.unwrap();
}

#[tokio::test]
async fn a_program_that_is_not_gvisor_is_caught() {
    let directory = tempfile::tempdir().unwrap();
    // It takes what gVisor is told, and has the host's kernel run it.
    let script = "while [ $# -gt 0 ]; do case $1 in --pid-file=*) pid=$1;; esac; name=$1; shift; done\n\
                  exec runc --root \"$PWD/k\" run --detach \"$pid\" \"$name\"";
    let script = format!("PATH=/usr/sbin:/usr/bin:/sbin:/bin; export PATH\n{script}");
    let fixture = on(runtime().await.with_gvisor(program(directory.path(), &script)));
    let error = started(&fixture).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Attestation, "{error:?}");
    assert!(error.to_string().contains("isolation"), "{error}");
    // It made a group of its own below the container's, which goes too.
    assert!(error.residue().is_empty(), "{:?}", error.residue());
}

#[tokio::test]
async fn what_gvisor_says_of_a_failure_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let script = "echo 'no such platform: x' >&2; exit 128";
    let fixture = on(runtime().await.with_gvisor(program(directory.path(), script)));
    let error = started(&fixture).await.unwrap_err();
    assert!(error.to_string().contains("no such platform: x"), "{error}");
    // A program that is not there is found missing before anything is made.
    let fixture = on(runtime().await.with_gvisor(directory.path().join("missing")));
    let policy = Policy::standard().with_isolation(Isolation::Gvisor);
    let error = fixture.builder().policy(policy).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Policy, "{error:?}");
    assert!(format!("{error:?}").contains("there is no program"), "{error:?}");
    // The control: the same without the stranger.
    started(&on(runtime().await.with_gvisor(runsc()))).await.unwrap().destroy().await.unwrap();
}

#[tokio::test]
async fn the_machines_own_programs_run_on_gvisor() {
    let fixture = Fixture { image: "host".to_owned(), ..on_gvisor().await };
    let sandbox = started(&fixture).await.unwrap();
    let mark = format!("/usr/share/sandbox-test-{}", sandbox.id());
    let said =
        sh(&sandbox, &format!("id -un; perl -e 'print 6*7'; (echo x >{mark}) 2>/dev/null || echo ' refused'")).await;
    assert_eq!(said, "agent\n42 refused");
    assert!(!Path::new(&mark).exists());
    sandbox.destroy().await.unwrap();
}

#[tokio::test]
async fn gvisor_is_nobody_outside_and_goes_with_the_sandbox() {
    let fixture = on_gvisor().await;
    // Without one waiver: all that the policy requires is in force.
    let strict = Policy::standard().with_isolation(Isolation::Gvisor);
    let sandbox = fixture.builder().policy(strict).start().await.unwrap();
    let id = sandbox.id();
    let pid = fixture.runtime.state(sandbox.container()).await.unwrap().pid.unwrap();
    let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    let numbers: Vec<u32> = map.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert!(numbers[0] == 0 && numbers[1] >= 65_536, "root in gVisor is {numbers:?}");
    sh(&sandbox, "head -c 1000000 /dev/zero >x; sleep 600 & sleep 600 &").await;
    sandbox.destroy().await.unwrap();
    fixture.assert_nothing_left(id).await;
    // Whoever takes in orphans may not have looked at it yet.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let does = stat.rsplit(')').next().unwrap_or_default().split_whitespace().next();
    assert!(matches!(does, None | Some("Z")), "gvisor still runs: {stat}");
}
