//! Servers and repositories that are up to something.

use std::fs;
use std::time::Duration;

use sandbox_core::policy::History;
use sandbox_core::{EgressVerdict, ErrorKind, Event, MirrorLimits};

use super::server::{Manner, NAME, Server};
use super::{Scene, allowlist, branch, fixture, git, here, noise, say};
use crate::egress::harness::{Names, own_address};

/// Makes a commit of a tree with one entry, which the index would not take, and pushes it.
fn push_tree(scene: &Scene, mode: &str, name: &str, content: &str) {
    let here = scene.pusher.path();
    let blob = here.join("blob");
    fs::write(&blob, content).unwrap();
    let id = git(here, &["hash-object", "-w", "blob"]);
    fs::remove_file(blob).unwrap();
    let raw: Vec<u8> = (0..id.len()).step_by(2).map(|at| u8::from_str_radix(&id[at..at + 2], 16).unwrap()).collect();
    let tree = [format!("{mode} {name}\0").as_bytes(), &raw].concat();
    fs::write(here.join("tree"), tree).unwrap();
    let tree = git(here, &["hash-object", "-w", "--literally", "-t", "tree", "tree"]);
    fs::remove_file(here.join("tree")).unwrap();
    let commit = git(here, &["commit-tree", "-m", "hostile", &tree]);
    let place = scene.server.place("octo/widget");
    git(here, &["push", "-q", place.to_str().unwrap(), &format!("+{commit}:refs/heads/trunk")]);
}

#[tokio::test]
async fn what_would_harm_a_checkout_is_not_taken() {
    let scene = Scene::new(fixture::fake().await).await;
    for (mode, name, content) in [
        ("100644", ".git", "x"),
        ("100644", ".GIT", "x"),
        ("100644", ".g\u{200c}it", "x"),
        ("100644", "git~1", "x"),
        ("100644", "..", "x"),
        ("100644", "a/b", "x"),
        ("120000", ".gitmodules", "/etc/passwd"),
        ("100644", ".gitmodules", "[submodule \"x\"]\n\tpath = x\n\turl = -u./payload\n"),
        ("100644", ".gitmodules", "[submodule \"x\"]\n\tpath = -x\n\turl = https://x.example/x\n"),
        ("100644", ".gitmodules", "[submodule \"../../x\"]\n\tpath = x\n\turl = https://x.example/x\n"),
        ("100644", ".gitmodules", "[submodule \"x\"]\n\tpath = x\n\turl = https://x.example/%0ahost=y\n"),
    ] {
        push_tree(&scene, mode, name, content);
        let error = scene.builder().start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?} {content:?}: {error:?}");
    }
    // The same way brings what is harmless.
    push_tree(&scene, "100644", "harmless", "x");
    let sandbox = scene.builder().start().await.unwrap();
    assert_eq!(say(&sandbox, "ls -A; cat harmless").await, ".git\nharmless\nx");
    scene.end(sandbox).await;
}

