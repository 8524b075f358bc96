//! What lies below the workspaces of many sandboxes, where nothing but the kernel makes containers.

use std::fs;
use std::path::{Path, PathBuf};

use sandbox_core::MirrorLimits;
use sandbox_core::policy::History;

use super::{Scene, branch, git, say};
use crate::embedded::fixture;

/// The checkouts of the one mirror.
fn checkouts(scene: &Scene) -> Vec<PathBuf> {
    let all = scene.mirror().with_file_name("checkouts");
    let Ok(entries) = fs::read_dir(all) else { return Vec::new() };
    let mut all: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

/// All that a directory holds: names, kinds, modes, owners, times and content.
fn fingerprint(directory: &Path) -> String {
    let script = "find . -printf '%P %y %m %U %G %T@ %C@ %l\\n' | LC_ALL=C sort; \
                  find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";
    let output = std::process::Command::new("sh").args(["-c", script]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
async fn nobody_poisons_what_others_have_below_theirs() {
    let scene = Scene::new(fixture().await).await;
    let file = scene.pusher.path().join("file");
    fs::write(&file, "innocent\n").unwrap();
    git(scene.pusher.path(), &["add", "-A"]);
    let tip = scene.push("second", "trunk");
    let attacker = scene.builder().branch(branch("attacker")).start().await.unwrap();
    let victim = scene.builder().branch(branch("victim")).start().await.unwrap();
    let [place] = checkouts(&scene).try_into().unwrap();
    let before = fingerprint(&place);
    // What git keeps of the files is right, so that none of them is read again.
    let racing = "git diff-files --quiet && git diff-index --cached --quiet HEAD && echo clean";
    assert_eq!(say(&victim, racing).await, "clean");

    // Everything that somebody may write is written, by every way that leaves a name in its place.
    let poison = "echo poison >file; rm 'a b'; mv -- -rf moved; chmod 0777 run; ln -sf /etc/shadow in; mkdir -p x; ln file x/hard; \
        printf '[core]\\n\\tfsmonitor = touch /tmp/fired\\n' >>.git/config; mkdir -p .git/hooks; echo 'touch /tmp/fired' >.git/hooks/post-checkout; \
        chmod -R u+w .git/objects; for pack in .git/objects/pack/*; do echo poison >$pack; done; echo poison >.git/packed-refs; \
        truncate -s 0 .git/index; setfattr -n user.overlay.opaque -v y . 2>/dev/null || true; touch -h -d @0 out sub";
    say(&attacker, poison).await;
    // It has what it wrote, so what follows could have found it elsewhere.
    let has = "cat file; test ! -e 'a b'; head -c 6 .git/objects/pack/*.pack";
    assert_eq!(say(&attacker, has).await, "poison\npoison");
    // Nothing leads to what lies below but by a mount that nobody inside can make.
    let around = "mkdir -p /tmp/m; mount --bind /workspace /tmp/m 2>/dev/null && echo mounted; \
        unshare -Urm true 2>/dev/null && echo unshared; grep ' /workspace ' /proc/self/mountinfo | sed 's/.* - //'";
    let names = "overlay sandbox rw,lowerdir=b0u,upperdir=d/ub0u,workdir=d/wb0u";
    let found = say(&attacker, around).await;
    assert!(found.starts_with(names) && found.lines().count() == 1, "{found}");

    let innocent = "cat file 'a b'; echo; git rev-parse HEAD; git status --porcelain; git fsck --strict; git config core.fsmonitor || echo none";
    let expected = format!("innocent\na b\n{tip}\nnone");
    assert_eq!(say(&victim, innocent).await, expected);
    let late = scene.builder().branch(branch("late")).start().await.unwrap();
    assert_eq!(say(&late, innocent).await, expected);
    attacker.destroy().await.unwrap();
    let later = scene.builder().branch(branch("attacker")).start().await.unwrap();
    assert_eq!(say(&later, innocent).await, expected);
    assert_eq!(checkouts(&scene), [place.as_path()]);
    // The time of its last use is the lock's.
    let without_lock =
        |text: &str| text.lines().filter(|line| !line.starts_with("lock ")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(without_lock(&fingerprint(&place)), without_lock(&before));

    // It is one and the same that they have below theirs: what the host did to it would be seen.
    fs::write(place.join("tree/sub/.gitignore"), "poison").unwrap();
    assert_eq!(say(&victim, "cat sub/.gitignore").await, "poison");
    for sandbox in [late, later] {
        sandbox.destroy().await.unwrap();
    }
    scene.end(victim).await;
}

#[tokio::test]
async fn what_lies_below_is_the_agents_and_what_it_writes_is_its_own() {
    let scene = Scene::new(fixture().await).await;
    let sandbox = scene.builder().branch(branch("agent/1-a")).start().await.unwrap();
    let owners = "find . -not \\( -uid $(id -u) -gid $(id -g) \\) | head; stat -c %a run; ls -A | wc -l";
    assert_eq!(say(&sandbox, owners).await, "755\n11");
    let working = "git checkout -q -b other; git mv 'a b' c; rm -r sub; mkdir sub; echo x >sub/y; git add -A; git commit -q -m work; \
        git gc -q; git checkout -q agent/1-a; git merge -q other; git status --porcelain; git fsck --strict; git log --format=%s; cat c sub/y";
    assert_eq!(say(&sandbox, working).await, "work\nfirst\na bx");
    scene.end(sandbox).await;
}

#[tokio::test]
async fn the_last_few_are_kept_and_those_that_are_in_use() {
    let scene = Scene::new(fixture().await).await;
    let first = scene.builder().start().await.unwrap();
    let [used] = checkouts(&scene).try_into().unwrap();
    for number in 0..6 {
        fs::write(scene.pusher.path().join("number"), number.to_string()).unwrap();
        git(scene.pusher.path(), &["add", "-A"]);
        scene.push("next", "trunk");
        let sandbox = scene.builder().start().await.unwrap();
        assert_eq!(say(&sandbox, "cat number").await, number.to_string());
        sandbox.destroy().await.unwrap();
    }
    let kept = checkouts(&scene);
    assert!(kept.len() == 5 && kept.contains(&used), "{kept:?}");
    assert_eq!(say(&first, "cat 'a b'; git fsck --strict").await, "a b");
    scene.end(first).await;
    let sandbox = scene.builder().start().await.unwrap();
    assert!(checkouts(&scene).len() == 4 && !checkouts(&scene).contains(&used));
    scene.end(sandbox).await;
}

#[tokio::test]
async fn a_tree_that_is_larger_than_is_allowed_is_not_checked_out_on_the_host() {
    let scene = Scene::new(fixture().await).await;
    // It takes next to no room in a pack.
    fs::write(scene.pusher.path().join("zeros"), vec![0; 3_000_000]).unwrap();
    git(scene.pusher.path(), &["add", "-A"]);
    scene.push("large", "trunk");
    let limits = MirrorLimits { bytes: 1_000_000, ..MirrorLimits::default() };
    let mirrors = scene.server.mirrors(scene.mirrors.path());
    let sandbox = scene.builder().mirrors(mirrors.clone().with_limits(limits)).start().await.unwrap();
    assert_eq!(say(&sandbox, "stat -c %s zeros; git status --porcelain").await, "3000000");
    scene.end(sandbox).await;
    assert_eq!(checkouts(&scene), [] as [&Path; 0]);
    let sandbox = scene.builder().mirrors(mirrors).start().await.unwrap();
    assert_eq!(checkouts(&scene).len(), 1);
    scene.end(sandbox).await;
}

#[tokio::test]
async fn nothing_that_a_repository_names_is_started_where_it_is_checked_out() {
    let scene = Scene::new(fixture().await).await;
    let here = scene.pusher.path();
    let canary = here.join(".git/canary");
    let touch = format!("touch {}", canary.display());
    fs::write(here.join(".gitattributes"), "* filter=evil diff=evil ident\n*.lfs filter=lfs\n").unwrap();
    fs::write(here.join(".gitconfig"), format!("[filter \"evil\"]\n\tsmudge = {touch}; cat\n\trequired\n")).unwrap();
    fs::write(here.join("x.lfs"), "version https://git-lfs.github.com/spec/v1\n").unwrap();
    git(here, &["add", "-A"]);
    scene.push("hostile", "trunk");
    let place = scene.server.place("octo/widget");
    git(&place, &["config", "filter.evil.smudge", &format!("{touch}; cat")]);
    let sandbox = scene.builder_of(History::Full).start().await.unwrap();
    assert_eq!(checkouts(&scene).len(), 1);
    assert_eq!(say(&sandbox, "cat x.lfs; git status --porcelain").await, "version https://git-lfs.github.com/spec/v1");
    assert!(!canary.exists());
    // A hand that is less careful starts what is named there.
    let careless = here.join(".git/careless");
    git(here, &["clone", "-q", "--no-checkout", place.to_str().unwrap(), careless.to_str().unwrap()]);
    git(&careless, &["-c", &format!("filter.evil.smudge={touch}; cat"), "checkout", "-q", "trunk"]);
    assert!(canary.exists());
    scene.end(sandbox).await;
}
