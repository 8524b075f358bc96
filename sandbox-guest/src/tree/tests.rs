use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

use super::format::{Header, Kind, MAGIC, Record, stays_inside, write_record};
use super::*;
use crate::wire::{SkipReason, Summary};

fn pack_of(root: &Path, limits: &Limits) -> io::Result<(Vec<u8>, Summary)> {
    let mut stream = Vec::new();
    let summary = pack(File::open(root).unwrap(), &mut stream, limits)?;
    Ok((stream, summary))
}

fn unpack_to(root: &Path, stream: &[u8], limits: &Limits) -> io::Result<Summary> {
    unpack(stream, File::open(root).unwrap().as_fd(), limits)
}

fn refused(stream: &[u8]) -> TreeErrorKind {
    let outer = TempDir::new().unwrap();
    let root = outer.path().join("root");
    fs::create_dir(&root).unwrap();
    let error = unpack_to(&root, stream, &Limits::NONE).unwrap_err();
    assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1, "something was made outside the root");
    TreeError::of(&error).unwrap().kind()
}

/// Kind and mode, time, and content.
type Seen = (u32, (i64, i64), Vec<u8>);

/// What a tree holds, by path.
fn picture(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut found = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let data = path.symlink_metadata().unwrap();
            let content = if data.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().as_bytes().to_vec()
            } else if data.is_dir() {
                left.push(path.clone());
                Vec::new()
            } else {
                fs::read(&path).unwrap()
            };
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            found.insert(name, (data.mode(), (data.mtime(), data.mtime_nsec()), content));
        }
    }
    found
}

fn stream(entries: &[(&[u8], Kind)]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (path, kind) in entries {
        let header = Header { path: path.to_vec(), kind: kind.clone(), mode: 0o755, modified: (1, 0) };
        write_record(&mut bytes, &Record::Entry(header)).unwrap();
        if let Kind::File { .. } = kind {
            bytes.extend([2, 0, 0, 0, b'h', b'i', 0, 0, 0, 0]);
        }
    }
    write_record(&mut bytes, &Record::End { entries: entries.len() as u64 }).unwrap();
    bytes
}

const FILE: Kind = Kind::File { size: 2 };

fn link(target: &str) -> Kind {
    Kind::Symlink { target: target.as_bytes().to_vec() }
}

#[test]
fn odd_names_modes_times_and_links_survive() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let odd = from.path().join(OsStr::from_bytes(b"-r\n\xff dir"));
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("run me"), vec![7; 700_000]).unwrap();
    fs::set_permissions(odd.join("run me"), fs::Permissions::from_mode(0o4751)).unwrap();
    symlink("run me", odd.join("inside")).unwrap();
    symlink("../empty", odd.join("beside")).unwrap();
    fs::create_dir(from.path().join("empty")).unwrap();
    fs::set_permissions(&odd, fs::Permissions::from_mode(0o550)).unwrap();
    File::open(&odd).unwrap().set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000, 5)).unwrap();
    let (bytes, sent) = pack_of(from.path(), &Limits::NONE).unwrap();
    let made = unpack_to(to.path(), &bytes, &Limits::NONE).unwrap();
    assert_eq!((sent.entries, sent.bytes, sent.skipped_entries), (5, 700_000, 0));
    assert_eq!((made.entries, made.bytes), (sent.entries, sent.bytes));
    let mut wanted = picture(from.path());
    wanted.get_mut(&b"-r\n\xff dir/run me"[..]).unwrap().0 &= !0o7000;
    assert_eq!(picture(to.path()), wanted);
    assert_eq!(pack_of(to.path(), &Limits::NONE).unwrap().0, bytes);
    for root in [from.path(), to.path()] {
        fs::set_permissions(root.join(OsStr::from_bytes(b"-r\n\xff dir")), fs::Permissions::from_mode(0o750)).unwrap();
    }
}

