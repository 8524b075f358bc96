//! A guest that means harm: whatever it answers, the host comes to an error, in bounded time and memory.

use std::fs::File;
use std::io::Write as _;

use sandbox_guest::wire::{Entry, EntryKind, Summary};

use super::*;

/// A request as the guest gets it: its control, and what else came along.
struct Met {
    control: OwnedFd,
    pipes: Vec<OwnedFd>,
}

impl Met {
    fn answer(&self, reply: &Reply) {
        // A host that has heard enough does not listen.
        let _ = frame::send(&self.control, reply, &[], MAX_TO_HOST);
    }
}

/// Speaks to a guest that meets the first request so, and goes when `serve` is over.
fn guest(serve: impl FnOnce(Met) + Send + 'static) -> Guest {
    let (ours, theirs) = StdUnixStream::pair().unwrap();
    std::thread::spawn(move || {
        let (_, mut descriptors) = frame::receive::<Request>(&theirs, MAX_TO_GUEST).unwrap().unwrap();
        let control = descriptors.remove(0);
        serve(Met { control, pipes: descriptors });
    });
    Guest::attach(ours).unwrap()
}

fn entry(name: &[u8]) -> Entry {
    Entry { name: name.to_vec(), kind: EntryKind::File, mode: 0o644, size: 0, modified: 0 }
}

/// Waits until the host has closed its side of a control.
fn until_dropped(control: &OwnedFd) {
    use rustix::event::{PollFd, PollFlags, poll};
    poll(&mut [PollFd::new(control, PollFlags::empty())], None).unwrap();
}

#[test]
fn what_is_logged_cannot_forge_a_line() {
    assert_eq!(shown(b"a\nb\x1b[31m"), "a\\nb\\x1b[31m");
    assert_eq!(shown(&[b'x'; 300]).chars().count(), 257);
}

#[tokio::test]
async fn a_name_that_leaves_its_directory_is_no_entry() {
    let long = [b'x'; 256];
    for name in [&b""[..], b".", b"..", b"a/b", b"/etc/passwd", b"a\0b", &long] {
        let told = entry(name);
        let guest = guest(move |met| met.answer(&Reply::Entries(vec![told])));
        assert_eq!(guest.list("/").await.unwrap_err().kind(), ErrorKind::Guest, "{}", shown(name));
    }
    let guest = guest(|met| {
        met.answer(&Reply::Entries(vec![entry(b"b"), entry(&[b'x'; 255])]));
        met.answer(&Reply::Entries(vec![entry(b"..a")]));
        met.answer(&Reply::Done(Summary::default()));
    });
    assert_eq!(guest.list("/").await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_list_that_never_ends_is_broken_off() {
    let nothing =
        guest(|met| while frame::send(&met.control, &Reply::Entries(Vec::new()), &[], MAX_TO_HOST).is_ok() {});
    assert_eq!(nothing.list("/").await.unwrap_err().kind(), ErrorKind::Guest);
    let much = guest(|met| {
        let some: Vec<_> = (0..256_u32).map(|number| entry(number.to_string().as_bytes())).collect();
        while frame::send(&met.control, &Reply::Entries(some.clone()), &[], MAX_TO_HOST).is_ok() {}
    });
    assert_eq!(much.list("/").await.unwrap_err().kind(), ErrorKind::Exhausted);
}

#[tokio::test]
async fn a_file_without_end_is_not_copied_without_end() {
    let guest = guest(|mut met| {
        let mut pipe = File::from(met.pipes.remove(0));
        while pipe.write_all(&[0; 4096]).is_ok() {}
    });
    let limits = TransferLimits { bytes: 100_000, ..TransferLimits::default() };
    let mut copied = Vec::new();
    let error = guest.read_within("/x".as_ref(), &mut copied, limits).await.unwrap_err();
    assert_eq!((error.kind(), copied.len()), (ErrorKind::Exhausted, 100_001), "{error}");
}

#[tokio::test]
async fn who_is_killed_while_it_serves_is_not_taken_for_the_sandbox() {
    let (end, stays) = std::sync::mpsc::channel::<()>();
    let guest = guest(move |met| {
        drop(met);
        // Until the test is over; the channel stays open as long.
        let _ = stays.recv();
    });
    assert_eq!(guest.stat("/").await.unwrap_err().kind(), ErrorKind::Guest);
    drop(end);
    guest.closed().await;
    assert_eq!(guest.stat("/").await.unwrap_err().kind(), ErrorKind::SandboxGone);
}

#[tokio::test]
async fn a_limit_of_ours_is_told_as_ours() {
    let tree = tempfile::tempdir().unwrap();
    std::fs::write(tree.path().join("file"), [0; 1000]).unwrap();
    let target = tempfile::tempdir().unwrap();
    let from = File::open(tree.path()).unwrap();
    let guest = guest(move |mut met| {
        let pipe = File::from(met.pipes.remove(0));
        let _ = sandbox_guest::tree::pack(&from, pipe, &sandbox_guest::tree::Limits::NONE);
        met.answer(&Reply::Failed(Failure { kind: FailureKind::Io, errno: 32, message: "Broken pipe".to_owned() }));
    });
    let limits = TransferLimits { bytes: 10, ..TransferLimits::default() };
    let error = guest.download("/tree", target.path(), limits).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error:?}");
}

#[test]
fn a_transfer_that_is_given_up_leaves_no_thread_though_the_other_end_stands_still() {
    let from = tempfile::tempdir().unwrap();
    std::fs::write(from.path().join("file"), vec![0; 4 << 20]).unwrap();
    let to = tempfile::tempdir().unwrap();
    let limits = TransferLimits { deadline: Duration::from_millis(50), ..TransferLimits::default() };
    for up in [false, true] {
        let (end, stays) = std::sync::mpsc::channel::<()>();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(async {
            let guest = guest(move |met| {
                until_dropped(&met.control);
                // The pipe stays open, as in a process that is stopped.
                let _ = stays.recv();
            });
            let moved = if up {
                guest.upload(from.path(), "/x", limits).await
            } else {
                guest.download("/x", to.path(), limits).await
            };
            moved.unwrap_err()
        });
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error:?}");
        // Waits for every thread of the pool that is at work.
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            drop(runtime);
            let _ = tell.send(());
        });
        told.recv_timeout(Duration::from_secs(20)).unwrap();
        drop(end);
    }
}
