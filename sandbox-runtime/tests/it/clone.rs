//! A repository of a server becomes a sandbox's workspace, by way of a mirror of the host's.
//!
//! The server is git's own (`git http-backend`) behind TLS, at an address of this machine's that a rule names.

mod below;
mod beyond;
mod credential;
mod hostile;
mod room;
mod server;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use sandbox_core::policy::{Branch, History, WorkspaceKind};
use sandbox_core::testkit::contract::Fixture;
use sandbox_core::{EgressVerdict, Event, HostRepository, Sandbox, SandboxBuilder, Status, Work, WorkLimits};

use crate::contract::fixture;
use crate::egress::harness::{allowlist, here};
use crate::git::git;
use server::{NAME, Server};

/// A server with one repository, somebody who pushes to it, and a place for mirrors.
struct Scene {
    fixture: Fixture,
    server: Server,
    pusher: tempfile::TempDir,
    mirrors: tempfile::TempDir,
}

/// Names that git keeps and that programs stumble over.
const ODD: [&[u8]; 6] = [b"a b", b"two\nlines", b"\xff\xfe", b"-rf", b"--help/x", b"sub/.gitignore"];

impl Scene {
    async fn new(fixture: Fixture) -> Self {
        let scene = Self {
            fixture,
            server: Server::new().await,
            pusher: tempfile::tempdir().unwrap(),
            mirrors: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(scene.server.place("octo/widget")).unwrap();
        git(&scene.server.place("octo/widget"), &["init", "-q", "--bare"]);
        let here = scene.pusher.path();
        git(here, &["init", "-q"]);
        for name in ODD {
            let path = here.join(OsStr::from_bytes(name));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        fs::write(here.join("run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(here.join("run"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", here.join("out")).unwrap();
        std::os::unix::fs::symlink("a b", here.join("in")).unwrap();
        git(here, &["add", "-A"]);
        scene.push("first", "trunk");
        scene
    }

    /// Commits all that the pusher has, and pushes it.
    fn push(&self, subject: &str, branch: &str) -> String {
        let (here, place) = (self.pusher.path(), self.server.place("octo/widget"));
        git(here, &["commit", "-q", "--allow-empty", "-m", subject]);
        git(here, &["push", "-q", place.to_str().unwrap(), &format!("+HEAD:refs/heads/{branch}")]);
        git(here, &["rev-parse", "HEAD"])
    }

    fn builder(&self) -> SandboxBuilder {
        self.builder_of(History::Full)
    }

    fn builder_of(&self, history: History) -> SandboxBuilder {
        let source = self.server.url("octo/widget").parse().unwrap();
        let policy = self
            .fixture
            .policy()
            .with_workspace_kinds(WorkspaceKind::ALL.iter().copied())
            .with_egress(allowlist([here(NAME, &[self.server.port])]));
        let builder = self.fixture.builder().policy(policy).mirrors(self.server.mirrors(self.mirrors.path()));
        builder.workspace_clone(source, history).workspace_at(self.inside().to_str().unwrap())
    }

    /// Where nothing is isolated, the workspace lies among what is the fixture's own.
    fn inside(&self) -> PathBuf {
        if self.fixture.image == sandbox_core::testkit::FakeRuntime::IMAGE {
            return self.fixture.path("cloned");
        }
        sandbox_core::policy::DEFAULT_WORKSPACE_PATH.into()
    }

    async fn end(&self, sandbox: Sandbox) {
        let id = sandbox.id();
        if self.fixture.image == sandbox_core::testkit::FakeRuntime::IMAGE {
            sandbox.remove(self.inside()).await.unwrap();
        }
        sandbox.destroy().await.unwrap();
        self.fixture.assert_nothing_left(id).await;
    }

    /// The bare repository of the one mirror that there is.
    fn mirror(&self) -> PathBuf {
        let mut all = fs::read_dir(self.mirrors.path()).unwrap().map(|entry| entry.unwrap().path());
        let mirror = all.next().unwrap().join("repository.git");
        assert_eq!(all.next(), None, "there is one mirror");
        mirror
    }
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

async fn say(sandbox: &Sandbox, script: &str) -> String {
    let settings = "export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b";
    let output = sandbox.command("sh").args(["-c", &format!("set -e; {settings}; {script}")]).output().await.unwrap();
    assert_eq!(output.exit.status, Status::Code(0), "{script}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn branch(name: &str) -> Branch {
    name.parse().unwrap()
}

async fn a_clone_is_the_sandboxs_own_and_its_commits_come_back(fixture: Fixture) {
    let scene = Scene::new(fixture).await;
    // A branch's tags are not asked for, and none comes along.
    let place = scene.server.place("octo/widget");
    git(&place, &["tag", "v1", "trunk"]);
    git(&place, &["tag", "-a", "-m", "x", "v2", "trunk"]);
    let recorder = sandbox_core::testkit::Recorder::default();
    let builder = scene.builder().branch(branch("agent/42-fix")).events(recorder.clone());
    let sandbox = builder.start().await.unwrap();
    let first = git(scene.pusher.path(), &["rev-parse", "HEAD"]);

    // The branch is new, and starts where the server's default one is.
    let stands =
        "git rev-parse HEAD; git branch --show-current; git status --porcelain; git remote -v | head -1; git tag";
    let url = scene.server.url("octo/widget");
    assert_eq!(say(&sandbox, stands).await, format!("{first}\nagent/42-fix\norigin\t{url} (fetch)"));
    let tracked =
        "git rev-parse origin/trunk origin/HEAD; git for-each-ref --format='%(refname)' | sort; git fsck --strict";
    let refs = "refs/heads/agent/42-fix\nrefs/remotes/origin/HEAD\nrefs/remotes/origin/trunk";
    assert_eq!(say(&sandbox, tracked).await, format!("{first}\n{first}\n{refs}"));
    for name in ODD {
        assert_eq!(sandbox.read(scene.inside().join(OsStr::from_bytes(name)), 100).await.unwrap(), name);
    }
    let kinds = "readlink out in; stat -c '%a %u' run 'a b'; test -x run";
    let uid = scene.fixture.agent.uid();
    assert_eq!(say(&sandbox, kinds).await, format!("/etc/passwd\na b\n755 {uid}\n644 {uid}"));
    assert_eq!(say(&sandbox, "git config --list --local | grep -i -e credential -e extraheader || true").await, "");

    say(&sandbox, "echo more >more; git add more; git commit -q -m second").await;
    let repository = HostRepository::open(scene.pusher.path(), &[]).unwrap();
    let limits = WorkLimits::default();
    let work = Work::fetch(sandbox.guest(), scene.inside(), "HEAD", &repository, limits).await.unwrap();
    assert_eq!(work.commits(10).await.unwrap().len(), 1);
    drop(work);
    // Told before anything was sent, and by the gateway's own word.
    let events = recorder.events();
    let told = events.iter().position(|event| {
        matches!(event, Event::EgressDecided { host, verdict: EgressVerdict::Allowed, port, .. }
                        if host == NAME && *port == scene.server.port)
    });
    let fetched = events.iter().position(|event| matches!(event, Event::RepositoryFetching { .. }));
    assert!(told.is_some() && told < fetched, "{events:?}");
    scene.end(sandbox).await;
}

async fn a_second_clone_costs_what_changed(fixture: Fixture) {
    let scene = Scene::new(fixture).await;
    fs::write(scene.pusher.path().join("noise"), noise(300_000)).unwrap();
    git(scene.pusher.path(), &["add", "-A"]);
    scene.push("noise", "trunk");
    let sandbox = scene.builder().start().await.unwrap();
    assert_eq!(
        say(&sandbox, "git branch --show-current; git rev-parse --abbrev-ref @{u}").await,
        "trunk\norigin/trunk"
    );
    scene.end(sandbox).await;
    let whole = scene.server.take_seen();
    assert!(whole.bytes > 100_000, "{whole:?}");

    // Nothing has changed: nothing is fetched.
    let sandbox = scene.builder().start().await.unwrap();
    scene.end(sandbox).await;
    let seen = scene.server.take_seen();
    assert!(seen.bytes < 2_000 && seen.paths.len() == 2, "{seen:?}");

    // A branch that is there is taken as it stands, and the rest of the repository does not come again.
    fs::write(scene.pusher.path().join("a b"), "changed").unwrap();
    git(scene.pusher.path(), &["add", "-A"]);
    let second = scene.push("second", "topic/x");
    let sandbox = scene.builder().branch(branch("topic/x")).start().await.unwrap();
    assert_eq!(
        say(&sandbox, "git rev-parse HEAD origin/topic/x; cat 'a b'").await,
        format!("{second}\n{second}\nchanged")
    );
    scene.end(sandbox).await;
    let seen = scene.server.take_seen();
    assert!(seen.bytes < 10_000, "{seen:?}");

    // A branch that was rewritten and one whose name is in another's way are taken as they are now.
    git(&scene.server.place("octo/widget"), &["update-ref", "-d", "refs/heads/topic/x"]);
    git(scene.pusher.path(), &["reset", "-q", "--soft", "HEAD~1"]);
    let third = scene.push("third", "topic");
    let sandbox = scene.builder().branch(branch("topic")).start().await.unwrap();
    assert_eq!(say(&sandbox, "git rev-parse HEAD").await, third);
    scene.end(sandbox).await;
}

async fn less_history_comes_along_where_less_is_asked_for(fixture: Fixture) {
    let scene = Scene::new(fixture).await;
    fs::write(scene.pusher.path().join("a b"), "changed").unwrap();
    git(scene.pusher.path(), &["add", "-A"]);
    let tip = scene.push("second", "trunk");
    for history in [History::Depth(sandbox_core::policy::CloneDepth::new(1).unwrap())] {
        for _ in 0..2 {
            let sandbox = scene.builder_of(history).start().await.unwrap();
            assert_eq!(
                say(&sandbox, "git rev-parse HEAD; cat 'a b'; git status --porcelain").await,
                format!("{tip}\nchanged")
            );
            assert_eq!(
                say(&sandbox, "git rev-list --count HEAD; git rev-parse --is-shallow-repository").await,
                "1\ntrue"
            );
            say(&sandbox, "echo more >more; git add more; git commit -q -m third").await;
            let repository = HostRepository::open(scene.pusher.path(), &[]).unwrap();
            let limits = WorkLimits::default();
            let work = Work::fetch(sandbox.guest(), scene.inside(), "HEAD", &repository, limits).await.unwrap();
            assert_eq!(work.commits(10).await.unwrap().len(), 1);
            drop(work);
            scene.end(sandbox).await;
        }
    }
}

macro_rules! on_each_engine {
    ($($case:ident),+) => {
        mod docker {
            $(#[tokio::test] async fn $case() { super::$case(super::fixture::docker().await).await; })+
        }

        mod docker_relayed {
            $(#[tokio::test] async fn $case() { super::$case(super::fixture::docker_relayed().await).await; })+
        }

        mod embedded {
            $(#[tokio::test] async fn $case() { super::$case(crate::embedded::fixture().await).await; })+
        }

        mod fake {
            $(#[tokio::test] async fn $case() { super::$case(super::fixture::fake().await).await; })+
        }

        mod podman_rootless {
            $(#[tokio::test] async fn $case() { super::$case(super::fixture::podman_rootless().await).await; })+
        }
    };
}

on_each_engine!(
    a_clone_is_the_sandboxs_own_and_its_commits_come_back,
    a_second_clone_costs_what_changed,
    less_history_comes_along_where_less_is_asked_for
);
