//! What is refused, and how it is said.

use std::os::unix::fs::chown;

use async_trait::async_trait;
use sandbox_policy::{
    Access, ByteSize, Capabilities, Control, CpuCount, Isolation, LimitsRequest, NetworkRequest, OpenFiles, Policy,
    ProcessCount, RootFilesystem, Span, SudoRequest, Violation,
};

use super::{Fixture, HostDirectory, text};
use crate::testkit::Recorder;
use crate::{ErrorKind, Event, Events, FileSystem, Gateway, OpenGateway, Result, RunRoot, Token};

fn denied(error: &crate::Error) -> Vec<String> {
    error
        .violations()
        .iter()
        .filter_map(|violation| match violation {
            Violation::Denied { field, .. } => Some(field.clone()),
            _ => None,
        })
        .collect()
}

pub(super) fn unenforceable(error: &crate::Error) -> Vec<Control> {
    error
        .violations()
        .iter()
        .filter_map(|violation| match violation {
            Violation::Unenforceable { control, .. } => Some(*control),
            _ => None,
        })
        .collect()
}

pub async fn a_policy_that_denies_touches_nothing(fixture: &Fixture) {
    let recorder = Recorder::default();
    let error = fixture.builder().policy(Policy::deny_all()).events(recorder.clone()).start().await.unwrap_err();
    assert_eq!((error.kind(), denied(&error).len()), (ErrorKind::Policy, 1), "{error:?}");
    let events = recorder.events();
    assert!(matches!(events[..], [Event::Refused { .. }]), "{events:?}");
    assert_eq!(fixture.run_root.sandboxes().unwrap(), []);
}

pub async fn limits_beyond_the_policy_are_refused(fixture: &Fixture) {
    let limits = LimitsRequest {
        cpus: Some(CpuCount::from_millis(2001).unwrap()),
        memory: Some(ByteSize::gib(5)),
        disk: Some(ByteSize::gib(33)),
        processes: Some(ProcessCount::new(513).unwrap()),
        open_files: Some(OpenFiles::new(1025).unwrap()),
        lifetime: Some(Span::hours(9)),
    };
    let error = fixture.builder().limits(limits).start().await.unwrap_err();
    let fields =
        ["limits.cpus", "limits.memory", "limits.disk", "limits.processes", "limits.open-files", "limits.lifetime"];
    let mut expected: Vec<String> = fields.map(str::to_owned).to_vec();
    let mut found = denied(&error);
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "all at once: {error:?}");
    let waived =
        fixture.policy().waived().iter().fold(Policy::maximum(), |policy, control| policy.with_waived(*control));
    let error = fixture
        .builder()
        .policy(waived)
        .root(RootFilesystem::Writable)
        .network(NetworkRequest::Egress)
        .sudo(SudoRequest::Allow)
        .start()
        .await
        .unwrap_err();
    assert_eq!(denied(&error), ["root", "network", "sudo"], "{error:?}");
    for directory in ["/", "/etc", "/proc", "/var/run", "/root", "/home"] {
        let error = fixture.builder().workspace(directory).start().await.unwrap_err();
        assert!(!denied(&error).is_empty(), "{directory}: {error:?}");
    }
}

