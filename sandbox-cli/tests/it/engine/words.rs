//! What is printed about a real engine and its sandboxes, as whole outputs.

use serde_json::Value;

use crate::harness::Place;

/// Names what differs from run to run, and leaves out what differs from engine to engine.
macro_rules! filtered {
    ($name:literal, $text:expr) => {
        insta::with_settings!({ filters => vec![
            (r"[0-9a-f]{64}", "[HASH]"),
            (r"[0-9a-f]{32}", "[ID]"),
            (r"unix://\S+", "[ENDPOINT]"),
            (r"image: .*", "image: [IMAGE]"),
            (r"docker \S+, API [0-9.]+", "docker [VERSION], API [VERSION]"),
            (r"process [0-9]+", "process [PID]"),
            (r"[0-9]+ s left", "[SECONDS] s left"),
            (r"(?m)^.*(disk|user-namespace).*\n", ""),
        ] }, { insta::assert_snapshot!($name, $text) })
    };
}

#[test]
fn a_refusal_names_every_violation() {
    let place = Place::new();
    let ran = place.sandbox(&[
        "run",
        "--policy",
        "maximum",
        "--memory",
        "1TiB",
        "--cpus",
        "64",
        "--lifetime",
        "30d",
        "--",
        "true",
    ]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(125), ""));
    filtered!("refusal", ran.stderr);
}

#[test]
fn an_inspection_is_a_report() {
    let place = Place::new();
    let id = place.ok(&["up", "--cpus", "1", "--memory", "512MiB"]);
    filtered!("inspect", place.ok(&["inspect", id.trim()]));
    place.ok(&["down", id.trim()]);
}

#[test]
fn a_doctor_lists_every_control() {
    let place = Place::new();
    let ran = place.sandbox(&["doctor", "--json"]);
    let diagnosis: Value = serde_json::from_str(&ran.stdout).unwrap();
    let keys: Vec<&String> = diagnosis.as_object().unwrap().keys().collect();
    let expected = ["cgroup-version", "controls", "engine", "found-by", "internal", "missing", "others", "run-root"];
    assert_eq!(keys, [&expected[..], &["run-root-problem", "versions"]].concat());
    // What needs no engine is there as well, and is looked at in the same way.
    let others = diagnosis["others"].as_array().unwrap();
    let embedded = others.iter().find(|other| other["engine"]["name"] == "embedded").unwrap();
    assert_eq!(embedded["controls"].as_array().unwrap().len(), diagnosis["controls"].as_array().unwrap().len());
    let versions = diagnosis["versions"].as_array().unwrap();
    let engine = versions.iter().find(|row| row["at"] == diagnosis["engine"]["endpoint"]).unwrap();
    assert_eq!(engine["version"], diagnosis["engine"]["version"]);
    assert_eq!(diagnosis["found-by"], "DOCKER_HOST");
    let is_ready = diagnosis["missing"].as_array().unwrap().is_empty();
    assert_eq!(ran.code, Some(i32::from(!is_ready)));
    let states: Vec<&str> =
        diagnosis["controls"].as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap()).collect();
    assert!(states.contains(&"enforced"), "{states:?}");
    let words = place.sandbox(&["doctor"]).stdout;
    assert!(words.contains("seccomp            enforced"), "{words}");
    assert!(words.contains(if is_ready { "\nready: " } else { "\nnot ready: " }), "{words}");
}

#[test]
fn a_policy_is_weighed_against_the_engine() {
    let place = Place::new();
    let granted = place.ok(&["policy", "check"]);
    assert!(granted.contains("granted by the engine at unix://"), "{granted}");
    let ran = place.sandbox(&["policy", "check", "deny-all"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("policy deny-all refuses this sandbox"), "{ran:?}");
}

#[test]
fn nothing_left_is_said() {
    let place = Place::new();
    // Sandboxes of others may be kept; none of them is ours.
    place.ok(&["cleanup"]);
    assert_eq!(place.ok(&["down", "--all"]), "");
}
