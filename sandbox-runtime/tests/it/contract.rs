//! The contract of every runtime, on the fake and on each engine.

/// What the fixtures share.
pub(crate) mod fixture {
    use std::sync::Arc;

    use sandbox_core::policy::AgentUser;
    use sandbox_core::testkit::FakeRuntime;
    use sandbox_core::testkit::contract::Fixture;
    use sandbox_core::{FileSystem, RunRoot, Runtime};
    use sandbox_runtime::guest_program;

    use crate::engine;

    /// Whom the agent runs as: an ordinary user, or the one who runs the tests.
    fn agent() -> AgentUser {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        AgentUser::new(uid, gid).unwrap_or_default()
    }

    pub(crate) async fn fake() -> Fixture {
        on_the_host(FakeRuntime::new(guest_program()))
    }

    pub(crate) async fn fake_relayed() -> Fixture {
        on_the_host(FakeRuntime::new(guest_program()).relayed())
    }

    fn on_the_host(runtime: FakeRuntime) -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let scratch = directory.path().join("scratch");
        std::fs::create_dir(&scratch).unwrap();
        let agent = agent();
        // The agent is to reach its scratch directory, and nothing else of the fixture's.
        std::os::unix::fs::chown(&scratch, Some(agent.uid()), Some(agent.gid())).unwrap();
        open_to_pass(directory.path());
        Fixture {
            runtime: Arc::new(runtime),
            image: FakeRuntime::IMAGE.to_owned(),
            agent,
            owner: None,
            scratch,
            run_root: RunRoot::new(directory.path().join("run")),
            keep: vec![Box::new(directory)],
        }
    }

    pub(crate) async fn docker() -> Fixture {
        on(engine::docker("DOCKER_HOST").await)
    }

    pub(crate) async fn docker_relayed() -> Fixture {
        on(engine::docker("DOCKER_HOST").await.over_relay())
    }

    /// gVisor, as a runtime of the first engine's.
    pub(crate) async fn docker_gvisor() -> Fixture {
        on(engine::docker("SANDBOX_TEST_DOCKER_GVISOR").await.with_gvisor())
    }

    /// The engine behind a port, with its certificates.
    pub(crate) fn remote() -> sandbox_runtime::Endpoint {
        let endpoint: sandbox_runtime::Endpoint = engine::variable("SANDBOX_TEST_DOCKER_REMOTE").parse().unwrap();
        endpoint.with_certificates(engine::variable("SANDBOX_TEST_DOCKER_REMOTE_CERTIFICATES"))
    }

    pub(crate) async fn docker_remote() -> Fixture {
        on(sandbox_runtime::DockerRuntime::connect(remote()).await.unwrap())
    }

    pub(crate) async fn docker_remap() -> Fixture {
        on(engine::docker("SANDBOX_TEST_DOCKER_REMAP").await)
    }

    pub(crate) async fn docker_rootless() -> Fixture {
        on(engine::docker("SANDBOX_TEST_DOCKER_ROOTLESS").await)
    }

    pub(crate) async fn podman() -> Fixture {
        on(engine::podman("SANDBOX_TEST_PODMAN").await)
    }

    /// gVisor, as the runtime of all that this Podman has.
    pub(crate) async fn podman_gvisor() -> Fixture {
        on(engine::podman("SANDBOX_TEST_PODMAN_GVISOR").await.with_gvisor())
    }

    pub(crate) async fn podman_rootless() -> Fixture {
        on(engine::podman("SANDBOX_TEST_PODMAN_ROOTLESS").await)
    }

    fn on(runtime: impl Runtime) -> Fixture {
        let info = runtime.info();
        let owner = match (info.name.as_str(), info.root_uid) {
            _ if runtime.file_system() == FileSystem::Apart => None,
            (_, 0) => Some((4_321, 1_234)),
            ("podman", user) => Some((user, info.root_gid)),
            // Whoever it is that has the range of an ordinary user.
            (_, first) if first >= 100_000 => Some((first + 4_321, info.root_gid + 1_234)),
            _ => None,
        };
        let directory = tempfile::tempdir().unwrap();
        // An engine of another user must reach the run root.
        open_to_pass(directory.path());
        Fixture {
            runtime: Arc::new(runtime),
            image: engine::debian().to_string(),
            agent: AgentUser::default(),
            owner,
            scratch: "/home/agent".into(),
            run_root: RunRoot::new(directory.path().join("run")),
            keep: vec![Box::new(directory)],
        }
    }

    fn open_to_pass(directory: &std::path::Path) {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o711)).unwrap();
    }
}

mod fake {
    use super::fixture::fake as fixture;

    sandbox_core::contract!(fixture);
}

mod fake_relayed {
    use super::fixture::fake_relayed as fixture;

    sandbox_core::contract!(fixture);
}

mod docker {
    use super::fixture::docker as fixture;

    sandbox_core::contract!(fixture);
}

mod docker_relayed {
    use super::fixture::docker_relayed as fixture;

    sandbox_core::contract!(fixture);
}

mod docker_gvisor {
    use super::fixture::docker_gvisor as fixture;

    sandbox_core::contract!(fixture);
}

mod docker_remote {
    use super::fixture::docker_remote as fixture;

    sandbox_core::contract!(fixture);
}

mod docker_remap {
    use super::fixture::docker_remap as fixture;

    sandbox_core::contract!(fixture);
}

mod docker_rootless {
    use super::fixture::docker_rootless as fixture;

    sandbox_core::contract!(fixture);
}

mod podman {
    use super::fixture::podman as fixture;

    sandbox_core::contract!(fixture);
}

mod podman_gvisor {
    use super::fixture::podman_gvisor as fixture;

    sandbox_core::contract!(fixture);
}

mod podman_rootless {
    use super::fixture::podman_rootless as fixture;

    sandbox_core::contract!(fixture);
}

/// gVisor, with no engine.
mod embedded_gvisor {
    use crate::embedded::on_gvisor as fixture;

    sandbox_core::contract!(fixture);
}
