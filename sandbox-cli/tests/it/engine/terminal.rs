//! Terminals: `script` makes one and runs the command on it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::harness::Place;

/// Runs a line of shell on a terminal of 33 lines and 99 columns, and gives what it showed and its exit code.
pub(crate) fn on_a_terminal(place: &Place, line: &str, typed: &str) -> (String, Option<i32>) {
    let template = place.command(&[]);
    let line = format!("stty rows 33 cols 99; {} {line}", env!("CARGO_BIN_EXE_sandbox"));
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env_clear().current_dir(place.path(""));
    command.envs(template.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
}

#[test]
fn a_program_on_a_terminal_has_one_of_this_size() {
    let place = Place::new();
    let (shown, code) = on_a_terminal(&place, "run -- sh -c 'tty; stty size; exit 5'", "");
    assert!(shown.contains("/dev/pts/0") && shown.contains("33 99"), "{shown}");
    assert_eq!(code, Some(5));
    let (shown, _) = on_a_terminal(&place, "run --no-tty -- sh -c 'tty'", "");
    assert!(shown.contains("not a tty"), "{shown}");
}

#[test]
fn a_shell_answers_what_is_typed() {
    let place = Place::new();
    let id = place.ok(&["up"]);
    let (shown, code) = on_a_terminal(&place, &format!("shell {id}"), "echo $((6 * 7))x; exit 7\n");
    assert!(shown.contains("42x"), "{shown}");
    assert_eq!(code, Some(7));
    let ran = place.sandbox(&["shell", id.trim()]);
    assert_eq!(ran.code, Some(125));
    assert!(ran.stderr.contains("no terminal"), "{ran:?}");
    place.ok(&["down", id.trim()]);
}
