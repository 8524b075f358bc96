//! A report that holds, and one lie for each control.

use std::collections::BTreeSet;

use sandbox_guest::wire::{CgroupLimits, Identity, Mount, Observed, ProcessStatus};
use sandbox_policy::{
    Access, AgentUser, Capabilities, Control, GuestPath, HostPath, Isolation, Policy, RootFilesystem, SandboxRequest,
    SandboxSpec, SudoRequest, Support, Workspace,
};

use super::{Attestation, Verdict};
use crate::{Agent, Bind, EffectiveSettings, ErrorKind, Image, Owner, SandboxId, Setting, Wiring};

/// A specification of a sandbox with everything that the lies are about, on a machine that lacks some controls.
fn spec(policy: &Policy, lacking: &[Control]) -> SandboxSpec {
    let mut request = SandboxRequest::new("debian:12".parse().unwrap());
    request.root = Some(RootFilesystem::ReadOnly);
    request.workspace = Some(Workspace::bind(
        HostPath::try_from(std::path::PathBuf::from("/srv/work")).unwrap(),
        "/workspace".parse::<GuestPath>().unwrap(),
        Access::ReadWrite,
    ));
    let able = Control::ALL
        .iter()
        .filter(|control| !lacking.contains(control))
        .fold(Capabilities::new(), |able, control| able.with(*control, Support::Enforced { by: "a test".to_owned() }));
    policy.check(&request, &able).unwrap()
}

fn wiring() -> Wiring {
    let reference: sandbox_policy::ImageRef = "debian:12".parse().unwrap();
    Wiring {
        sandbox: SandboxId::random().unwrap(),
        owner: Owner::current().unwrap(),
        image: Image { id: reference.to_string(), reference, user: None },
        agent: Agent::Ids(AgentUser::default()),
        root: (0, 0),
        covers: Vec::new(),
        blanks: Vec::new(),
        underlay: None,
        guest_directory: "/run/sandbox/x/guest".into(),
        file_system: crate::FileSystem::Shared,
    }
}

fn mount(target: &str, kind: &str, read_only: bool) -> Mount {
    Mount { target: target.into(), kind: kind.to_owned(), options: String::new(), read_only, size: None }
}

fn honest() -> (Observed, EffectiveSettings) {
    let four_gib = 4 << 30;
    let agent = ProcessStatus {
        uid: [1000; 4],
        gid: [1000; 4],
        groups: Vec::new(),
        capabilities: [0; 5],
        no_new_privileges: true,
        seccomp: 2,
        seccomp_filters: 1,
    };
    let guest = ProcessStatus { uid: [0; 4], gid: [0; 4], capabilities: [0, 0x1e0, 0x1e0, 0x1e0, 0], ..agent.clone() };
    let inside = Observed {
        identity: Some(Identity { uid: 1000, gid: 1000 }),
        agent,
        guest,
        cgroup: CgroupLimits {
            version: 1,
            memory: Some(four_gib),
            memory_and_swap: Some(four_gib),
            pids: Some(512),
            cpu_quota: Some(200_000),
            cpu_period: Some(100_000),
        },
        unfiltered: Vec::new(),
        open_files: (1024, 1024),
        core_size: (0, 0),
        uid_map: vec![(0, 100_000, 65_536)],
        interfaces: vec!["lo".to_owned()],
        mounts: vec![
            mount("/", "overlay", true),
            mount("/proc", "proc", false),
            mount("/proc/kcore", "devtmpfs", false),
            mount("/etc/hosts", "ext4", false),
            mount("/.sandbox", "tmpfs", true),
            mount("/workspace", "ext4", false),
        ],
        kernel: "6.1.0 #1 SMP Debian".to_owned(),
        root_writable: false,
        remaining: 28_800,
    };
    let outside = EffectiveSettings {
        blanks: Some(Vec::new()),
        underlays: Some(Vec::new()),
        memory: Some(four_gib),
        memory_and_swap: Some(four_gib),
        milli_cpus: Some(2000),
        pids: Some(512),
        isolation: Some(Isolation::Standard),
        cgroup: None,
        users: None,
        disk: Some(32 << 30),
        readonly_rootfs: Some(Setting::On),
        no_new_privileges: Some(Setting::On),
        isolated: Some(Setting::On),
        no_network: Some(Setting::On),
        capabilities: Some(vec!["KILL".to_owned(), "SETUID".to_owned()]),
        binds: Some(vec![
            Bind { target: "/.sandbox".into(), source: "/run/sandbox/x/guest".into(), writable: false },
            Bind { target: "/workspace".into(), source: "/srv/work".into(), writable: true },
        ]),
    };
    (inside, outside)
}

