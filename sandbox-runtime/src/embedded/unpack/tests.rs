use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use tar::Builder;

use super::*;

/// An archive of headers and contents, with paths and links as given, however wrong.
struct Made(Builder<Vec<u8>>);

impl Made {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn add(mut self, path: &str, kind: EntryType, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o6755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(7);
        // The builder's own setters refuse what an attacker would write.
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.add(path, EntryType::Regular, "", content.as_bytes())
    }

    fn unpack(self, directory: &Path) -> Result<()> {
        unpack(self.0.into_inner().unwrap().as_slice(), directory, Owners::Caller, Whiteouts::Kept)
    }
}

#[test]
fn a_tree_comes_out_without_what_gives_privilege() {
    let root = tempfile::tempdir().unwrap();
    Made::new()
        .add("./", EntryType::Directory, "", b"")
        .add("usr/bin", EntryType::Directory, "", b"")
        .add("bin", EntryType::Symlink, "usr/bin", b"")
        .file("/bin/su", "program")
        .add("usr/bin/again", EntryType::Link, "usr/bin/su", b"")
        .add("dev/null", EntryType::Char, "", b"")
        .add("pipe", EntryType::Fifo, "", b"")
        .file("usr/bin/su", "other")
        .unpack(root.path())
        .unwrap();
    // Through the link, to where it leads inside.
    assert_eq!(fs::read(root.path().join("usr/bin/su")).unwrap(), b"other");
    // What was linked is not written through the other name.
    assert_eq!(fs::read(root.path().join("usr/bin/again")).unwrap(), b"program");
    let data = fs::metadata(root.path().join("usr/bin/su")).unwrap();
    assert_eq!((data.mode() & 0o7777, data.mtime()), (0o755, 7));
    assert!(!root.path().join("dev/null").exists() && !root.path().join("pipe").exists());
}

#[test]
fn nothing_outside_is_touched() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), "as it was").unwrap();
    let there = outside.path().to_str().unwrap();
    let root = tempfile::tempdir().unwrap();
    Made::new()
        .add("out", EntryType::Symlink, there, b"")
        .add("kept", EntryType::Symlink, &format!("{there}/kept"), b"")
        .file("kept", "mine")
        .add("up", EntryType::Symlink, "../../../../../..", b"")
        .file("up/made", "inside")
        .unpack(root.path())
        .unwrap();
    assert_eq!(fs::read(root.path().join("made")).unwrap(), b"inside");
    assert_eq!(fs::read(root.path().join("kept")).unwrap(), b"mine");
    // The link's target is looked for inside, and is not there.
    assert!(Made::new().file("out/new", "x").unpack(root.path()).is_err());
    let stolen = Made::new().add("stolen", EntryType::Link, "out/kept", b"").unpack(root.path());
    assert!(stolen.is_err());
    assert_eq!(fs::read(outside.path().join("kept")).unwrap(), b"as it was");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let root = tempfile::tempdir().unwrap();
    for (path, kind, link) in [
        ("../x", EntryType::Regular, ""),
        ("a/../../x", EntryType::Regular, ""),
        ("x", EntryType::Link, "../x"),
        ("x", EntryType::Symlink, ""),
    ] {
        let error = Made::new().add(path, kind, link, b"").unpack(root.path()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ImageInvalid | ErrorKind::NotFound), "{path} {link}: {error:?}");
    }
    let gzip = [0x1f, 0x8b, 8, 0].repeat(300);
    let error = unpack(gzip.as_slice(), root.path(), Owners::Caller, Whiteouts::Kept).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ImageInvalid, "{error:?}");
    // A directory's place may be taken by a link of an earlier entry, and then it is the directory that stays.
    symlink("/etc", root.path().join("etc")).unwrap();
    Made::new().add("etc", EntryType::Directory, "", b"").unpack(root.path()).unwrap();
    assert!(!fs::symlink_metadata(root.path().join("etc")).unwrap().is_symlink());
}

#[test]
fn a_layer_hides_what_is_below_and_not_its_own() {
    let root = tempfile::tempdir().unwrap();
    let layer = |made: Made| {
        let bytes = made.0.into_inner().unwrap();
        unpack(bytes.as_slice(), root.path(), Owners::Caller, Whiteouts::Applied).unwrap();
    };
    layer(
        Made::new()
            .file("a/old", "1")
            .file("a/deep/old", "1")
            .file("b/gone", "1")
            .file("b/stays", "1")
            .file("c/x", "1"),
    );
    layer(
        Made::new()
            .file("a/new", "2")
            .file("a/.wh..wh..opq", "")
            .file("b/.wh.gone", "")
            .file("b/.wh.never", "")
            .file("nowhere/.wh.x", "")
            .file("c", "a file now"),
    );
    let names = |path: &str| {
        let mut names: Vec<_> = fs::read_dir(root.path().join(path)).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(
        (names("a"), names("b"), names("")),
        (vec!["new".into()], vec!["stays".into()], vec!["a".into(), "b".into(), "c".into()])
    );
    // A whiteout that would climb is refused.
    let climbing = Made::new().file("b/.wh...", "").0.into_inner().unwrap();
    assert!(unpack(climbing.as_slice(), root.path(), Owners::Caller, Whiteouts::Applied).is_err());
}

#[test]
fn headers_without_an_end_are_refused_before_they_are_held() {
    let directory = tempfile::tempdir().unwrap();
    let long = vec![b'a'; 2 << 20];
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let error = Made::new().add("x", kind, "", &long).file("y", "content").unpack(directory.path()).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(
            error.kind() == ErrorKind::ImageInvalid && source.contains("headers of an entry"),
            "{kind:?}: {source}"
        );
    }
    // Content may be as large as it likes.
    let text = "x".repeat(3 << 20);
    Made::new().file("big", &text).file("next", "1").unpack(directory.path()).unwrap();
    assert_eq!(fs::read_to_string(directory.path().join("next")).unwrap(), "1");
}
