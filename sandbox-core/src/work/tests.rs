//! What the tests of this room share.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Runs the host's git in a directory, as a person would, and returns what it says.
pub(super) fn git(directory: &Path, arguments: &[&str]) -> String {
    let said = git_bytes(directory, arguments, b"");
    String::from_utf8(said).unwrap().trim_end().to_owned()
}

pub(super) fn git_bytes(directory: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("git")
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=main"])
        .args(arguments)
        .current_dir(directory)
        .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {arguments:?}");
    output.stdout
}

/// A repository with one commit.
pub(super) fn repository() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    git(directory.path(), &["init", "-q"]);
    std::fs::write(directory.path().join("file"), "one\n").unwrap();
    git(directory.path(), &["add", "file"]);
    git(directory.path(), &["commit", "-q", "-m", "first"]);
    directory
}
