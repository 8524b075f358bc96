//! The engine under test, and what a sandbox on it needs.

use std::path::Path;

use bollard::Docker;
use sandbox_core::testkit::Recorder;
use sandbox_core::{Agent, Events, Image, Owner, Runtime, SandboxId, Wiring};
use sandbox_policy::{
    AgentUser, Capabilities, Control, ImageRef, ImageRule, Policy, PullRule, SandboxRequest, SandboxSpec, Support,
};
use sandbox_runtime::{DockerRuntime, PodmanRuntime};

/// Connects to the engine; a test without one fails.
pub(crate) async fn engine() -> DockerRuntime {
    docker("DOCKER_HOST").await
}

/// Connects to a Docker whose address a variable holds.
pub(crate) async fn docker(name: &str) -> DockerRuntime {
    DockerRuntime::connect(variable(name).parse().unwrap()).await.unwrap()
}

/// Connects to a Podman whose address a variable holds.
pub(crate) async fn podman(name: &str) -> PodmanRuntime {
    PodmanRuntime::connect(variable(name).parse().unwrap()).await.unwrap()
}

/// Connects to the same engine beside the crate under test.
pub(crate) async fn stranger() -> Docker {
    stranger_to("DOCKER_HOST").await
}

/// Connects to an engine whose address a variable holds, beside the crate under test.
pub(crate) async fn stranger_to(name: &str) -> Docker {
    let docker = Docker::connect_with_unix(&variable(name), 120, bollard::API_DEFAULT_VERSION).unwrap();
    docker.negotiate_version().await.unwrap()
}

/// Reads what the scripts set for tests.
#[expect(clippy::disallowed_methods, reason = "a test is told by its environment which engine to use")]
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests by scripts/test"))
}

/// The image with Python.
pub(crate) fn debian() -> ImageRef {
    variable("SANDBOX_TEST_IMAGE").parse().unwrap()
}

/// The smallest image.
pub(crate) fn empty() -> ImageRef {
    variable("SANDBOX_TEST_EMPTY_IMAGE").parse().unwrap()
}

/// A name that no other test uses.
pub(crate) fn fresh(what: &str) -> String {
    format!("sandbox-test/{what}-{}", SandboxId::random().unwrap())
}

/// Agrees to a request, with a waiver for what the engine does not enforce.
pub(crate) fn agree(engine: &impl Runtime, policy: Policy, request: &SandboxRequest) -> SandboxSpec {
    let held = Support::Enforced { by: "the guest".to_owned() };
    let guest = [Control::AgentUser, Control::OpenFiles, Control::WallClock]
        .into_iter()
        .fold(Capabilities::new(), |all, control| all.with(control, held.clone()));
    let capabilities = engine.capabilities().join(&guest);
    let policy = Control::ALL
        .iter()
        .filter(|control| !capabilities.is_enforced(**control))
        .fold(policy, |policy, control| policy.with_waived(*control));
    policy.check(request, &capabilities).unwrap()
}

/// A specification for an image, which says when to pull.
pub(crate) fn spec(engine: &impl Runtime, image: ImageRef, pull: PullRule) -> SandboxSpec {
    let policy = Policy::standard();
    let rule = ImageRule { pull, ..policy.image() };
    agree(engine, policy.with_image(rule), &SandboxRequest::new(image))
}

/// Resolves a specification's image without an audit.
pub(crate) async fn resolve(engine: &impl Runtime, spec: &SandboxSpec) -> Image {
    engine.resolve(spec, &events()).await.unwrap()
}

/// Events that nobody reads.
pub(crate) fn events() -> Events {
    Events::new(SandboxId::random().unwrap(), std::sync::Arc::new(Recorder::default()))
}

/// Joins an image to a sandbox whose guest lies in a directory.
pub(crate) fn wiring(image: Image, directory: &Path) -> Wiring {
    Wiring {
        sandbox: SandboxId::random().unwrap(),
        owner: Owner::current().unwrap(),
        image,
        agent: Agent::Ids(AgentUser::default()),
        root: (0, 0),
        covers: Vec::new(),
        blanks: Vec::new(),
        underlay: None,
        guest_directory: directory.to_owned(),
        file_system: sandbox_core::FileSystem::Shared,
    }
}