#[test]
fn what_cannot_travel_is_left_out_and_named() {
    let from = TempDir::new().unwrap();
    mknodat(CWD, from.path().join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    symlink("/etc/passwd", from.path().join("absolute")).unwrap();
    symlink("../outside", from.path().join("climbing")).unwrap();
    fs::write(from.path().join("good"), b"x").unwrap();
    let (_, summary) = pack_of(from.path(), &Limits::NONE).unwrap();
    let skipped: Vec<_> = summary.skipped.iter().map(|skipped| (skipped.path.as_slice(), skipped.why)).collect();
    assert_eq!(
        skipped,
        [
            (&b"absolute"[..], SkipReason::EscapingLink),
            (b"climbing", SkipReason::EscapingLink),
            (b"pipe", SkipReason::Special),
        ]
    );
    assert_eq!((summary.entries, summary.skipped_entries), (1, 3));
}

#[test]
fn a_summary_names_no_more_than_a_frame_holds() {
    let from = TempDir::new().unwrap();
    for n in 0..1000 {
        symlink("/", from.path().join(format!("{n:0>250}"))).unwrap();
    }
    let (_, summary) = pack_of(from.path(), &Limits::NONE).unwrap();
    assert_eq!((summary.skipped_entries, summary.skipped.len()), (1000, crate::wire::MAX_ENTRIES));
}

#[test]
fn one_file_is_a_tree_of_one_entry() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::write(from.path().join("one"), b"content").unwrap();
    let mut bytes = Vec::new();
    pack_file(b"one", File::open(from.path().join("one")).unwrap(), &mut bytes, &Limits::NONE).unwrap();
    unpack_to(to.path(), &bytes, &Limits::NONE).unwrap();
    assert_eq!(picture(to.path()), picture(from.path()));
    let error = pack_file(b"../one", File::open("/dev/null").unwrap(), Vec::new(), &Limits::NONE).unwrap_err();
    assert_eq!(TreeError::of(&error).unwrap().kind(), TreeErrorKind::BadPath);
}

#[test]
fn limits_hold_on_both_sides() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for name in ["a", "b", "c"] {
        fs::write(from.path().join(name), [0; 10]).unwrap();
    }
    let (bytes, _) = pack_of(from.path(), &Limits { entries: 3, bytes: 30 }).unwrap();
    unpack_to(to.path(), &bytes, &Limits { entries: 3, bytes: 30 }).unwrap();
    let kinds = |limits: &Limits| {
        [pack_of(from.path(), limits).map(drop), unpack_to(to.path(), &bytes, limits).map(drop)]
            .map(|result| TreeError::of(&result.unwrap_err()).unwrap().kind())
    };
    assert_eq!(kinds(&Limits { entries: 2, bytes: 30 }), [TreeErrorKind::TooManyEntries; 2]);
    assert_eq!(kinds(&Limits { entries: 3, bytes: 29 }), [TreeErrorKind::TooMuchContent; 2]);
    // A file that says it is small and is not.
    let mut lying = MAGIC.to_vec();
    let header = Header { path: b"f".to_vec(), kind: Kind::File { size: 0 }, mode: 0, modified: (0, 0) };
    write_record(&mut lying, &Record::Entry(header)).unwrap();
    lying.extend([9, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0, 0]);
    let error = unpack_to(to.path(), &lying, &Limits { entries: 9, bytes: 8 }).unwrap_err();
    assert_eq!(TreeError::of(&error).unwrap().kind(), TreeErrorKind::TooMuchContent);
    assert!(!to.path().join("f").exists());
}

#[test]
fn a_path_that_leaves_the_root_is_refused() {
    let long = [b'n'; MAX_NAME + 1];
    for path in [&b""[..], b".", b"..", b"../x", b"a/../x", b"/etc/x", b"a//b", b"a/", b"./a", b"a\0b", &long] {
        assert_eq!(refused(&stream(&[(path, FILE)])), TreeErrorKind::BadPath, "{}", path.escape_ascii());
    }
    assert_eq!(refused(&stream(&[(&b"a/".repeat(MAX_DEPTH)[..], FILE)])), TreeErrorKind::BadPath);
    let deep = [&b"a/".repeat(MAX_DEPTH)[..], b"a"].concat();
    assert_eq!(refused(&stream(&[(&deep, FILE)])), TreeErrorKind::TooDeep);
    assert_eq!(refused(&stream(&[(b"a/b", FILE)])), TreeErrorKind::MissingParent);
}

#[test]
fn a_link_is_never_a_way_out() {
    for target in ["/etc", "..", "../..", "a/../..", "a/..", "", "a\0"] {
        assert_eq!(refused(&stream(&[(b"l", link(target))])), TreeErrorKind::EscapingLink, "{target:?}");
    }
    assert_eq!(
        refused(&stream(&[(b"d", Kind::Directory), (b"l", link("d")), (b"l/x", FILE)])),
        TreeErrorKind::InTheWay
    );
    assert_eq!(refused(&stream(&[(b"l", link("d")), (b"l", Kind::Directory)])), TreeErrorKind::InTheWay);
    assert_eq!(refused(&stream(&[(b"f", FILE), (b"f/x", FILE)])), TreeErrorKind::InTheWay);
    assert_eq!(refused(&stream(&[(b"d", Kind::Directory), (b"d", FILE)])), TreeErrorKind::InTheWay);
    assert_eq!(refused(&stream(&[(b"d", Kind::Directory), (b"d", link("x"))])), TreeErrorKind::InTheWay);
}

