//! How much mirrors take in all.

use std::fs;
use std::path::Path;

use sandbox_core::policy::History;
use sandbox_core::{ErrorKind, MirrorLimits, Result, Sandbox};

use super::{Scene, fixture, git, noise, say};

/// Repositories of about a megabyte each, and nothing of it compresses.
async fn scene(fixture: sandbox_core::testkit::contract::Fixture) -> Scene {
    let scene = Scene::new(fixture).await;
    fs::write(scene.pusher.path().join("noise"), noise(1_000_000)).unwrap();
    git(scene.pusher.path(), &["add", "-A"]);
    scene.push("large", "trunk");
    for name in ["octo/a", "octo/b", "octo/c"] {
        let (from, to) = (scene.server.place("octo/widget"), scene.server.place(name));
        git(Path::new("/"), &["clone", "-q", "--bare", from.to_str().unwrap(), to.to_str().unwrap()]);
    }
    scene
}

async fn clone_of(scene: &Scene, name: &str, total: u64) -> Result<Sandbox> {
    let limits = MirrorLimits { total, ..MirrorLimits::default() };
    let mirrors = scene.server.mirrors(scene.mirrors.path()).with_limits(limits);
    let source = scene.server.url(name).parse().unwrap();
    scene.builder().mirrors(mirrors).workspace_clone(source, History::Full).start().await
}

/// Which repositories have a mirror.
fn mirrored(scene: &Scene) -> Vec<String> {
    let places = fs::read_dir(scene.mirrors.path()).unwrap().map(|entry| entry.unwrap().path());
    let whole = places.filter(|place| place.join("repository.git/HEAD").exists());
    let mut names: Vec<String> = whole
        .map(|place| {
            let source = fs::read_to_string(place.join("source")).unwrap();
            source.split_once("/octo/").unwrap().1.split(' ').next().unwrap().to_owned()
        })
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn the_mirror_that_was_used_least_lately_goes_and_comes_again() {
    let scene = scene(fixture::fake().await).await;
    for (name, left) in [
        ("octo/a", &["a"][..]),
        ("octo/b", &["a", "b"]),
        ("octo/a", &["a", "b"]),
        ("octo/c", &["a", "c"]),
        ("octo/b", &["b", "c"]),
    ] {
        let sandbox = clone_of(&scene, name, 2_600_000).await.unwrap();
        assert_eq!(say(&sandbox, "stat -c %s noise; git status --porcelain").await, "1000000");
        scene.end(sandbox).await;
        assert_eq!(mirrored(&scene), left, "after {name}");
    }
    // One alone may be too much already.
    let error = clone_of(&scene, "octo/a", 500_000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error:?}");
    assert!(error.to_string().contains("500000"), "{error}");
}

#[tokio::test]
async fn a_mirror_that_lies_below_a_workspace_stays() {
    let scene = scene(crate::embedded::fixture().await).await;
    let first = clone_of(&scene, "octo/a", 8_000_000).await.unwrap();
    for name in ["octo/b", "octo/c"] {
        clone_of(&scene, name, 8_000_000).await.unwrap().destroy().await.unwrap();
    }
    assert_eq!(mirrored(&scene), ["a", "c"]);
    assert_eq!(say(&first, "git fsck --strict; cmp noise noise && git status --porcelain").await, "");
    // With two in use there is no room for a third.
    let second = clone_of(&scene, "octo/c", 8_000_000).await.unwrap();
    let error = clone_of(&scene, "octo/b", 8_000_000).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error:?}");
    first.destroy().await.unwrap();
    let third = clone_of(&scene, "octo/b", 8_000_000).await.unwrap();
    assert_eq!(mirrored(&scene), ["b", "c"]);
    second.destroy().await.unwrap();
    scene.end(third).await;
}
