//! What is accepted as a branch, git accepts too.

use std::process::Command;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use sandbox_policy::Branch;

/// Makes texts out of pieces that git has rules about.
fn near_branches() -> impl Strategy<Value = String> {
    let pieces = &[
        "a", "b", "fix", "main", "/", ".", "-", "@", "{", "}", "..", ".lock", "lock", "HEAD", "refs", "heads", "~",
        "^", ":", "?", "*", "[", "]", "\\", " ", "\t", "%", "#", "!", "$", "&", "'", "\"", "(", ")", "+", ",", ";",
        "<", "=", ">", "_", "`", "|", "é", "分", "\u{200d}", "\u{202e}", "\u{7f}", "1",
    ][..];
    vec(select(pieces), 1..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn git_accepts_what_is_accepted(text in near_branches()) {
        let Ok(branch) = text.parse::<Branch>() else {
            return Ok(());
        };
        let output = Command::new("git")
            .args(["check-ref-format", "--branch", branch.as_str()])
            .output()
            .map_err(|error| TestCaseError::fail(format!("git is needed: {error}")))?;
        prop_assert!(output.status.success(), "git refuses {text:?}");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        prop_assert_eq!(printed.trim_end(), text);
    }
}

#[test]
fn git_refuses_what_it_must_in_this_very_test() {
    for text in ["a..b", "-x", "a.lock", "a@{b"] {
        let output = Command::new("git").args(["check-ref-format", "--branch", text]).output();
        assert!(!output.unwrap().status.success(), "{text}");
    }
}
