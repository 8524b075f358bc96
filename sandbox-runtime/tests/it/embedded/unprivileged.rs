//! The same as an ordinary user: the whole contract, in a process of one.

use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sandbox_core::Runtime as _;
use sandbox_core::policy::{Control, Support};
use sandbox_runtime::{EmbeddedOptions, EmbeddedRuntime};

use super::runtime;

/// An ordinary user, who is the agent of the contract too.
const USER: u32 = 1_000;

/// Groups of control groups that were given to the user; they go with the test.
struct Delegated(Vec<PathBuf>);

impl Delegated {
    fn give() -> Self {
        let mut given = Vec::new();
        for controller in ["cpu", "cpu,cpuacct", "memory", "pids"] {
            let hierarchy = Path::new("/sys/fs/cgroup").join(controller);
            if !hierarchy.join("tasks").exists() {
                continue;
            }
            let group = hierarchy.join(format!("sandbox-{USER}"));
            std::fs::create_dir_all(&group).unwrap();
            chown(&group, Some(USER), Some(USER)).unwrap();
            given.push(group);
        }
        Self(given)
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        for group in &self.0 {
            let _ = std::fs::remove_dir(group);
        }
    }
}

/// Runs tests of this program as the user, and fails as they do.
fn as_user(arguments: &[&str]) {
    as_another(USER, arguments);
}

/// The same as a user of this number.
fn as_another(user: u32, arguments: &[&str]) {
    assert!(rustix::process::geteuid().is_root(), "only root can become an ordinary user");
    let own = Path::new(env!("CARGO_TARGET_TMPDIR")).join(user.to_string());
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&own).unwrap();
    chown(&own, Some(user), Some(user)).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .uid(user)
        .gid(user)
        .env("HOME", "/nonexistent")
        .current_dir("/")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.contains("running 0 tests"), "{said}");
}

#[tokio::test]
async fn the_contract_holds_for_an_ordinary_user() {
    let _delegated = Delegated::give();
    as_user(&["embedded::contract", "--test-threads", "2"]);
    as_user(&["embedded::unprivileged::what_a_user_lacks_is_told", "--exact", "--ignored"]);
    as_user(&["clone::below", "--test-threads", "2"]);
}

#[tokio::test]
#[ignore = "it is run as an ordinary user by the test above"]
async fn what_a_user_lacks_is_told() {
    let runtime = runtime().await;
    let capabilities = runtime.capabilities();
    let Some(Support::Unsupported { why, hint }) = capabilities.get(Control::Sudo) else { panic!("{capabilities:?}") };
    assert!(why.contains("no root inside") && hint.contains("waive"), "{why}; {hint}");
    let Some(Support::Enforced { by }) = capabilities.get(Control::Disk) else { panic!("{capabilities:?}") };
    assert!(by.contains("in memory"), "{by}");
    for control in [Control::Cpu, Control::Memory, Control::Pids, Control::Seccomp, Control::UserNamespace] {
        assert!(capabilities.is_enforced(control), "{control}: {:?}", capabilities.get(control));
    }
}

#[tokio::test]
async fn without_a_limit_of_memory_there_is_none_of_a_disk_in_it() {
    // No group is given to this user, whose number nobody else's test has.
    as_another(4_243, &["embedded::unprivileged::what_nobody_gave_is_not_had", "--exact", "--ignored"]);
}

#[tokio::test]
#[ignore = "it is run as an ordinary user by the test above"]
async fn what_nobody_gave_is_not_had() {
    let state = tempfile::tempdir().unwrap();
    let runtime = EmbeddedRuntime::connect(EmbeddedOptions::new(state.path().join("state"))).await.unwrap();
    for control in [Control::Memory, Control::Disk] {
        assert!(!runtime.capabilities().is_enforced(control), "{control}: {:?}", runtime.capabilities().get(control));
    }
    let Some(Support::Unsupported { why, .. }) = runtime.capabilities().get(Control::Disk) else { unreachable!() };
    assert!(why.contains("nothing limits"), "{why}");
}
