//! Which crate of the workspace may know which: the line of ARCHITECTURE.md, asserted.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// What each crate may depend on, of the workspace and of what talks to the world. Dev-dependencies are not edges.
const EDGES: [(&str, &[&str]); 6] = [
    ("sandbox-cli", &["sandbox-core", "sandbox-github", "sandbox-guest", "sandbox-policy", "sandbox-runtime", "tokio"]),
    ("sandbox-core", &["sandbox-guest", "sandbox-policy", "tokio"]),
    ("sandbox-github", &["octocrab", "sandbox-core", "sandbox-policy", "tokio"]),
    ("sandbox-guest", &[]),
    ("sandbox-policy", &[]),
    ("sandbox-runtime", &["bollard", "hyper", "reqwest", "sandbox-core", "sandbox-guest", "sandbox-policy", "tokio"]),
];

/// Crates whose appearance anywhere is an edge.
const WORLDLY: [&str; 5] = ["bollard", "hyper", "octocrab", "reqwest", "tokio"];

#[test]
fn each_crate_knows_only_what_lies_below_it() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found: BTreeMap<String, BTreeSet<String>> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| (package["name"].as_str().unwrap().to_owned(), edges(package)))
        .collect();
    for (name, allowed) in EDGES {
        let edges = found.get(name).unwrap_or_else(|| panic!("{name} is not in the workspace"));
        let forbidden: Vec<&String> = edges.iter().filter(|edge| !allowed.contains(&edge.as_str())).collect();
        assert!(forbidden.is_empty(), "{name} may not depend on {forbidden:?}");
    }
    // A crate that nobody has placed is in nobody's way only if it is a leaf: examples and benches.
    let placed = EDGES.map(|(name, _)| name);
    let leaves: Vec<&String> = found.keys().filter(|name| !placed.contains(&name.as_str())).collect();
    for (name, edges) in &found {
        let on_leaf = leaves.iter().find(|leaf| edges.contains(**leaf));
        assert_eq!(on_leaf, None, "{name} depends on a crate that has no place in the line");
    }
}

#[expect(clippy::unwrap_used, reason = "a manifest without these is no manifest")]
fn edges(package: &Value) -> BTreeSet<String> {
    package["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|dependency| dependency["kind"].is_null())
        .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
        .filter(|name| name.starts_with("sandbox-") || WORLDLY.contains(&name.as_str()))
        .collect()
}
