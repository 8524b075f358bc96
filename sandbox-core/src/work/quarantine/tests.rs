use super::*;
use crate::SandboxId;
use crate::work::Work;
use crate::work::tests::{git, git_bytes, repository};

/// A repository of the host, a clone of it that plays the one inside, and an empty quarantine.
struct Scene {
    host: TempDir,
    inside: TempDir,
    repository: HostRepository,
    quarantine: Quarantine,
}

impl Scene {
    async fn new() -> Self {
        let host = repository();
        let inside = tempfile::tempdir().unwrap();
        git(inside.path(), &["clone", "-q", host.path().to_str().unwrap(), "."]);
        let repository = HostRepository::open(host.path(), &[]).unwrap();
        let quarantine = Quarantine::new(&repository).await.unwrap();
        Self { host, inside, repository, quarantine }
    }

    fn id(&self, revision: &str) -> ObjectId {
        ObjectId::parse(git(self.inside.path(), &["rev-parse", revision]).as_bytes()).unwrap()
    }

    fn commit(&self, name: &str, content: &str, message: &str) -> ObjectId {
        std::fs::write(self.inside.path().join(name), content).unwrap();
        git(self.inside.path(), &["add", "--", name]);
        git(self.inside.path(), &["commit", "-q", "-m", message]);
        self.id("HEAD")
    }

    /// A commit of a tree that git's own commands would not make.
    fn commit_of(&self, entries: &[(&str, &str, &ObjectId)]) -> ObjectId {
        let mut tree = Vec::new();
        for (mode, name, id) in entries {
            tree.extend(format!("{mode} {name}\0").bytes());
            let digits = id.as_str().as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
            tree.extend(digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()));
        }
        let write = ["hash-object", "-t", "tree", "-w", "--literally", "--stdin"];
        let tree = String::from_utf8(git_bytes(self.inside.path(), &write, &tree)).unwrap();
        let id = git(self.inside.path(), &["commit-tree", "-p", "HEAD", "-m", "bad", tree.trim()]);
        ObjectId::parse(id.as_bytes()).unwrap()
    }

    fn blob(&self, content: &str) -> ObjectId {
        let said = git_bytes(self.inside.path(), &["hash-object", "-w", "--stdin"], content.as_bytes());
        ObjectId::parse(&said).unwrap()
    }

    fn pack(&self, tip: &ObjectId, known: &[ObjectId]) -> Vec<u8> {
        let request = tip.pack_request(known);
        git_bytes(self.inside.path(), &["pack-objects", "--revs", "--stdout", "-q"], request.as_bytes())
    }

    async fn take(&self, tip: &ObjectId, pack: &[u8]) -> Result<()> {
        let limits = WorkLimits::default();
        self.quarantine.take_bytes(pack, limits).await?;
        self.quarantine.verify(tip, &[self.id("origin/HEAD")], limits.deadline).await
    }

    fn into_work(self, tip: ObjectId, base: Option<ObjectId>) -> (Work, TempDir) {
        let within = QUICK;
        let Self { host, inside: _, repository, quarantine } = self;
        (Work { quarantine, repository, tip, base, name: "topic".to_owned(), within }, host)
    }
}

/// Every file below a directory, with what it holds.
fn files(directory: &Path) -> std::collections::BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

