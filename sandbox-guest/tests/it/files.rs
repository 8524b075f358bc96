//! Requests about files, as a host makes them.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::thread;
use std::time::Instant;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use sandbox_guest::tree::{Limits, pack, unpack};
use sandbox_guest::wire::{Command, Entry, EntryKind, Failure, FailureKind, MAX_ENTRIES, Reply, Request, Summary};

use crate::harness::{Control, Host, agent, children, eventually, without_root};

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

fn done(control: &Control) -> Result<Summary, Failure> {
    match control.reply() {
        Reply::Done(summary) => Ok(summary),
        Reply::Failed(failure) => Err(failure),
        other => panic!("{other:?} where the end was due"),
    }
}

/// Asks for something that moves no content.
fn ask(host: &Host, request: &Request) -> Result<Summary, Failure> {
    done(&host.request(request, &[]))
}

fn read(host: &Host, path: &Path) -> Result<Vec<u8>, Failure> {
    let (mut reader, writer) = io::pipe().unwrap();
    let control = host.request(&Request::Read { path: bytes(path) }, &[writer.as_fd()]);
    drop(writer);
    let mut content = Vec::new();
    reader.read_to_end(&mut content).unwrap();
    let summary = done(&control)?;
    assert_eq!(summary.bytes, content.len() as u64);
    Ok(content)
}

/// Sends content; the writer's end is closed before the answer is awaited.
fn send(host: &Host, request: &Request, content: &[u8]) -> Control {
    let (reader, mut writer) = io::pipe().unwrap();
    let control = host.request(request, &[reader.as_fd()]);
    drop(reader);
    // A guest that has refused no longer reads.
    let _ = writer.write_all(content);
    control
}

fn write(host: &Host, path: &Path, mode: u32, content: &[u8]) -> Result<Summary, Failure> {
    let control = send(host, &Request::Write { path: bytes(path), mode }, content);
    let _ = sandbox_guest::frame::send(&control.0, &Command::Commit, &[], 64);
    done(&control)
}

fn list(host: &Host, path: &Path) -> Result<Vec<Entry>, Failure> {
    let control = host.request(&Request::List { path: bytes(path) }, &[]);
    let mut entries = Vec::new();
    loop {
        match control.reply() {
            Reply::Entries(some) => {
                assert!(some.len() <= MAX_ENTRIES);
                entries.extend(some);
            }
            Reply::Done(summary) => {
                assert_eq!(summary.entries, entries.len() as u64);
                return Ok(entries);
            }
            Reply::Failed(failure) => return Err(failure),
            other => panic!("{other:?} where entries were due"),
        }
    }
}

fn stat(host: &Host, path: &Path) -> Result<Entry, Failure> {
    match host.request(&Request::Stat { path: bytes(path) }, &[]).reply() {
        Reply::Entry(entry) => Ok(entry),
        Reply::Failed(failure) => Err(failure),
        other => panic!("{other:?} where an entry was due"),
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T, Failure>) -> FailureKind {
    result.unwrap_err().kind
}

fn names(directory: &Path) -> Vec<Vec<u8>> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().as_bytes().to_vec()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_written_as_the_agent_and_read_back() {
    let host = Host::start();
    let path = host.workspace().join("a -n\nfile");
    let content: Vec<u8> = (0..=255).cycle().take(3_000_001).collect();
    assert_eq!(write(&host, &path, 0o4751, &content).unwrap().bytes, content.len() as u64);
    let data = fs::metadata(&path).unwrap();
    assert_eq!((data.mode() & 0o7777, data.uid(), data.gid()), (0o751, agent().uid, agent().gid));
    assert!(read(&host, &path).unwrap() == content);
    write(&host, &path, 0o600, b"shorter").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"shorter");
    write(&host, &path, 0o600, b"").unwrap();
    assert_eq!(read(&host, &path).unwrap(), b"");
    assert_eq!(names(&host.workspace()).len(), 1);
}