#[tokio::test]
async fn nothing_that_a_repository_names_is_fetched_or_started() {
    let scene = Scene::new(fixture::fake().await).await;
    let here = scene.pusher.path();
    let canary = here.join(".git/canary");
    let touch = format!("touch {}", canary.display());
    let elsewhere = Server::new().await;
    fs::write(
        here.join(".gitmodules"),
        format!(
            "[submodule \"ext\"]\n\tpath = ext\n\turl = ext::sh -c {touch}\n[submodule \"far\"]\n\tpath = far\n\turl = {}\n\
             \tupdate = checkout\n",
            elsewhere.url("octo/widget")
        ),
    )
    .unwrap();
    fs::write(here.join(".gitattributes"), "* filter=lfs diff=x\n*.bin filter=evil\n").unwrap();
    fs::write(here.join(".lfsconfig"), format!("[lfs]\n\turl = {}\n", elsewhere.url("lfs"))).unwrap();
    fs::write(here.join("x.bin"), "version https://git-lfs.github.com/spec/v1\n").unwrap();
    fs::create_dir_all(here.join("hooks")).unwrap();
    fs::write(here.join("hooks/post-checkout"), format!("#!/bin/sh\n{touch}\n")).unwrap();
    git(here, &["add", "-A"]);
    let tip = git(here, &["rev-parse", "HEAD"]);
    for path in ["ext", "far"] {
        git(here, &["update-index", "--add", "--cacheinfo", &format!("160000,{tip},{path}")]);
    }
    // Settings of the server's own repository are not the host's.
    let place = scene.server.place("octo/widget");
    git(&place, &["config", "core.fsmonitor", &touch]);
    scene.push("hostile", "trunk");
    let sandbox = scene.builder().start().await.unwrap();
    assert_eq!(say(&sandbox, "ls ext far; git config --get-regexp submodule || echo none").await, "ext:\n\nfar:\nnone");
    assert!(!canary.exists());
    assert_eq!(elsewhere.take_seen().paths, Vec::<String>::new());
    // A hand that is less careful starts what is named there.
    let careless = scene.pusher.path().join(".git/careless");
    git(here, &["clone", "-q", "--no-checkout", place.to_str().unwrap(), careless.to_str().unwrap()]);
    git(&careless, &["-c", &format!("filter.evil.smudge={touch}; cat"), "checkout", "-q", "trunk"]);
    assert!(canary.exists());
    scene.end(sandbox).await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let scene = Scene::new(fixture::fake().await).await;
    let sandbox = scene.builder().start().await.unwrap();
    scene.end(sandbox).await;
    let other = Scene::new(fixture::fake().await).await;
    for place in [other.server.url("").trim_end_matches('/').to_owned(), "http://127.0.0.1:1".to_owned()] {
        scene.server.behave(Manner { redirect: Some(place), ..Manner::default() });
        let error = scene.builder().start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
    }
    assert_eq!(other.server.take_seen().paths, Vec::<String>::new());
}

#[tokio::test]
async fn a_name_that_leads_where_nothing_may_go_is_not_dialled() {
    let scene = Scene::new(fixture::fake().await).await;
    let own = own_address().to_string();
    for answers in [&["127.0.0.1"][..], &[&own, "169.254.169.254"], &["10.255.255.1"], &["::1"]] {
        let names = Names::default();
        names.lead(NAME, &[answers]);
        let recorder = sandbox_core::testkit::Recorder::default();
        let mirrors = scene.server.mirrors_by(scene.mirrors.path(), names);
        let error = scene.builder().mirrors(mirrors).events(recorder.clone()).start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{answers:?}: {error:?}");
        let denied = |event: &Event| matches!(event, Event::EgressDecided { verdict: EgressVerdict::Denied, .. });
        assert!(recorder.events().iter().any(denied));
    }
    assert_eq!(scene.server.take_seen().paths, Vec::<String>::new());
    // What was checked is what is dialled: nobody is asked for the name a second time.
    let names = Names::default();
    names.lead(NAME, &[&[&own], &["127.0.0.1"]]);
    let mirrors = scene.server.mirrors_by(scene.mirrors.path(), names.clone());
    let sandbox = scene.builder().mirrors(mirrors).start().await.unwrap();
    assert_eq!(names.asked(), [NAME]);
    scene.end(sandbox).await;
}

#[tokio::test]
async fn a_server_that_proves_nothing_is_told_nothing() {
    let scene = Scene::new(fixture::fake().await).await;
    let stranger = Server::new().await;
    let names = Names::default();
    names.lead(NAME, &[&[&own_address().to_string()]]);
    // The authorities of another server.
    let mirrors = stranger.mirrors_by(scene.mirrors.path(), names);
    let error = scene.builder().mirrors(mirrors).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
    assert_eq!(scene.server.take_seen().paths, Vec::<String>::new());
}

/// The processes of this machine that were told of a server.
fn told_of(server: &Server) -> Vec<String> {
    let port = format!("{NAME}:{}", server.port);
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let place = entry.unwrap().path();
        let said = fs::read(place.join("cmdline")).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).replace('\0', " ");
        if said.contains(&port) {
            found.push(said);
        }
    }
    found
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), waiting).await.is_ok(), "never: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_that_is_given_up_leaves_no_process_and_no_half_mirror() {
    let scene = Scene::new(fixture::fake().await).await;
    scene.server.behave(Manner { stalls: true, ..Manner::default() });
    let starting = scene.builder().start();
    tokio::select! {
        ended = starting => panic!("it stalls: {ended:?}"),
        () = eventually("a fetch", || scene.server.seen.lock().unwrap().paths.len() >= 4) => {}
    }
    eventually("no process", || told_of(&scene.server).is_empty()).await;
    eventually("no run directory", || scene.fixture.run_root.sandboxes().unwrap().is_empty()).await;
    assert!(!scene.mirror().exists(), "what is not whole is no mirror");
    scene.server.behave(Manner::default());
    let sandbox = scene.builder().start().await.unwrap();
    assert!(scene.mirror().join("HEAD").exists() && !scene.mirror().with_file_name("new.git").exists());
    scene.end(sandbox).await;
}

