//! What is printed without an engine: help, policies, and errors, as whole outputs.

use crate::harness::{Place, text};

#[test]
fn help_is_worth_reading() {
    let place = Place::without_engine();
    insta::assert_snapshot!("help", place.ok(&["--help"]));
    for verb in [
        "run", "up", "exec", "shell", "cp", "ls", "egress", "inspect", "down", "pull", "diff", "patch", "image",
        "token", "repo", "cleanup", "doctor", "policy",
    ] {
        insta::assert_snapshot!(format!("help-{verb}"), place.ok(&[verb, "--help"]));
    }
    for (verb, verbs) in [
        ("image", &["pull", "import"][..]),
        ("token", &["setup", "list", "audit", "rotate", "revoke"]),
        ("repo", &["show", "protect", "activity"]),
    ] {
        for of in verbs {
            insta::assert_snapshot!(format!("help-{verb}-{of}"), place.ok(&[verb, of, "--help"]));
        }
    }
}

#[test]
fn presets_are_shown_and_explained() {
    let place = Place::without_engine();
    for preset in ["open", "standard", "maximum", "deny-all"] {
        insta::assert_snapshot!(format!("policy-show-{preset}"), place.ok(&["policy", "show", preset]));
    }
    insta::assert_snapshot!("policy-explain", place.ok(&["policy", "explain", "standard"]));
    let shown = place.ok(&["policy", "show", "maximum", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["limits"]["memory"], "4GiB");
}

#[test]
fn what_is_shown_can_be_read_again() {
    let place = Place::without_engine();
    let shown = place.ok(&["policy", "show", "maximum"]);
    let file = place.path("copy.toml");
    std::fs::write(&file, &shown).unwrap();
    assert_eq!(place.ok(&["policy", "show", text(&file)]), shown);
    // The user's own policy is the default.
    assert!(place.ok(&["policy", "show"]).contains("name = [\"test\"]"));
}

#[test]
fn a_policy_file_that_is_wrong_is_named_with_its_line() {
    let place = Place::without_engine();
    std::fs::write(place.path("bad.toml"), "version = 1\n[limits]\nmemory = \"1Gi\"\n").unwrap();
    let ran = place.sandbox(&["policy", "check", "bad.toml"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    insta::assert_snapshot!("policy-check-bad", ran.stderr);
    let ran = place.sandbox(&["policy", "check", "nowhere.toml"]);
    assert_eq!(ran.code, Some(1));
    insta::assert_snapshot!("policy-check-missing", ran.stderr);
}

#[test]
fn a_policy_is_checked_though_no_engine_answers() {
    let place = Place::without_engine();
    let checked = place.ok(&["policy", "check", "standard"]);
    assert!(checked.contains("policy standard, from the preset standard: well-formed"), "{checked}");
    assert!(checked.contains("not checked against an engine"), "{checked}");
}

#[test]
fn bad_arguments_are_no_exit_code_of_a_program() {
    let place = Place::without_engine();
    for (arguments, code) in [
        (&["run", "--bogus"][..], 125),
        (&["run"], 125),
        (&["exec", "abcd"], 125),
        (&["run", "--memory", "1Gi", "--", "true"], 125),
        (&["run", "-e", "X", "--", "true"], 125),
        (&["run", "--user", "0:0", "--", "true"], 125),
        (&["run", "--waive", "everything", "--", "true"], 125),
        (&["ls", "--bogus"], 2),
        (&["down"], 2),
        (&["down", "--all", "abcd"], 2),
        (&["frobnicate"], 2),
        (&[], 2),
    ] {
        let ran = place.sandbox(arguments);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(code), ""), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("error:") || ran.stderr.contains("Usage:"), "{arguments:?}: {}", ran.stderr);
    }
}

#[test]
fn an_engine_that_is_not_there_is_named() {
    let place = Place::without_engine();
    for (arguments, code) in [
        (&["run", "--image", "x", "--", "true"][..], 125),
        (&["up", "--image", "x"], 1),
        (&["ls"], 1),
        (&["doctor"], 1),
        (&["cleanup"], 1),
    ] {
        let ran = place.sandbox(arguments);
        assert_eq!(ran.code, Some(code), "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains("none.sock") && ran.stderr.contains("\nhint: "), "{arguments:?}: {ran:?}");
    }
    let ran = place.sandbox(&["ls", "--engine", "what://127.0.0.1:2375"]);
    assert!(ran.stderr.contains("(from --engine)"), "{ran:?}");
}

#[test]
fn errors_are_json_where_that_is_asked_for() {
    let place = Place::without_engine();
    for arguments in
        [&["--json", "run", "--", "true"][..], &["inspect", "abcd", "--json"], &["ls", "--json", "--bogus"]]
    {
        let ran = place.sandbox(arguments);
        assert_eq!(ran.stdout, "", "{arguments:?}");
        let error: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
        let keys: Vec<&String> = error["error"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["caused-by", "hint", "kind", "message", "residue", "violations"], "{arguments:?}");
    }
}

#[test]
fn sandboxes_are_named_by_the_beginnings_of_ids() {
    let place = Place::without_engine();
    for (id, kind) in [("abcd", "not-found"), ("abc", "invalid-input"), ("../x", "invalid-input")] {
        let ran = place.sandbox(&["inspect", id, "--json"]);
        let error: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
        assert_eq!(error["error"]["kind"], kind, "{id}");
    }
    assert_eq!(place.sandbox(&["exec", "abcd", "true"]).code, Some(125));
    assert_eq!(place.ok(&["down", "--all"]), "");
}
