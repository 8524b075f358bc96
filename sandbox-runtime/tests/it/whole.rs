//! Whole sandboxes on Docker, beyond the contract: odd images, the promises of `maximum`, and what a killed owner leaves.

use sandbox_core::policy::{Control, Isolation, Policy, PullRule};
use sandbox_core::testkit::FakeRuntime;
use sandbox_core::testkit::contract::Fixture;
use sandbox_core::{
    ContainerId, ErrorKind, Owner, RunRoot, Runtime as _, Sandbox, SandboxId, Setting, Status, Verdict, Wiring, reap,
};
use sandbox_runtime::guest_program;
use testcontainers::runners::AsyncRunner as _;
use testcontainers::{GenericImage, ImageExt as _};

use crate::contract::fixture;
use crate::engine;

async fn on(image: &str) -> (Fixture, Sandbox) {
    let fixture = Fixture { image: engine::variable(image), ..fixture::docker().await };
    let sandbox = fixture.start().await;
    (fixture, sandbox)
}

#[tokio::test]
async fn an_image_without_a_shell_will_do() {
    let (fixture, sandbox) = on("SANDBOX_TEST_EMPTY_IMAGE").await;
    sandbox.write("/tmp/note", "kept").await.unwrap();
    assert_eq!(sandbox.read("/tmp/note", 100).await.unwrap(), b"kept");
    assert_eq!(sandbox.list("/tmp").await.unwrap().len(), 1);
    let error = sandbox.command("sh").output().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CommandNotFound, "{error}");
    let id = sandbox.id();
    sandbox.destroy().await.unwrap();
    fixture.assert_nothing_left(id).await;
}

#[tokio::test]
async fn an_image_with_one_program_runs_it() {
    let (_fixture, sandbox) = on("SANDBOX_TEST_BUSYBOX_IMAGE").await;
    let output = sandbox.command("/bin/busybox").args(["echo", "alone"]).output().await.unwrap();
    assert_eq!((output.exit.status, output.stdout.as_slice()), (Status::Code(0), b"alone\n".as_slice()));
    // The guest's own directory is no business of the agent's.
    let looked = sandbox.command("/bin/busybox").args(["ls", "/.sandbox"]).output().await.unwrap();
    assert_ne!(looked.exit.status, Status::Code(0));
    sandbox.destroy().await.unwrap();
}

#[tokio::test]
async fn maximum_is_in_force() {
    let fixture = fixture::docker().await;
    let waived = fixture.policy();
    let policy = waived.waived().iter().fold(Policy::maximum(), |policy, control| policy.with_waived(*control));
    let sandbox = fixture.builder().policy(policy).start().await.unwrap();
    let read_only = sandbox.attestation().findings().iter().find(|finding| finding.control == Control::ReadonlyRootfs);
    assert_eq!(read_only.unwrap().verdict, Verdict::Holds);
    let state = fixture.runtime.state(sandbox.container()).await.unwrap();
    assert_eq!(state.settings.readonly_rootfs, Some(Setting::On));
    let script = "touch /x 2>/dev/null || touch /usr/x 2>/dev/null || echo refused; touch ~/x && echo home";
    let output = sandbox.command("sh").args(["-c", script]).output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "refused\nhome\n");
    sandbox.destroy().await.unwrap();
}

#[tokio::test]
async fn a_runtime_that_lies_is_caught() {
    let controls = [
        Control::CapabilityDrop,
        Control::Cpu,
        Control::Disk,
        Control::HostFilesystem,
        Control::Memory,
        Control::NoNetwork,
        Control::Pids,
        Control::Seccomp,
    ];
    for control in controls {
        let honest = fixture::fake().await;
        let liar = std::sync::Arc::new(FakeRuntime::new(guest_program()).lying_about(control));
        let fixture = Fixture { runtime: liar.clone(), ..honest };
        let error = fixture.builder().start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Attestation, "{control}: {error:?}");
        assert!(error.to_string().contains(&format!("{control}: asked ")), "{control}: {error}");
        assert!(error.residue().is_empty() && liar.is_empty(), "{control}: {error:?}");
        assert_eq!(fixture.run_root.sandboxes().unwrap(), []);
    }
}

