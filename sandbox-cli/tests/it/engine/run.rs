//! `run`: streams, exit codes and reports.

use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::harness::{Place, text};

#[test]
fn exit_codes_are_the_programs_or_ours() {
    let place = Place::new();
    for (arguments, code) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 3"], 3),
        (&["sh", "-c", "exit 255"], 255),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["nosuchprogram"], 127),
        (&["/etc/passwd"], 126),
    ] {
        let ran = place.sandbox(&[&["run", "--"], arguments].concat());
        assert_eq!(ran.code, Some(code), "{arguments:?}: {ran:?}");
    }
    let ran = place.sandbox(&["run", "--timeout", "1s", "--", "sleep", "60"]);
    assert_eq!(ran.code, Some(124), "{ran:?}");
    let ran = place.sandbox(&["run", "--lifetime", "2s", "--", "sleep", "60"]);
    assert_eq!(ran.code, Some(124), "{ran:?}");
    let ran = place.sandbox(&["run", "--image", "no-such-image:none", "--", "true"]);
    assert_eq!(ran.code, Some(125), "{ran:?}");
    let ran = place.sandbox(&["run", "--workspace", "nowhere", "--", "true"]);
    assert_eq!(ran.code, Some(125), "{ran:?}");
    assert!(ran.stderr.contains("nowhere"), "{ran:?}");
}

#[test]
fn streams_stay_apart_and_unchanged() {
    let place = Place::new();
    let ran = place.sandbox(&["run", "--", "sh", "-c", "printf 'out\\0\\377'; printf err >&2"]);
    assert_eq!((ran.code, ran.bytes.as_slice(), ran.stderr.as_str()), (Some(0), &b"out\0\xff"[..], "err"));
}

#[test]
fn standard_input_goes_in_and_comes_back() {
    let place = Place::new();
    let sent: Vec<u8> =
        (0..10 << 20_u32).map(|number: u32| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let ran = place.fed(&["run", "--", "cat"], &sent);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert!(ran.bytes == sent, "{} bytes of {} came back", ran.bytes.len(), sent.len());
    // A program that reads nothing holds nobody up.
    assert_eq!(place.fed(&["run", "--", "true"], &sent).code, Some(0));
}

#[test]
fn big_output_comes_whole() {
    let place = Place::new();
    let ran = place.sandbox(&["run", "--", "seq", "1", "3000000"]);
    let numbers: Vec<String> = (1..=3_000_000).map(|number: u32| number.to_string()).collect();
    let expected = format!("{}\n", numbers.join("\n"));
    assert!(ran.bytes == expected.as_bytes(), "{} bytes came of {}", ran.bytes.len(), expected.len());
}

#[test]
fn output_that_nobody_reads_ends_the_program_quietly() {
    let place = Place::new();
    let mut child = place.command(&["run", "--", "yes"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 2];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(141), &b""[..]));
}

#[test]
fn what_a_program_leaves_running_is_not_waited_for() {
    let place = Place::new();
    let began = Instant::now();
    let ran = place.sandbox(&["run", "--", "sh", "-c", "sleep 300 & echo done"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "done\n"));
    assert!(began.elapsed() < Duration::from_mins(1));
}

#[test]
fn the_workspace_is_where_programs_start() {
    let place = Place::new();
    let workspace = place.workspace();
    let ran = place.sandbox(&["run", "-w", text(&workspace), "-e", "X=1 2", "--", "sh", "-c", "pwd; echo \"$X\" >new"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "/workspace\n"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(workspace.join("new")).unwrap(), "1 2\n");
    let read_only = format!("{}:ro", text(&workspace));
    let ran = place.sandbox(&["run", "-w", &read_only, "--", "sh", "-c", "cat new; echo x >new"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), "1 2\n"), "{ran:?}");
}

#[test]
fn a_report_says_what_was_in_force() {
    let place = Place::new();
    let ran = place.sandbox(&["run", "--report", "--memory", "256MiB", "--", "echo", "hello"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "hello\n"));
    for expected in
        ["CONTROL ", "memory ", "268435456 bytes", " holds\n", " waived\n", "waived: disk: ", "result: exit code 0; "]
    {
        assert!(ran.stderr.contains(expected), "{expected:?} is not in {}", ran.stderr);
    }
    let ran = place.sandbox(&["run", "--json", "--", "sh", "-c", "echo hello; exit 4"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(4), "hello\n"));
    let report: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(report["exit"]["code"], 4);
    assert!(report["controls"].as_array().unwrap().iter().all(|control| control["verdict"] != "differs"));
}

#[test]
fn events_are_on_record_before_their_effects() {
    let place = Place::new();
    assert_eq!(place.sandbox(&["run", "--audit", "events", "--", "true"]).code, Some(0));
    let text = std::fs::read_to_string(place.path("events")).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    let order = ["creating", "starting", "attested", "executing", "destroying", "destroyed"];
    let places: Vec<_> = order.iter().map(|event| events.iter().position(|it| it == event)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{events:?}");
    let sequence: Vec<u64> = lines.iter().map(|line| line["sequence"].as_u64().unwrap()).collect();
    assert!(sequence.iter().copied().eq(0..sequence.len() as u64), "{sequence:?}");

    let ran = place.sandbox(&["run", "--audit", "/dev/full", "--", "true"]);
    assert_eq!(ran.code, Some(125));
    assert!(ran.stderr.contains("audit"), "{ran:?}");
}
