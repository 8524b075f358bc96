//! `pull`, `diff`, `patch`: work comes back as commits.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::{Place, text};

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"])
        .args(["-c", "safe.directory=*"])
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn commits_are_shown_and_taken_over() {
    let place = Place::new();
    let host = place.path("widget");
    std::fs::create_dir(&host).unwrap();
    git(&host, &["init", "-q"]);
    git(&host, &["commit", "-q", "--allow-empty", "-m", "first"]);
    let id = place.ok(&["up"]).trim().to_owned();
    place.ok(&["cp", "widget", &format!("{id}:/home/agent/")]);
    let script = "cd ~/widget && git config user.name a && git config user.email a@b && git checkout -q -b topic && \
                  echo two >file && git add file && git commit -q -m second";
    assert_eq!(place.sandbox(&["exec", &id, "--", "sh", "-c", script]).code, Some(0));

    let with = ["--from", "/home/agent/widget", "--into", "widget"];
    let shown = place.ok(&[&["diff", &id][..], &with].concat());
    assert!(shown.contains("+two"), "{shown}");
    let shown: Value = serde_json::from_str(&place.ok(&[&["diff", &id, "--json"][..], &with].concat())).unwrap();
    assert!(shown["text"].as_str().unwrap().contains("+two") && shown["commits"][0]["subject"] == "second", "{shown}");
    assert_eq!(git(&host, &["for-each-ref", "refs/sandbox"]), "", "what is shown is not kept");

    let pulled = place.sandbox(&[&["pull", &id][..], &with].concat());
    let reference = format!("refs/sandbox/{id}/topic");
    assert_eq!((pulled.code, pulled.stdout.trim()), (Some(0), reference.as_str()), "{pulled:?}");
    assert!(pulled.stderr.contains("second (a)"), "{pulled:?}");
    assert_eq!(git(&host, &["log", "-1", "--format=%s", &reference]), "second");
    assert_eq!(git(&host, &["log", "-1", "--format=%s", "HEAD"]), "first");
    let patch = place.ok(&[&["patch", &id, "topic"][..], &with].concat());
    assert!(patch.contains("Subject: [PATCH] second"), "{patch}");

    let ran = place.sandbox(&["pull", &id]);
    assert!(ran.code == Some(1) && ran.stderr.contains("lies in no git repository"), "{ran:?}");
    let ran = place.sandbox(&["pull", &id, "--into", "widget"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("hint: say where"), "{ran:?}");
    let ran = place.sandbox(&[&["pull", &id, "nowhere"][..], &with].concat());
    assert!(ran.code == Some(1) && ran.stderr.contains("no commit \"nowhere\""), "{ran:?}");
    place.ok(&["down", &id]);
    place.assert_nothing_left();
}

#[test]
fn work_comes_back_to_the_repository_that_is_mounted_and_to_none_that_the_agent_may_write() {
    let place = Place::new();
    let workspace = place.workspace();
    git(&workspace, &["init", "-q"]);
    git(&workspace, &["commit", "-q", "--allow-empty", "-m", "first"]);
    std::fs::create_dir(workspace.join("nested")).unwrap();
    git(&workspace.join("nested"), &["init", "-q"]);
    let id = place.ok(&["up", "-w", text(&workspace)]).trim().to_owned();
    let script = "git config user.name a && git config user.email a@b && echo two >file && git add file && git commit -qm second";
    assert_eq!(place.sandbox(&["exec", &id, "--", "sh", "-c", script]).code, Some(0));
    let with = ["--into", text(&workspace)];
    assert!(place.ok(&[&["diff", &id][..], &with].concat()).contains("+two"));
    assert!(place.ok(&[&["patch", &id][..], &with].concat()).contains("Subject: [PATCH] second"));
    let reference = place.ok(&[&["pull", &id][..], &with].concat());
    assert_eq!(git(&workspace, &["log", "--format=%s", reference.trim()]), "second\nfirst");
    assert_eq!(git(&workspace, &["log", "--format=%s"]), "first");
    let ran = place.sandbox(&["pull", &id, "--into", text(&workspace.join("nested"))]);
    assert!(ran.code == Some(1) && ran.stderr.contains("which the agent may write"), "{ran:?}");
    place.ok(&["down", &id]);
    place.assert_nothing_left();
}
