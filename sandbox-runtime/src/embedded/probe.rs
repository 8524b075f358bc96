//! What can be enforced on this machine, found out by doing it once.
//!
//! Invariant: a control is reported as enforced only if a container was made with it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use sandbox_core::{ContainerId, Error, ErrorKind, Owner, Result, RuntimeInfo, SandboxId};
use sandbox_guest::launch::Step;
use sandbox_guest::wire::{GUEST_DIRECTORY, GUEST_PROGRAM};
use sandbox_policy::{Capabilities, Control, LinuxCapability, Support};

use super::cgroups::{Ceilings, Cgroups};
use super::host::HostImage;
use super::identities::{Ids, other_groups};
use super::launch::{DISK, LAYER, Launcher, SCRATCH};
use super::process::Process;
use super::record::{Mount, Record, VERSION};
use super::store::Store;
use super::tried::{self, Circumstances, Lacking};
use super::{Machine, Trial, disk, filter};

/// Makes a container with everything, and then without what turned out not to be had; or remembers that.
pub(super) fn probe(store: Store, ids: Ids, program: &[u8], trial: Trial) -> Result<Machine> {
    let launcher = Launcher::new(program, filter::programs()?, ids)?;
    let every_cgroup = Cgroups::discover()?;
    let mut lacking = Capabilities::new();
    for control in LIMITS.into_iter().filter(|control| every_cgroup.lacks(*control)) {
        lacking = lacking.with(control, unsupported("no control group limits it", CGROUP_HINT));
    }
    if let Ids::Own { .. } = ids {
        lacking = lacking
            .with(Control::Sudo, unsupported("there is no root inside a sandbox of an ordinary user", ROOT_HINT));
        let others = other_groups();
        if others > 0 {
            let why = format!("the caller's {others} other groups cannot be given up without privilege");
            lacking = lacking.with(Control::AgentUser, unsupported(&why, ROOT_HINT));
        }
    }
    let info = info(&store, ids);
    let circumstances = Circumstances::here(&store, ids, &every_cgroup)?;
    let mut machine = Machine {
        circumstances,
        store,
        ids,
        info,
        launcher,
        host: HostImage::default(),
        cgroups: every_cgroup.clone(),
        every_cgroup,
        capabilities: Capabilities::new(),
    };
    let remembered = match trial {
        Trial::Anew => None,
        Trial::Remembered => tried::recall(&machine.store, &machine.circumstances),
    };
    if let Some(lacks) = remembered {
        machine.learn(&lacks, &mut lacking);
        return Ok(machine);
    }
    let mut found = Vec::new();
    loop {
        machine.learn(&found, &mut lacking);
        let Err(Lack { controls, error }) = attempt_once(&machine, program) else {
            tried::remember(&machine.store, &machine.circumstances, &found);
            return Ok(machine);
        };
        let fresh: Vec<Control> =
            controls.into_iter().filter(|control| machine.capabilities.is_enforced(*control)).collect();
        if fresh.is_empty() {
            return Err(unavailable(error));
        }
        let hint = error.hint().unwrap_or(CGROUP_HINT);
        let lack = |control| Lacking { control, why: chain(&error), hint: hint.to_owned() };
        found.extend(fresh.into_iter().map(lack));
    }
}

impl Machine {
    /// Does without what a trial has shown not to be had.
    fn learn(&mut self, lacks: &[Lacking], lacking: &mut Capabilities) {
        for Lacking { control, why, hint } in lacks {
            *lacking = lacking.clone().with(*control, unsupported(why, hint));
            self.cgroups = self.cgroups.clone().without(*control);
        }
        self.capabilities = capabilities(&self.cgroups, self.ids).join(lacking);
    }
}

fn info(store: &Store, ids: Ids) -> RuntimeInfo {
    let root = ids.root();
    RuntimeInfo {
        name: "embedded".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: rustix::system::uname().release().to_string_lossy().into_owned(),
        endpoint: store.root().display().to_string(),
        root_uid: root.0,
        root_gid: root.1,
    }
}

/// What holds where a container can be made at all, and the limits that are not known to be missing.
fn capabilities(cgroups: &Cgroups, ids: Ids) -> Capabilities {
    let by = |by: &str| Support::Enforced { by: by.to_owned() };
    let outside = match ids {
        Ids::Own { caller } => format!("user namespace, the agent is user {} outside and there is no root", caller.uid),
        Ids::Range { first } => format!("user namespace, root inside is user {first} outside"),
    };
    let disk = match ids {
        Ids::Range { .. } => by("an ext4 file system of its own"),
        Ids::Own { .. } if cgroups.lacks(Control::Memory) => {
            unsupported("without root it would lie in memory, which nothing limits here", CGROUP_HINT)
        }
        Ids::Own { .. } => by("a file system in memory, which counts as the sandbox's"),
    };
    LIMITS.into_iter().fold(
        Capabilities::new()
            .with(Control::CapabilityDrop, by("capability sets"))
            .with(Control::Disk, disk)
            .with(Control::HostFilesystem, by("mount namespace"))
            .with(
                Control::Isolation,
                unsupported(
                    "the host's kernel answers the system calls of this runtime's sandboxes",
                    "as root, install gVisor's runsc on the PATH and say `--isolation gvisor` (`EmbeddedRuntime::with_gvisor`)",
                ),
            )
            .with(Control::NoNetwork, by("network namespace with nothing but lo"))
            .with(Control::NoNewPrivileges, by("no_new_privs"))
            .with(Control::ReadonlyRootfs, by("read-only mount"))
            .with(Control::Seccomp, by("seccomp"))
            .with(Control::UserNamespace, by(&outside)),
        |all, control| all.with(control, by(&cgroups.enforcer(control))),
    )
}

