//! Making a container, which does not run yet.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use sandbox_core::{ContainerId, Error, ErrorKind, Result, Underlay, Wiring};
use sandbox_guest::wire::GUEST_DIRECTORY;
use sandbox_policy::{Access, Control, RootFilesystem, SandboxSpec, Workspace, WorkspaceSource};

use super::Machine;
use super::cgroups::Ceilings;
use super::disk;
use super::gvisor::{Gvisor, KEPT};
use super::identities::Ids;
use super::launch::{DISK, LAYER, SCRATCH};
use super::record::{Mount, Record, VERSION};
use super::removal::remove;
use super::store::unusable;
use crate::engine::processes_around;

impl Machine {
    /// Makes a container of a specification.
    pub(super) fn create(&self, spec: &SandboxSpec, wiring: &Wiring, gvisor: Option<&Gvisor>) -> Result<ContainerId> {
        let id = ContainerId::new(wiring.container_name());
        let (_, directory) = self.store.container(&id)?;
        let record = Record { gvisor: gvisor.map(|gvisor| gvisor.program().to_owned()), ..self.record(spec, wiring)? };
        let fresh = self.store.temporary_path()?;
        let made = lay_out(&fresh, &record).and_then(|()| {
            // From here on, the container can be found by its name.
            fs::rename(&fresh, &directory).map_err(|error| match error.kind() {
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
                    Error::new(ErrorKind::Engine, format!("container {id} exists already"))
                }
                _ => unusable(&directory, error),
            })
        });
        if let Err(error) = made {
            // What cannot be removed now is swept later.
            let _ = remove(&fresh);
            return Err(error);
        }
        let processes = spec.limits().processes.get();
        let ceilings = Ceilings {
            memory: Some(spec.limits().memory.bytes()),
            memory_and_swap: None,
            milli_cpus: Some(spec.limits().cpus.millis().into()),
            pids: Some(match gvisor {
                Some(_) => processes_around(processes).unsigned_abs(),
                None => processes.into(),
            }),
        };
        if gvisor.is_some() {
            make(&directory.join(KEPT))?;
        }
        self.cgroups.create(id.as_str(), &ceilings).map_err(|(_, error)| error)?;
        match (record.disk, self.ids) {
            (Some(bytes), Ids::Range { .. }) => disk::create(&self.store, bytes, &directory.join(DISK))?,
            // It lies in memory, and its launch makes it.
            (Some(_), Ids::Own { .. }) => {}
            (None, _) => make(&directory.join(LAYER))?,
        }
        Ok(id)
    }

    fn record(&self, spec: &SandboxSpec, wiring: &Wiring) -> Result<Record> {
        let agent = wiring.agent.ids().ok_or_else(|| {
            let image = &wiring.image.reference;
            Error::new(
                ErrorKind::ImageInvalid,
                format!("image {image} names a user whom its /etc/passwd does not know"),
            )
            .with_hint("name the user that the agent runs as (`--user`, `SandboxBuilder::agent`)")
        })?;
        let agent = (agent.uid(), agent.gid());
        let image = self.image(&wiring.image, agent)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut binds =
            vec![mount("run directory", &wiring.guest_directory, Path::new(GUEST_DIRECTORY), Access::ReadOnly)?];
        if let Some(Workspace { source: WorkspaceSource::Bind { host, access }, guest }) = spec.workspace() {
            let mut workspace = mount("workspace", host.as_path(), guest.as_path(), *access)?;
            workspace.owner = match self.ids {
                // The caller's files are the agent's already.
                Ids::Own { .. } => None,
                Ids::Range { .. } => owner_of(host.as_path())?,
            };
            let owner = workspace.owner;
            binds.push(workspace);
            for cover in &wiring.covers {
                binds.push(Mount { owner, ..mount("workspace", &cover.source, &cover.target, cover.access)? });
            }
        }
        let underlays = wiring.underlay.iter().map(|Underlay { source, target }| {
            let owner = match self.ids {
                Ids::Own { .. } => None,
                // Nothing is written to it, so that root's may be the agent's.
                Ids::Range { .. } => {
                    let data = fs::metadata(source).map_err(|error| unusable(source, error))?;
                    Some((data.uid(), data.gid()))
                }
            };
            Ok(Mount { owner, ..mount("workspace", source, target, Access::ReadWrite)? })
        });
        let is_limited = match self.ids {
            // What lies in memory is less room than a disk has: whoever waives the limit has the disk.
            Ids::Own { .. } => spec.required().contains(&Control::Disk),
            Ids::Range { .. } => self.capabilities.is_enforced(Control::Disk),
        };
        Ok(Record {
            version: VERSION,
            sandbox: wiring.sandbox,
            owner: wiring.owner.to_string(),
            image: wiring.image.reference.to_string(),
            created: i64::try_from(now).unwrap_or(i64::MAX),
            rootfs: image.rootfs,
            trees: image.trees,
            environment: image.environment,
            agent,
            writable: spec.root() == RootFilesystem::Writable,
            capabilities: spec.capabilities().iter().fold(0, |bits, capability| bits | 1 << capability.number()),
            open_files: spec.limits().open_files.get().into(),
            disk: is_limited.then(|| spec.limits().disk.bytes()),
            cgroups: self.cgroups.groups(&wiring.container_name()),
            tmpfs: spec.tmpfs().iter().map(|tmpfs| (tmpfs.path.to_string(), tmpfs.size.bytes())).collect(),
            binds,
            underlays: underlays.collect::<Result<_>>()?,
            blanks: wiring.blanks.iter().map(|blank| blank.target.clone()).collect(),
            gvisor: None,
            first: None,
            loop_device: None,
        })
    }
}

fn lay_out(directory: &Path, record: &Record) -> Result<()> {
    make(directory)?;
    make(&directory.join(SCRATCH))?;
    record.write(directory)
}

fn make(path: &Path) -> Result<()> {
    DirBuilder::new().mode(0o700).create(path).map_err(|error| unusable(path, error))
}

fn mount(what: &str, source: &Path, target: &Path, access: Access) -> Result<Mount> {
    let resolved = source
        .canonicalize()
        .map_err(|error| Error::io(format!("cannot find the {what} {}", source.display()), error))?;
    Ok(Mount {
        source: source.to_owned(),
        resolved,
        target: target.to_owned(),
        writable: access == Access::ReadWrite,
        owner: None,
    })
}

/// Whose files the agent's are to be: those of the workspace's owner, but for root's (see [`Ids::ownership`]). A group of root's is
/// none of theirs.
fn owner_of(workspace: &Path) -> Result<Option<(u32, u32)>> {
    let data = fs::metadata(workspace)
        .map_err(|error| Error::io(format!("cannot look at the workspace {}", workspace.display()), error))?;
    let group = if data.gid() == 0 { data.uid() } else { data.gid() };
    Ok((data.uid() != 0).then_some((data.uid(), group)))
}