#[test]
fn a_file_without_its_commit_never_was() {
    let host = Host::start();
    let work = host.workspace();
    fs::write(work.join("kept"), b"old").unwrap();
    let control = send(&host, &Request::Write { path: bytes(&work.join("kept")), mode: 0o644 }, b"new");
    eventually(|| (names(&work).len() == 2).then_some(()));
    drop(control);
    eventually(|| (names(&work) == [b"kept"]).then_some(()));
    assert_eq!(fs::read(work.join("kept")).unwrap(), b"old");
    // Even while somebody still holds the pipe.
    let (reader, writer) = io::pipe().unwrap();
    let request = Request::Write { path: bytes(&work.join("other")), mode: 0o644 };
    let control = host.request(&request, &[reader.as_fd()]);
    eventually(|| (names(&work).len() == 2).then_some(()));
    drop(control);
    eventually(|| (names(&work) == [b"kept"]).then_some(()));
    drop(writer);
}

#[test]
fn only_a_regular_file_is_read() {
    let host = Host::start();
    let work = host.workspace();
    mknodat(CWD, work.join("pipe"), FileType::Fifo, Mode::RWXU | Mode::RWXG | Mode::RWXO, 0).unwrap();
    fs::set_permissions(work.join("pipe"), Permissions::from_mode(0o666)).unwrap();
    let begun = Instant::now();
    for path in [work.join("pipe"), work.clone(), "/dev/null".into()] {
        assert_eq!(kind(read(&host, &path)), FailureKind::WrongKind, "{}", path.display());
    }
    assert!(begun.elapsed().as_secs() < 10);
    assert_eq!(kind(read(&host, &work.join("none"))), FailureKind::NotFound);
    assert_eq!(kind(read(&host, Path::new("relative"))), FailureKind::Invalid);
    // The kernel's own files cannot be moved by reference.
    assert!(
        String::from_utf8(read(&host, Path::new("/proc/self/status")).unwrap()).unwrap().contains("NoNewPrivs:\t1")
    );
}

#[test]
fn the_kernel_decides_what_the_agent_may_touch() {
    if without_root("an agent that is another user") {
        return;
    }
    let host = Host::start();
    let work = host.workspace();
    fs::write(work.join("secret"), b"x").unwrap();
    fs::set_permissions(work.join("secret"), Permissions::from_mode(0o600)).unwrap();
    assert_eq!(kind(read(&host, &work.join("secret"))), FailureKind::Denied);
    assert_eq!(kind(write(&host, Path::new("/etc/sandbox-test"), 0o644, b"x")), FailureKind::Denied);
    assert_eq!(kind(ask(&host, &Request::Remove { path: b"/etc/passwd".to_vec() })), FailureKind::Denied);
    assert_eq!(kind(ask(&host, &Request::MakeDirectory { path: b"/etc/a/b".to_vec() })), FailureKind::Denied);
}

#[test]
fn a_write_replaces_a_link_and_no_directory() {
    let host = Host::start();
    let work = host.workspace();
    fs::write(work.join("target"), b"kept").unwrap();
    symlink("target", work.join("link")).unwrap();
    write(&host, &work.join("link"), 0o644, b"new").unwrap();
    assert_eq!(fs::read(work.join("target")).unwrap(), b"kept");
    assert!(fs::symlink_metadata(work.join("link")).unwrap().is_file());
    assert_eq!(kind(write(&host, &work, 0o644, b"x")), FailureKind::WrongKind);
    assert_eq!(kind(write(&host, &work.join("no/parent"), 0o644, b"x")), FailureKind::NotFound);
    assert_eq!(kind(write(&host, &work.join(".."), 0o644, b"x")), FailureKind::Invalid);
}

#[test]
fn a_pipe_that_nobody_reads_is_told() {
    let host = Host::start();
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    let control = host.request(&Request::Read { path: b"/etc/passwd".to_vec() }, &[writer.as_fd()]);
    drop(writer);
    let failure = done(&control).unwrap_err();
    assert_eq!((failure.kind, failure.errno), (FailureKind::Io, libc::EPIPE));
}

#[test]
fn a_full_disk_is_exhaustion_and_a_read_only_one_is_denial() {
    if without_root("a disk of its own") {
        return;
    }
    let host = Host::contained("mount -t tmpfs -o size=1m,mode=777 none \"$WORK\"; mount -t tmpfs -o ro none /home");
    let path = host.workspace().join("file");
    assert_eq!(kind(write(&host, &path, 0o644, &vec![1; 4 << 20])), FailureKind::Exhausted);
    write(&host, &path, 0o644, &vec![1; 500_000]).unwrap();
    assert_eq!(list(&host, &host.workspace()).unwrap().len(), 1);
    let local = tempfile::TempDir::new().unwrap();
    fs::write(local.path().join("big"), vec![2; 4 << 20]).unwrap();
    let mut stream = Vec::new();
    pack(File::open(local.path()).unwrap(), &mut stream, &Limits::NONE).unwrap();
    let control = send(&host, &Request::Unpack { path: bytes(&host.workspace()) }, &stream);
    assert_eq!(kind(done(&control)), FailureKind::Exhausted);
    assert_eq!(list(&host, &host.workspace()).unwrap().len(), 1);
    assert_eq!(kind(ask(&host, &Request::MakeDirectory { path: b"/home/x".to_vec() })), FailureKind::Denied);
}

