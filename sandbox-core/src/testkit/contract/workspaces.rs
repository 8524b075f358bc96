//! Workspaces of a sandbox's own.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use sandbox_policy::{Control, DEFAULT_WORKSPACE_PATH, Policy, RootFilesystem};

use super::refusals::unenforceable;
use super::{Fixture, HostDirectory, text};
use crate::{ErrorKind, HostRepository, Sandbox, Work, WorkLimits};

/// Runs git on the host, as a person would.
pub(super) fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=trunk"])
        .args(arguments)
        .current_dir(directory)
        .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// Where nothing is isolated, the workspace lies among what is the fixture's own, and else where it always does.
pub(super) fn builder(fixture: &Fixture, from: &Path) -> (crate::SandboxBuilder, std::path::PathBuf) {
    if !fixture.lacks(Control::HostFilesystem) {
        return (fixture.builder().workspace_copy(from), DEFAULT_WORKSPACE_PATH.into());
    }
    let inside = fixture.path("copied workspace");
    (fixture.builder().workspace_copy(from).workspace_at(inside.to_str().unwrap()), inside)
}

pub(super) async fn destroy(sandbox: Sandbox, inside: &Path) {
    if inside != Path::new(DEFAULT_WORKSPACE_PATH) {
        sandbox.remove(inside).await.unwrap();
    }
    sandbox.destroy().await.unwrap();
}

pub async fn a_copy_is_the_sandboxs_own_and_lacks_what_git_ignores(fixture: &Fixture) {
    let here = HostDirectory::new("sandbox copy");
    fs::write(here.join(".gitignore"), ".env\n/target/\n").unwrap();
    fs::write(here.join(".env"), "SECRET=canary").unwrap();
    fs::create_dir(here.join("target")).unwrap();
    fs::write(here.join("target/out"), "x").unwrap();
    fs::create_dir(here.join("src")).unwrap();
    fs::write(here.join("src/main"), "one").unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"-n two\nlines \xff");
    fs::write(here.join(odd), "odd").unwrap();

    let (builder, inside) = builder(fixture, &here);
    let sandbox = builder.start().await.unwrap();
    assert_eq!(text(&sandbox, "cat src/main; ls -A | grep -c -e env -e target || true").await, "one0");
    assert_eq!(sandbox.read(inside.join(odd), 10).await.unwrap(), b"odd");
    assert_eq!(text(&sandbox, "grep -r canary . || echo nowhere").await, "nowhere");
    // What the agent does there stays there.
    assert_eq!(text(&sandbox, "echo two > src/main && mkdir .git && rm .gitignore && stat -c %u .").await, {
        fixture.agent.uid().to_string()
    });
    assert_eq!(fs::read_to_string(here.join("src/main")).unwrap(), "one");
    assert!(here.join(".gitignore").exists() && !here.join(".git").exists());
    destroy(sandbox, &inside).await;
}

pub async fn git_works_in_a_copy_and_its_commits_come_back(fixture: &Fixture) {
    let here = HostDirectory::new("sandbox copy");
    git(&here, &["init", "-q"]);
    fs::write(here.join("file"), "one\n").unwrap();
    git(&here, &["add", "."]);
    git(&here, &["commit", "-q", "-m", "first"]);
    fs::write(here.join("file"), "changed\n").unwrap();
    // What would be started, or would leave, if any of it came along or counted.
    git(&here, &["config", "core.fsmonitor", "touch canary; false"]);
    git(&here, &["config", "uploadpack.packObjectsHook", "touch canary; false"]);
    git(&here, &["remote", "add", "origin", "https://secret@example.org/x"]);
    fs::create_dir_all(here.join(".git/hooks")).unwrap();
    fs::write(here.join(".git/hooks/post-index-change"), "#!/bin/sh\ntouch canary\n").unwrap();

    let (builder, inside) = builder(fixture, &here);
    let sandbox = builder.start().await.unwrap();
    if text(&sandbox, "command -v git || echo none").await == "none" {
        assert_eq!(text(&sandbox, "cat file; ls -A").await, "changed\nfile");
        return destroy(sandbox, &inside).await;
    }
    let first = git(&here, &["rev-parse", "HEAD"]);
    assert_eq!(text(&sandbox, "git rev-parse HEAD && git branch --show-current").await, format!("{first}\ntrunk"));
    assert_eq!(text(&sandbox, "git status --porcelain").await, " M file");
    assert_eq!(
        text(&sandbox, "git fsck --strict 2>&1; git remote; grep -c example.org .git/config || true").await,
        "0"
    );
    let who = "git -c user.name=a -c user.email=a@example.org";
    text(&sandbox, &format!("{who} commit -q -a -m second")).await;
    let repository = HostRepository::open(&*here, &[]).unwrap();
    let work = Work::fetch(sandbox.guest(), &inside, "HEAD", &repository, WorkLimits::default()).await.unwrap();
    assert_eq!(work.commits(10).await.unwrap().len(), 1);
    let landed = work.land(sandbox.id()).await.unwrap();
    assert_eq!(git(&here, &["show", &format!("{landed}:file")]), "changed");
    assert_eq!(git(&here, &["rev-parse", "HEAD"]), first);
    assert!(!here.join("canary").exists() && !Path::new("/canary").exists());
    destroy(sandbox, &inside).await;
}

pub async fn a_copy_that_is_larger_than_the_disk_is_refused(fixture: &Fixture) {
    let here = HostDirectory::new("sandbox copy");
    // Of holes alone, so that it takes no room here.
    let large = fs::File::create(here.join("large")).unwrap();
    large.set_len(Policy::standard().limits().disk.bytes() + 1).unwrap();
    let (builder, _) = builder(fixture, &here);
    let error = builder.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error:?}");
    assert!(error.residue().is_empty(), "{error:?}");
    assert_eq!(fixture.run_root.sandboxes().unwrap(), []);
}

pub async fn a_copy_on_a_read_only_root_lies_in_memory(fixture: &Fixture) {
    let here = HostDirectory::new("sandbox copy");
    fs::write(here.join("file"), "one").unwrap();
    if fixture.lacks(Control::ReadonlyRootfs) {
        let policy = fixture.policy_for(&[Control::ReadonlyRootfs]);
        let asked = fixture.builder().policy(policy).workspace_copy(&*here).root(RootFilesystem::ReadOnly);
        assert_eq!(unenforceable(&asked.start().await.unwrap_err()), [Control::ReadonlyRootfs]);
        return;
    }
    let builder = fixture.builder().workspace_copy(&*here).root(RootFilesystem::ReadOnly);
    let sandbox = builder.start().await.unwrap();
    let uid = fixture.agent.uid();
    assert_eq!(text(&sandbox, "pwd; cat file; stat -c ' %u' .; echo x > more").await, format!("/workspace\none {uid}"));
    sandbox.destroy().await.unwrap();
}
