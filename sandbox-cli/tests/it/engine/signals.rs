//! Signals to `run`: the program gets them, and nothing is left.

use std::io::Read as _;
use std::process::Child;

use rustix::process::Signal;

use crate::harness::{Place, eventually, signal};

/// Says that it is ready, and then what it is told.
const POLITE: &str = "trap 'echo told; exit 9' INT TERM HUP; echo ready; while :; do sleep 0.1; done";

/// Takes no hint.
const STUBBORN: &str = "trap '' INT TERM; echo ready; while :; do sleep 0.1; done";

fn code(mut child: Child) -> Option<i32> {
    child.wait().unwrap().code()
}

#[test]
fn the_program_is_told_and_the_sandbox_taken_down() {
    for (number, expected) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let place = Place::new();
        let (child, mut stdout, line) = place.started(&["run", "--", "sh", "-c", POLITE]);
        assert_eq!(line, "ready\n");
        signal(child.id(), number);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        assert_eq!((rest.as_str(), code(child)), ("told\n", Some(expected)));
    }
}

#[test]
fn the_second_signal_kills() {
    let place = Place::new();
    let (child, _stdout, line) = place.started(&["run", "--", "sh", "-c", STUBBORN]);
    assert_eq!(line, "ready\n");
    signal(child.id(), Signal::INT);
    // Two that come at once are one to the kernel.
    eventually("the first signal is taken", || pending(child.id()) == 0);
    signal(child.id(), Signal::INT);
    assert_eq!(code(child), Some(130));
}

#[test]
fn a_start_can_be_given_up() {
    let place = Place::new();
    let child = place.command(&["run", "--", "true"]).spawn().unwrap();
    eventually("something is made", || !place.run_directories().is_empty());
    signal(child.id(), Signal::TERM);
    let code = code(child);
    // It may have been too late, and the program done.
    assert!(code == Some(143) || code == Some(0), "{code:?}");
    place.assert_nothing_left();
}

#[test]
fn a_killed_command_leaves_nothing_running() {
    let place = Place::new();
    let (mut child, _stdout, line) = place.started(&["run", "--", "sh", "-c", STUBBORN]);
    assert_eq!(line, "ready\n");
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the container is gone", || place.containers().is_empty());
    assert_eq!(place.run_directories().len(), 1);
    assert!(place.ok(&["cleanup"]).contains("removed "));
}

/// The signals that wait to be delivered (proc(5)).
fn pending(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    mask("SigPnd:") | mask("ShdPnd:")
}
