//! Files and trees.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use tokio::io::AsyncReadExt as _;

use super::{Fixture, HostDirectory, sh, text};
use crate::{EntryKind, ErrorKind, SkipReason, TransferLimits};

pub async fn a_file_comes_back_as_it_was_written(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let bytes: Vec<u8> = (0..=255).cycle().take(3_000_001).collect();
    for name in ["plain", "two words", "-dash", "new\nline"] {
        let path = fixture.path(name);
        sandbox.write(&path, &bytes).await.unwrap();
        assert!(sandbox.read(&path, bytes.len()).await.unwrap() == bytes, "{name:?}");
        let mut copy = Vec::new();
        assert_eq!(sandbox.read_to(&path, &mut copy).await.unwrap(), bytes.len() as u64);
        assert!(copy == bytes);
        sandbox.remove(&path).await.unwrap();
    }
    let odd = fixture.scratch.join(OsStr::from_bytes(b"not-utf8-\xff"));
    sandbox.write(&odd, "odd").await.unwrap();
    assert_eq!(sandbox.stat(&odd).await.unwrap().name, b"not-utf8-\xff");
    sandbox.remove(&odd).await.unwrap();
    sandbox.destroy().await.unwrap();
}

pub async fn a_placed_file_is_there_for_everybody(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let top = std::env::temp_dir().join(format!("placed-{}", sandbox.id().short()));
    let path = top.join("below/file");
    for text in ["first", "second, in its place"] {
        sandbox.guest().place(&path, 0o644, text).await.unwrap();
        assert_eq!(sandbox.read(&path, 100).await.unwrap(), text.as_bytes());
    }
    let shown = format!("stat -c %A%u {} {} && ls -A {}", path.display(), top.display(), top.join("below").display());
    // The guest's own user: root inside, unless the agent is alone in its namespace, or nothing is isolated at all.
    let isolated = fixture.image != crate::testkit::FakeRuntime::IMAGE;
    let owner = if isolated {
        text(&sandbox, "stat -c %u /proc/1").await
    } else {
        rustix::process::geteuid().as_raw().to_string()
    };
    assert_eq!(text(&sandbox, &shown).await, format!("-rw-r--r--{owner}\ndrwxr-xr-x{owner}\nfile"));
    let relative = sandbox.guest().place("relative", 0o644, "").await;
    assert_eq!(relative.unwrap_err().kind(), ErrorKind::InvalidInput);
    // Where nothing is isolated, it was made on the host.
    let _ = std::fs::remove_dir_all(&top);
    sandbox.destroy().await.unwrap();
}

pub async fn a_file_is_whole_or_not_there(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let directory = fixture.path("directory");
    sandbox.make_directory(&directory).await.unwrap();
    let path = directory.join("whole");
    sandbox.write(&path, "before").await.unwrap();
    // A writer that gives up half-way leaves what was there, and nothing beside it.
    let endless = tokio::io::repeat(b'x').take(u64::MAX);
    let given_up = sandbox.write_from(&path, 0o644, endless);
    assert!(tokio::time::timeout(std::time::Duration::from_millis(200), given_up).await.is_err());
    super::eventually("the half-written file goes away", || async {
        sandbox.list(&directory).await.unwrap().len() == 1
    })
    .await;
    assert_eq!(sandbox.read(&path, 100).await.unwrap(), b"before");
    sandbox.remove(&directory).await.unwrap();
    sandbox.destroy().await.unwrap();
}

pub async fn files_are_the_agents(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let path = fixture.path("owned");
    sandbox.write_from(&path, 0o4755, &b"#!/bin/sh\necho ran\n"[..]).await.unwrap();
    let owner = text(&sandbox, &format!("stat -c '%u:%g %a' {}", path.display())).await;
    // Set-id bits are not given out.
    assert_eq!(owner, format!("{}:{} 755", fixture.agent.uid(), fixture.agent.gid()));
    assert_eq!(sandbox.command(&path).output().await.unwrap().stdout, b"ran\n");
    sandbox.remove(&path).await.unwrap();
    if fixture.agent.uid() != rustix::process::geteuid().as_raw() {
        for error in [
            sandbox.read("/etc/shadow", 1 << 20).await.unwrap_err(),
            sandbox.write("/etc/made-by-the-agent", "x").await.unwrap_err(),
            sandbox.make_directory("/made-by-the-agent").await.unwrap_err(),
            sandbox.remove("/etc/hostname").await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        }
    }
    sandbox.destroy().await.unwrap();
}