#[test]
fn entries_are_listed_in_frames_and_told_apart() {
    let host = Host::start();
    let work = host.workspace();
    for n in 0..700 {
        fs::write(work.join(format!("{n:0>200}")), vec![0; n % 7]).unwrap();
    }
    symlink("nowhere", work.join("link")).unwrap();
    fs::create_dir(work.join("dir")).unwrap();
    let entries = list(&host, &work).unwrap();
    assert_eq!(entries.len(), 702);
    let find = |name: &str| entries.iter().find(|entry| entry.name == name.as_bytes()).unwrap();
    assert_eq!((find("link").kind, find("dir").kind), (EntryKind::Symlink, EntryKind::Directory));
    let last = find(&format!("{:0>200}", 699));
    assert_eq!((last.kind, last.size), (EntryKind::File, 699 % 7));
    assert_eq!(kind(list(&host, &work.join("none"))), FailureKind::NotFound);
    assert_eq!(kind(list(&host, Path::new("/etc/passwd"))), FailureKind::WrongKind);
}

#[test]
fn one_entry_is_told_and_no_link_followed() {
    let host = Host::start();
    let work = host.workspace();
    fs::write(work.join("file"), b"12345").unwrap();
    fs::set_permissions(work.join("file"), Permissions::from_mode(0o640)).unwrap();
    symlink("file", work.join("link")).unwrap();
    let file = stat(&host, &work.join("file")).unwrap();
    assert_eq!((file.name.as_slice(), file.kind, file.mode, file.size), (&b"file"[..], EntryKind::File, 0o640, 5));
    assert_eq!(file.modified, fs::metadata(work.join("file")).unwrap().mtime());
    assert_eq!(stat(&host, &work.join("link")).unwrap().kind, EntryKind::Symlink);
    assert_eq!(stat(&host, Path::new("/")).unwrap().kind, EntryKind::Directory);
    assert_eq!(stat(&host, Path::new("/dev/null")).unwrap().kind, EntryKind::Special);
    assert_eq!(kind(stat(&host, &work.join("none"))), FailureKind::NotFound);
}

#[test]
fn directories_are_made_and_removed_whole() {
    let host = Host::start();
    let work = host.workspace();
    let deep = work.join("a/b/c");
    assert_eq!(ask(&host, &Request::MakeDirectory { path: bytes(&deep) }).unwrap().entries, 3);
    assert_eq!(ask(&host, &Request::MakeDirectory { path: bytes(&deep) }).unwrap().entries, 0);
    assert_eq!(fs::metadata(&deep).unwrap().mode() & 0o7777, 0o755);
    write(&host, &deep.join("file"), 0o644, b"x").unwrap();
    let through = Request::MakeDirectory { path: bytes(&deep.join("file")) };
    assert_eq!(kind(ask(&host, &through)), FailureKind::WrongKind);
    let outside = work.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), b"x").unwrap();
    symlink(&outside, deep.join("link")).unwrap();
    host.shell(&format!("cd {} && i=0; while [ $i -lt 1500 ]; do echo > f$i; i=$((i+1)); done", deep.display()));
    let removed = ask(&host, &Request::Remove { path: bytes(&work.join("a")) }).unwrap();
    assert_eq!(removed.entries, 3 + 1 + 1 + 1500);
    assert_eq!((names(&work), names(&outside)), (vec![b"outside".to_vec()], vec![b"kept".to_vec()]));
    assert_eq!(kind(ask(&host, &Request::Remove { path: bytes(&work.join("a")) })), FailureKind::NotFound);
    for path in [&b"/"[..], b"//", b"/tmp/.", b"/tmp/.."] {
        assert_eq!(kind(ask(&host, &Request::Remove { path: path.to_vec() })), FailureKind::Invalid);
    }
}

