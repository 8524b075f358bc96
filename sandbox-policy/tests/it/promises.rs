//! Each promise of SECURITY.md names the test that attacks it; a name that no test has is no proof.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[test]
fn each_promise_names_tests_that_exist() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = std::fs::read_to_string(workspace.join("SECURITY.md")).unwrap();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .skip_while(|line| !line.starts_with("| promise |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split(" | ").collect())
        .collect();
    assert!(rows.len() > 10, "the table of promises has {} rows", rows.len());
    let tests = tests(workspace);
    for row in rows {
        let [promise, _, attacked] = row[..] else { panic!("not three columns: {row:?}") };
        let names: Vec<&str> = attacked.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "nothing attacks:{promise}");
        for name in names {
            let function = name.rsplit("::").next().unwrap();
            assert!(tests.contains(function), "no test is called {name}");
        }
    }
}

/// The names of all functions in files of the workspace that hold tests.
fn tests(workspace: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut left: Vec<PathBuf> = ["policy", "guest", "core", "runtime", "github", "cli"]
        .iter()
        .flat_map(|crate_name| ["src", "tests"].map(|room| workspace.join(format!("sandbox-{crate_name}/{room}"))))
        .filter(|room| room.is_dir())
        .collect();
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                let functions = text.lines().filter_map(|line| line.split_once("fn ")?.1.split_once(['(', '<']));
                names.extend(functions.map(|(name, _)| name.to_owned()));
            }
        }
    }
    names
}