#[test]
fn what_is_as_asked_holds() {
    let (inside, outside) = honest();
    let spec = spec(&Policy::standard(), &[]);
    let attestation = Attestation::compare(&spec, &wiring(), &inside, &outside);
    attestation.verify().unwrap();
    let controls: BTreeSet<Control> = attestation.findings().iter().map(|finding| finding.control).collect();
    assert_eq!(&controls, spec.required());
    // An engine that says nothing is no liar, but for what only it can tell.
    let silent = EffectiveSettings { disk: outside.disk, ..EffectiveSettings::default() };
    Attestation::compare(&spec, &wiring(), &inside, &silent).verify().unwrap();
}

type Lie = fn(&mut Observed, &mut EffectiveSettings);

const LIES: [(Control, Lie); 35] = [
    (Control::AgentUser, |inside, _| inside.agent.uid = [1000, 0, 1000, 1000]),
    (Control::AgentUser, |inside, _| inside.agent.gid[3] = 0),
    (Control::AgentUser, |inside, _| inside.agent.groups = vec![0]),
    (Control::AgentUser, |inside, _| inside.identity = Some(Identity { uid: 7, gid: 7 })),
    (Control::AgentUser, |inside, _| inside.identity = None),
    (Control::CapabilityDrop, |inside, _| inside.agent.capabilities[3] = 1 << 21),
    (Control::CapabilityDrop, |inside, _| inside.guest.capabilities[1] |= 1 << 21),
    (Control::CapabilityDrop, |_, outside| outside.capabilities = Some(vec!["SYS_ADMIN".to_owned()])),
    (Control::Cpu, |inside, _| inside.cgroup.cpu_quota = None),
    (Control::Cpu, |_, outside| outside.milli_cpus = Some(0)),
    (Control::Disk, |_, outside| outside.disk = None),
    (Control::Disk, |_, outside| outside.disk = Some(33 << 30)),
    (Control::HostFilesystem, |inside, _| inside.mounts.push(mount("/host", "ext4", true))),
    (Control::HostFilesystem, |inside, _| inside.mounts.retain(|mount| mount.target != b"/workspace")),
    (Control::HostFilesystem, |inside, _| inside.mounts[4].read_only = false),
    (Control::HostFilesystem, |_, outside| outside.binds = Some(Vec::new())),
    (Control::HostFilesystem, |_, outside| outside.isolated = Some(Setting::Off)),
    (Control::Memory, |inside, _| inside.cgroup.memory = None),
    (Control::Memory, |inside, _| inside.cgroup.memory_and_swap = None),
    (Control::Memory, |_, outside| outside.memory_and_swap = Some(8 << 30)),
    (Control::NoNetwork, |inside, _| inside.interfaces.push("eth0".to_owned())),
    (Control::NoNetwork, |_, outside| outside.no_network = Some(Setting::Off)),
    (Control::NoNewPrivileges, |inside, _| inside.agent.no_new_privileges = false),
    (Control::NoNewPrivileges, |_, outside| outside.no_new_privileges = Some(Setting::Off)),
    (Control::OpenFiles, |inside, _| inside.open_files.1 = 1_048_576),
    (Control::Pids, |inside, _| inside.cgroup.pids = None),
    (Control::Pids, |_, outside| outside.pids = Some(0)),
    (Control::ReadonlyRootfs, |inside, _| inside.root_writable = true),
    (Control::ReadonlyRootfs, |_, outside| outside.readonly_rootfs = Some(Setting::Off)),
    (Control::Seccomp, |inside, _| inside.agent.seccomp = 0),
    (Control::Seccomp, |inside, _| inside.unfiltered.push("io_uring_setup".to_owned())),
    (Control::UserNamespace, |inside, _| inside.uid_map = vec![(0, 0, u32::MAX)]),
    (Control::UserNamespace, |inside, _| inside.uid_map.clear()),
    (Control::UserNamespace, |_, outside| outside.users = Some(vec![(0, 0, 1)])),
    (Control::WallClock, |inside, _| inside.remaining = u64::MAX),
];

