//! What the files that are copied from `/etc` are, by their status alone: whoever finds the same again has the same files.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use sandbox_core::{Owner, SandboxId};
use sha2::{Digest as _, Sha256};

use super::super::images::hexadecimal;
use super::{COPIED, MAX_ENTRIES, TREES, prefixed, shell};

/// A list of files with their status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inventory(Vec<String>);

impl Inventory {
    /// Looks at every file that a copy for an agent is made of.
    pub(super) fn take((uid, gid): (u32, u32)) -> io::Result<Self> {
        let boot = Owner::current().map_err(io::Error::other)?.boot;
        let mut list = List { lines: Vec::new(), newest: 0 };
        for name in COPIED.map(OsStr::new).into_iter().chain(prefixed()?.iter().map(AsRef::as_ref)) {
            list.add(&Path::new("/etc").join(name))?;
        }
        for tree in TREES {
            list.add_one(Path::new(tree))?;
        }
        let List { mut lines, newest } = list;
        // A directory tells its names in no order.
        lines.sort_unstable();
        // Of an earlier boot, what was written may not have reached the disk.
        lines.push(format!("form {FORM}, boot {boot}, agent {uid}:{gid}, shell {}", shell()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        if !is_settled(newest, i64::try_from(now).unwrap_or(i64::MAX)) {
            // What changed just now may change again within one tick of the clock, so that nothing would tell.
            lines.push(SandboxId::random().map_err(io::Error::other)?.to_string());
        }
        Ok(Self(lines))
    }

    /// Names what it lists.
    pub(super) fn name(&self) -> String {
        let mut hash = Sha256::new();
        for line in &self.0 {
            // No path holds a zero.
            hash.update(line);
            hash.update([0]);
        }
        hexadecimal(&hash.finalize())
    }
}

/// Whether a file that changes from now on has another time than the newest of all.
fn is_settled(newest: i64, now: i64) -> bool {
    newest.saturating_add(SETTLED) < now
}

/// What was found so far.
struct List {
    lines: Vec<String>,
    /// The latest change of any file, in seconds since 1970.
    newest: i64,
}

impl List {
    /// Adds a file, or a directory and all that is below it; a link is not followed.
    fn add(&mut self, path: &Path) -> io::Result<()> {
        if self.lines.len() > MAX_ENTRIES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if self.add_one(path)? {
            match fs::read_dir(path) {
                Ok(entries) => {
                    for entry in entries {
                        self.add(&entry?.path())?;
                    }
                }
                // What cannot be listed is not copied either.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Adds one file, and says whether it is a directory.
    fn add_one(&mut self, path: &Path) -> io::Result<bool> {
        let data = match fs::symlink_metadata(path) {
            Ok(data) => data,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        self.newest = self.newest.max(data.ctime());
        let mut line = String::new();
        // Nothing fails that writes to memory.
        let _ = write!(
            line,
            "{} {} {} {:o} {} {}.{} {}.{}",
            path.as_os_str().as_encoded_bytes().escape_ascii(),
            data.dev(),
            data.ino(),
            data.mode(),
            data.size(),
            data.mtime(),
            data.mtime_nsec(),
            data.ctime(),
            data.ctime_nsec(),
        );
        self.lines.push(line);
        Ok(data.is_dir())
    }
}

/// Changes with how a copy is made.
const FORM: u32 = 1;

/// Seconds after which a file's times tell of any further change; the coarsest clock of a file system counts two.
const SETTLED: i64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn list(path: &Path) -> Vec<String> {
        let mut list = List { lines: Vec::new(), newest: 0 };
        list.add(path).unwrap();
        list.lines.sort_unstable();
        list.lines
    }

    #[test]
    fn each_change_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("below/file");
        fs::create_dir(directory.path().join("below")).unwrap();
        fs::write(&file, "one").unwrap();
        std::os::unix::fs::symlink("one", directory.path().join("link")).unwrap();
        let mut seen = vec![list(directory.path())];
        assert_eq!(list(directory.path()), seen[0]);
        let mut change = |what: &str, work: &dyn Fn()| {
            work();
            let now = list(directory.path());
            assert!(seen.iter().all(|before| *before != now), "{what}");
            seen.push(now);
        };
        change("another content of another length", &|| fs::write(&file, "three").unwrap());
        change("a replaced file", &|| {
            fs::write(directory.path().join("below/fresh"), "three").unwrap();
            fs::rename(directory.path().join("below/fresh"), &file).unwrap();
        });
        change("a replaced link", &|| {
            fs::remove_file(directory.path().join("link")).unwrap();
            std::os::unix::fs::symlink("two", directory.path().join("link")).unwrap();
        });
        change("a new file", &|| fs::write(directory.path().join("new"), "").unwrap());
        change("a removed directory", &|| fs::remove_dir_all(directory.path().join("below")).unwrap());
        assert!(list(Path::new("/no/such/path")).is_empty());
    }

    #[test]
    fn what_changed_just_now_is_not_settled() {
        assert!(is_settled(100, 100 + SETTLED + 1) && !is_settled(100, 100 + SETTLED) && !is_settled(100, 90));
    }
}
