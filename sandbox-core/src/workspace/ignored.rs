//! What git leaves out of a directory, told by name alone (gitignore(5)), without git and also where there is no repository.

use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use sandbox_guest::tree::Candidate;

/// The lists that count at the place that is looked at.
#[derive(Debug)]
pub(super) struct Ignored {
    root: PathBuf,
    /// Those of the repository and of the directories above the root, the weakest first.
    above: Vec<Gitignore>,
    /// Those of the directories on the way, each with its path below the root.
    below: Vec<(Vec<u8>, Gitignore)>,
}

impl Ignored {
    /// Reads what lies above a directory, up to the root of the repository that it lies in.
    pub(super) fn around(root: &Path) -> Self {
        let repository = root.ancestors().position(|path| path.join(GIT).symlink_metadata().is_ok());
        let mut above: Vec<Gitignore> = Vec::new();
        let ancestors: Vec<&Path> = root.ancestors().take(repository.map_or(0, |above| above + 1)).collect();
        for (index, path) in ancestors.iter().rev().enumerate() {
            if index == 0 {
                above.push(read(CWD, &path.join(GIT).join("info/exclude"), path));
            }
            // The root's own is read on the way.
            if *path != root {
                above.push(read(CWD, &path.join(LIST), path));
            }
        }
        Self { root: root.to_owned(), above, below: Vec::new() }
    }

    /// Tells whether an entry is left out. Entries are asked for in the order of a walk.
    pub(super) fn holds(&mut self, entry: &Candidate<'_>) -> bool {
        let (parent, name) = match entry.path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&entry.path[..slash], &entry.path[slash + 1..]),
            None => (&b""[..], entry.path),
        };
        if name == GIT.as_bytes() {
            return true;
        }
        while let Some((path, _)) = self.below.last()
            && !is_in(parent, path)
        {
            self.below.pop();
        }
        if self.below.last().is_none_or(|(path, _)| path != parent) {
            let place = self.root.join(OsStr::from_bytes(parent));
            self.below.push((parent.to_owned(), read(entry.parent, Path::new(LIST), &place)));
        }
        let path = self.root.join(OsStr::from_bytes(entry.path));
        let lists = self.below.iter().rev().map(|(_, list)| list).chain(self.above.iter().rev());
        // The nearest list that says anything decides.
        let mut words = lists.map(|list| list.matched(&path, entry.kind == FileType::Directory));
        words.find(|word| !word.is_none()).is_some_and(|word| word.is_ignore())
    }
}

fn is_in(path: &[u8], directory: &[u8]) -> bool {
    directory.is_empty() || path.strip_prefix(directory).is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
}

/// Reads a list, whose patterns start at a place. One that is missing, too long, or no regular file, is empty, as for git; a
/// line that is no pattern is skipped.
fn read(parent: impl AsFd, path: &Path, place: &Path) -> Gitignore {
    let mut builder = GitignoreBuilder::new(place);
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let mut bytes = Vec::new();
    if let Ok(file) = openat(parent, path, flags, Mode::empty())
        && fstat(&file).is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::RegularFile)
        && std::fs::File::from(file).take(MAX_LIST).read_to_end(&mut bytes).is_ok()
    {
        let text = String::from_utf8_lossy(&bytes);
        for line in text.strip_prefix('\u{feff}').unwrap_or(&text).lines() {
            let _ = builder.add_line(None, line);
        }
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

const GIT: &str = ".git";
const LIST: &str = ".gitignore";
/// Bytes of a list that are read.
const MAX_LIST: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::os::fd::AsFd as _;

    use sandbox_guest::tree::{self, Limits};

    use super::*;

    fn copied(root: &Path) -> BTreeSet<Vec<u8>> {
        let target = tempfile::tempdir().unwrap();
        let mut stream = Vec::new();
        let mut ignored = Ignored::around(root);
        let mut all = BTreeSet::new();
        let source = fs::File::open(root).unwrap();
        tree::pack_selected(&source, &mut stream, &Limits::NONE, |entry| {
            let wanted = !ignored.holds(entry);
            if wanted && entry.kind != FileType::Directory {
                all.insert(entry.path.to_owned());
            }
            wanted
        })
        .unwrap();
        let target = fs::File::open(target.path()).unwrap();
        tree::unpack(&stream[..], target.as_fd(), &Limits::NONE).unwrap();
        all
    }

    fn write(root: &Path, files: &[(&[u8], &str)]) {
        for (path, content) in files {
            let path = root.join(OsStr::from_bytes(path));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    #[test]
    fn the_nearest_list_decides() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        write(
            root,
            &[
                (b".gitignore", ".env*\n*.log\n/build/\nsecret\n!keep.env\n"),
                (b".env", "SECRET=1"),
                (b".env.local", "SECRET=1"),
                (b"a/.env", "SECRET=1"),
                (b"a/.gitignore", "!b.log\nx\n"),
                (b"a/a.log", ""),
                (b"a/b.log", ""),
                (b"a/x", ""),
                (b"a/y", ""),
                (b"b/x", ""),
                (b"build/out", ""),
                (b"b/build/out", ""),
                (b".git/config", ""),
                (b"sub/.git", "gitdir: elsewhere"),
                (b"-n a\nb \xff", ""),
            ],
        );
        let expected: [&[u8]; 7] =
            [b".gitignore", b"a/.gitignore", b"a/b.log", b"a/y", b"b/x", b"b/build/out", b"-n a\nb \xff"];
        assert_eq!(copied(root), expected.iter().map(|path| path.to_vec()).collect());
    }

    #[test]
    fn lists_above_count_as_far_as_the_repository() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        write(
            root,
            &[
                (b".gitignore", "z\n"),
                (b"repo/.git/info/exclude", "mine\n"),
                (b"repo/.gitignore", "/sub/only\n.env\n"),
                (b"repo/sub/.env", ""),
                (b"repo/sub/mine", ""),
                (b"repo/sub/only", ""),
                (b"repo/sub/z", ""),
                (b"repo/sub/deep/only", ""),
            ],
        );
        assert_eq!(copied(&root.join("repo/sub")), [b"z".to_vec(), b"deep/only".to_vec()].into());
        assert!(copied(&root.join("repo/sub/deep")).contains(b"only".as_slice()));
    }

    #[test]
    fn a_list_that_is_a_link_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &[(b"list", "x\n"), (b"x", "")]);
        std::os::unix::fs::symlink("list", directory.path().join(".gitignore")).unwrap();
        assert!(copied(directory.path()).contains(b"x".as_slice()));
    }
}