#[test]
fn every_lie_is_caught_and_named() {
    let spec = spec(&Policy::standard(), &[]);
    for (number, (control, lie)) in LIES.iter().enumerate() {
        let (mut inside, mut outside) = honest();
        lie(&mut inside, &mut outside);
        let attestation = Attestation::compare(&spec, &wiring(), &inside, &outside);
        let error = attestation.verify().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Attestation);
        assert!(error.to_string().contains(&format!("{control}: asked ")), "lie {number}: {error}");
        let differing = attestation.findings().iter().filter(|finding| finding.verdict == Verdict::Differs);
        assert_eq!(differing.map(|finding| finding.control).collect::<Vec<_>>(), [*control], "lie {number}");
    }
    let tried: BTreeSet<Control> = LIES.iter().map(|(control, _)| *control).collect();
    assert_eq!(&tried, spec.required(), "a control is compared and never lied about");
}

#[test]
fn the_capabilities_of_sudo_are_there_where_it_is_asked_for_and_nowhere_else() {
    let mut request = SandboxRequest::new("debian:12".parse().unwrap());
    request.sudo = SudoRequest::Allow;
    let able = Control::ALL
        .iter()
        .fold(Capabilities::new(), |able, control| able.with(*control, Support::Enforced { by: "a test".to_owned() }));
    let with_sudo = Policy::standard().check(&request, &able).unwrap();
    request.sudo = SudoRequest::Deny;
    let without = Policy::standard().check(&request, &able).unwrap();
    let verdict = |spec: &SandboxSpec, control: Control, guest: u64, engine: &[&str]| {
        let (mut inside, mut outside) = honest();
        inside.guest.capabilities = [0, guest, guest, guest, 0];
        outside.capabilities = Some(engine.iter().map(|name| (*name).to_owned()).collect());
        let attestation = Attestation::compare(spec, &wiring(), &inside, &outside);
        attestation.findings().iter().find(|finding| finding.control == control).unwrap().verdict
    };
    assert_eq!(verdict(&with_sudo, Control::CapabilityDrop, 0x1eb, &["CHOWN", "KILL"]), Verdict::Holds);
    assert_eq!(verdict(&with_sudo, Control::CapabilityDrop, 0x1ef, &[]), Verdict::Differs);
    assert_eq!(verdict(&with_sudo, Control::CapabilityDrop, 0x1eb, &["SYS_ADMIN"]), Verdict::Differs);
    assert_eq!(verdict(&with_sudo, Control::Sudo, 0x1eb, &[]), Verdict::Holds);
    assert_eq!(verdict(&with_sudo, Control::Sudo, 0x1e0, &[]), Verdict::Differs);
    assert_eq!(verdict(&without, Control::CapabilityDrop, 0x1eb, &[]), Verdict::Differs);
    assert_eq!(verdict(&without, Control::CapabilityDrop, 0x1e0, &["CHOWN"]), Verdict::Differs);
}

#[test]
fn a_waived_control_is_told_and_not_judged() {
    let (mut inside, outside) = honest();
    inside.cgroup.pids = None;
    let spec = spec(&Policy::standard().with_waived(Control::Pids), &[Control::Pids]);
    let attestation = Attestation::compare(&spec, &wiring(), &inside, &outside);
    attestation.verify().unwrap();
    let pids = attestation.findings().iter().find(|finding| finding.control == Control::Pids).unwrap();
    assert_eq!((pids.verdict, pids.found.as_str()), (Verdict::Waived, "no limit"));
}

#[test]
fn a_disk_in_memory_is_memory_alone() {
    let (mut inside, mut outside) = honest();
    outside.disk = None;
    let spec = spec(&Policy::standard(), &[Control::Disk]);
    let disk = |inside: &Observed| {
        let attestation = Attestation::compare(&spec, &wiring(), inside, &outside);
        attestation.findings().iter().find(|finding| finding.control == Control::Disk).unwrap().clone()
    };
    inside.mounts.push(mount("/tmp", "tmpfs", false));
    inside.mounts.retain(|mount| mount.target != b"/etc/hosts");
    inside.mounts.push(mount("/etc/hosts", "ext4", true));
    assert_eq!(disk(&inside).verdict, Verdict::Holds, "{:?}", disk(&inside));
    inside.mounts.push(mount("/etc/hostname", "ext4", false));
    let finding = disk(&inside);
    assert_eq!(finding.verdict, Verdict::Differs);
    assert!(finding.found.contains("/etc/hostname on a disk"), "{}", finding.found);
    inside.mounts.pop();
    inside.cgroup.memory = None;
    assert_eq!(disk(&inside).verdict, Verdict::Differs);
}

