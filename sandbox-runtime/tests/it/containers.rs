//! A container's life, and what is in force in it.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{CreateContainerOptions, InspectContainerOptions, RemoveContainerOptionsBuilder};
use sandbox_core::{
    Bind, ContainerId, ContainerStatus, EffectiveSettings, LABEL_OWNER, LABEL_SANDBOX, Runtime as _, Setting, Signal,
};
use sandbox_policy::{Access, Control, Isolation, Policy, PullRule, SandboxRequest, SandboxSpec, Workspace};
use sandbox_runtime::DockerRuntime;
use serde_json::{Value, json};

use crate::engine::{agree, debian, empty, engine, resolve, spec, stranger, wiring};
use crate::inside::Container;

/// The strictest policy, on the image with Python, with a workspace.
fn strict(engine: &DockerRuntime, workspace: &std::path::Path) -> SandboxSpec {
    let mut request = SandboxRequest::new(debian());
    request.workspace = Some(Workspace::bind(
        workspace.to_owned().try_into().unwrap(),
        "/workspace".parse().unwrap(),
        Access::ReadOnly,
    ));
    agree(engine, Policy::maximum(), &request)
}

/// Whether a setting says nothing: what the engine fills in where nothing was asked.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(is_nothing),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) => false,
    }
}

#[tokio::test]
async fn the_engine_is_told_this_and_nothing_else() {
    let (engine, docker) = (engine().await, stranger().await);
    let (workspace, directory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let spec = strict(&engine, workspace.path());
    let wiring = wiring(resolve(&engine, &spec).await, directory.path());
    let id = engine.create(&spec, &wiring).await.unwrap();
    let inspected = docker.inspect_container(id.as_str(), None::<InspectContainerOptions>).await.unwrap();
    let mut told = serde_json::to_value(inspected.host_config.unwrap()).unwrap();
    let config = serde_json::to_value(inspected.config.unwrap()).unwrap();
    engine.delete(&id).await.unwrap();

    let seccomp = told["SecurityOpt"][1].take();
    assert!(seccomp.as_str().unwrap().starts_with("seccomp={\"archMap\""), "{seccomp}");
    let masked = told["MaskedPaths"].take();
    for path in ["/proc/kallsyms", "/proc/kcore", "/proc/keys", "/sys/firmware", "/sys/kernel"] {
        assert!(masked.as_array().unwrap().contains(&json!(path)), "{path}");
    }
    let mount = |source: &std::path::Path, target: &str| {
        json!({
            "Type": "bind", "Source": source, "Target": target, "ReadOnly": true,
            "BindOptions": { "Propagation": "rprivate", "NonRecursive": true },
        })
    };
    let tmpfs = |owner: &str| format!("rw,exec,nosuid,nodev,size={},nr_inodes=65536,{owner}", 1_u64 << 30);
    let mut expected = json!({
        "AutoRemove": true,
        "CapAdd": ["CAP_KILL", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID"],
        "CapDrop": ["ALL"],
        "CgroupnsMode": "private",
        "CpuPeriod": 100_000,
        "CpuQuota": 200_000,
        "IpcMode": "private",
        "LogConfig": { "Type": "none", "Config": {} },
        "MaskedPaths": null,
        "Memory": 4_u64 << 30,
        "MemorySwap": 4_u64 << 30,
        "Mounts": [
            mount(directory.path(), "/.sandbox"),
            mount(&directory.path().join("hosts"), "/etc/hosts"),
            mount(workspace.path(), "/workspace"),
        ],
        "NetworkMode": "none",
        "PidsLimit": 512,
        "ReadonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        "ReadonlyRootfs": true,
        "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
        "Runtime": "runc",
        "SecurityOpt": ["no-new-privileges", null],
        "ShmSize": 64 << 20,
        "Tmpfs": {
            "/home/agent": tmpfs("mode=0700,uid=1000,gid=1000"),
            "/run": tmpfs("mode=0755"),
            "/tmp": tmpfs("mode=1777"),
            "/var/tmp": tmpfs("mode=1777"),
        },
        "Ulimits": [
            { "Name": "core", "Soft": 0, "Hard": 0 },
            { "Name": "nofile", "Soft": 1_024, "Hard": 1_024 },
        ],
    });
    if engine.capabilities().is_enforced(Control::Disk) {
        expected["StorageOpt"] = json!({ "size": (32_u64 << 30).to_string() });
    }
    // Newer engines print capabilities without their prefix where they were given without.
    let plain = |names: &Value| {
        names
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap().trim_start_matches("CAP_").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(plain(&told["CapAdd"]), plain(&expected["CapAdd"]));
    for (name, value) in told.as_object().unwrap() {
        match expected.get(name) {
            _ if name == "CapAdd" => {}
            Some(expected) => assert_eq!(value, expected, "{name}"),
            None => assert!(is_nothing(value), "{name} is {value}, which nobody asked for"),
        }
    }
    for (name, value) in expected.as_object().unwrap() {
        assert!(value.is_null() || told.get(name).is_some(), "{name} was dropped");
    }

    assert_eq!(config["Entrypoint"], json!(["/.sandbox/guest"]));
    assert_eq!(config["Image"], json!(wiring.image.id));
    assert_eq!(config["NetworkDisabled"], json!(true));
    assert_eq!(config["User"], json!("0:0"));
    assert_eq!(config["Labels"][LABEL_SANDBOX], json!(wiring.sandbox));
    assert_eq!(config["Labels"][LABEL_OWNER], json!(wiring.owner.to_string()));
    assert!(is_nothing(&config["Cmd"]) && is_nothing(&config["Tty"]) && is_nothing(&config["OpenStdin"]));
}

#[tokio::test]
async fn what_was_asked_is_in_force_inside() {
    let engine = engine().await;
    let workspace = tempfile::tempdir().unwrap();
    std::fs::write(workspace.path().join("here"), "yes").unwrap();
    let spec = strict(&engine, workspace.path());
    let mut container = Container::start(&engine, &spec).await;
    let inside = &mut container.inside;

    assert_eq!(inside.ask("__import__('os').getpid()").await, json!(1));
    assert_eq!(inside.ask("sorted(__import__('os').listdir('/sys/class/net'))").await, json!(["lo"]));
    assert_eq!(inside.ask("__import__('socket').gethostbyname('localhost')").await, json!("127.0.0.1"));
    assert_eq!(inside.ask("open('/workspace/here').read()").await, json!("yes"));
    let status =
        "answer = dict(line.rstrip().split(':\\t', 1) for line in open('/proc/self/status') if ':\\t' in line)";
    let status = inside.ask(status).await;
    // KILL, SETGID, SETUID, SETPCAP: bits 5 to 8 (capabilities(7)).
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(status[set], json!("00000000000001e0"), "{set}");
    }
    assert_eq!((&status["NoNewPrivs"], &status["Seccomp"]), (&json!("1"), &json!("2")));

    for path in ["/x", "/etc/x", "/usr/x", "/.sandbox/x", "/workspace/x"] {
        let error = inside
            .ask(&format!("try:\n open('{path}', 'w')\n answer = 0\nexcept OSError as e:\n answer = e.errno"))
            .await;
        assert_eq!(error, json!(30), "{path} is on a read-only file system");
    }
    // Older versions of runc give a memory file system the mode of the image's own directory: the home's is 0755.
    for (path, mode) in [("/tmp", 0o1777), ("/var/tmp", 0o1777), ("/run", 0o755), ("/home/agent", 0o755)] {
        let found = inside.ask(&format!("__import__('os').stat('{path}').st_mode & 0o7777")).await;
        assert!(found == json!(mode) || (path == "/home/agent" && found == json!(0o700)), "{path} has mode {found}");
        let space = format!("(lambda v: v.f_blocks * v.f_frsize)(__import__('os').statvfs('{path}'))");
        assert_eq!(inside.ask(&space).await, json!(1_u64 << 30), "{path}");
    }
    assert_eq!(inside.ask("__import__('os').stat('/home/agent').st_uid").await, json!(1_000));
    for path in ["/proc/kallsyms", "/proc/cmdline", "/proc/modules", "/proc/interrupts"] {
        // A kernel may be without it.
        let read = format!("open('{path}').read() if __import__('os').path.exists('{path}') else ''");
        assert_eq!(inside.ask(&read).await, json!(""), "{path}");
    }
    for path in ["/sys/kernel", "/sys/firmware", "/sys/module", "/sys/block"] {
        assert_eq!(inside.ask(&format!("__import__('os').listdir('{path}')")).await, json!([]), "{path}");
    }
    let mounts = inside.ask("open('/proc/self/mountinfo').read()").await;
    assert!(!mounts.as_str().unwrap().contains("resolv.conf"), "the host's name servers stay unknown");
    let limit = "answer = __import__('resource').getrlimit(__import__('resource').RLIMIT_NOFILE)";
    assert_eq!(inside.ask(limit).await, json!([1_024, 1_024]));

    let state = engine.state(&container.id).await.unwrap();
    assert_eq!(state.status, ContainerStatus::Running);
    assert!(state.pid.is_some());
    let bind = |target: &str, source: &std::path::Path| Bind {
        target: target.into(),
        source: source.to_owned(),
        writable: false,
    };
    assert_eq!(
        state.settings,
        EffectiveSettings {
            users: None,
            blanks: Some(["/home/agent", "/run", "/tmp", "/var/tmp"].map(std::path::PathBuf::from).to_vec()),
            memory: Some(4 << 30),
            memory_and_swap: Some(4 << 30),
            milli_cpus: Some(2_000),
            pids: Some(512),
            isolation: Some(Isolation::Standard),
            cgroup: None,
            disk: engine.capabilities().is_enforced(Control::Disk).then_some(32 << 30),
            readonly_rootfs: Some(Setting::On),
            no_new_privileges: Some(Setting::On),
            isolated: Some(Setting::On),
            no_network: Some(Setting::On),
            capabilities: Some(["KILL", "SETGID", "SETPCAP", "SETUID"].map(str::to_owned).to_vec()),
            binds: Some(vec![
                bind("/.sandbox", &container.wiring.guest_directory),
                bind("/workspace", workspace.path())
            ]),
            underlays: None,
        }
    );
    engine.delete(&container.id).await.unwrap();
}

#[tokio::test]
async fn a_container_is_made_started_killed_and_gone() {
    let engine = engine().await;
    let spec = spec(&engine, debian(), PullRule::Never);
    let mut container = Container::start(&engine, &spec).await;
    let find = || async { engine.list().await.unwrap().into_iter().find(|found| found.container == container.id) };

    let found = find().await.unwrap();
    assert_eq!((found.sandbox, found.owner), (container.wiring.sandbox, Some(container.wiring.owner.clone())));
    assert_eq!(found.status, ContainerStatus::Running);
    assert!(found.created > 1_600_000_000);

    // Process 1 has no handler for TERM, so the kernel keeps it from it (signal(7)); KILL it cannot escape.
    engine.kill(&container.id, Signal::Terminate).await.unwrap();
    assert_eq!(container.inside.ask("1 + 1").await, json!(2));
    engine.kill(&container.id, Signal::Kill).await.unwrap();
    engine.delete(&container.id).await.unwrap();
    assert_eq!(engine.state(&container.id).await.unwrap().status, ContainerStatus::Gone);
    assert!(find().await.is_none());
    engine.kill(&container.id, Signal::Kill).await.unwrap();
}

#[tokio::test]
async fn deleting_is_done_when_it_says_so_however_often_it_is_asked() {
    let engine = engine().await;
    let spec = spec(&engine, debian(), PullRule::Never);
    let never = ContainerId::new("0".repeat(64));
    engine.delete(&never).await.unwrap();
    assert_eq!(engine.state(&never).await.unwrap().status, ContainerStatus::Gone);

    for _ in 0..3 {
        let container = Container::start(&engine, &spec).await;
        let race = (0..8).map(|_| async {
            engine.delete(&container.id).await.unwrap();
            assert_eq!(engine.state(&container.id).await.unwrap().status, ContainerStatus::Gone);
        });
        futures_util::future::join_all(race).await;
    }

    // One that ends by itself is removed by the engine at the same time.
    let mut container = Container::start(&engine, &spec).await;
    container.inside.tell("__import__('os')._exit(0)").await;
    engine.delete(&container.id).await.unwrap();
    engine.delete(&container.id).await.unwrap();
    assert_eq!(engine.state(&container.id).await.unwrap().status, ContainerStatus::Gone);
}

#[tokio::test]
async fn a_second_container_of_one_sandbox_is_refused() {
    let engine = engine().await;
    let directory = tempfile::tempdir().unwrap();
    let spec = spec(&engine, empty(), PullRule::Never);
    let wiring = wiring(resolve(&engine, &spec).await, directory.path());
    let id = engine.create(&spec, &wiring).await.unwrap();
    let error = engine.create(&spec, &wiring).await.unwrap_err();
    engine.delete(&id).await.unwrap();
    assert!(error.to_string().contains(&wiring.container_name()), "{error}");
}

#[tokio::test]
async fn a_strangers_container_with_our_label_is_not_ours() {
    let (engine, docker) = (engine().await, stranger().await);
    let body = ContainerCreateBody {
        image: Some(empty().to_string()),
        cmd: Some(vec!["/never".to_owned()]),
        labels: Some(HashMap::from([(LABEL_SANDBOX.to_owned(), "0123456789abcdef0123456789abcdef".to_owned())])),
        host_config: Some(HostConfig { network_mode: Some("none".to_owned()), ..Default::default() }),
        ..Default::default()
    };
    let id = docker.create_container(None::<CreateContainerOptions>, body).await.unwrap().id;
    let listed = engine.list().await.unwrap();
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    docker.remove_container(&id, Some(options)).await.unwrap();
    assert!(listed.iter().all(|found| found.container.as_str() != id));
}
