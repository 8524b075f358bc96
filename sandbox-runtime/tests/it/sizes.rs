//! Workspaces of very many files and of very large ones: mounted or copied, they come and go whole.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use sandbox_core::testkit::contract::Fixture;
use sandbox_core::{Sandbox, Status, TransferLimits};

const DIRECTORIES: usize = 1_000;
const FILES_IN_EACH: usize = 100;
const LARGE: u64 = 5_000_000_000;

/// A hundred thousand files with their numbers in them, and one of holes with a word at either end.
fn fill(directory: &Path) {
    for outer in 0..DIRECTORIES {
        let path = directory.join(format!("d{outer}"));
        fs::create_dir(&path).unwrap();
        for inner in 0..FILES_IN_EACH {
            fs::write(path.join(format!("f{inner}")), format!("{outer}.{inner}\n")).unwrap();
        }
    }
    let mut large = fs::File::create(directory.join("large")).unwrap();
    large.write_all(b"first").unwrap();
    large.seek(SeekFrom::Start(LARGE - 4)).unwrap();
    large.write_all(b"last").unwrap();
    large.set_permissions(fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
}

async fn said(sandbox: &Sandbox, script: &str) -> String {
    let output = sandbox.command("sh").args(["-c", script]).deadline(Duration::from_mins(1)).output().await.unwrap();
    assert_eq!(output.exit.status, Status::Code(0), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What there is, and that the large file takes no room but for its ends.
const LOOK: &str = "find . -name 'f*' -type f | wc -l; cat d*/f* | cksum | cut -d ' ' -f 2; head -c 5 large; tail -c 4 large; \
                    stat -c ' %s' large; test $(stat -c %b large) -lt 2048 && echo sparse";

async fn a_large_workspace_comes_and_goes_whole(fixture: Fixture) {
    let here = tempfile::tempdir().unwrap();
    fs::set_permissions(here.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let workspace = here.path().join("workspace");
    fs::create_dir(&workspace).unwrap();
    fill(&workspace);
    let bytes: usize = (0..DIRECTORIES)
        .flat_map(|outer| (0..FILES_IN_EACH).map(move |inner| format!("{outer}.{inner}\n").len()))
        .sum();
    let expected = format!("{}\n{bytes}\nfirstlast {LARGE}\nsparse\n", DIRECTORIES * FILES_IN_EACH);

    let mounted = fixture.builder().workspace(&workspace).start().await.unwrap();
    assert_eq!(said(&mounted, LOOK).await, expected);
    said(&mounted, "echo mine >made; printf x | dd of=large bs=1 seek=2500000000 conv=notrunc status=none").await;
    mounted.destroy().await.unwrap();
    let large = fs::File::open(workspace.join("large")).unwrap();
    assert_eq!(fs::read(workspace.join("made")).unwrap(), b"mine\n");
    let mut written = [0];
    large.read_exact_at(&mut written, 2_500_000_000).unwrap();
    assert_eq!(&written, b"x");
    assert!(large.metadata().unwrap().blocks() < 4_096 && large.metadata().unwrap().len() == LARGE);
    fs::remove_file(workspace.join("made")).unwrap();

    let copied = fixture.builder().workspace_copy(&workspace).start().await.unwrap();
    assert_eq!(said(&copied, LOOK).await, expected);
    said(&copied, "printf middle | dd of=large bs=1 seek=2500000000 conv=notrunc status=none; echo new >d0/new").await;
    // It comes back whole as well, with its holes.
    let back = here.path().join("back");
    fs::create_dir(&back).unwrap();
    let limits = TransferLimits { bytes: 2 * LARGE, ..TransferLimits::default() };
    copied.download("/workspace/large", &back, limits).await.unwrap();
    let large = fs::File::open(back.join("large")).unwrap();
    let mut middle = [0; 6];
    large.read_exact_at(&mut middle, 2_500_000_000).unwrap();
    assert_eq!((&middle, large.metadata().unwrap().len()), (b"middle", LARGE));
    assert!(large.metadata().unwrap().blocks() < 4_096, "its holes came along");
    let id = copied.id();
    copied.destroy().await.unwrap();
    let containers = fixture.runtime.list().await.unwrap();
    assert!(
        containers.iter().all(|container| container.sandbox != id) && fixture.run_root.sandboxes().unwrap().is_empty()
    );
    assert!(!workspace.join("d0/new").exists(), "the copy was the sandbox's own");
}

macro_rules! on {
    ($($module:ident $fixture:path),*) => {
        $(mod $module {
            #[tokio::test]
            async fn a_large_workspace_comes_and_goes_whole() {
                super::a_large_workspace_comes_and_goes_whole($fixture().await).await;
            }
        })*
    };
}

on!(docker crate::contract::fixture::docker, podman_rootless crate::contract::fixture::podman_rootless, engine crate::embedded::fixture);
