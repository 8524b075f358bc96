//! Sandboxes for a repository: where their tokens come from, where they are not, and how they end.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{OLD, READ, REPO, Scene, listed, read, refused};
use crate::description::example;
use crate::harness::Place;
use crate::mock::{Answer, answer};

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_finds_the_token_of_its_repository() {
    let mut scene = Scene::new(vec![read(Some(30)), listed()]).await;
    scene.place = Place::embedded();
    let run = ["run", "--repo", REPO, "--no-network", "--report", "--", "sh", "-c", "env; cat /proc/self/environ"];
    let without = scene.run(&run);
    assert!(
        without.code == Some(0) && without.stderr.contains("no token is kept for octocat/hello-world"),
        "{without:?}"
    );
    scene.keep(OLD);
    // What GitHub does not tell of such a token is a control that somebody must go without by name.
    let unwaived = scene.run(&run);
    assert!(unwaived.code == Some(125) && unwaived.stderr.contains("--waive token-scope"), "{unwaived:?}");
    let waived = [&run[..3], &["--waive", "token-scope"], &run[3..]].concat();
    let ran = scene.run(&waived);
    assert!(ran.code == Some(0) && ran.stderr.contains("short-lived-token"), "{ran:?}");
    let none = [&run[..3], &["--no-token"], &run[3..]].concat();
    let none = scene.run(&none);
    assert!(none.code == Some(0) && !none.stderr.contains("short-lived-token"), "{none:?}");

    scene.github.lay(refused(READ).undescribed());
    let dead = scene.run(&waived);
    assert!(dead.code == Some(125) && dead.stderr.contains("does not accept the credential"), "{dead:?}");
    scene.place.assert_nothing_left();
    scene.end(&[without, unwaived, ran, none, dead]).await;
}

/// An app that makes tokens, and the end of each.
fn app() -> Vec<Answer> {
    let permissions = json!({
        "actions": "read", "checks": "read", "contents": "write", "issues": "write", "metadata": "read",
        "pull_requests": "write",
    });
    let mut installation = example("installation");
    installation["permissions"] = permissions.clone();
    let mut repository = example("repository");
    for grown in ["parent", "source", "organization"] {
        repository.as_object_mut().unwrap().remove(grown);
    }
    let ends: DateTime<Utc> = (SystemTime::now() + Duration::from_hours(1)).into();
    let made = json!({
        "token": MINTED, "expires_at": ends.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        "permissions": permissions, "repository_selection": "selected", "repositories": [repository],
    });
    let alive = || answer("GET", "/installation/repositories", 200, example("/installation/repositories"));
    vec![
        answer("GET", "/repos/octocat/hello-world/installation", 200, installation),
        answer("POST", "/app/installations/1/access_tokens", 201, made),
        alive(),
        refused("/installation/repositories"),
        alive(),
        refused("/installation/repositories"),
        answer("DELETE", "/installation/token", 204, Value::Null),
    ]
}

const MINTED: &str = "ghs_MADE0UP0FOR0TESTS0";

#[tokio::test(flavor = "multi_thread")]
async fn an_apps_token_is_made_for_a_sandbox_and_ends_with_it() {
    let mut scene = Scene::new(app()).await;
    scene.place = Place::embedded();
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/../sandbox-github/tests/keys/app.pkcs1.pem");
    let command = format!("cat '{key}'");
    let run = ["run", "--repo", REPO, "--no-network", "--report", "--audit", "events.jsonl", "--", "true"];
    let mut printed = Vec::new();
    for variable in [("SANDBOX_GITHUB_APP_KEY_FILE", key), ("SANDBOX_GITHUB_APP_KEY_COMMAND", command.as_str())] {
        scene.variables = vec![("SANDBOX_GITHUB_APP", "Iv23liMADEUP".to_owned()), (variable.0, variable.1.to_owned())];
        // No waiver is needed: such a token is short-lived, and its permissions are known.
        let ran = scene.run(&run);
        assert!(ran.code == Some(0) && ran.stderr.contains("token-scope"), "{ran:?}");
        printed.push(ran);
    }
    let asked = scene.github.asked().await;
    let count = |line: &str| asked.iter().filter(|asked| *asked == line).count();
    assert_eq!(count("POST /app/installations/1/access_tokens"), 2, "{asked:?}");
    assert_eq!(count("DELETE /installation/token"), 2, "{asked:?}");
    // The audit knows it by the digest under which GitHub's own log has it.
    let audit = std::fs::read_to_string(scene.place.path("events.jsonl")).unwrap();
    assert_eq!(audit.matches("ZDMrCYsIKkwtk8Wnn12xsEhxMfa4K65F/inu+ig9WAc=").count(), 2, "{audit}");
    assert!(!audit.contains("MADE0UP0"));
    for (variable, value, words) in [
        ("SANDBOX_GITHUB_APP_KEY_FILE", "/nonexistent", "does not exist"),
        ("SANDBOX_GITHUB_APP_KEY_FILE", "/etc/passwd", "the app's key cannot be used"),
        ("SANDBOX_GITHUB_APP_KEY_COMMAND", "exit 3", "failed"),
        ("UNUSED", "", "hint: set one of SANDBOX_GITHUB_APP_KEY_FILE"),
    ] {
        scene.variables = vec![("SANDBOX_GITHUB_APP", "Iv23liMADEUP".to_owned()), (variable, value.to_owned())];
        let ran = scene.run(&run);
        assert!(ran.code == Some(125) && ran.stderr.contains(words), "{words}: {ran:?}");
        printed.push(ran);
    }
    scene.place.assert_nothing_left();
    scene.end(&printed).await;
}

