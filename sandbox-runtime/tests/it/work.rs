//! Work comes back from real sandboxes, and nothing of the agent's making runs on the host.

use std::process::Command;

use sandbox_core::testkit::contract::Fixture;
use sandbox_core::{ErrorKind, HostRepository, Rendering, Sandbox, Status, Stdin, TransferLimits, Work, WorkLimits};

use crate::contract::fixture;
use crate::git::git;

/// Where the agent works.
const INSIDE: &str = "/home/agent/work";

/// A repository of the host, and a sandbox that holds a clone of it on the branch `topic`.
struct Scene {
    fixture: Fixture,
    sandbox: Sandbox,
    host: tempfile::TempDir,
}

impl Scene {
    async fn new(fixture: Fixture) -> Self {
        let sandbox = fixture.start().await;
        let host = tempfile::tempdir().unwrap();
        git(host.path(), &["init", "-q", "-b", "main"]);
        std::fs::write(host.path().join("file"), "one\n").unwrap();
        git(host.path(), &["add", "file"]);
        git(host.path(), &["commit", "-q", "-m", "first"]);
        git(host.path(), &["bundle", "create", "-q", "bundle", "HEAD", "main"]);
        let bundle = std::fs::read(host.path().join("bundle")).unwrap();
        std::fs::remove_file(host.path().join("bundle")).unwrap();
        sandbox.write("/tmp/bundle", bundle).await.unwrap();
        let scene = Self { fixture, sandbox, host };
        scene.inside("git clone -q /tmp/bundle ~/work && cd ~/work && git checkout -q -b topic").await;
        scene
    }

