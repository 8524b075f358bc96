//! What fills a disk, with bytes and with files alone.
//!
//! A layer that can be written has the limit of the disk. Beside a read-only root all that can be written is memory, and then it is
//! that of the memory. Where neither can be had, the request is refused.

use sandbox_policy::{ByteSize, Control, Isolation, LimitsRequest, RootFilesystem};

use super::refusals::unenforceable;
use super::{Fixture, text};
use crate::{ErrorKind, Sandbox};

pub async fn a_full_disk_is_full_and_the_sandbox_goes_on(fixture: &Fixture) {
    for root in [RootFilesystem::Writable, RootFilesystem::ReadOnly] {
        let Some(sandbox) = limited(fixture, root).await else { continue };
        let mut written = 0;
        for line in text(&sandbox, FILL).await.lines() {
            let [place, bytes, said] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line:?}") };
            assert_eq!(said, "full", "{root:?}: {line}");
            written += bytes.parse::<u64>().unwrap();
            assert!(written <= DISK.bytes(), "{root:?}: {written} bytes were written, the last at {place}");
        }
        assert!(written >= LEAST.bytes(), "{root:?}: {written} bytes were written");
        // What is removed comes back.
        let again =
            "rm -f /fill ~/fill /tmp/fill /var/tmp/fill; head -c 4000000 /dev/zero >/tmp/fill; stat -c %s /tmp/fill";
        assert_eq!(text(&sandbox, again).await, "4000000");
        sandbox.destroy().await.unwrap();
    }
}

pub async fn files_without_content_fill_a_disk_too(fixture: &Fixture) {
    for root in [RootFilesystem::Writable, RootFilesystem::ReadOnly] {
        let Some(sandbox) = limited(fixture, root).await else { continue };
        if fixture.runtime.isolation() == Isolation::Gvisor && root == RootFilesystem::ReadOnly {
            // It counts no files where they are memory of its own: whoever makes too many ends with the sandbox.
            let script = format!("python3 -c \"{CROWD}\" /tmp");
            let error = sandbox.command("sh").args(["-c", &script]).output().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::SandboxGone, "{error:?}");
            sandbox.destroy().await.unwrap();
            continue;
        }
        for place in ["/tmp", "/var/tmp", "~"] {
            let said = text(&sandbox, &format!("python3 -c \"{CROWD}\" {place}")).await;
            let (complaint, count) = said.rsplit_once(' ').unwrap();
            assert!(FULL.contains(&complaint), "{root:?}, {place}: {said}");
            assert!(count.parse::<u32>().unwrap() < TOO_MANY, "{root:?}, {place}: {said}");
        }
        assert_eq!(text(&sandbox, "echo alive >/tmp/x && cat /tmp/x").await, "alive");
        sandbox.destroy().await.unwrap();
    }
}

/// A sandbox with a small disk; none, if the runtime cannot bound one and has refused it.
async fn limited(fixture: &Fixture, root: RootFilesystem) -> Option<Sandbox> {
    // More memory than disk is of use where the disk has a limit of its own.
    let is_of_use = !fixture.lacks(Control::Disk) && fixture.runtime.isolation() == Isolation::Standard;
    let memory = if is_of_use { ByteSize::gib(1) } else { ByteSize::mib(256) };
    let limits = LimitsRequest { disk: Some(DISK), memory: Some(memory), ..LimitsRequest::default() };
    let policy = fixture.policy_for(&[Control::Disk]);
    let start = fixture.builder().policy(policy).limits(limits).root(root).start().await;
    let in_memory =
        root == RootFilesystem::ReadOnly && !fixture.lacks(Control::Memory) && !fixture.lacks(Control::ReadonlyRootfs);
    if in_memory || !fixture.lacks(Control::Disk) {
        let sandbox = start.unwrap();
        let mut findings = sandbox.attestation().findings().iter();
        assert!(findings.any(|finding| finding.control == Control::Disk), "{:?}", sandbox.attestation());
        Some(sandbox)
    } else {
        assert_eq!(unenforceable(&start.unwrap_err()), [Control::Disk], "{root:?}");
        None
    }
}

/// Larger than an image, which some engines count with what is written.
const DISK: ByteSize = ByteSize::mib(384);
/// What can be written at least before it is full.
const LEAST: ByteSize = ByteSize::mib(64);
/// More files than this are no limit.
const TOO_MANY: u32 = 500_000;
/// What programs are told by a full file system and by a spent quota.
const FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// Fills each place that can be written with more than it takes, and says how much it took. What is memory is emptied at once,
/// since there is less of it than all of them may hold.
const FILL: &str = "for place in / ~ /tmp /var/tmp; do \
    (: >$place/fill) 2>/dev/null || continue; \
    said=$(head -c 600000000 /dev/zero 2>&1 >$place/fill); size=$(stat -c %s $place/fill); \
    case $said in *'No space left'* | *'quota exceeded'*) said=full;; *) said=more;; esac; \
    if [ $(stat -f -c %T $place) = tmpfs ]; then rm $place/fill; fi; \
    echo $place $size $said; done";

/// Makes files of no content and of long names until no more can be made, and removes them.
const CROWD: &str = "
import os, shutil, sys
top, count, said = os.path.expanduser(sys.argv[1]) + '/crowd', 0, 'nothing'
os.mkdir(top)
try:
    while count < 500000:
        os.close(os.open(f'{top}/{count:0>250}', os.O_CREAT | os.O_WRONLY))
        count += 1
except OSError as e: said = e.strerror
shutil.rmtree(top)
print(said, count)";