pub async fn what_a_runtime_lacks_is_refused(fixture: &Fixture) {
    let error = fixture.builder().policy(Policy::standard()).start().await;
    let lacking: Vec<Control> = Control::ALL.iter().copied().filter(|control| fixture.lacks(*control)).collect();
    match error {
        Ok(sandbox) => {
            let unsaid: Vec<&Control> =
                lacking.iter().filter(|control| sandbox.spec().required().contains(control)).collect();
            assert!(unsaid.is_empty(), "the runtime lacks {unsaid:?}, the policy asks for it, and nobody said so");
            sandbox.destroy().await.unwrap();
        }
        Err(error) => {
            let found = unenforceable(&error);
            assert!(!found.is_empty() && found.iter().all(|control| lacking.contains(control)), "{error:?}");
        }
    }
    if fixture.lacks(Control::Isolation) {
        let strict = Policy::standard().with_isolation(Isolation::Gvisor);
        let error = fixture.builder().policy(strict).start().await.unwrap_err();
        assert!(unenforceable(&error).contains(&Control::Isolation), "{error:?}");
    }
    // Without a gateway, nobody gets out and nobody becomes root.
    let asking = fixture.builder().network(NetworkRequest::Egress).sudo(SudoRequest::Allow).start().await;
    let found = unenforceable(&asking.unwrap_err());
    assert!(
        found.contains(&Control::EgressAllowlist) && (found.contains(&Control::Sudo) || fixture.lacks(Control::Sudo)),
        "{found:?}"
    );
    // A read-only root is a control like any other.
    let read_only = fixture.builder().root(RootFilesystem::ReadOnly).start().await;
    if fixture.lacks(Control::ReadonlyRootfs) {
        read_only.unwrap().destroy().await.unwrap();
    } else {
        let sandbox = read_only.unwrap();
        // gVisor looks first at who asks.
        let word = if fixture.runtime.isolation() == Isolation::Gvisor { "permission denied" } else { "read-only" };
        let said = text(&sandbox, "touch /made 2>&1; touch /usr/made 2>&1; true").await.to_lowercase();
        assert_eq!(said.matches(word).count(), 2, "{said}");
        let spaces =
            text(&sandbox, "for d in /tmp /var/tmp /run; do stat -f -c %T $d; done; touch /tmp/made && echo made")
                .await;
        assert_eq!(spaces, "tmpfs\ntmpfs\ntmpfs\nmade");
        sandbox.destroy().await.unwrap();
    }
}

pub async fn a_waiver_is_an_event(fixture: &Fixture) {
    let recorder = Recorder::default();
    let sandbox = fixture.start_with(recorder.clone()).await;
    let told: Vec<Control> = recorder
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Waived { control, why } if !why.is_empty() => Some(control),
            _ => None,
        })
        .collect();
    assert_eq!(told, sandbox.spec().waived().keys().copied().collect::<Vec<_>>());
    sandbox.destroy().await.unwrap();
}

pub async fn a_missing_image_is_named(fixture: &Fixture) {
    let mut rule = fixture.policy().image();
    rule.pull = sandbox_policy::PullRule::Never;
    let policy = fixture.policy().with_image(rule);
    let error = fixture.builder().policy(policy).image("no-such-image:ever").start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ImageMissing, "{error:?}");
    assert!(error.to_string().contains("no-such-image:ever"), "{error}");
    let error = fixture.builder().image("Not An Image").start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
}

pub async fn a_missing_workspace_is_named(fixture: &Fixture) {
    for path in ["/no/such/workspace", "/dev/null"] {
        let error = fixture.builder().workspace(path).start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WorkspaceMissing, "{error:?}");
        assert!(error.to_string().contains(path), "{error}");
    }
}