#[test]
fn a_namespace_without_root_is_as_good() {
    let (mut inside, outside) = honest();
    inside.uid_map = vec![(1000, 5000, 1)];
    let spec = spec(&Policy::standard(), &[]);
    Attestation::compare(&spec, &wiring(), &inside, &outside).verify().unwrap();
    inside.uid_map = vec![(1000, 0, 1)];
    assert!(Attestation::compare(&spec, &wiring(), &inside, &outside).verify().is_err());
}

#[test]
fn the_machines_own_programs_are_mounted_for_their_image_alone() {
    let (mut inside, outside) = honest();
    inside.mounts.push(mount("/usr", "overlay", true));
    let spec = spec(&Policy::standard(), &[]);
    let image = Image { reference: "host".parse().unwrap(), id: "host".to_owned(), user: None };
    let host = Wiring { image, ..wiring() };
    Attestation::compare(&spec, &host, &inside, &outside).verify().unwrap();
    assert!(Attestation::compare(&spec, &wiring(), &inside, &outside).verify().is_err());
    inside.mounts.push(mount("/home", "overlay", true));
    assert!(Attestation::compare(&spec, &host, &inside, &outside).verify().is_err());
}

#[test]
fn an_engine_apart_mounts_nothing_and_nothing_else_is_let_pass() {
    let (mut inside, mut outside) = honest();
    inside.mounts.retain(|mount| mount.target != b"/.sandbox" && mount.target != b"/workspace");
    outside.binds = Some(Vec::new());
    let able = Control::ALL
        .iter()
        .fold(Capabilities::new(), |able, control| able.with(*control, Support::Enforced { by: "a test".to_owned() }));
    let mut request = SandboxRequest::new("debian:12".parse().unwrap());
    request.root = Some(RootFilesystem::ReadOnly);
    let spec = Policy::standard().check(&request, &able).unwrap();
    let apart = Wiring { file_system: crate::FileSystem::Apart, ..wiring() };
    Attestation::compare(&spec, &apart, &inside, &outside).verify().unwrap();
    // Where files are shared, the guest's mount is missed.
    assert!(Attestation::compare(&spec, &wiring(), &inside, &outside).verify().is_err());
    // And what is mounted all the same is a stranger, from inside and from outside.
    let (mut more, mut said) = (inside.clone(), outside.clone());
    more.mounts.push(mount("/.sandbox", "ext4", true));
    assert!(Attestation::compare(&spec, &apart, &more, &outside).verify().is_err());
    said.binds = Some(vec![Bind { target: "/.sandbox".into(), source: "/x".into(), writable: false }]);
    assert!(Attestation::compare(&spec, &apart, &inside, &said).verify().is_err());
}

/// A sandbox of gVisor's, whose limits are around it.
fn gvisor() -> (Observed, EffectiveSettings) {
    let (mut inside, mut outside) = honest();
    inside.kernel = "4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016".to_owned();
    let around = CgroupLimits { pids: Some(2_112), ..inside.cgroup.clone() };
    inside.cgroup = CgroupLimits { version: 1, pids: Some(512), ..CgroupLimits::default() };
    outside.cgroup = Some(around);
    outside.isolation = Some(Isolation::Gvisor);
    outside.pids = None;
    (inside, outside)
}