#[tokio::test]
async fn a_repository_is_no_larger_than_is_allowed_and_no_slower() {
    let scene = Scene::new(fixture::fake().await).await;
    fs::write(scene.pusher.path().join("noise"), noise(3_000_000)).unwrap();
    git(scene.pusher.path(), &["add", "-A"]);
    scene.push("large", "trunk");
    let limits = MirrorLimits { bytes: 100_000, ..MirrorLimits::default() };
    let mirrors = || scene.server.mirrors(scene.mirrors.path());
    let error = scene.builder().mirrors(mirrors().with_limits(limits)).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error:?}");
    assert!(!scene.mirror().exists());
    let limits = MirrorLimits { deadline: Duration::from_secs(1), ..MirrorLimits::default() };
    scene.server.behave(Manner { stalls: true, ..Manner::default() });
    let error = scene.builder().mirrors(mirrors().with_limits(limits)).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error:?}");
    eventually("no process", || told_of(&scene.server).is_empty()).await;
    scene.server.behave(Manner::default());
    let sandbox = scene.builder().start().await.unwrap();
    scene.end(sandbox).await;
}

#[tokio::test]
async fn mirrors_lie_where_nobody_else_writes() {
    let scene = Scene::new(fixture::fake().await).await;
    let open = scene.mirrors.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let error = scene.builder().mirrors(scene.server.mirrors(&open)).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    let builder = scene
        .fixture
        .builder()
        .policy(scene.fixture.policy().with_egress(allowlist([here(NAME, &[scene.server.port])])));
    let source = scene.server.url("octo/widget").parse().unwrap();
    let error = builder.workspace_clone(source, History::Full).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "no place is named: {error:?}");
    assert_eq!(scene.server.take_seen().paths, Vec::<String>::new());
}

mod docker {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_clones_at_once_share_one_fetch_each_its_turn() {
        let scene = Scene::new(fixture::docker().await).await;
        let (one, other) = tokio::join!(scene.builder().start(), scene.builder().branch(branch("b")).start());
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(say(&one, "git rev-parse HEAD").await, say(&other, "git rev-parse HEAD").await);
        for sandbox in [one, other] {
            sandbox.destroy().await.unwrap();
        }
        assert!(scene.mirror().exists());
    }

    #[tokio::test]
    async fn what_an_agent_may_write_is_neither_cloned_from_nor_mirrored_into() {
        let fixture = fixture::docker().await;
        let scene = Scene::new(fixture).await;
        let shared = tempfile::tempdir().unwrap();
        git(shared.path(), &["init", "-q"]);
        git(shared.path(), &["commit", "-q", "--allow-empty", "-m", "x"]);
        let clone = || {
            let source = shared.path().canonicalize().unwrap().to_str().unwrap().parse().unwrap();
            scene.builder().workspace_clone(source, History::Full).start()
        };
        let sandbox = clone().await.unwrap();
        sandbox.destroy().await.unwrap();
        // As soon as a sandbox has it, its settings are an agent's.
        let open = scene.fixture.policy().with_workspace_covered([]);
        let agents = scene.fixture.builder().policy(open).workspace(shared.path()).start().await.unwrap();
        assert_eq!(clone().await.unwrap_err().kind(), ErrorKind::Denied);
        let inner = shared.path().join("mirrors");
        let error = scene.builder().mirrors(scene.server.mirrors(&inner)).start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
        agents.destroy().await.unwrap();
        // Where `.git` is covered, what the agent may write is not what git reads.
        let agents = scene.fixture.builder().workspace(shared.path()).start().await.unwrap();
        let sandbox = clone().await.unwrap();
        sandbox.destroy().await.unwrap();
        agents.destroy().await.unwrap();
    }
}