pub async fn the_workspace_is_mounted(fixture: &Fixture) {
    if fixture.lacks(Control::HostFilesystem) {
        // Nothing mounts on such a runtime; that is what its report says, and a strict policy refuses it.
        let strict = fixture.policy_for(&[Control::HostFilesystem]);
        let error = fixture.builder().policy(strict).start().await.unwrap_err();
        assert_eq!(unenforceable(&error), [Control::HostFilesystem]);
        return;
    }
    if fixture.runtime.file_system() == FileSystem::Apart {
        let here = HostDirectory::new("sandbox workspace");
        let recorder = Recorder::default();
        let error = fixture.builder().workspace(&*here).events(recorder.clone()).start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert!(error.to_string().contains("shares no file system") && error.hint().is_some(), "{error:?}");
        let events = recorder.events();
        assert!(matches!(events[..], [Event::Refused { .. }]), "{events:?}");
        return;
    }
    let here = HostDirectory::new("sandbox workspace");
    let (uid, gid) = agent_outside(fixture).await;
    chown(&*here, Some(uid), Some(gid)).unwrap();
    std::fs::write(here.join("given"), "by the host").unwrap();
    let sandbox = fixture.builder().workspace(&*here).start().await.unwrap();
    assert_eq!(text(&sandbox, "pwd; cat given; echo made >made").await, "/workspace\nby the host");
    assert_eq!(std::fs::read(here.join("made")).unwrap(), b"made\n");
    sandbox.destroy().await.unwrap();
    let sandbox = fixture.builder().workspace_with(&*here, Access::ReadOnly).start().await.unwrap();
    assert!(text(&sandbox, "touch no 2>&1 || true").await.contains("Read-only"));
    sandbox.destroy().await.unwrap();
    assert!(!here.join("no").exists());
}

/// Who the agent is on the host: somebody else, where containers have a user namespace.
async fn agent_outside(fixture: &Fixture) -> (u32, u32) {
    let sandbox = fixture.start().await;
    let pid = fixture.runtime.state(sandbox.container()).await.unwrap().pid.unwrap();
    let outside = |map: &str, inside: u32| {
        let lines = std::fs::read_to_string(format!("/proc/{pid}/{map}")).unwrap();
        // The first id inside, the first outside, how many (user_namespaces(7)).
        let mut ranges = lines.lines().map(|line| line.split_whitespace().map(|n| n.parse::<u32>().unwrap()));
        ranges.find_map(|mut range| {
            let (first, beyond, count) = (range.next()?, range.next()?, range.next()?);
            inside.checked_sub(first).filter(|offset| *offset < count).map(|offset| beyond + offset)
        })
    };
    let found = (outside("uid_map", fixture.agent.uid()), outside("gid_map", fixture.agent.gid()));
    sandbox.destroy().await.unwrap();
    (found.0.unwrap(), found.1.unwrap())
}

pub async fn the_disk_of_the_run_directory_may_be_full(fixture: &Fixture) {
    // A file system of one page: room for a directory's name and not for the guest.
    let Some(full) = FullDisk::mount() else {
        assert_ne!(rustix::process::geteuid().as_raw(), 0, "root can mount");
        // An ordinary user cannot make a full disk, but a run root that cannot be used is the same to the sandbox.
        let error = fixture.builder().run_root(RunRoot::new("/dev/full/run")).start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
        return;
    };
    let root = RunRoot::new(full.0.join("run"));
    let error = fixture.builder().run_root(root.clone()).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error:?}");
    assert!(error.residue().is_empty(), "{error:?}");
    assert_eq!(root.sandboxes().unwrap(), []);
}

/// A mounted file system that holds almost nothing.
struct FullDisk(HostDirectory);

impl FullDisk {
    fn mount() -> Option<Self> {
        let here = HostDirectory::new("sandbox full");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16k,mode=0700", "tmpfs"])
            .arg(&*here)
            .stderr(std::process::Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(here))
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&*self.0).status();
    }
}

/// Says nothing about what it enforces.
#[derive(Debug)]
struct Silent;

#[async_trait]
impl Gateway for Silent {
    fn name(&self) -> &'static str {
        "silent"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new()
    }

    async fn open(
        &self,
        _: &sandbox_policy::SandboxSpec,
        _: &Events,
        _: Option<Token>,
    ) -> Result<Box<dyn OpenGateway>> {
        panic!("a refused sandbox opens nothing");
    }
}

pub async fn a_gateway_without_a_report_is_no_gateway(fixture: &Fixture) {
    let error = fixture.builder().gateway(Silent).network(NetworkRequest::Egress).start().await.unwrap_err();
    assert_eq!(unenforceable(&error), [Control::EgressAllowlist], "{error:?}");
}
