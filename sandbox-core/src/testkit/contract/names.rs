//! Names that are no words: of what lies in a workspace, and of the workspace itself.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sandbox_policy::{Control, Isolation};

use super::workspaces::{builder, destroy, git};
use super::{Fixture, HostDirectory, text};
use crate::{ErrorKind, FileSystem, HostRepository, Sandbox, Work, WorkLimits};

/// What a shell, git, JSON and a table of mounts may stumble over.
fn names() -> Vec<OsString> {
    let mut names: Vec<OsString> = [
        " ",
        "-rf",
        "--help",
        "a b ",
        "a\nb",
        "\t\\'\"$(id)`id`",
        "*",
        "?[a]",
        "~",
        "#",
        "a:b,c=d",
        "\\012",
        "ü",
        "u\u{308}",
        "\u{202e}x",
        "\u{1b}[31m",
        "CON",
        "...",
        "-",
    ]
    .map(OsString::from)
    .into();
    names.extend([&b"\xff\xfe"[..], b"\xc3\x28", b"\x80 \n-"].map(|name| OsString::from_vec(name.to_vec())));
    names.extend([OsString::from("x".repeat(255)), OsString::from_vec(vec![0xfe; 255])]);
    names
}

/// A path of more bytes than any name has.
fn deep() -> PathBuf {
    [&b"d"[..]; 11].iter().map(|name| OsString::from_vec(name.repeat(200))).collect()
}

/// Makes them all in a directory, each in one of its own, with itself as the content.
fn fill(directory: &Path) {
    for name in names() {
        fs::create_dir(directory.join(&name)).unwrap();
        fs::write(directory.join(&name).join(&name), name.as_bytes()).unwrap();
    }
    fs::create_dir_all(directory.join(deep())).unwrap();
    fs::write(directory.join(deep()).join("file"), "deep").unwrap();
}

