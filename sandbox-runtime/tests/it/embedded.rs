//! The embedded runtime, which needs no engine: its contract, and what attacks its limits.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use sandbox_core::policy::{AgentUser, Control, Policy, PullRule, SandboxRequest};
use sandbox_core::testkit::contract::Fixture;
use sandbox_core::{RunRoot, Runtime as _, own_capabilities};
use sandbox_runtime::{EmbeddedOptions, EmbeddedRuntime};

use crate::engine;

/// The image of `scripts/image` with Python.
const IMAGE: &str = "sandbox-debian";

/// Where all tests of a run keep their images and containers: unpacking takes longer than any of them.
fn state() -> PathBuf {
    let name = match rustix::process::geteuid() {
        user if user.is_root() => "embedded".to_owned(),
        user => format!("{user}/embedded"),
    };
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Connects to the machine, with the image in its store.
pub(crate) async fn runtime() -> EmbeddedRuntime {
    let runtime = EmbeddedRuntime::connect(EmbeddedOptions::new(state())).await.unwrap();
    let lock = std::fs::File::create(state().with_extension("lock")).unwrap();
    let _lock = tokio::task::spawn_blocking(move || {
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        lock
    })
    .await
    .unwrap();
    let archive = PathBuf::from(engine::variable("SANDBOX_TEST_ROOTFS"));
    // The archive's name holds the hash of its recipe, so another recipe is another image.
    let stamp = state().with_file_name("embedded.archive");
    if std::fs::read(&stamp).ok().as_deref() != Some(archive.as_os_str().as_encoded_bytes())
        || !is_there(&runtime).await
    {
        let file = std::fs::File::open(&archive).unwrap();
        runtime.import_rootfs(std::io::BufReader::new(file), &IMAGE.parse().unwrap()).await.unwrap();
        std::fs::write(&stamp, archive.as_os_str().as_encoded_bytes()).unwrap();
    }
    runtime
}

async fn is_there(runtime: &EmbeddedRuntime) -> bool {
    let policy = Control::ALL
        .iter()
        .filter(|control| {
            runtime.capabilities().get(**control).is_some() && !runtime.capabilities().is_enforced(**control)
        })
        .fold(Policy::standard(), |policy, control| policy.with_waived(*control));
    let rule = sandbox_core::policy::ImageRule { pull: PullRule::Never, ..policy.image() };
    let capabilities = runtime.capabilities().join(&own_capabilities());
    let spec = policy.with_image(rule).check(&SandboxRequest::new(IMAGE.parse().unwrap()), &capabilities).unwrap();
    runtime.resolve(&spec, &engine::events()).await.is_ok()
}

/// gVisor's program.
pub(crate) fn runsc() -> PathBuf {
    engine::variable("SANDBOX_TEST_RUNSC").into()
}

pub(crate) async fn fixture() -> Fixture {
    on(runtime().await)
}

/// The same with gVisor between the sandbox and the kernel.
pub(crate) async fn on_gvisor() -> Fixture {
    on(runtime().await.with_gvisor(runsc()))
}

fn on(runtime: EmbeddedRuntime) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    Fixture {
        runtime: Arc::new(runtime),
        image: IMAGE.to_owned(),
        agent: AgentUser::default(),
        owner: Some(match rustix::process::geteuid().as_raw() {
            0 => (4_321, 1_234),
            own => (own, rustix::process::getegid().as_raw()),
        }),
        scratch: "/home/agent".into(),
        run_root: RunRoot::new(directory.path().join("run")),
        keep: vec![Box::new(directory)],
    }
}

mod attacks;
mod gvisor;
mod leftovers;
mod tried;
mod unprivileged;

mod contract {
    use super::fixture;

    sandbox_core::contract!(fixture);
}
