//! Copies in the store, each held by whoever uses it: a shared lock on its directory keeps it from being removed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::super::removal::remove;
use super::super::store::Store;

/// A copy that is there for as long as this lives.
#[derive(Debug)]
pub(super) struct Copy {
    path: PathBuf,
    /// Holds the lock.
    _directory: File,
}

impl Copy {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Holds the copy of a name; `None` where there is none.
    pub(super) fn find(store: &Store, name: &str) -> io::Result<Option<Self>> {
        let path = store.hosts().join(name);
        let directory = match File::open(&path) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match flock(&directory, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {}
            // It is being removed.
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // Between the two it may have been.
        let held = directory.metadata()?;
        let is_there = fs::metadata(&path).is_ok_and(|found| (found.dev(), found.ino()) == (held.dev(), held.ino()));
        Ok(is_there.then_some(Self { path, _directory: directory }))
    }

    /// Gives a copy that was made aside its name, and removes old ones; `None` where another was quicker.
    pub(super) fn keep(store: &Store, fresh: &Path, name: &str) -> io::Result<Option<Self>> {
        let path = store.hosts().join(name);
        let directory = File::open(fresh)?;
        flock(&directory, FlockOperation::NonBlockingLockShared)?;
        match fs::rename(fresh, &path) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        sweep(store)?;
        Ok(Some(Self { path, _directory: directory }))
    }
}

/// Removes what nobody holds, but for the latest few.
fn sweep(store: &Store) -> io::Result<()> {
    let mut copies: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(store.hosts())? {
        let path = entry?.path();
        // Another may sweep as well.
        if let Ok(changed) = fs::metadata(&path).and_then(|data| data.modified()) {
            copies.push((changed, path));
        }
    }
    copies.sort_unstable_by(|one, other| other.cmp(one));
    for (_, path) in copies.into_iter().skip(MAX_KEPT) {
        let Ok(directory) = File::open(&path) else { continue };
        if flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        let aside = store.temporary_path().map_err(io::Error::other)?;
        // What is left of it is swept by the store.
        if fs::rename(&path, &aside).is_ok() {
            let _ = remove(&aside);
        }
    }
    Ok(())
}

/// How many copies are kept that nobody uses: agents of other numbers have others.
const MAX_KEPT: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_removed_once_nobody_holds_it_and_others_are_newer() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let keep = |name: &str, age: u64| {
            let fresh = store.temporary_path().unwrap();
            fs::create_dir(&fresh).unwrap();
            fs::write(fresh.join("file"), "").unwrap();
            File::open(&fresh).unwrap().set_modified(SystemTime::now() - std::time::Duration::from_secs(age)).unwrap();
            Copy::keep(&store, &fresh, name).unwrap()
        };
        let held = keep("held", 2_000).unwrap();
        drop(keep("old", 1_000).unwrap());
        for (age, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
            drop(keep(name, 100 - age as u64).unwrap());
        }
        assert!(Copy::find(&store, "old").unwrap().is_none(), "it is the oldest that nobody holds");
        assert!(held.path().join("file").exists());
        assert!(Copy::find(&store, "held").unwrap().is_some());
        assert!(keep("a", 1).is_none(), "another was quicker");
        drop(held);
        drop(keep("e", 0).unwrap());
        assert!(Copy::find(&store, "held").unwrap().is_none());
        assert_eq!(fs::read_dir(store.hosts()).unwrap().count(), MAX_KEPT);
    }
}
