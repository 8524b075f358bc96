//! Runs the examples for real, so that they cannot rot.

#[path = "it/github.rs"]
mod github;

use std::process::{Command, Output};

/// Found by this name, these tests take turns on the engine.
mod engine {
    use super::{complete, engine, image};

    #[test]
    fn embed_shows_a_sandbox_from_start_to_end() {
        let text = complete(env!("CARGO_BIN_EXE_embed"), &[&engine(), &image()]);
        for part in ["hello from outside", "uid=1000", "network interfaces inside: lo", "Destroyed { residue: [] }"] {
            assert!(text.contains(part), "{part:?} is missing:\n{text}");
        }
    }

    #[test]
    fn concurrent_gets_every_answer_and_leaves_nothing() {
        let text = complete(env!("CARGO_BIN_EXE_concurrent"), &[&engine(), &image(), "4"]);
        for part in ["of 0 is 0", "of 1 is 1", "of 2 is 4", "of 3 is 9", "containers left by this process: 0"] {
            assert!(text.contains(part), "{part:?} is missing:\n{text}");
        }
    }

    #[test]
    fn terminal_types_and_shows() {
        let text = complete(env!("CARGO_BIN_EXE_terminal"), &[&engine(), &image()]);
        for part in ["/dev/pts/", "50 132", "the shell ended: Code(0)"] {
            assert!(text.contains(part), "{part:?} is missing:\n{text}");
        }
    }
}

#[test]
fn policy_refuses_with_every_reason() {
    let text = complete(env!("CARGO_BIN_EXE_policy"), &[]);
    for part in
        ["limits.memory: asked for 16GiB, allowed is", "network: ", "disk: ", "agreed: 8GiB of memory, 64 processes"]
    {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
}

#[test]
fn own_runtime_times_each_verb() {
    let text = complete(env!("CARGO_BIN_EXE_own_runtime"), &[]);
    for part in ["resolve: ", "create: ", "start: ", "state: ", "exec: ", "delete: ", "destroy: "] {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
}

/// Runs an example to its good end; returns what it printed.
fn complete(program: &str, arguments: &[&str]) -> String {
    let ran = Command::new(program).args(arguments).output();
    let Output { status, stdout, stderr } = ran.unwrap_or_else(|error| panic!("{program}: {error}"));
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{status}:\n{text}");
    text
}

fn engine() -> String {
    variable("DOCKER_HOST")
}

fn image() -> String {
    variable("SANDBOX_TEST_IMAGE")
}

#[expect(clippy::disallowed_methods, reason = "a test is told by its environment which engine to use")]
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests by scripts/test"))
}