    async fn inside(&self, script: &str) -> String {
        let settings = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b";
        let script = format!("set -e; {settings}; cd {INSIDE} 2>/dev/null || cd; {script}");
        let output = self.sandbox.command("sh").args(["-c", &script]).output().await.unwrap();
        assert_eq!(output.exit.status, Status::Code(0), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn repository(&self) -> HostRepository {
        HostRepository::open(self.host.path(), &[]).unwrap()
    }

    async fn fetch(&self, revision: &str, limits: WorkLimits) -> sandbox_core::Result<Work> {
        Work::fetch(self.sandbox.guest(), INSIDE, revision, &self.repository(), limits).await
    }

    async fn end(self) {
        let id = self.sandbox.id();
        self.sandbox.destroy().await.unwrap();
        self.fixture.assert_nothing_left(id).await;
        let left = std::fs::read_dir(self.host.path().join(".git")).unwrap();
        let left = left.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains("quarantine"));
        assert_eq!(left.count(), 0, "a quarantine was left");
    }
}

async fn commits_come_back(fixture: Fixture) {
    let scene = Scene::new(fixture).await;
    let tip = scene
        .inside(
            "echo two >file; git commit -qam second; head -c 300000 /dev/urandom >'a b'; \
                            git add .; git commit -qm third; git rev-parse HEAD",
        )
        .await;
    let work = scene.fetch("HEAD", WorkLimits::default()).await.unwrap();
    assert_eq!((work.tip(), work.name()), (tip.as_str(), "topic"));
    let subjects: Vec<String> = work.commits(10).await.unwrap().into_iter().map(|commit| commit.subject).collect();
    assert_eq!(subjects, ["third", "second"]);
    let mut diff = Vec::new();
    work.diff(&mut diff, Rendering::Raw).await.unwrap();
    assert!(String::from_utf8_lossy(&diff).contains("-one\n+two\n"));
    let head = git(scene.host.path(), &["rev-parse", "HEAD"]);
    let reference = work.land(scene.sandbox.id()).await.unwrap();
    assert_eq!(git(scene.host.path(), &["rev-parse", &reference]), tip);
    assert_eq!(git(scene.host.path(), &["rev-parse", "HEAD"]), head);
    assert_eq!(git(scene.host.path(), &["status", "--porcelain"]), "");

    // What the host has by now does not come a second time.
    let small = WorkLimits { bytes: 10_000, ..WorkLimits::default() };
    let tip = scene.inside("echo three >file; git commit -qam fourth; git rev-parse HEAD").await;
    let reference = scene.fetch("topic", small).await.unwrap().land(scene.sandbox.id()).await.unwrap();
    assert_eq!(git(scene.host.path(), &["rev-parse", &reference]), tip);
    // A branch that was rewritten moves the reference.
    let tip = scene.inside("git commit -q --amend -m 'fourth, again'; git rev-parse HEAD").await;
    let work = scene.fetch("topic", WorkLimits::default()).await.unwrap();
    assert_eq!(work.land(scene.sandbox.id()).await.unwrap(), reference);
    assert_eq!(git(scene.host.path(), &["rev-parse", &reference]), tip);
    scene.inside("head -c 300000 /dev/urandom >more; git add .; git commit -qm fifth").await;
    let error = scene.fetch("topic", small).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    scene.end().await;
}

async fn what_the_agents_settings_name_runs_nowhere_on_the_host(fixture: Fixture) {
    let scene = Scene::new(fixture).await;
    // The path is one of the host; inside, there is nothing at it.
    let canary = scene.host.path().join("canary");
    let program = scene.host.path().join("program");
    std::fs::write(&program, format!("#!/bin/sh\ntouch '{}'\n", canary.display())).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(scene.host.path().join(".git/info/exclude"), "program\ncanary\n").unwrap();
    let named = program.display();
    scene
        .inside(&format!(
            "for key in core.fsmonitor diff.external filter.x.clean filter.x.smudge core.sshCommand core.pager \
             uploadpack.packObjectsHook core.alternateRefsCommand; do git config $key '{named}'; done; \
             echo '* filter=x diff=x' >.gitattributes; git config diff.x.textconv '{named}'; \
             for hook in post-checkout pre-push reference-transaction post-index-change; do \
             printf '#!/bin/sh\n{named}\n' >.git/hooks/$hook; chmod +x .git/hooks/$hook; done; \
             git -c core.fsmonitor= -c filter.x.clean=cat add -A; \
             git -c core.fsmonitor= -c filter.x.clean=cat -c core.hooksPath=/dev/null commit -qm bad"
        ))
        .await;
    let work = scene.fetch("HEAD", WorkLimits::default()).await.unwrap();
    work.diff(&mut Vec::new(), Rendering::Raw).await.unwrap();
    work.patch(&mut Vec::new(), Rendering::Raw).await.unwrap();
    work.land(scene.sandbox.id()).await.unwrap();
    assert!(!canary.exists());
    // The host's git in the agent's own directory, which nothing here runs, would have started them.
    let copied = scene.host.path().join(".git/copied");
    std::fs::create_dir(&copied).unwrap();
    scene.sandbox.download(INSIDE, &copied, TransferLimits::default()).await.unwrap();
    Command::new("git").arg("status").current_dir(&copied).output().unwrap();
    assert!(canary.exists());
    std::fs::remove_dir_all(copied).unwrap();
    scene.end().await;
}

async fn what_is_not_there_is_named(fixture: Fixture) {
    let scene = Scene::new(fixture).await;
    for revision in ["nowhere", "--all", "-x", "HEAD:file", ""] {
        let error = scene.fetch(revision, WorkLimits::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{revision}: {error}");
    }
    let into = scene.repository();
    let limits = WorkLimits::default();
    let error = Work::fetch(scene.sandbox.guest(), "/tmp", "HEAD", &into, limits).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    // A repository whose objects are gone cannot pack them.
    scene
        .inside(
            "git commit -q --allow-empty -m x; git repack -qad; rm -f .git/objects/pack/*.pack .git/objects/pack/*.idx",
        )
        .await;
    let error = scene.fetch("topic", limits).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound), "{error}");
    let output = scene.sandbox.command("cat").stdin(Stdin::Null).output().await.unwrap();
    assert_eq!(output.exit.status, Status::Code(0), "the sandbox goes on");
    scene.end().await;
}

macro_rules! on_each_engine {
    ($($case:ident),+) => {
        mod docker {
            $(#[tokio::test] async fn $case() { super::$case(super::fixture::docker().await).await; })+
        }

        mod podman_rootless {
            $(#[tokio::test] async fn $case() { super::$case(super::fixture::podman_rootless().await).await; })+
        }

        mod embedded {
            $(#[tokio::test] async fn $case() { super::$case(crate::embedded::fixture().await).await; })+
        }
    };
}

on_each_engine!(commits_come_back, what_the_agents_settings_name_runs_nowhere_on_the_host, what_is_not_there_is_named);