#[tokio::test]
async fn work_lands_under_its_own_name_and_touches_nothing_else() {
    let scene = Scene::new().await;
    let base = scene.id("HEAD");
    scene.commit("file", "two\n", "second");
    let tip = scene.commit("new \u{1b}[31m file", "x", "third \u{1b}[31m");
    scene.take(&tip, &scene.pack(&tip, std::slice::from_ref(&base))).await.unwrap();
    let before = files(scene.host.path());
    let (work, host) = scene.into_work(tip.clone(), Some(base.clone()));

    let commits = work.commits(10).await.unwrap();
    let subjects: Vec<&str> = commits.iter().map(|commit| commit.subject.as_str()).collect();
    assert_eq!(subjects, ["third \\x1b[31m", "second"]);
    assert_eq!(commits[0].id, tip.as_str());
    let mut diff = Vec::new();
    work.diff(&mut diff, Rendering::Shown).await.unwrap();
    let diff = String::from_utf8(diff).unwrap();
    assert!(diff.contains("-one\n+two\n") && !diff.contains('\u{1b}'), "{diff}");
    let mut patch = Vec::new();
    work.patch(&mut patch, Rendering::Raw).await.unwrap();
    let patch = String::from_utf8(patch).unwrap();
    assert_eq!(patch.matches("\nSubject: ").count(), 2, "{patch}");

    let id = SandboxId::random().unwrap();
    let reference = work.land(id).await.unwrap();
    assert_eq!(reference, format!("refs/sandbox/{id}/topic"));
    assert_eq!(git(host.path(), &["rev-parse", &reference]), tip.as_str());
    let after = files(host.path());
    let git_directory = host.path().join(".git");
    let ours = |path: &Path| {
        path.starts_with(git_directory.join("objects")) || path.starts_with(git_directory.join("refs/sandbox"))
    };
    let quarantine = |path: &Path| path.to_string_lossy().contains("sandbox-quarantine-");
    let kept = |all: std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>| {
        all.into_iter().filter(|(path, _)| !ours(path) && !quarantine(path)).collect::<Vec<_>>()
    };
    assert!(after.keys().all(|path| !quarantine(path)), "the quarantine is gone");
    assert_eq!(kept(before), kept(after));
    assert_eq!(git(host.path(), &["status", "--porcelain"]), "");
    // The patch is what git itself reads.
    git_bytes(host.path(), &["am", "-q"], patch.as_bytes());
    assert_eq!(std::fs::read_to_string(host.path().join("file")).unwrap(), "two\n");
}

#[tokio::test]
async fn what_a_killed_process_left_is_removed_and_nothing_else() {
    let host = repository();
    let repository = HostRepository::open(host.path(), &[]).unwrap();
    let me = Owner::current().unwrap();
    let named = |owner: &Owner| format!("{PREFIX}{},x", owner.to_string().replace(' ', ","));
    let make = |name: &str| {
        let path = repository.directory().join(name);
        std::fs::create_dir_all(path.join("objects")).unwrap();
        path
    };
    let dead = make(&named(&Owner { start: me.start + 1, ..me.clone() }));
    let kept = [
        make(&named(&me)),
        make(&named(&Owner { host: "elsewhere".to_owned(), ..me.clone() })),
        make("sandbox-quarantine-x"),
        make("sandbox-other"),
    ];
    let quarantine = Quarantine::new(&repository).await.unwrap();
    assert!(!dead.exists());
    assert!(kept.iter().all(|path| path.exists()) && quarantine.path().exists());
    let own = quarantine.path().file_name().unwrap().to_str().unwrap().to_owned();
    drop(quarantine);
    assert!(own.starts_with(named(&me).trim_end_matches('x')), "a killed one of ours is found by its name: {own}");
}

#[tokio::test]
async fn work_that_shares_nothing_with_the_host_is_shown_in_full() {
    let scene = Scene::new().await;
    git(scene.inside.path(), &["checkout", "-q", "--orphan", "topic"]);
    let tip = scene.commit("file", "other\n", "alone");
    scene.take(&tip, &scene.pack(&tip, &[])).await.unwrap();
    assert_eq!(scene.quarantine.common(&scene.id("origin/HEAD"), &tip).await.unwrap(), None);
    let (work, _host) = scene.into_work(tip, None);
    let (mut diff, mut patch) = (Vec::new(), Vec::new());
    work.diff(&mut diff, Rendering::Raw).await.unwrap();
    work.patch(&mut patch, Rendering::Raw).await.unwrap();
    assert!(String::from_utf8(diff).unwrap().contains("new file mode"));
    assert!(String::from_utf8(patch).unwrap().contains("Subject: [PATCH] alone"));
}

