//! What is Podman's own, beyond the contract: as root and rootless.

use std::path::Path;

use sandbox_core::{ContainerStatus, ErrorKind, Runtime as _, Setting, Signal};
use sandbox_policy::{Access, Control, Policy, PullRule, SandboxRequest, Workspace};
use sandbox_runtime::{DockerRuntime, PodmanRuntime, connect};
use serde_json::json;

use crate::engine::{agree, debian, empty, engine, podman, resolve, spec, variable, wiring};
use crate::inside::Container;

const BOTH: [&str; 2] = ["SANDBOX_TEST_PODMAN", "SANDBOX_TEST_PODMAN_ROOTLESS"];

#[tokio::test]
async fn each_product_is_refused_by_the_runtime_of_the_other() {
    for name in BOTH {
        let error = DockerRuntime::connect(variable(name).parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::EngineUnavailable, "{error}");
        assert!(error.to_string().contains("is Podman"), "{error}");
    }
    let error = PodmanRuntime::connect(variable("DOCKER_HOST").parse().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("is Docker"), "{error}");
}

#[tokio::test]
async fn whoever_answers_is_connected_to() {
    for (name, product) in BOTH.map(|name| (name, "podman")).into_iter().chain([("DOCKER_HOST", "docker")]) {
        assert_eq!(connect(variable(name).parse().unwrap()).await.unwrap().info().name, product);
    }
}

/// What the engine claims in Docker's words would be every limit on both.
#[tokio::test]
async fn rootless_is_told_from_root() {
    let [root, rootless] = [podman(BOTH[0]).await, podman(BOTH[1]).await];
    assert_eq!((root.info().root_uid, root.info().root_gid), (0, 0));
    assert_ne!(rootless.info().root_uid, 0);
    assert!(!root.capabilities().is_enforced(Control::UserNamespace));
    assert!(rootless.capabilities().is_enforced(Control::UserNamespace));
    let is_old = !Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    for control in [Control::Cpu, Control::Memory, Control::Pids] {
        assert!(root.capabilities().is_enforced(control), "{control}");
        assert!(!is_old || !rootless.capabilities().is_enforced(control), "{control}");
    }
}

#[tokio::test]
async fn what_was_asked_is_in_force_inside() {
    for name in BOTH {
        let engine = podman(name).await;
        let workspace = tempfile::tempdir().unwrap();
        open_to_pass(workspace.path());
        let mut request = SandboxRequest::new(debian());
        request.workspace = Some(Workspace::bind(
            workspace.path().to_owned().try_into().unwrap(),
            "/workspace".parse().unwrap(),
            Access::ReadOnly,
        ));
        let spec = agree(&engine, Policy::standard(), &request);
        let mut container = Container::start(&engine, &spec).await;
        let state = engine.state(&container.id).await.unwrap();
        let inside = &mut container.inside;

        assert_eq!(inside.ask("__import__('os').getpid()").await, json!(1));
        assert_eq!(inside.ask("sorted(__import__('os').listdir('/sys/class/net'))").await, json!(["lo"]));
        assert_eq!(inside.ask("__import__('socket').gethostbyname('localhost')").await, json!("127.0.0.1"));
        let status =
            "answer = dict(line.rstrip().split(':\\t', 1) for line in open('/proc/self/status') if ':\\t' in line)";
        let status = inside.ask(status).await;
        for set in ["CapPrm", "CapEff", "CapBnd"] {
            assert_eq!(status[set], json!("00000000000001e0"), "{name}: {set}");
        }
        assert_eq!((&status["NoNewPrivs"], &status["Seccomp"]), (&json!("1"), &json!("2")), "{name}");
        for path in ["/proc/kallsyms", "/proc/cmdline", "/proc/modules", "/proc/interrupts"] {
            let read = format!("open('{path}').read() if __import__('os').path.exists('{path}') else ''");
            assert_eq!(inside.ask(&read).await, json!(""), "{name}: {path}");
        }
        for path in ["/sys/kernel", "/sys/firmware", "/sys/module", "/sys/block"] {
            assert_eq!(inside.ask(&format!("__import__('os').listdir('{path}')")).await, json!([]), "{name}: {path}");
        }
        for path in ["/.sandbox/x", "/workspace/x", "/etc/hosts", "/proc/sys/kernel/hostname"] {
            let error = inside
                .ask(&format!("try:\n open('{path}', 'w')\n answer = 0\nexcept OSError as e:\n answer = e.errno"))
                .await;
            // EROFS, or EACCES where the file is another user's.
            assert!(error == json!(30) || error == json!(13), "{name}: {path}: {error}");
        }
        // Podman's answers name every namespace but this one.
        let pid = state.pid.unwrap();
        for namespace in ["cgroup", "ipc", "mnt", "net", "pid", "uts"] {
            let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
            assert_ne!(of(&pid.to_string()), of("self"), "{name}: {namespace}");
        }
        assert_eq!(state.status, ContainerStatus::Running);
        assert_eq!((state.settings.isolated, state.settings.no_network), (Some(Setting::On), Some(Setting::On)));
        assert_eq!(state.settings.capabilities.unwrap(), ["KILL", "SETGID", "SETPCAP", "SETUID"]);
        if engine.capabilities().is_enforced(Control::Memory) {
            assert_eq!((state.settings.memory, state.settings.memory_and_swap), (Some(4 << 30), Some(4 << 30)));
            assert_eq!((state.settings.milli_cpus, state.settings.pids), (Some(2_000), Some(512)));
        }
        engine.delete(&container.id).await.unwrap();
    }
}

#[tokio::test]
async fn a_signal_to_what_does_not_run_is_no_error() {
    for name in BOTH {
        let engine = podman(name).await;
        let directory = tempfile::tempdir().unwrap();
        open_to_pass(directory.path());
        let spec = spec(&engine, empty(), PullRule::Never);
        let wiring = wiring(resolve(&engine, &spec).await, directory.path());
        let id = engine.create(&spec, &wiring).await.unwrap();
        engine.kill(&id, Signal::Kill).await.unwrap();
        let error = engine.create(&spec, &wiring).await.unwrap_err();
        assert!(error.to_string().contains(&wiring.container_name()), "{error}");
        engine.delete(&id).await.unwrap();
        engine.kill(&id, Signal::Kill).await.unwrap();
        assert_eq!(engine.state(&id).await.unwrap().status, ContainerStatus::Gone);
    }
}

/// What a Docker holds is no business of a Podman, and neither lists the other's.
#[tokio::test]
async fn containers_are_listed_by_their_own_engine() {
    let docker = engine().await;
    for name in BOTH {
        let engine = podman(name).await;
        let directory = tempfile::tempdir().unwrap();
        open_to_pass(directory.path());
        let spec = spec(&engine, empty(), PullRule::Never);
        let wiring = wiring(resolve(&engine, &spec).await, directory.path());
        let id = engine.create(&spec, &wiring).await.unwrap();
        let listed = engine.list().await.unwrap();
        let strangers = docker.list().await.unwrap();
        engine.delete(&id).await.unwrap();
        let found = listed.iter().find(|found| found.sandbox == wiring.sandbox).unwrap();
        assert_eq!((found.status, &found.container), (ContainerStatus::Created, &id));
        assert_eq!(found.owner.as_ref(), Some(&wiring.owner));
        assert!(strangers.iter().all(|stranger| stranger.sandbox != wiring.sandbox));
    }
}

fn open_to_pass(directory: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o711)).unwrap();
}