#[test]
fn trees_go_up_and_down() {
    let host = Host::start();
    let work = host.workspace();
    let local = tempfile::TempDir::new().unwrap();
    fs::create_dir_all(local.path().join("src/deep")).unwrap();
    fs::write(local.path().join("src/deep/run"), vec![1; 2_000_000]).unwrap();
    fs::set_permissions(local.path().join("src/deep/run"), Permissions::from_mode(0o755)).unwrap();
    symlink("deep/run", local.path().join("src/link")).unwrap();
    let mut stream = Vec::new();
    pack(File::open(local.path()).unwrap(), &mut stream, &Limits::NONE).unwrap();
    let target = work.join("new/place");
    let control = send(&host, &Request::Unpack { path: bytes(&target) }, &stream);
    control.send(&Command::Commit);
    assert_eq!(done(&control).unwrap().entries, 4);
    let made = fs::metadata(target.join("src/deep/run")).unwrap();
    assert_eq!((made.mode() & 0o777, made.uid(), made.len()), (0o755, agent().uid, 2_000_000));

    for (path, wanted) in [(target.clone(), stream.as_slice()), (target.join("src/deep/run"), &[])] {
        let (mut reader, writer) = io::pipe().unwrap();
        let control = host.request(&Request::Pack { path: bytes(&path) }, &[writer.as_fd()]);
        drop(writer);
        let mut back = Vec::new();
        reader.read_to_end(&mut back).unwrap();
        let sent = done(&control).unwrap();
        let again = tempfile::TempDir::new().unwrap();
        let made = unpack(back.as_slice(), File::open(again.path()).unwrap().as_fd(), &Limits::NONE).unwrap();
        assert_eq!((made.entries, made.bytes), (sent.entries, sent.bytes));
        if wanted.is_empty() {
            assert_eq!(names(again.path()), [b"run"]);
        } else {
            assert_eq!(fs::read_link(again.path().join("src/link")).unwrap(), Path::new("deep/run"));
        }
    }
}

#[test]
fn a_hostile_tree_is_refused_with_its_reason() {
    let host = Host::start();
    let work = host.workspace();
    let control = send(&host, &Request::Unpack { path: bytes(&work) }, b"no tree stream at all");
    assert_eq!(kind(done(&control)), FailureKind::Invalid);
    symlink("/etc", work.join("link")).unwrap();
    let local = tempfile::TempDir::new().unwrap();
    fs::create_dir(local.path().join("link")).unwrap();
    let mut stream = Vec::new();
    pack(File::open(local.path()).unwrap(), &mut stream, &Limits::NONE).unwrap();
    let control = send(&host, &Request::Unpack { path: bytes(&work) }, &stream);
    let failure = done(&control).unwrap_err();
    assert_eq!(failure.kind, FailureKind::WrongKind);
    assert!(failure.message.contains("link"), "{failure:?}");
}

#[test]
fn a_host_that_reads_nothing_holds_up_nobody_else() {
    let host = Host::start();
    let path = host.workspace().join("big");
    write(&host, &path, 0o644, &vec![0; 8 << 20]).unwrap();
    let (reader, writer) = io::pipe().unwrap();
    let stuck = host.request(&Request::Read { path: bytes(&path) }, &[writer.as_fd()]);
    drop(writer);
    assert_eq!(host.shell("echo on").text(), "on\n");
    let guest = host.guest_pid();
    eventually(|| (!children(guest).is_empty()).then_some(()));
    drop(stuck);
    eventually(|| children(guest).is_empty().then_some(()));
    drop(reader);
    let reading = thread::spawn(move || read(&host, &path).unwrap().len());
    assert_eq!(reading.join().unwrap(), 8 << 20);
}

#[test]
fn a_worker_that_the_agent_has_stopped_ends_with_its_control() {
    let host = Host::start();
    let path = host.workspace().join("file");
    let (reader, writer) = io::pipe().unwrap();
    let control = host.request(&Request::Write { path: bytes(&path), mode: 0o644 }, &[reader.as_fd()]);
    drop(reader);
    let watcher = eventually(|| children(host.guest_pid()).first().copied());
    let worker = eventually(|| children(watcher).first().copied());
    let pid = rustix::process::Pid::from_raw(worker.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    eventually(|| (crate::harness::stat(worker)?.0 == 'T').then_some(()));
    drop(control);
    eventually(|| (crate::harness::stat(worker).is_none() && children(host.guest_pid()).is_empty()).then_some(()));
    drop(writer);
}
