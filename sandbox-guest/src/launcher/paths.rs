//! Finds places below a new root, and never beside it: the image may have put a link anywhere.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, unlinkat};
use rustix::io::Errno;

/// What follows links only within the root.
const WITHIN: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// What follows no link.
const PLAIN: ResolveFlags = WITHIN.union(ResolveFlags::NO_SYMLINKS);

/// Opens a place that exists, as a path only.
pub(super) fn find(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    openat2(root, relative(path), OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), PLAIN)
}

/// Opens a directory, and makes it and its parents where they are missing; links are followed within the root.
pub(super) fn directory(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    make(root, path, WITHIN)
}

/// As [`directory`], for the places on which programs rely: none may be reached by a link.
pub(super) fn plain_directory(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    make(root, path, PLAIN)
}

fn make(root: BorrowedFd<'_>, path: &[u8], resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let open =
        || openat2(root, relative(path), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), resolve);
    match open() {
        Err(Errno::NOENT) => {}
        found => return found,
    }
    let (parent, name) = split(path).ok_or(Errno::INVAL)?;
    let parent = make(root, parent, resolve)?;
    match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => open(),
        Err(error) => Err(error),
    }
}

/// Puts a file that all may read in the place of whatever bears its name.
pub(super) fn write_file(root: BorrowedFd<'_>, path: &[u8], content: &[u8]) -> io::Result<()> {
    let (parent, name) = split(path).ok_or(Errno::INVAL)?;
    let parent = directory(root, parent)?;
    // `openat` needs a descriptor that is more than a path only to read the directory, so this one will do.
    match unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(parent.as_fd(), name, flags, Mode::from_raw_mode(0o644))?;
    io::Write::write_all(&mut std::fs::File::from(file), content)
}

/// The part before the last name, and that name.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = path.iter().rposition(|&byte| byte == b'/')?;
    let (parent, name) = (&path[..at], &path[at + 1..]);
    (!matches!(name, b"" | b"." | b"..")).then_some((parent, name))
}

/// The path from the root, which has a name of its own.
fn relative(path: &[u8]) -> &[u8] {
    if path.is_empty() || path == b"/" { b"." } else { path }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn root(directory: &tempfile::TempDir) -> OwnedFd {
        fs::File::open(directory.path()).unwrap().into()
    }

    #[test]
    fn what_is_missing_is_made_and_links_stay_within() {
        let outside = tempfile::tempdir().unwrap();
        let inside = tempfile::tempdir().unwrap();
        symlink(outside.path(), inside.path().join("out")).unwrap();
        symlink("/real", inside.path().join("link")).unwrap();
        fs::create_dir(inside.path().join("real")).unwrap();
        let root = root(&inside);
        directory(root.as_fd(), b"/a/b/c").unwrap();
        assert!(inside.path().join("a/b/c").is_dir());
        directory(root.as_fd(), b"/link/x").unwrap();
        assert!(inside.path().join("real/x").is_dir());
        // The link's target is looked for below the root, where it does not exist.
        assert_eq!(directory(root.as_fd(), b"/out/x").unwrap_err(), Errno::NOENT);
        assert_eq!(plain_directory(root.as_fd(), b"/link").unwrap_err(), Errno::LOOP);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_takes_the_place_of_a_link() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "as it was").unwrap();
        let inside = tempfile::tempdir().unwrap();
        fs::create_dir(inside.path().join("etc")).unwrap();
        symlink(outside.path().join("kept"), inside.path().join("etc/hosts")).unwrap();
        let root = root(&inside);
        write_file(root.as_fd(), b"/etc/hosts", b"new").unwrap();
        assert_eq!(fs::read(inside.path().join("etc/hosts")).unwrap(), b"new");
        assert_eq!(fs::read(outside.path().join("kept")).unwrap(), b"as it was");
        assert!(write_file(root.as_fd(), b"/etc/..", b"x").is_err());
    }
}