#[test]
fn what_was_there_is_replaced_and_never_written_through() {
    let outer = TempDir::new().unwrap();
    let root = outer.path().join("root");
    fs::create_dir(&root).unwrap();
    let outside = outer.path().join("outside");
    fs::write(&outside, b"precious").unwrap();
    symlink(&outside, root.join("link")).unwrap();
    fs::hard_link(&outside, root.join("hard")).unwrap();
    symlink(outer.path(), root.join("dir")).unwrap();
    unpack_to(&root, &stream(&[(b"hard", FILE), (b"link", FILE)]), &Limits::NONE).unwrap();
    assert_eq!(fs::read(&outside).unwrap(), b"precious");
    assert_eq!(fs::read(root.join("link")).unwrap(), b"hi");
    let error = unpack_to(&root, &stream(&[(b"dir/x", FILE)]), &Limits::NONE).unwrap_err();
    assert_eq!(TreeError::of(&error).unwrap().kind(), TreeErrorKind::InTheWay);
    unpack_to(&root, &stream(&[(b"dir", link("hard"))]), &Limits::NONE).unwrap();
    assert_eq!(fs::read_link(root.join("dir")).unwrap(), Path::new("hard"));
    assert_eq!(fs::read_dir(&root).unwrap().count(), 3, "a temporary file was left");
}

#[test]
fn a_stream_cut_anywhere_is_truncated_and_leaves_no_half_file() {
    let to = TempDir::new().unwrap();
    let whole = stream(&[(b"d", Kind::Directory), (b"d/f", FILE), (b"d/l", link("f"))]);
    for length in 0..whole.len() {
        let error = unpack_to(to.path(), &whole[..length], &Limits::NONE).unwrap_err();
        assert_eq!(TreeError::of(&error).unwrap().kind(), TreeErrorKind::Truncated, "at {length}");
    }
    unpack_to(to.path(), &whole, &Limits::NONE).unwrap();
    assert_eq!(fs::read_dir(to.path().join("d")).unwrap().count(), 2);
}

