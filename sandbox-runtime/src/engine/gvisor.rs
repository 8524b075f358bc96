//! gVisor: a kernel of a container's own, between its programs and the host's (<https://gvisor.dev/docs/>).
//!
//! To the engine it is one more OCI runtime, `runsc`. It answers system calls itself, so what it shows inside is its own:
//! the control group around it is looked at from here, and of processes it keeps the count.

mod cgroup;

use bollard::models::SystemInfo;
use sandbox_core::FileSystem;
use sandbox_policy::{Capabilities, Control, Support};

use super::Product;
use super::probe::has_security_option;

pub(crate) use cgroup::limits_of;

/// gVisor, as an engine knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gvisor {
    product: Product,
    /// What the engine calls it, if it knows it.
    runtime: Option<String>,
    /// What the engine has it told each time, beside what it is told of a container.
    arguments: Vec<String>,
    /// Where the control group around a container cannot be read, the reason.
    out_of_sight: Option<&'static str>,
}

impl Gvisor {
    /// Looks for it among an engine's runtimes. Podman's service takes the same for all its containers, and lists some that it
    /// does not have.
    pub(super) fn find(product: Product, file_system: FileSystem, info: &SystemInfo) -> Self {
        let is_used = |name: &str| product == Product::Docker || info.default_runtime.as_deref() == Some(name);
        let runtimes = info.runtimes.iter().flatten().filter(|(name, _)| is_used(name));
        let found = runtimes
            .filter(|(name, runtime)| {
                let program = runtime.path.as_deref().and_then(|path| path.rsplit('/').next());
                name.as_str() == RUNSC || program == Some(RUNSC)
            })
            .min_by_key(|(name, _)| (name.as_str() != RUNSC, (*name).clone()));
        let out_of_sight = if file_system == FileSystem::Apart {
            Some("the control group around gVisor is on another machine, and none inside shows the limit")
        } else if has_security_option(info, "rootless") {
            Some("gVisor of a rootless engine does without control groups")
        } else {
            None
        };
        Self {
            product,
            runtime: found.map(|(name, _)| name.clone()),
            arguments: found.and_then(|(_, runtime)| runtime.runtime_args.clone()).unwrap_or_default(),
            out_of_sight,
        }
    }

    /// Returns the runtime's name; where the engine knows none, the usual one, which it then refuses.
    pub(super) fn runtime(&self) -> &str {
        self.runtime.as_deref().unwrap_or(RUNSC)
    }

    /// Reports on each control under gVisor, on an engine that enforces these without it.
    pub(super) fn capabilities(&self, engine: &Capabilities) -> Capabilities {
        let isolation = match &self.runtime {
            None => match self.product {
                Product::Docker => unsupported("the engine has no runtime runsc", INSTALL),
                Product::Podman => without(Product::Podman),
            },
            Some(name) => by(&format!("gVisor, the engine's runtime {name}")),
        };
        let seccomp = if self.is_told("oci-seccomp") {
            by("gVisor, which applies the profile to what runs inside")
        } else if self.product == Product::Podman {
            unsupported(
                "Podman does not say what it tells gVisor, which filters no system call of what runs inside unless it is told to",
                "use Docker with gVisor, or waive seccomp: gVisor's own kernel answers the calls",
            )
        } else {
            unsupported(
                "gVisor filters no system call of what runs inside unless it is told to",
                "add --oci-seccomp to runtimeArgs of runsc in the engine's daemon.json",
            )
        };
        let limit = |control: Control| match engine.get(control) {
            _ if self.is_told("ignore-cgroups") => unsupported(
                "gVisor is told to do without control groups",
                "take --ignore-cgroups out of runtimeArgs of runsc in the engine's daemon.json",
            ),
            Some(support @ Support::Unsupported { .. }) => support.clone(),
            _ => match self.out_of_sight {
                Some(why) => unsupported(why, "use Docker as root on this machine, or waive the limit"),
                None => by("the control group around gVisor, which ends with the sandbox where too much is taken"),
            },
        };
        let disk = unsupported(
            "gVisor keeps what is written in a file of its own, on which no quota has been seen to hold",
            "take a read-only root, beside which all is memory, or waive disk",
        );
        engine
            .clone()
            .with(Control::Isolation, isolation)
            .with(Control::Cpu, limit(Control::Cpu))
            .with(Control::Disk, disk)
            .with(Control::Memory, limit(Control::Memory))
            .with(Control::Pids, by("gVisor's own pids controller"))
            .with(Control::Seccomp, seccomp)
    }

    /// Whether it is told an option that is a switch.
    fn is_told(&self, option: &str) -> bool {
        let last = self.arguments.iter().rev().find_map(|argument| {
            let rest = argument.trim_start_matches('-').strip_prefix(option)?;
            if rest.is_empty() { Some("true") } else { rest.strip_prefix('=') }
        });
        matches!(last, Some("true" | "1" | "t"))
    }
}

/// What the engine is to allow the control group around gVisor, where so many processes are allowed inside: each is one of
/// the host's with a few threads, and gVisor has threads of its own. It is what stops gVisor itself.
pub(crate) fn processes_around(inside: u32) -> i64 {
    i64::from(inside).saturating_mul(PROCESSES_OUTSIDE).saturating_add(OWN_THREADS)
}