pub async fn what_is_not_there_is_not_found(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let nowhere = fixture.path("no/such/file");
    let here = HostDirectory::new("sandbox files");
    for error in [
        sandbox.read(&nowhere, 1).await.unwrap_err(),
        sandbox.write(&nowhere, "x").await.unwrap_err(),
        sandbox.list(&nowhere).await.unwrap_err(),
        sandbox.stat(&nowhere).await.unwrap_err(),
        sandbox.remove(&nowhere).await.unwrap_err(),
        sandbox.download(&nowhere, &here, TransferLimits::default()).await.unwrap_err(),
        sandbox.upload(&here.join("no"), &fixture.scratch, TransferLimits::default()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    for error in [
        sandbox.read(&fixture.scratch, 1).await.unwrap_err(),
        sandbox.read("relative", 1).await.unwrap_err(),
        sandbox.list("/dev/null").await.unwrap_err(),
        sandbox.read("/dev/zero", 1).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    sandbox.destroy().await.unwrap();
}

pub async fn what_is_over_the_limit_is_not_read(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let path = fixture.path("large");
    sandbox.write(&path, vec![0; 100_000]).await.unwrap();
    let error = sandbox.read(&path, 99_999).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    let here = HostDirectory::new("sandbox files");
    let limits = TransferLimits { bytes: 99_999, ..TransferLimits::default() };
    assert!(sandbox.download(&path, &here, limits).await.is_err());
    sandbox.remove(&path).await.unwrap();
    sandbox.destroy().await.unwrap();
}

pub async fn a_directory_comes_back_as_it_went(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let here = HostDirectory::new("sandbox files");
    let (from, back) = (here.join("from"), here.join("back"));
    std::fs::create_dir_all(from.join("deep/er/still")).unwrap();
    std::fs::create_dir(&back).unwrap();
    for number in 0..200 {
        std::fs::write(from.join(format!("deep/file {number}")), format!("{number}").repeat(number)).unwrap();
    }
    std::fs::write(from.join("deep/er/run"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(from.join("deep/er/run"), std::fs::Permissions::from_mode(0o750)).unwrap();
    symlink("../file 3", from.join("deep/er/link")).unwrap();
    std::fs::write(from.join(OsStr::from_bytes(b"odd-\xfe\n")), "odd").unwrap();

    let there = fixture.path("tree");
    let up = sandbox.upload(&from, &there, TransferLimits::default()).await.unwrap();
    assert_eq!(up.skipped_entries, 0);
    let listed = sandbox.list(there.join("deep")).await.unwrap();
    assert_eq!(listed.iter().filter(|entry| entry.kind == EntryKind::File).count(), 200);
    let down = sandbox.download(&there, &back, TransferLimits::default()).await.unwrap();
    assert_eq!((down.entries, down.bytes), (up.entries, up.bytes));
    assert_eq!(snapshot(&back), snapshot(&from));
    assert_eq!(std::fs::read_link(back.join("deep/er/link")).unwrap(), PathBuf::from("../file 3"));
    sandbox.remove(&there).await.unwrap();
    assert_eq!(sandbox.stat(&there).await.unwrap_err().kind(), ErrorKind::NotFound);
    sandbox.destroy().await.unwrap();
}

pub async fn links_that_lead_out_stay_inside(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let tree = fixture.path("hostile");
    let script = format!(
        "mkdir {0} && cd {0} && ln -s /etc/passwd absolute && ln -s ../../../../etc upwards && mkfifo pipe && echo kept >kept",
        tree.display()
    );
    sh(&sandbox, &script).await;
    let here = HostDirectory::new("sandbox files");
    let summary = sandbox.download(&tree, &here, TransferLimits::default()).await.unwrap();
    let mut skipped: Vec<_> = summary.skipped.iter().map(|skipped| (skipped.path.clone(), skipped.why)).collect();
    skipped.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        (b"absolute".to_vec(), SkipReason::EscapingLink),
        (b"pipe".to_vec(), SkipReason::Special),
        (b"upwards".to_vec(), SkipReason::EscapingLink),
    ];
    assert_eq!(skipped, expected);
    assert_eq!(snapshot(&here), [("kept".into(), b"kept\n".to_vec(), 0o644)]);
    // What lies in the way on the host is not written through.
    let outside = here.join("outside");
    let target = here.join("target");
    std::fs::write(&outside, "untouched").unwrap();
    std::fs::create_dir(&target).unwrap();
    symlink(&outside, target.join("kept")).unwrap();
    let _ = sandbox.download(&tree, &target, TransferLimits::default()).await;
    assert_eq!(std::fs::read(&outside).unwrap(), b"untouched");
    sandbox.remove(&tree).await.unwrap();
    sandbox.destroy().await.unwrap();
}

/// Every regular file below a directory: its path, its content, its permission bits.
fn snapshot(root: &std::path::Path) -> Vec<(PathBuf, Vec<u8>, u32)> {
    let mut found = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                left.push(entry.path());
            } else if kind.is_file() {
                let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
                let path = entry.path().strip_prefix(root).unwrap().to_owned();
                found.push((path, std::fs::read(entry.path()).unwrap(), mode));
            }
        }
    }
    found.sort();
    found
}
