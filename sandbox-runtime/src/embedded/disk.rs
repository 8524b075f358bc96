//! A file system of an exact size for each container's own layer.
//!
//! One empty file system is made for each size and kept; a container gets a copy of the few kilobytes that are not a hole.
//! So the limit, of bytes and of inodes, is that of an ordinary full disk, which every program knows.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{SeekFrom, copy_file_range, seek};
use rustix::io::Errno;
use sandbox_core::{Error, ErrorKind, Result};

use super::removal::remove;
use super::store::{Store, unusable};

/// Makes a container's file system of a number of bytes.
pub(super) fn create(store: &Store, bytes: u64, path: &Path) -> Result<()> {
    let template = template(store, bytes)?;
    copy(&template, path).map_err(|error| unusable(path, error))
}

/// Finds or makes the empty file system of a size.
fn template(store: &Store, bytes: u64) -> Result<PathBuf> {
    let path = store.templates().join(format!("ext4-{FORM}-{bytes}"));
    if path.exists() {
        return Ok(path);
    }
    let fresh = store.temporary_path()?;
    let made = make(&fresh, bytes).and_then(|()| {
        // Whoever is quicker has made the same.
        std::fs::rename(&fresh, &path).map_err(|error| unusable(&path, error))
    });
    if made.is_err() {
        // What cannot be removed now is swept later.
        let _ = remove(&fresh);
    }
    made.map(|()| path)
}

fn make(path: &Path, bytes: u64) -> Result<()> {
    let file = File::create_new(path).map_err(|error| unusable(path, error))?;
    file.set_len(bytes).map_err(|error| unusable(path, error))?;
    let Some(program) = PROGRAMS.iter().find(|program| Path::new(program).exists()) else {
        return Err(Error::new(ErrorKind::Engine, "cannot make a file system: there is no mkfs.ext4").with_hint(HINT));
    };
    let output = Command::new(program)
        .args(["-q", "-F", "-m", "0", "-O", FEATURES, "-E", EXTENDED])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::io(format!("cannot run {program}"), error))?;
    if output.status.success() {
        return Ok(());
    }
    let said: String = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
    let said: String = said.chars().take(MAX_WORDS).collect();
    Err(Error::new(ErrorKind::InvalidInput, format!("limits.disk is {bytes} bytes, and mkfs.ext4 says: {said}"))
        .with_hint("a file system needs a mebibyte at least, and room for its tables in the state directory"))
}

/// Copies what is not a hole (lseek(2)).
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::open(from)?;
    let target = File::create_new(to)?;
    target.set_len(source.metadata()?.len())?;
    let mut at = 0;
    loop {
        let start = match seek(&source, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let end = seek(&source, SeekFrom::Hole(start))?;
        let (mut read_at, mut write_at) = (start, start);
        while read_at < end {
            let length = usize::try_from(end - read_at).unwrap_or(usize::MAX);
            if copy_file_range(&source, Some(&mut read_at), &target, Some(&mut write_at), length)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        at = end;
    }
}

/// Where the program is, on systems that keep it out of the ordinary search path.
pub(super) const PROGRAMS: [&str; 4] =
    ["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4", "/usr/bin/mkfs.ext4", "/bin/mkfs.ext4"];

/// Changes with what follows, so that an older version's file systems are not taken for this one's.
const FORM: u32 = 1;

/// No journal: what a sandbox writes does not outlive a crash (ext4(5)).
const FEATURES: &str = "^has_journal,^resize_inode";

/// Tables are written when they are first used, and lie together, so that little is to be copied (mke2fs(8)).
const EXTENDED: &str = "lazy_itable_init=1,nodiscard,packed_meta_blocks=1";

/// The most characters of another program's complaint.
const MAX_WORDS: usize = 500;

/// What to do without the program.
pub(super) const HINT: &str = "install e2fsprogs, which has mkfs.ext4; or waive disk";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_copy_is_as_large_and_takes_as_little() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (one, other) = (directory.path().join("one"), directory.path().join("other"));
        create(&store, 1 << 30, &one).unwrap();
        create(&store, 1 << 30, &other).unwrap();
        let data = std::fs::metadata(&one).unwrap();
        assert_eq!(data.len(), 1 << 30);
        assert!(data.blocks() * 512 < 4 << 20, "{} blocks", data.blocks());
        assert_eq!(std::fs::read_dir(store.templates()).unwrap().count(), 1);
        // The magic number of ext4(5) is in its place.
        let mut magic = [0; 2];
        std::os::unix::fs::FileExt::read_exact_at(&File::open(&other).unwrap(), &mut magic, 1024 + 56).unwrap();
        assert_eq!(magic, [0x53, 0xef]);
    }

    #[test]
    fn a_size_that_holds_no_file_system_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let error = create(&store, 4096, &directory.path().join("x")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert!(error.to_string().contains("limits.disk is 4096 bytes"), "{error}");
    }
}
