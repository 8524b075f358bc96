//! What stays behind: nothing, whoever is killed and whenever.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use sandbox_core::policy::{AgentUser, Policy};
use sandbox_core::testkit::contract::Fixture;
use sandbox_core::{
    Agent, ContainerId, ContainerStatus, ErrorKind, Owner, RunRoot, Runtime as _, SandboxId, Wiring, own_capabilities,
    reap,
};

use super::{IMAGE, fixture, on_gvisor, runtime, state};
use crate::engine;

/// Everything of the machine that still bears a container's name.
fn traces(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
        let group = hierarchy.unwrap().path().join("sandbox").join(name);
        found.extend(group.exists().then(|| group.display().to_string()));
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(mounts.lines().filter(|line| line.contains(name)).map(str::to_owned));
    for device in std::fs::read_dir("/sys/block").unwrap() {
        let behind = std::fs::read_to_string(device.unwrap().path().join("loop/backing_file")).unwrap_or_default();
        found.extend(behind.contains(name).then_some(behind));
    }
    let directory = state().join("containers").join(name);
    found.extend(directory.exists().then(|| directory.display().to_string()));
    found
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let patience = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), patience).await.is_ok(), "never: {what}");
}

#[tokio::test]
async fn a_sandbox_shows_nowhere_on_the_host_but_in_its_own_places() {
    let fixture = fixture().await;
    let sandbox = fixture.start().await;
    let name = sandbox.container().to_string();
    let during = traces(&name);
    assert!(during.iter().any(|trace| trace.starts_with("/sys/fs/cgroup")), "{during:?}");
    assert!(!during.iter().any(|trace| trace.contains(" - ")), "no mount of it is the host's: {during:?}");
    sandbox.command("sh").args(["-c", "head -c 1000000 /dev/zero >x; sleep 600 &"]).output().await.unwrap();
    sandbox.destroy().await.unwrap();
    assert_eq!(traces(&name), Vec::<String>::new());
}

#[tokio::test]
async fn fifty_start_at_once_and_all_are_gone() {
    let fixture = fixture().await;
    let sandboxes = join_all((0..50).map(|_| fixture.start())).await;
    let outputs = join_all(sandboxes.iter().map(|sandbox| sandbox.command("echo").arg("here").output())).await;
    assert!(outputs.into_iter().all(|output| output.unwrap().stdout == b"here\n"));
    let names: Vec<String> = sandboxes.iter().map(|sandbox| sandbox.container().to_string()).collect();
    for ended in join_all(sandboxes.into_iter().map(sandbox_core::Sandbox::destroy)).await {
        ended.unwrap();
    }
    for name in names {
        assert_eq!(traces(&name), Vec::<String>::new());
    }
}

#[tokio::test]
#[ignore = "it is the process that another test kills"]
async fn hold_a_sandbox_until_killed() {
    hold(fixture().await).await;
}

#[tokio::test]
#[ignore = "it is the process that another test kills"]
async fn hold_a_sandbox_on_gvisor_until_killed() {
    hold(on_gvisor().await).await;
}

#[expect(clippy::print_stdout, reason = "it tells the test that kills it")]
async fn hold(fixture: Fixture) {
    let sandbox = fixture.start().await;
    let program = sandbox.command("sh").args(["-c", "sleep 600 & setsid sleep 600 & wait"]).spawn().await.unwrap();
    println!("HOLDING {} {}", sandbox.id(), fixture.run_root.path().display());
    std::future::pending::<()>().await;
    drop(program);
}

#[tokio::test]
async fn a_killed_owner_takes_its_processes_along_and_a_reaper_the_rest() {
    nothing_outlives("hold_a_sandbox_until_killed").await;
}

mod by_gvisor {
    #[tokio::test]
    async fn a_killed_owner_takes_its_processes_along_and_a_reaper_the_rest() {
        super::nothing_outlives("hold_a_sandbox_on_gvisor_until_killed").await;
    }
}

/// Kills a process that holds a sandbox, and sees what is left.
async fn nothing_outlives(holder: &str) {
    let runtime = runtime().await;
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("embedded::leftovers::{holder}"), "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let line =
        lines.by_ref().map(Result::unwrap).find_map(|line| Some(line.split_once("HOLDING ")?.1.to_owned())).unwrap();
    let (id, run_root) = line.split_once(' ').unwrap();
    let id: SandboxId = id.parse().unwrap();
    let container = ContainerId::new(format!("sandbox-{id}"));
    let state = runtime.state(&container).await.unwrap();
    assert_eq!(state.status, ContainerStatus::Running);
    assert!(state.pid.is_some());
    owner.kill().unwrap();
    owner.wait().unwrap();
    // The guest ends with its channel, and the kernel ends the rest with the guest.
    let ended = async {
        while runtime.state(&container).await.unwrap().status != ContainerStatus::Exited {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
    let groups = traces(container.as_str());
    for group in groups.iter().filter(|trace| trace.starts_with("/sys/fs/cgroup")) {
        let procs = Path::new(group).join("cgroup.procs");
        eventually("its groups are empty", || std::fs::read_to_string(&procs).unwrap().is_empty()).await;
    }
    let reaped = reap(&runtime, &RunRoot::new(run_root)).await.unwrap();
    assert!(reaped.removed.contains(&id), "{reaped:?}");
    assert_eq!(traces(container.as_str()), Vec::<String>::new());
    assert!(!Path::new(run_root).join(id.to_string()).exists());
    std::fs::remove_dir_all(Path::new(run_root).parent().unwrap()).unwrap();
}

#[tokio::test]
async fn a_container_that_was_never_started_is_found_and_removed() {
    let runtime = runtime().await;
    let directory = tempfile::tempdir().unwrap();
    let me = Owner::current().unwrap();
    let capabilities = runtime.capabilities().join(&own_capabilities());
    let request = sandbox_core::policy::SandboxRequest::new(IMAGE.parse().unwrap());
    let spec = Policy::standard().check(&request, &capabilities).unwrap();
    let wiring = Wiring {
        sandbox: SandboxId::random().unwrap(),
        owner: Owner { start: me.start + 1, ..me },
        image: runtime.resolve(&spec, &engine::events()).await.unwrap(),
        agent: Agent::Ids(AgentUser::default()),
        root: (runtime.info().root_uid, runtime.info().root_gid),
        covers: Vec::new(),
        blanks: Vec::new(),
        underlay: None,
        guest_directory: directory.path().to_owned(),
        file_system: sandbox_core::FileSystem::Shared,
    };
    let container = runtime.create(&spec, &wiring).await.unwrap();
    assert_eq!(runtime.state(&container).await.unwrap().status, ContainerStatus::Created);
    let error = runtime.create(&spec, &wiring).await.unwrap_err();
    assert!(error.to_string().contains("exists already"), "{error}");
    let reaped = reap(&runtime, &RunRoot::new(directory.path().join("run"))).await.unwrap();
    assert!(reaped.removed.contains(&wiring.sandbox), "{reaped:?}");
    assert_eq!(runtime.state(&container).await.unwrap().status, ContainerStatus::Gone);
    assert_eq!(traces(container.as_str()), Vec::<String>::new());
    // Again, and of one that never was.
    runtime.delete(&container).await.unwrap();
    let error = runtime.delete(&ContainerId::new("../containers")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}
