//! How much room mirrors take in all, and which of them go when it is too much.
//!
//! Each mirror notes its size when it has changed, so that nobody has to walk through all of them. Those that were used least lately go
//! first; one that is being fetched into, read, or lies below a workspace does not go. What goes is what takes room: the directory, its
//! lock and the number of its repository stay.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};

use super::checkout;
use super::mirror::{LOCK, failed};
use crate::{Error, ErrorKind, Result};

/// Notes that a mirror is about to change.
pub(super) fn forget_size(mirror: &Path) -> Result<()> {
    let removed = fs::remove_file(mirror.join(SIZE));
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(failed(error)) })
}

/// Removes mirrors until what is left takes no more room than is allowed. The caller holds the lock of its own one.
///
/// # Errors
/// `Exhausted` where those that cannot go are too much already.
pub(super) fn make(all: &Path, own: &Path, most: u64) -> Result<()> {
    let noted = own.join(SIZE);
    if !noted.exists() {
        fs::write(&noted, size(own).map_err(failed)?.to_string()).map_err(failed)?;
    }
    File::options()
        .write(true)
        .open(own.join(LOCK))
        .and_then(|lock| lock.set_modified(SystemTime::now()))
        .map_err(failed)?;
    let mut others: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
    let mut total = known(own)?;
    for entry in fs::read_dir(all).map_err(failed)? {
        let place = entry.map_err(failed)?.path();
        let Ok(lock) = place.join(LOCK).metadata() else { continue };
        if place != own {
            let bytes = known(&place)?;
            total = total.saturating_add(bytes);
            others.push((lock.modified().map_err(failed)?, bytes, place));
        }
    }
    others.sort();
    for (_, bytes, place) in others {
        if total <= most {
            return Ok(());
        }
        if evict(&place).map_err(failed)? {
            total = total.saturating_sub(bytes);
        }
    }
    if total <= most {
        return Ok(());
    }
    let message = format!("mirrors in {} take {total} bytes, and {most} are allowed", all.display());
    Err(Error::new(ErrorKind::Exhausted, message)
        .with_hint("the others are in use: wait for their sandboxes to end, have less of it cloned, or allow more"))
}

/// Removes what a mirror holds, unless somebody uses it.
fn evict(place: &Path) -> io::Result<bool> {
    let lock = File::open(place.join(LOCK))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(false);
    }
    // Nobody begins to use one who does not hold the mirror's lock.
    if checkout::any_in_use(place)? {
        return Ok(false);
    }
    for name in [SIZE, checkout::ALL, "repository.git", "new.git"] {
        let path = place.join(name);
        let removed = if name == SIZE { fs::remove_file(path) } else { fs::remove_dir_all(path) };
        removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    }
    Ok(true)
}

/// The size that a mirror has noted, or, while it changes, the one that it has.
fn known(place: &Path) -> Result<u64> {
    let noted = fs::read_to_string(place.join(SIZE)).ok().and_then(|text| text.parse().ok());
    noted.map_or_else(|| size(place).map_err(failed), Ok)
}

/// Bytes on the disk of all that lies below a directory. What vanishes meanwhile is not counted.
fn size(directory: &Path) -> io::Result<u64> {
    let mut total = 0_u64;
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(data) = entry.metadata() else { continue };
            total = total.saturating_add(data.blocks().saturating_mul(BLOCK));
            if data.is_dir() {
                left.push(entry.path());
            }
        }
    }
    Ok(total)
}

/// The file that holds a mirror's size in bytes, unless it is being changed.
const SIZE: &str = "size";
/// Bytes of a block, as stat(2) counts them.
const BLOCK: u64 = 512;