/// Reads what was made on the other side, and makes others there.
async fn see_and_make(sandbox: &Sandbox, inside: &Path) {
    for name in names() {
        let path = inside.join(&name).join(&name);
        assert_eq!(sandbox.read(&path, 1_000).await.unwrap(), name.as_bytes(), "{}", name.display());
        // By a program's arguments, and by the library's own hand.
        let made = inside.join(&name).join("made");
        let script = ["-ec", "cp -- \"$1\" \"$2\"; mv -- \"$2\" \"$2 moved\"", "sh"].map(OsString::from);
        let arguments = script.into_iter().chain([path.into(), made.into()]);
        let output = sandbox.command("sh").args(arguments).output().await.unwrap();
        assert_eq!(
            output.exit.status,
            crate::Status::Code(0),
            "{}: {}",
            name.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        sandbox.write(inside.join("new").join(&name), name.as_bytes()).await.unwrap();
    }
    assert_eq!(sandbox.read(inside.join(deep()).join("file"), 10).await.unwrap(), b"deep");
    sandbox.write(inside.join(deep()).join("new"), b"deeper").await.unwrap();
    let listed: BTreeSet<Vec<u8>> =
        sandbox.list(inside.join("new")).await.unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(listed, names().into_iter().map(OsString::into_vec).collect());
}

pub async fn odd_names_come_and_go_in_a_mounted_workspace(fixture: &Fixture) {
    if fixture.lacks(Control::HostFilesystem) || fixture.runtime.file_system() == FileSystem::Apart {
        // Nothing is mounted there, as another case shows.
        assert_eq!(fixture.owner, None);
        return;
    }
    let is_text_alone = fixture.runtime.info().name != "embedded";
    let longest = "l".repeat(255 - 33);
    for (name, is_text) in [
        (&b"-n two\nlines \t\\040'\"$(id),x:ro=y"[..], true),
        ("\u{202e}ü *".as_bytes(), true),
        (longest.as_bytes(), true),
        (b"\xff\xfe", false),
    ] {
        let here = HostDirectory::new(OsStr::from_bytes(name));
        if !is_text && is_text_alone {
            let error = fixture.builder().workspace(&*here).start().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
            assert!(
                error.to_string().starts_with("workspace ") && error.to_string().ends_with("is not UTF-8"),
                "{error}"
            );
            assert!(error.hint().is_some() && error.residue().is_empty(), "{error:?}");
            assert_eq!(fixture.run_root.sandboxes().unwrap(), []);
            assert_eq!(fs::read_dir(&*here).unwrap().count(), 0, "nothing is left in it");
            continue;
        }
        fill(&here);
        fs::create_dir(here.join("new")).unwrap();
        open_up(&here);
        let sandbox = fixture.builder().workspace(&*here).start().await.unwrap();
        see_and_make(&sandbox, Path::new("/workspace")).await;
        sandbox.destroy().await.unwrap();
        for name in names() {
            for path in ["made moved".as_ref(), name.as_os_str()].map(|file| here.join(&name).join(file)) {
                assert_eq!(fs::read(&path).unwrap(), name.as_bytes(), "{}", name.display());
            }
            assert_eq!(fs::read(here.join("new").join(&name)).unwrap(), name.as_bytes());
        }
        assert_eq!(fs::read(here.join(deep()).join("new")).unwrap(), b"deeper");
    }
}

pub async fn odd_names_come_and_go_in_a_copy(fixture: &Fixture) {
    let above = HostDirectory::new("sandbox names");
    let here = above.join(OsStr::from_bytes(b"-n two\twords \xff"));
    fs::create_dir(&here).unwrap();
    fill(&here);
    // On gVisor git starts no thread, which it needs for as many files as these (tried: release 20240729).
    let has_git = fixture.runtime.isolation() != Isolation::Gvisor;
    if has_git {
        git(&here, &["init", "-q"]);
        git(&here, &["add", "."]);
        git(&here, &["commit", "-q", "-m", "first"]);
        refused_for_its_lines(fixture, &here, &above.join("two\nlines")).await;
    }
    let (builder, inside) = builder(fixture, &here);
    let sandbox = builder.start().await.unwrap();
    sandbox.make_directory(inside.join("new")).await.unwrap();
    see_and_make(&sandbox, &inside).await;
    if has_git && text(&sandbox, "command -v git || echo none").await != "none" {
        let commit = "git status --porcelain -z | tr '\\0' '\\n' | grep -c '^??'; git add -A && \
                      git -c user.name=a -c user.email=a@example.org commit -q -m second && git fsck --strict 2>&1";
        text(&sandbox, commit).await;
        let repository = HostRepository::open(&here, &[]).unwrap();
        let work = Work::fetch(sandbox.guest(), &inside, "HEAD", &repository, WorkLimits::default()).await.unwrap();
        let landed = work.land(sandbox.id()).await.unwrap();
        let listed = std::process::Command::new("git")
            .args(["ls-tree", "-r", "-z", "--name-only", &landed])
            .current_dir(&here)
            .output()
            .unwrap();
        let listed: BTreeSet<&[u8]> = listed.stdout.split(|byte| *byte == 0).collect();
        for name in names() {
            let path = Path::new("new").join(&name);
            assert!(listed.contains(path.as_os_str().as_bytes()), "{} came back", name.display());
            let path = Path::new(&name).join("made moved");
            assert!(listed.contains(path.as_os_str().as_bytes()), "{} came back", name.display());
        }
        assert!(listed.contains(deep().join("new").as_os_str().as_bytes()));
    }
    destroy(sandbox, &inside).await;
}

/// Git cannot be told of a repository with a line feed in its path, and nothing is handed out without it.
async fn refused_for_its_lines(fixture: &Fixture, here: &Path, lines: &Path) {
    fs::rename(here, lines).unwrap();
    let error = builder(fixture, lines).0.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    assert!(format!("{error:?}").contains("has a line feed in its path") && error.residue().is_empty(), "{error:?}");
    fs::rename(lines, here).unwrap();
}

/// Lets everybody write everything, whoever the agent is on the host.
fn open_up(path: &Path) {
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            open_up(&entry.path());
        }
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
}