#[test]
fn another_count_magic_or_record_is_malformed() {
    let mut wrong = MAGIC.to_vec();
    write_record(&mut wrong, &Record::End { entries: 1 }).unwrap();
    assert_eq!(refused(&wrong), TreeErrorKind::Malformed);
    assert_eq!(refused(b"sbxtree\x01"), TreeErrorKind::Malformed);
    let mut huge = MAGIC.to_vec();
    huge.write_all(&u32::MAX.to_le_bytes()).unwrap();
    assert_eq!(refused(&huge), TreeErrorKind::Malformed);
    let mut chunk = stream(&[(b"f", FILE)]);
    let at = chunk.windows(4).position(|window| window == [2, 0, 0, 0]).unwrap();
    chunk[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(refused(&chunk), TreeErrorKind::Malformed);
}

#[test]
fn a_tree_that_is_too_deep_is_not_packed() {
    let from = TempDir::new().unwrap();
    let fits = from.path().join(["d"; MAX_DEPTH - 1].join("/"));
    fs::create_dir_all(&fits).unwrap();
    pack_of(from.path(), &Limits::NONE).unwrap();
    fs::create_dir(fits.join("d")).unwrap();
    let error = pack_of(from.path(), &Limits::NONE).unwrap_err();
    assert_eq!(TreeError::of(&error).unwrap().kind(), TreeErrorKind::TooDeep);
}

/// A tree: names and, for each, a file's content or a directory.
#[derive(Clone, Debug)]
enum Node {
    File(Vec<u8>, u32),
    Directory(BTreeMap<Vec<u8>, Node>),
}

fn node() -> impl Strategy<Value = Node> {
    let name =
        proptest::collection::vec(any::<u8>().prop_filter("not a name's", |b| !matches!(b, 0 | b'/' | b'.')), 1..8);
    let file =
        (proptest::collection::vec(any::<u8>(), 0..64), 0_u32..=0o777).prop_map(|(c, m)| Node::File(c, m | 0o400));
    file.prop_recursive(4, 24, 5, move |inner| {
        proptest::collection::btree_map(name.clone(), inner, 0..5).prop_map(Node::Directory)
    })
}

fn plant(path: &Path, node: &Node) {
    match node {
        Node::File(content, mode) => {
            fs::write(path, content).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        Node::Directory(entries) => {
            fs::create_dir(path).unwrap();
            for (name, node) in entries {
                plant(&path.join(OsStr::from_bytes(name)), node);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_tree_survives(node in node()) {
        let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        plant(&from.path().join("top"), &node);
        let (bytes, sent) = pack_of(from.path(), &Limits::NONE).unwrap();
        let made = unpack_to(to.path(), &bytes, &Limits::NONE).unwrap();
        prop_assert_eq!((sent.entries, sent.bytes), (made.entries, made.bytes));
        prop_assert_eq!(picture(from.path()), picture(to.path()));
    }

    #[test]
    fn no_bytes_make_it_panic_or_leave_the_root(noise in proptest::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index) {
        let outer = TempDir::new().unwrap();
        let root = outer.path().join("root");
        fs::create_dir(&root).unwrap();
        let _ = unpack_to(&root, &[&MAGIC[..], &noise].concat(), &Limits::NONE);
        let mut bent = stream(&[(b"d", Kind::Directory), (b"d/f", FILE), (b"d/l", link("../f")), (b"g", FILE)]);
        let at = at.index(bent.len());
        for (byte, noise) in bent[at..].iter_mut().zip(&noise).take(3) {
            *byte = *noise;
        }
        let _ = unpack_to(&root, &bent, &Limits { entries: 100, bytes: 1 << 20 });
        prop_assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);
    }

    /// Links are made at random, and then followed by the kernel: none may lead out of the root.
    #[test]
    fn no_chain_of_links_leads_outside(links in proptest::collection::vec(("[ab](/[ab]){0,2}", "(\\.\\./){0,3}[ab](/[ab.]{1,2}){0,3}"), 1..8)) {
        let outer = TempDir::new().unwrap();
        let root = outer.path().join("root");
        for directory in ["root/a/a", "root/a/b", "root/b/a", "root/b/b"] {
            fs::create_dir_all(outer.path().join(directory)).unwrap();
        }
        let canonical = root.canonicalize().unwrap();
        for (path, target) in &links {
            let one = stream(&[(path.as_bytes(), link(target))]);
            if unpack_to(&root, &one, &Limits::NONE).is_ok()
                && let Ok(place) = root.join(path).canonicalize()
            {
                prop_assert!(place.starts_with(&canonical), "{} -> {}", path, target);
            }
        }
        prop_assert!(stays_inside(b"../a", 1) && !stays_inside(b"../a", 0) && !stays_inside(b"a/../b", 9));
    }
}

/// Blocks that a file takes, in bytes.
fn taken(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

#[test]
fn holes_travel_as_holes() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let size = 5 << 30;
    let file = File::create(from.path().join("sparse")).unwrap();
    file.set_len(size).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 3 << 30).unwrap();
    File::create(from.path().join("hole")).unwrap().set_len(1 << 20).unwrap();
    assert!(taken(&from.path().join("sparse")) < 1 << 20, "this file system knows no holes");

    let (stream, sent) = pack_of(from.path(), &Limits::NONE).unwrap();
    assert!(stream.len() < 1 << 20, "{} bytes for a file of holes", stream.len());
    assert_eq!(sent.bytes, size + (1 << 20));
    assert_eq!(unpack_to(to.path(), &stream, &Limits::NONE).unwrap().bytes, sent.bytes);

    let arrived = to.path().join("sparse");
    assert_eq!(fs::metadata(&arrived).unwrap().len(), size);
    assert!(taken(&arrived) < 1 << 20);
    let mut middle = [0; 8];
    std::os::unix::fs::FileExt::read_exact_at(&File::open(&arrived).unwrap(), &mut middle, (3 << 30) - 1).unwrap();
    assert_eq!(&middle, b"\0middle\0");
    assert_eq!(fs::read(to.path().join("hole")).unwrap(), vec![0; 1 << 20]);

    let limits = Limits { bytes: size, ..Limits::NONE };
    assert_eq!(
        TreeError::of(&unpack_to(to.path(), &stream, &limits).unwrap_err()).unwrap().kind(),
        TreeErrorKind::TooMuchContent
    );
    assert!(pack_of(from.path(), &limits).is_err());
}

#[test]
fn what_is_not_wanted_is_not_entered() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    fs::create_dir_all(from.path().join("no/inner")).unwrap();
    fs::create_dir(from.path().join("yes")).unwrap();
    fs::write(from.path().join("yes/file"), "x").unwrap();
    let mut asked = Vec::new();
    let mut stream = Vec::new();
    let wanted = |candidate: &Candidate<'_>| {
        asked.push(candidate.path.to_vec());
        candidate.path != b"no"
    };
    pack_selected(File::open(from.path()).unwrap(), &mut stream, &Limits::NONE, wanted).unwrap();
    assert_eq!(asked, [&b"no"[..], b"yes", b"yes/file"]);
    unpack_to(to.path(), &stream, &Limits::NONE).unwrap();
    assert!(to.path().join("yes/file").exists() && !to.path().join("no").exists());
}