/// What a trial could not do, and for which controls that matters.
struct Lack {
    controls: Vec<Control>,
    error: Error,
}

impl Lack {
    fn of(controls: &[Control]) -> impl FnOnce(Error) -> Self {
        move |error| Self { controls: controls.to_vec(), error }
    }
}

/// Makes a container of nothing but the guest, which ends at once since nobody listens for it.
fn attempt_once(machine: &Machine, program: &[u8]) -> Result<(), Lack> {
    let id = ContainerId::new(format!("sandbox-{}", SandboxId::random().map_err(Lack::of(&[]))?));
    let tried = attempt(machine, program, &id);
    let removed = machine.delete(&id).map_err(Lack::of(&[]));
    tried.and(removed)
}

fn attempt(machine: &Machine, program: &[u8], id: &ContainerId) -> Result<(), Lack> {
    let (sandbox, directory) = machine.store.container(id).map_err(Lack::of(&[]))?;
    let image = directory.join("image");
    let own = |error: io::Error| Lack::of(&[])(Error::io("cannot use the state directory", error));
    let make = |path: &Path| DirBuilder::new().mode(0o700).create(path);
    make(&directory).map_err(own)?;
    for name in [SCRATCH, LAYER] {
        make(&directory.join(name)).map_err(own)?;
    }
    let place = image.join(GUEST_DIRECTORY.trim_start_matches('/'));
    DirBuilder::new().recursive(true).mode(0o755).create(&place).map_err(own)?;
    fs::write(place.join(GUEST_PROGRAM), program).map_err(own)?;
    fs::set_permissions(place.join(GUEST_PROGRAM), fs::Permissions::from_mode(0o755)).map_err(own)?;
    // The workspace's way of mapping an owner is tried as well.
    let shown = directory.join("shown");
    make(&shown).map_err(own)?;
    let owner = Owner::current().map_err(Lack::of(&[]))?.to_string();
    let record = Record {
        version: VERSION,
        sandbox,
        owner,
        image: String::new(),
        created: 0,
        rootfs: image,
        trees: Vec::new(),
        underlays: Vec::new(),
        environment: Vec::new(),
        agent: (1_000, 1_000),
        writable: false,
        capabilities: LinuxCapability::ALL.iter().fold(0, |bits, capability| bits | 1 << capability.number()),
        open_files: 64,
        disk: machine.capabilities.is_enforced(Control::Disk).then_some(TRIAL_DISK),
        cgroups: machine.cgroups.groups(id.as_str()),
        tmpfs: vec![("/tmp".to_owned(), 1 << 20)],
        binds: vec![Mount {
            source: shown.clone(),
            resolved: shown,
            target: "/shown".into(),
            writable: true,
            owner: matches!(machine.ids, Ids::Range { .. }).then_some((1, 1)),
        }],
        blanks: vec!["/blank".into()],
        gvisor: None,
        first: None,
        loop_device: None,
    };
    record.write(&directory).map_err(Lack::of(&[]))?;
    let ceilings = Ceilings { memory: Some(64 << 20), memory_and_swap: None, milli_cpus: Some(1_000), pids: Some(8) };
    machine
        .cgroups
        .create(id.as_str(), &ceilings)
        .map_err(|(control, error)| Lack { controls: vec![control], error })?;
    if let (Some(bytes), Ids::Range { .. }) = (record.disk, machine.ids) {
        disk::create(&machine.store, bytes, &directory.join(DISK)).map_err(Lack::of(&[Control::Disk]))?;
    }
    let started = machine.launcher.launch(&machine.launcher.request(&record, &directory), None).map_err(|failure| {
        let controls: &[Control] = match failure.step {
            Some(Step::Cgroup) => &LIMITS,
            Some(Step::Layer) => &[Control::Disk],
            _ => &[],
        };
        Lack::of(controls)(failure.error)
    })?;
    // It may have ended already; if not, it is to be found.
    let first = Process::find(started.pid).map_err(own)?;
    Record { first, loop_device: started.loop_device, ..record }.write(&directory).map_err(Lack::of(&[]))
}

pub(super) fn unsupported(why: &str, hint: &str) -> Support {
    Support::Unsupported { why: why.to_owned(), hint: hint.to_owned() }
}

/// An error and its causes, in one line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn unavailable(error: Error) -> Error {
    let hint = error.hint().map(str::to_owned);
    let unavailable = Error::new(ErrorKind::EngineUnavailable, "this machine cannot make containers without an engine")
        .with_source(error);
    match hint {
        Some(hint) => unavailable.with_hint(hint),
        None => unavailable,
    }
}

/// What control groups limit.
const LIMITS: [Control; 3] = [Control::Cpu, Control::Memory, Control::Pids];

/// Bytes of the file system of a trial.
const TRIAL_DISK: u64 = 16 << 20;

/// What to do where privilege is missing.
const ROOT_HINT: &str = "run as root, or waive the control";

/// What to do where a limit cannot be set.
const CGROUP_HINT: &str = "boot a kernel with that controller, run as root, or have a group `sandbox-UID` of each controller given to this user";
