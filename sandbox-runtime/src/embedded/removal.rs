//! Removes a tree that a sandbox wrote: of any depth, and with whatever permissions it left.
//!
//! Each directory is moved to the top before it is emptied, so neither the stack nor a path nor the number of open
//! descriptors grows with the depth. Nothing is followed, and who wrote the tree has ended.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

/// Removes a file or a tree; what is not there is as good.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => empty(path).and_then(|()| fs::remove_dir(path)),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn empty(path: &Path) -> io::Result<()> {
    let top = open(&openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?, c".")?;
    // A name that is longer than any of these is not theirs, and one that is theirs is taken by nobody else.
    let mut moved = 0_u64;
    loop {
        let names = sort_out(&top)?;
        if names.is_empty() {
            return Ok(());
        }
        for name in names {
            let directory = open(&top, &name)?;
            for inner in sort_out(&directory)? {
                renameat_fresh(&directory, &inner, &top, &mut moved)?;
            }
            drop(directory);
            unlinkat(&top, name, AtFlags::REMOVEDIR)?;
        }
    }
}

/// Removes all that is no directory, and names the directories, which can be used from then on.
fn sort_out(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut directories = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => FileType::from_raw_mode(statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode),
            kind => kind,
        };
        if kind == FileType::Directory {
            chmodat(directory, name, Mode::RWXU, AtFlags::empty())?;
            directories.push(name.to_owned());
        } else {
            match unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(directories)
}

/// Moves a directory to the top, under a name that nothing has there.
fn renameat_fresh(from: &OwnedFd, name: &CString, top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        let fresh = format!(".removed-{moved}");
        *moved += 1;
        match statat(top, &fresh, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(renameat(from, name, top, &fresh)?),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn open(parent: &OwnedFd, name: &std::ffi::CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent.as_fd(), name, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn depth_and_permissions_keep_nothing() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "x").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("shut/within")).unwrap();
        fs::create_dir(tree.join(".removed-0")).unwrap();
        symlink(outside.path(), tree.join("shut/link")).unwrap();
        fs::write(tree.join("file"), "x").unwrap();
        fs::set_permissions(tree.join("shut"), fs::Permissions::from_mode(0o000)).unwrap();
        // Deeper than any path can be long.
        let mut at: OwnedFd = fs::File::open(&tree).unwrap().into();
        for _ in 0..5_000 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open(&at, c"d").unwrap();
        }
        remove(&tree).unwrap();
        assert!(!tree.exists());
        assert!(outside.path().join("kept").exists());
        remove(&tree).unwrap();
    }
}