/// Leaves a container and a run directory as a process that was killed would, owned by `owner`.
async fn leave_behind(fixture: &Fixture, owner: Owner) -> (SandboxId, ContainerId) {
    let engine = engine::engine().await;
    let spec = engine::spec(&engine, engine::debian(), PullRule::Never);
    let sandbox = SandboxId::random().unwrap();
    let directory = fixture.run_root.of(sandbox);
    std::fs::create_dir_all(directory.join("guest")).unwrap();
    std::fs::write(directory.join("owner"), owner.to_string()).unwrap();
    let image = engine::resolve(&engine, &spec).await;
    let wiring = Wiring { sandbox, owner, ..engine::wiring(image, &directory.join("guest")) };
    let container = engine.create(&spec, &wiring).await.unwrap();
    (sandbox, container)
}

#[tokio::test]
async fn a_reaper_removes_what_is_provably_orphaned_and_nothing_else() {
    let fixture = fixture::docker().await;
    let me = Owner::current().unwrap();
    let (dead, _) = leave_behind(&fixture, Owner { start: me.start + 1, ..me.clone() }).await;
    let (foreign, foreign_container) = leave_behind(&fixture, Owner { host: "elsewhere".into(), ..me.clone() }).await;
    let (mine, mine_container) = leave_behind(&fixture, me.clone()).await;
    let bare = SandboxId::random().unwrap();
    std::fs::create_dir(fixture.run_root.of(bare)).unwrap();
    let gone = Owner { boot: "earlier".into(), ..me }.to_string();
    std::fs::write(fixture.run_root.of(bare).join("owner"), gone).unwrap();
    let stranger = GenericImage::new(engine::variable("SANDBOX_TEST_BUSYBOX_IMAGE"), "latest".to_owned())
        .with_network("none")
        .with_cmd(["/bin/busybox", "sleep", "600"])
        .start()
        .await
        .unwrap();

    let reaped = reap(&*fixture.runtime, &fixture.run_root).await.unwrap();
    assert!(reaped.removed.contains(&dead) && reaped.removed.contains(&bare), "{reaped:?}");
    for kept in [foreign, mine] {
        assert!(reaped.kept.iter().any(|found| found.sandbox == kept && !found.why.is_empty()), "{reaped:?}");
    }
    let mut expected = [foreign, mine];
    expected.sort_unstable();
    assert_eq!(fixture.run_root.sandboxes().unwrap(), expected);
    let listed = fixture.runtime.list().await.unwrap();
    assert!(listed.iter().all(|container| container.sandbox != dead), "{listed:?}");
    assert!(stranger.is_running().await.unwrap());

    stranger.rm().await.unwrap();
    for container in [foreign_container, mine_container] {
        fixture.runtime.delete(&container).await.unwrap();
    }
}

#[tokio::test]
async fn a_run_root_that_does_not_exist_has_nothing_to_reap() {
    let fixture = fixture::fake().await;
    let nowhere = RunRoot::new(fixture.run_root.path().join("nowhere"));
    let reaped = reap(&*fixture.runtime, &nowhere).await.unwrap();
    assert_eq!((reaped.removed.len(), reaped.kept.len()), (0, 0));
}

/// What the engine calls `runsc` there is `runc`: it takes the word for it and runs the container on the host's kernel.
#[tokio::test]
async fn an_engine_whose_gvisor_is_none_is_caught() {
    let fixture = fixture::docker_remap().await;
    let honest = engine::docker("SANDBOX_TEST_DOCKER_REMAP").await;
    assert!(!honest.capabilities().is_enforced(Control::Isolation));
    let runtime = honest.with_gvisor();
    assert!(runtime.capabilities().is_enforced(Control::Isolation), "{:?}", runtime.capabilities());
    let policy = Control::ALL
        .iter()
        .filter(|control| !runtime.capabilities().is_enforced(**control))
        .fold(Policy::standard(), |policy, control| policy.with_waived(*control));
    let fixture = Fixture { runtime: std::sync::Arc::new(runtime), ..fixture };
    let builder = fixture.builder().policy(policy.with_isolation(Isolation::Gvisor));
    let error = builder.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Attestation, "{error:?}");
    assert!(error.to_string().contains("isolation") && error.residue().is_empty(), "{error:?}");
    assert_eq!(fixture.run_root.sandboxes().unwrap(), []);
}