/// Says what an engine lacks whose sandboxes do not run on gVisor.
pub(super) fn without(product: Product) -> Support {
    match product {
        Product::Docker => unsupported(
            "the host's kernel answers the system calls of this runtime's sandboxes",
            "have them run on gVisor: `--isolation gvisor`, or `DockerRuntime::with_gvisor`",
        ),
        Product::Podman => unsupported(
            "the host's kernel answers the system calls of Podman's sandboxes, whose service takes one runtime for all of them",
            "start Podman's service with `runtime = \"runsc\"` below [engine] of its containers.conf, or use Docker with gVisor",
        ),
    }
}

fn by(what: &str) -> Support {
    Support::Enforced { by: what.to_owned() }
}

fn unsupported(why: &str, hint: &str) -> Support {
    Support::Unsupported { why: why.to_owned(), hint: hint.to_owned() }
}

/// What its program is called, and by its own documentation the engine's runtime too.
const RUNSC: &str = "runsc";
const INSTALL: &str = "install gVisor and name it among the engine's runtimes, as in \
                       https://gvisor.dev/docs/user_guide/quick_start/docker/";
const PROCESSES_OUTSIDE: i64 = 4;
const OWN_THREADS: i64 = 128;

#[cfg(test)]
mod tests {
    use bollard::models::Runtime;

    use super::*;

    fn info(runtimes: &[(&str, &str, &[&str])]) -> SystemInfo {
        let runtime = |(name, path, arguments): &(&str, &str, &[&str])| {
            let runtime_args = Some(arguments.iter().map(|argument| (*argument).to_owned()).collect());
            ((*name).to_owned(), Runtime { path: Some((*path).to_owned()), runtime_args, ..Default::default() })
        };
        SystemInfo { runtimes: Some(runtimes.iter().map(runtime).collect()), ..Default::default() }
    }

    fn engine() -> Capabilities {
        Control::ALL.iter().fold(Capabilities::new(), |all, control| all.with(*control, by("a test")))
    }

    fn lacking(gvisor: &Gvisor, engine: &Capabilities) -> Vec<Control> {
        let capabilities = gvisor.capabilities(engine);
        Control::ALL.iter().copied().filter(|control| !capabilities.is_enforced(*control)).collect()
    }

    fn find(file_system: FileSystem, runtimes: &[(&str, &str, &[&str])]) -> Gvisor {
        Gvisor::find(Product::Docker, file_system, &info(runtimes))
    }

    #[test]
    fn the_runtime_is_found_by_its_name_or_its_program() {
        for (runtimes, name) in [
            (&[("runc", "runc", &[][..]), ("runsc", "/opt/wrapper", &[])][..], Some("runsc")),
            (&[("gvisor", "/usr/local/bin/runsc", &[])], Some("gvisor")),
            (&[("a", "/x/runsc", &[]), ("runsc", "/y/runsc", &[])], Some("runsc")),
            (&[("runc", "runc", &[]), ("runsc-not", "/x/runsc2", &[])], None),
        ] {
            let found = find(FileSystem::Shared, runtimes);
            assert_eq!(found.runtime.as_deref(), name);
            assert_eq!(found.capabilities(&engine()).is_enforced(Control::Isolation), name.is_some());
        }
    }

    #[test]
    fn podmans_is_the_one_that_it_uses_for_all() {
        let lists = |default: &str| SystemInfo {
            default_runtime: Some(default.to_owned()),
            ..info(&[("runc", "/usr/bin/runc", &[]), ("runsc", "/usr/bin/runsc", &[])])
        };
        let lacks = |default| lacking(&Gvisor::find(Product::Podman, FileSystem::Shared, &lists(default)), &engine());
        assert_eq!(lacks("runsc"), [Control::Disk, Control::Seccomp]);
        assert_eq!(lacks("runc"), [Control::Disk, Control::Isolation, Control::Seccomp]);
    }

    #[test]
    fn only_what_it_is_told_to_do_is_reported() {
        use Control::{Cpu, Disk, Memory, Seccomp};

        let near = |arguments: &[&str]| lacking(&find(FileSystem::Shared, &[("runsc", "runsc", arguments)]), &engine());
        assert_eq!(near(&["--network=none", "--oci-seccomp"]), [Disk]);
        assert_eq!(near(&["-oci-seccomp=true"]), [Disk]);
        for arguments in
            [&[][..], &["--oci-seccomp=false"], &["--oci-seccomp", "--oci-seccomp=false"], &["--oci-seccompx"]]
        {
            assert_eq!(near(arguments), [Disk, Seccomp], "{arguments:?}");
        }
        assert_eq!(near(&["--oci-seccomp", "--ignore-cgroups"]), [Cpu, Disk, Memory]);
        let far = find(FileSystem::Apart, &[("runsc", "runsc", &["--oci-seccomp"])]);
        assert_eq!(lacking(&far, &engine()), [Cpu, Disk, Memory]);
    }

    #[test]
    fn what_the_engine_lacks_it_lacks_with_gvisor_too() {
        let lacks = engine().with(Control::Memory, unsupported("it is old", "renew it"));
        let gvisor = find(FileSystem::Shared, &[("runsc", "runsc", &["--oci-seccomp"])]);
        assert_eq!(lacking(&gvisor, &lacks), [Control::Disk, Control::Memory]);
    }
}
