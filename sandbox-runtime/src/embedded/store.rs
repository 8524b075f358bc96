//! Where the runtime keeps what outlives a call.
//!
//! ```text
//! STATE/               mode 0700, the caller's
//! STATE/images/ID/     an unpacked image, named by the digest of its archive
//! STATE/names/         which name means which image
//! STATE/templates/     empty file systems to copy
//! STATE/hosts/         the own files of the image `host`, each copy named by what it was made of
//! STATE/containers/NAME/record.json    a container
//! STATE/containers/NAME/scratch/       where its launch gathers the parts
//! STATE/tried/         what trials have shown, each named by what it depends on
//! STATE/temporary/     what is being made, each thing named by the process that makes it
//! ```

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sandbox_core::{ContainerId, Error, ErrorKind, Liveness, Owner, Result, SandboxId};

use super::removal::remove;

/// A directory of the runtime's own.
#[derive(Clone, Debug)]
pub(super) struct Store {
    root: PathBuf,
}

impl Store {
    /// Uses a directory, makes it if it is missing, and removes what killed processes were making in it.
    pub(super) fn open(root: &Path) -> Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(|error| unusable(root, error))?;
        // Mounting follows no link later, so it is followed now.
        let root = root.canonicalize().map_err(|error| unusable(root, error))?;
        let data = fs::symlink_metadata(&root).map_err(|error| unusable(&root, error))?;
        let user = rustix::process::geteuid().as_raw();
        if data.uid() != user || data.mode() & 0o022 != 0 {
            let message = format!("state directory {} is open to other users", root.display());
            return Err(Error::new(ErrorKind::Denied, message)
                .with_hint(format!("make it a directory of user {user} with mode 0700, or name another")));
        }
        let store = Self { root };
        for path in [
            store.images(),
            store.names(),
            store.templates(),
            store.hosts(),
            store.tried(),
            store.containers(),
            store.temporary(),
        ] {
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(unusable(&path, error)),
                _ => {}
            }
        }
        store.sweep()?;
        Ok(store)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(super) fn names(&self) -> PathBuf {
        self.root.join("names")
    }

    pub(super) fn templates(&self) -> PathBuf {
        self.root.join("templates")
    }

    pub(super) fn hosts(&self) -> PathBuf {
        self.root.join("hosts")
    }

    pub(super) fn tried(&self) -> PathBuf {
        self.root.join("tried")
    }

    pub(super) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// The directory of a container, whose id must be a name that this runtime gives.
    pub(super) fn container(&self, id: &ContainerId) -> Result<(SandboxId, PathBuf)> {
        let sandbox = id.as_str().strip_prefix(PREFIX).and_then(|name| name.parse().ok());
        let Some(sandbox) = sandbox else {
            let shown: String = id.as_str().chars().take(80).collect();
            let message = format!("container {shown:?} is not {PREFIX} and 32 lowercase hexadecimal digits");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        };
        Ok((sandbox, self.containers().join(id.as_str())))
    }

    fn temporary(&self) -> PathBuf {
        self.root.join("temporary")
    }

    /// Names a thing that this process is about to make; it is renamed into place or removed.
    pub(super) fn temporary_path(&self) -> Result<PathBuf> {
        Ok(self.temporary().join(format!("{} {}", Owner::current()?, SandboxId::random()?)))
    }

    fn sweep(&self) -> Result<()> {
        let temporary = self.temporary();
        let lock = fs::File::open(&temporary).map_err(|error| unusable(&temporary, error))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            // Another is at it.
            Err(Errno::WOULDBLOCK) => return Ok(()),
            Err(error) => return Err(unusable(&temporary, error.into())),
        }
        for entry in fs::read_dir(&temporary).map_err(|error| unusable(&temporary, error))? {
            let entry = entry.map_err(|error| unusable(&temporary, error))?;
            let name = entry.file_name();
            let owner = name.to_str().and_then(|name| name.rsplit_once(' ')?.0.parse::<Owner>().ok());
            if owner.is_some_and(|owner| owner.liveness() == Liveness::Gone) {
                remove(&entry.path()).map_err(|error| unusable(&entry.path(), error))?;
            }
        }
        Ok(())
    }
}

/// A path of the store that cannot be used.
pub(super) fn unusable(path: &Path, error: io::Error) -> Error {
    Error::io(format!("cannot use {}", path.display()), error)
}

/// What every container's name starts with.
pub(super) const PREFIX: &str = "sandbox-";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_container_is_named_by_its_sandbox_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("state")).unwrap();
        let id = SandboxId::random().unwrap();
        assert_eq!(store.container(&ContainerId::new(format!("sandbox-{id}"))).unwrap().0, id);
        for name in ["", "..", "sandbox-", "sandbox-../../etc", "x"] {
            let error = store.container(&ContainerId::new(name)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
        }
    }

    #[test]
    fn what_a_killed_process_was_making_is_swept_and_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let mine = store.temporary_path().unwrap();
        fs::create_dir(&mine).unwrap();
        let me = Owner::current().unwrap();
        let dead = store.temporary().join(format!("{} x", Owner { start: me.start + 1, ..me }));
        fs::create_dir_all(dead.join("deep")).unwrap();
        Store::open(directory.path()).unwrap();
        assert!(mine.exists() && !dead.exists());
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(Store::open(directory.path()).unwrap_err().kind(), ErrorKind::Denied);
    }
}
