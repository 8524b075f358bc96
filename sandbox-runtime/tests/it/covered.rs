//! A mounted workspace whose repository and packages are the host's alone: inside there are others in their place.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sandbox_core::policy::{Access, LimitsRequest, Policy};
use sandbox_core::testkit::contract::Fixture;
use sandbox_core::{Exposed, HostRepository, Rendering, Sandbox, Status, Work, WorkLimits};

use crate::contract::fixture;
use crate::git::git;

/// Files and directories by their paths: which they are, when they were changed, and what they hold.
type Tree = BTreeMap<PathBuf, (u64, i64, i64, Vec<u8>)>;

/// A repository of the host whose settings and hooks hold a canary, with packages in it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::set_permissions(place.0.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let workspace = place.workspace();
        fs::create_dir(&workspace).unwrap();
        place.git(&["init", "-q"]);
        fs::write(workspace.join(".gitignore"), "node_modules\n").unwrap();
        fs::write(workspace.join("file"), "one\n").unwrap();
        place.git(&["add", "."]);
        place.git(&["commit", "-q", "-m", "first"]);
        fs::write(workspace.join("file"), "changed\n").unwrap();
        place.git(&["remote", "add", "origin", "https://canary@example.org/x"]);
        fs::create_dir_all(workspace.join("node_modules/pkg")).unwrap();
        fs::write(workspace.join("node_modules/pkg/index.js"), "canary").unwrap();
        place.open_up();
        place
    }

    fn workspace(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap().join("work tree")
    }

    /// Lets everybody write everything, so that nothing but the cover is in the agent's way.
    fn open_up(&self) {
        for path in self.tree(Path::new("")).into_keys() {
            let path = self.workspace().join(path);
            let mode = if path.is_dir() { 0o777 } else { 0o666 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    fn git(&self, arguments: &[&str]) -> String {
        git(&self.workspace(), arguments)
    }

    /// All that lies in a part of it, with what shows that it was changed.
    fn tree(&self, part: &Path) -> Tree {
        let mut all = BTreeMap::new();
        let mut next = vec![part.to_owned()];
        while let Some(path) = next.pop() {
            let place = self.workspace().join(&path);
            let Ok(data) = fs::symlink_metadata(&place) else { continue };
            if data.is_dir() {
                next.extend(fs::read_dir(&place).unwrap().map(|entry| path.join(entry.unwrap().file_name())));
            }
            let content = if data.is_file() { fs::read(&place).unwrap() } else { Vec::new() };
            all.insert(path, (data.ino(), data.mtime(), data.mtime_nsec(), content));
        }
        all
    }

    /// What is covered, as it is on the host.
    fn hidden(&self) -> Vec<Tree> {
        [".git", "node_modules"].map(|part| self.tree(Path::new(part))).into()
    }

    /// The names in it, without what a test has told the agent to write.
    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.workspace()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn exposed(&self) -> [Exposed; 1] {
        let covered = [".git", "node_modules"].map(PathBuf::from).into();
        [Exposed { directory: self.workspace(), covered }]
    }
}

async fn inside(sandbox: &Sandbox, script: &str) -> String {
    let script =
        format!("export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b\n{script}");
    let command = sandbox.command("sh").args(["-c", &script]).deadline(Duration::from_mins(1));
    let output = command.output().await.unwrap();
    let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.exit.status, Status::Code(0), "{script}: {said}{complaint}");
    said.trim_end().to_owned()
}

async fn start(fixture: &Fixture, policy: Policy, place: &Place, access: Access) -> Sandbox {
    fixture.builder().policy(policy).workspace_with(place.workspace(), access).start().await.unwrap()
}

fn covering(policy: Policy, paths: &[&str]) -> Policy {
    policy.with_workspace_protected([]).with_workspace_covered(paths.iter().map(|path| path.parse().unwrap()))
}

/// Makes git on the host start a program, changes the packages, and gets rid of both.
fn attack(canary: &Path) -> String {
    let canary = canary.display();
    format!(
        "git init -q 2>&-; git config core.fsmonitor 'touch \"{canary}\"; false'; mkdir -p .git/hooks node_modules/evil
         printf '#!/bin/sh\\ntouch \"{canary}\"\\n' >.git/hooks/post-index-change; chmod +x .git/hooks/post-index-change
         echo evil >node_modules/pkg/index.js; mkdir -p node_modules/pkg; echo evil >node_modules/pkg/index.js
         python3 -c 'import os; os.rename(\".git\", \"elsewhere\")' 2>&-; rmdir .git node_modules 2>&-
         ln -s /tmp .git 2>&-; mkdir other; mv -fT other .git 2>&-; rmdir other 2>&-; true"
    )
}

/// The host's git, in a workspace that an agent has had.
fn host_git_starts(place: &Place) -> bool {
    let canary = place.0.path().join("canary");
    let mut command = Command::new("git");
    command.args(["-c", "safe.directory=*", "status"]).current_dir(place.workspace());
    command.envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")]).output().unwrap();
    fs::remove_file(canary).is_ok()
}

async fn the_hosts_repository_is_neither_read_nor_written(fixture: Fixture) {
    let place = Place::new();
    let canary = place.0.path().join("canary");
    let (before, first) = (place.hidden(), place.git(&["rev-parse", "HEAD"]));
    let sandbox = start(&fixture, fixture.policy(), &place, Access::ReadWrite).await;
    let other = start(&fixture, fixture.policy(), &place, Access::ReadWrite).await;
    let state = "git rev-parse HEAD && git branch --show-current && git status --porcelain && git fsck --strict 2>&1";
    assert_eq!(inside(&sandbox, state).await, format!("{first}\ntrunk\n M file"));
    // Of the host's there is nothing, and what is there is the agent's.
    assert_eq!(inside(&sandbox, "grep -rl canary . || ls -A node_modules").await, "");

    inside(&sandbox, "cp /bin/true node_modules/program && node_modules/program && git commit -qam second").await;
    assert_eq!(inside(&other, "git log --format=%s && ls -A node_modules").await, "first", "each has its own");

    // The work comes back to the very repository that the workspace is.
    let repository = HostRepository::open(place.workspace(), &place.exposed()).unwrap();
    let work = Work::fetch(sandbox.guest(), "/workspace", "HEAD", &repository, WorkLimits::default()).await.unwrap();
    let mut patch = Vec::new();
    work.patch(&mut patch, Rendering::Raw).await.unwrap();
    assert!(String::from_utf8_lossy(&patch).contains("-one\n+changed\n"));
    let landed = work.land(sandbox.id()).await.unwrap();
    assert_eq!(place.git(&["log", "--format=%s", &landed]), "second\nfirst");
    place.git(&["update-ref", "-d", &landed]);
    let before = [place.tree(Path::new(".git")), before[1].clone()];

    inside(&sandbox, &attack(&canary)).await;
    assert_eq!(place.hidden(), before);
    for sandbox in [sandbox, other] {
        let id = sandbox.id();
        sandbox.destroy().await.unwrap();
        let containers = fixture.runtime.list().await.unwrap();
        assert!(containers.iter().all(|container| container.sandbox != id));
    }
    assert_eq!(place.hidden(), before);
    assert!(!host_git_starts(&place) && place.names() == [".git", ".gitignore", "file", "node_modules"]);

    // The same where nothing is covered shows what it can do.
    let open = start(&fixture, covering(fixture.policy(), &[]), &place, Access::ReadWrite).await;
    inside(&open, "git config --global safe.directory '*'").await;
    inside(&open, &format!("{}; rm -rf .git; mv elsewhere .git", attack(&canary))).await;
    open.destroy().await.unwrap();
    assert_ne!(place.hidden(), before);
    assert!(host_git_starts(&place), "{:?}", place.names());
}

async fn what_is_missing_is_not_made_through_it(fixture: Fixture) {
    let place = Place::new();
    let canary = place.0.path().join("canary");
    for part in [".git", "node_modules"] {
        fs::remove_dir_all(place.workspace().join(part)).unwrap();
    }
    let sandbox = start(&fixture, fixture.policy(), &place, Access::ReadWrite).await;
    let own = "git init -q && mkdir node_modules/own && git add file && git commit -qm own && git log --format=%s";
    assert_eq!(inside(&sandbox, own).await, "own");
    inside(&sandbox, &attack(&canary)).await;
    sandbox.destroy().await.unwrap();
    assert_eq!(place.names(), [".gitignore", "file"]);
    assert!(!host_git_starts(&place));

    let open = start(&fixture, covering(fixture.policy(), &[]), &place, Access::ReadWrite).await;
    inside(&open, "git config --global safe.directory '*'").await;
    // Git looks for what has changed only where it has something to compare with.
    let index = "rm -rf .git; mv elsewhere .git; git -c core.fsmonitor= add file";
    inside(&open, &format!("{}; {index}", attack(&canary))).await;
    open.destroy().await.unwrap();
    assert!(host_git_starts(&place), "{:?}", place.names());
}

async fn a_linked_work_tree_has_a_repository_of_its_own(fixture: Fixture) {
    let place = Place::new();
    let main = place.0.path().join("main");
    fs::rename(place.workspace(), &main).unwrap();
    git(&main, &["worktree", "add", "-q", "-b", "topic", place.workspace().to_str().unwrap()]);
    fs::write(place.workspace().join("file"), "changed\n").unwrap();
    fs::write(place.workspace().join(".env"), "canary").unwrap();
    place.open_up();
    let pointer = place.tree(Path::new(".git"));
    assert!(String::from_utf8_lossy(&pointer[Path::new(".git")].3).contains("main"));

    let policy = covering(fixture.policy(), &[".git/", ".env"]);
    let sandbox = start(&fixture, policy, &place, Access::ReadWrite).await;
    assert_eq!(
        inside(&sandbox, "git branch --show-current; git status --porcelain -uno; cat .env").await,
        "topic\n M file"
    );
    inside(&sandbox, "git commit -qam second && cd / && git -C /workspace status --porcelain -uno").await;
    let attack = "(echo evil >.git; echo evil >.env; rm -f .git .env; mv .env x; mkdir new; mv -T new .git) 2>&-; rmdir new; true";
    inside(&sandbox, attack).await;
    assert_eq!(inside(&sandbox, "git log --format=%s; cat .env").await, "second\nfirst");
    let repository = HostRepository::open(place.workspace(), &place.exposed()).unwrap();
    let work = Work::fetch(sandbox.guest(), "/workspace", "HEAD", &repository, WorkLimits::default()).await.unwrap();
    assert_eq!((work.name(), work.commits(9).await.unwrap().len()), ("topic", 1));
    sandbox.destroy().await.unwrap();
    assert_eq!(place.tree(Path::new(".git")), pointer);
    assert_eq!(fs::read_to_string(place.workspace().join(".env")).unwrap(), "canary");
}

async fn a_workspace_that_is_read_has_a_repository_to_write(fixture: Fixture) {
    let place = Place::new();
    let before = place.hidden();
    let sandbox = start(&fixture, fixture.policy(), &place, Access::ReadOnly).await;
    assert_eq!(inside(&sandbox, "git status --porcelain; grep -rl canary . || true").await, " M file");
    inside(&sandbox, "git commit -qam second && ! touch file 2>&- && touch node_modules/x").await;
    sandbox.destroy().await.unwrap();
    assert_eq!(place.hidden(), before);
}

async fn what_is_covered_is_limited(fixture: Fixture) {
    let place = Place::new();
    let limits = LimitsRequest { disk: Some("64MiB".parse().unwrap()), ..Default::default() };
    let builder = fixture.builder().limits(limits).workspace(place.workspace());
    let sandbox = builder.start().await.unwrap();
    let fill =
        "cd node_modules; head -c 40M /dev/zero >a && ! head -c 40M /dev/zero >b && rm a b && head -c 40M /dev/zero >b";
    inside(&sandbox, fill).await;
    sandbox.destroy().await.unwrap();
}

macro_rules! each {
    ($($engine:ident: $fixture:path;)*) => {
        $(mod $engine {
            each!(@ $fixture:
                a_linked_work_tree_has_a_repository_of_its_own
                a_workspace_that_is_read_has_a_repository_to_write
                the_hosts_repository_is_neither_read_nor_written
                what_is_covered_is_limited
                what_is_missing_is_not_made_through_it
            );
        })*
    };
    (@ $fixture:path: $($case:ident)*) => {
        $(#[tokio::test]
        async fn $case() {
            super::$case($fixture().await).await;
        })*
    };
}

each! {
    docker: super::fixture::docker;
    docker_remap: super::fixture::docker_remap;
    docker_rootless: super::fixture::docker_rootless;
    podman: super::fixture::podman;
    podman_rootless: super::fixture::podman_rootless;
    without_an_engine: crate::embedded::fixture;
}