#[tokio::test]
async fn what_would_harm_a_checkout_does_not_pass() {
    let scene = Scene::new().await;
    let hook = scene.blob("#!/bin/sh\n");
    let hooks = scene.commit_of(&[("100755", "post-checkout", &hook)]);
    let hooks = scene.id(&format!("{hooks}^{{tree}}"));
    let modules = scene.blob("[submodule \"a\"]\n\tpath = a\n\turl = --upload-pack=touch${IFS}/tmp/x\n");
    let link = scene.blob("/etc/passwd");
    let bad = [
        scene.commit_of(&[("40000", ".git", &hooks)]),
        scene.commit_of(&[("40000", ".GIT", &hooks)]),
        scene.commit_of(&[("40000", "..", &hooks)]),
        scene.commit_of(&[("100644", "a/b", &hook)]),
        scene.commit_of(&[("100644", ".gitmodules", &modules)]),
        scene.commit_of(&[("120000", ".gitmodules", &link)]),
    ];
    for tip in bad {
        let error = scene.take(&tip, &scene.pack(&tip, &[])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{tip}: {error}");
    }
    // The same way is open to what is as it should be.
    let good = scene.commit_of(&[("120000", "link", &link), ("100755", "post-checkout", &hook)]);
    scene.take(&good, &scene.pack(&good, &[])).await.unwrap();
}

#[tokio::test]
async fn what_is_broken_or_incomplete_or_too_much_does_not_pass() {
    let scene = Scene::new().await;
    let base = scene.id("HEAD");
    let middle = scene.commit("file", "two\n", "second");
    let tip = scene.commit("file", "three\n", "third");
    let whole = scene.pack(&tip, &[base]);
    let mut flipped = whole.clone();
    let last = flipped.len() - 30;
    flipped[last] ^= 1;
    // Its parent is neither in the pack nor on the host.
    let gap = scene.pack(&tip, &[middle]);
    for (what, pack) in [
        ("empty", &b""[..]),
        ("no pack", b"PACK and what not"),
        ("cut", &whole[..whole.len() / 2]),
        ("changed", &flipped),
        ("with a gap", &gap),
    ] {
        let error = scene.take(&tip, pack).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}: {error}");
    }
    let limits = WorkLimits { bytes: 100, ..WorkLimits::default() };
    let error = scene.quarantine.take_bytes(&whole, limits).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    scene.take(&tip, &whole).await.unwrap();
}

#[tokio::test]
async fn nothing_that_the_hosts_own_settings_name_is_started() {
    let scene = Scene::new().await;
    let canary = scene.host.path().join("canary");
    let program = scene.host.path().join("program");
    std::fs::write(&program, format!("#!/bin/sh\necho \"$0 $*\" >>'{}'\nexit 1\n", canary.display())).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let named = program.to_str().unwrap();
    for (key, value) in [
        ("core.fsmonitor", named),
        ("core.hooksPath", scene.host.path().join(".git/hooks").to_str().unwrap()),
        ("core.alternateRefsCommand", named),
        ("core.pager", named),
        ("diff.external", named),
        ("credential.helper", named),
    ] {
        git(scene.host.path(), &["config", key, value]);
    }
    for hook in ["reference-transaction", "post-index-change", "pre-auto-gc"] {
        std::fs::create_dir_all(scene.host.path().join(".git/hooks")).unwrap();
        std::fs::copy(&program, scene.host.path().join(".git/hooks").join(hook)).unwrap();
    }
    let base = scene.id("HEAD");
    let tip = scene.commit("file", "two\n", "second");
    scene.take(&tip, &scene.pack(&tip, std::slice::from_ref(&base))).await.unwrap();
    scene.repository.commits(10).await.unwrap();
    let (work, host) = scene.into_work(tip, Some(base));
    work.diff(&mut Vec::new(), Rendering::Raw).await.unwrap();
    work.land(SandboxId::random().unwrap()).await.unwrap();
    assert!(!canary.exists(), "{}", std::fs::read_to_string(&canary).unwrap_or_default());
    // Git as people run it starts what the settings name.
    std::process::Command::new("git").arg("status").current_dir(host.path()).output().unwrap();
    assert!(canary.exists());
}