#[test]
fn gvisor_is_known_by_its_kernel_and_its_limits_by_the_group_around_it() {
    let spec = spec(&Policy::standard().with_isolation(Isolation::Gvisor), &[]);
    let (inside, outside) = gvisor();
    Attestation::compare(&spec, &wiring(), &inside, &outside).verify().unwrap();
    let newer = Observed { kernel: "4.19.0-gvisor #1 SMP".to_owned(), ..inside.clone() };
    Attestation::compare(&spec, &wiring(), &newer, &outside).verify().unwrap();

    let around = |change: fn(&mut CgroupLimits)| {
        let mut limits = gvisor().1.cgroup.unwrap();
        change(&mut limits);
        EffectiveSettings { cgroup: Some(limits), ..gvisor().1 }
    };
    for (control, inside, outside) in [
        // Another runtime answers than the engine says, or the engine says another.
        (Control::Isolation, Observed { kernel: honest().0.kernel, ..inside.clone() }, outside.clone()),
        (
            Control::Isolation,
            inside.clone(),
            EffectiveSettings { isolation: Some(Isolation::Standard), ..outside.clone() },
        ),
        (Control::Isolation, inside.clone(), EffectiveSettings { isolation: None, ..outside.clone() }),
        // A limit was taken and dropped.
        (Control::Memory, inside.clone(), around(|limits| limits.memory = None)),
        (Control::Memory, inside.clone(), around(|limits| limits.memory_and_swap = None)),
        (Control::Cpu, inside.clone(), around(|limits| limits.cpu_quota = Some(300_000))),
        (Control::Pids, inside.clone(), around(|limits| limits.pids = None)),
        (Control::Pids, Observed { cgroup: CgroupLimits::default(), ..inside.clone() }, outside.clone()),
    ] {
        let attestation = Attestation::compare(&spec, &wiring(), &inside, &outside);
        let differing: Vec<Control> = attestation
            .findings()
            .iter()
            .filter(|finding| finding.verdict == Verdict::Differs)
            .map(|finding| finding.control)
            .collect();
        assert_eq!(differing, [control], "{attestation:#?}");
        assert_eq!(attestation.verify().unwrap_err().kind(), ErrorKind::Attestation);
    }
}

#[test]
fn what_covers_the_workspace_must_be_there() {
    let (mut inside, mut outside) = honest();
    let spec = spec(&Policy::standard(), &[]);
    let cover = crate::Cover {
        source: "/srv/work/.vscode".into(),
        target: "/workspace/.vscode".into(),
        access: Access::ReadOnly,
    };
    let wiring = Wiring { covers: vec![cover], ..wiring() };
    assert!(Attestation::compare(&spec, &wiring, &inside, &outside).verify().is_err());
    let (target, source) = ("/workspace/.vscode".into(), "/srv/work/.vscode".into());
    outside.binds.as_mut().unwrap().push(Bind { target, source, writable: false });
    assert!(Attestation::compare(&spec, &wiring, &inside, &outside).verify().is_err());
    inside.mounts.push(mount("/workspace/.vscode", "ext4", false));
    assert!(Attestation::compare(&spec, &wiring, &inside, &outside).verify().is_err());
    inside.mounts.last_mut().unwrap().read_only = true;
    Attestation::compare(&spec, &wiring, &inside, &outside).verify().unwrap();
    let target: std::path::PathBuf = "/repository".into();
    let underlay = Some(crate::Underlay { source: "/srv/tree".into(), target: target.clone() });
    let over = Wiring { underlay, ..wiring.clone() };
    let holds = |inside: &Observed, outside: &EffectiveSettings| {
        Attestation::compare(&spec, &over, inside, outside).verify().is_ok()
    };
    outside.underlays = Some(vec![target]);
    assert!(!holds(&inside, &outside), "nothing is mounted");
    inside.mounts.push(mount("/repository", "overlay", false));
    assert!(holds(&inside, &outside));
    for (kind, read_only) in [("ext4", false), ("overlay", true)] {
        *inside.mounts.last_mut().unwrap() = mount("/repository", kind, read_only);
        assert!(!holds(&inside, &outside), "{kind}");
    }
    *inside.mounts.last_mut().unwrap() = mount("/repository", "overlay", false);
    assert!(Attestation::compare(&spec, &wiring, &inside, &outside).verify().is_err(), "nobody asked for it");
    for said in [None, Some(Vec::new())] {
        assert!(!holds(&inside, &EffectiveSettings { underlays: said, ..outside.clone() }));
    }
    inside.mounts.pop();
    let blank = crate::Blank { target: "/workspace/.git".into(), size: sandbox_policy::ByteSize::mib(1) };
    let wiring = Wiring { blanks: vec![blank], ..wiring };
    let holds = |inside: &Observed, outside: &EffectiveSettings| {
        Attestation::compare(&spec, &wiring, inside, outside).verify().is_ok()
    };
    assert!(!holds(&inside, &outside));
    inside.mounts.push(mount("/workspace/.git", "ext4", false));
    assert!(!holds(&inside, &outside), "the engine does not say whose it is");
    outside.blanks = Some(vec!["/workspace/.git".into()]);
    assert!(holds(&inside, &outside));
    inside.mounts.last_mut().unwrap().read_only = true;
    assert!(!holds(&inside, &outside));
    inside.mounts.pop();
    assert!(!holds(&inside, &outside));
}