/// How a token would look in a place: as it is, in hex, and in base64 at each of three offsets.
fn looks() -> Vec<Vec<u8>> {
    use base64::Engine as _;
    let hex = OLD.bytes().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let offset = |skipped: usize| {
        let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode([vec![b'x'; skipped], OLD.into()].concat());
        // What stands beside it changes the first letters and the last.
        text.as_bytes()[4..text.len() - 4].to_vec()
    };
    [OLD.as_bytes().to_vec(), hex.into_bytes(), offset(0), offset(1), offset(2)].into()
}

fn holds(bytes: &[u8], looks: &[Vec<u8>]) -> bool {
    looks.iter().any(|look| bytes.windows(look.len()).any(|part| part == look))
}

/// Files below a directory that hold the token.
fn found(directory: &Path, looks: &[Vec<u8>]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            all.extend(found(&path, looks));
        } else if kind.is_file() && std::fs::read(&path).is_ok_and(|bytes| holds(&bytes, looks)) {
            all.push(path);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_lies_in_no_place_but_its_store_while_a_sandbox_runs_and_afterwards() {
    let mut scene = Scene::new(vec![read(Some(30)), listed()]).await;
    scene.place = Place::embedded();
    scene.keep(OLD);
    let looks = looks();
    let store = scene.place.path("config/sandbox/tokens/.env.octocat.hello-world");
    let up = scene.run(&["up", "--repo", REPO, "--no-network", "--waive", "token-scope", "--audit", "events.jsonl"]);
    assert_eq!(up.code, Some(0), "{up:?}");
    let id = up.stdout.trim().to_owned();
    for _ in ["while it runs", "afterwards"] {
        // The run root, the images and layers, the home and the audit; and what programs are told when they start.
        assert_eq!(
            found(&scene.place.path("."), &looks),
            [scene.place.path("./config/sandbox/tokens/.env.octocat.hello-world")]
        );
        // Where the system keeps what lives in memory.
        assert!(found(Path::new("/run"), &looks).is_empty());
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            for name in ["cmdline", "environ"] {
                // One that has ended, and those of this test's runner, tell nothing.
                let bytes = std::fs::read(process.path().join(name)).unwrap_or_default();
                assert!(!holds(&bytes, &looks), "{}", process.path().display());
            }
        }
        let inspect = scene.run(&["inspect", &id, "--json"]);
        assert!(!holds(inspect.stdout.as_bytes(), &looks));
        let inside =
            "grep -rlsF github_pat_MADE0UP / --exclude-dir=proc --exclude-dir=sys --exclude-dir=usr || echo none";
        if inspect.code == Some(0) {
            let searched = scene.run(&["exec", &id, "--", "sh", "-c", inside]);
            assert_eq!(searched.stdout, "none\n", "{searched:?}");
            let down = scene.run(&["down", &id]);
            assert_eq!(down.code, Some(0), "{down:?}");
        }
    }
    // What is looked for is found where it is.
    assert!(holds(&std::fs::read(store).unwrap(), &looks));
    assert!(std::fs::read(scene.place.path("events.jsonl")).unwrap().len() > 100, "there is an audit to search");
    scene.place.assert_nothing_left();
    scene.end(&[up]).await;
}
