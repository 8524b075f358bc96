//! `up` and the verbs that reach what is up.

use std::io::Write as _;
use std::os::unix::net::UnixStream;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Place, eventually, is_alive, signal, text};

fn up(place: &Place, arguments: &[&str]) -> String {
    place.ok(&[&["up"], arguments].concat()).trim().to_owned()
}

fn inspect(place: &Place, id: &str) -> Value {
    serde_json::from_str(&place.ok(&["inspect", id, "--json"])).unwrap()
}

fn holder(place: &Place, id: &str) -> u32 {
    u32::try_from(inspect(place, id)["holder"].as_u64().unwrap()).unwrap()
}

#[test]
fn a_sandbox_stays_until_it_is_taken_down() {
    let place = Place::new();
    let workspace = place.workspace();
    let id = up(&place, &["-w", text(&workspace), "-e", "A=b"]);
    assert_eq!(id.len(), 32);

    let listed: Value = serde_json::from_str(&place.ok(&["ls", "--json"])).unwrap();
    let ours = listed.as_array().unwrap().iter().find(|row| row["id"] == *id).unwrap().clone();
    assert_eq!((&ours["status"], &ours["owner"]), (&"running".into(), &"alive".into()));
    assert_eq!(ours["workspace"], text(&workspace.canonicalize().unwrap()));

    let ran = place.sandbox(&["exec", &id[..6], "--", "sh", "-c", "pwd; echo $A; exit 3"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), "/workspace\nb\n"));
    let ran = place.sandbox(&["exec", &id, "-e", "A=c", "-w", "/tmp", "--", "sh", "-c", "pwd; echo $A"]);
    assert_eq!(ran.stdout, "/tmp\nc\n", "{ran:?}");
    assert_eq!(place.sandbox(&["exec", &id, "--timeout", "1s", "sleep", "60"]).code, Some(124));
    assert_eq!(place.sandbox(&["exec", &id, "nosuchprogram"]).code, Some(127));
    assert_eq!(place.fed(&["exec", &id, "wc", "-c"], &vec![b'x'; 3 << 20]).stdout.trim(), "3145728");

    assert_eq!(inspect(&place, &id[..4])["id"], *id);
    assert_eq!(place.ok(&["down", &id[..8]]).trim(), id);
    place.assert_nothing_left();
    assert_eq!(place.sandbox(&["exec", &id, "true"]).code, Some(125));
}

#[test]
fn files_and_trees_go_both_ways() {
    let place = Place::new();
    let id = up(&place, &[]);
    let inside = |path: &str| format!("{id}:{path}");
    std::fs::create_dir_all(place.path("tree/deep")).unwrap();
    std::fs::write(place.path("tree/deep/file"), b"\0\xff content").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", place.path("tree/escape")).unwrap();

    let ran = place.sandbox(&["cp", "tree", &inside("/tmp/")]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("left out escape: "), "{ran:?}");
    place.ok(&["cp", &inside("/tmp/tree"), "back"]);
    assert_eq!(std::fs::read(place.path("back/deep/file")).unwrap(), b"\0\xff content");
    assert!(!place.path("back/escape").exists());
    place.ok(&["cp", &inside("/tmp/tree/."), "back"]);
    assert!(!place.path("back/tree").exists());

    place.ok(&["cp", "tree/deep/file", &inside("/tmp/renamed")]);
    assert_eq!(place.sandbox(&["cp", &inside("/tmp/renamed"), "-"]).bytes, b"\0\xff content");
    assert_eq!(place.fed(&["cp", "-", &inside("/tmp/typed")], b"typed").code, Some(0));
    place.ok(&["cp", &inside("/tmp/typed"), "."]);
    assert_eq!(std::fs::read(place.path("typed")).unwrap(), b"typed");

    for (arguments, word) in [
        (["cp", &inside("/nowhere"), "x"], "does not exist"),
        (["cp", "nowhere", &inside("/tmp/x")], "nowhere"),
        (["cp", "tree", "back"], "one side"),
        (["cp", &inside("relative"), "x"], "no workspace"),
        (["cp", "tree/deep/file", &inside("/etc/x")], "/etc/x"),
    ] {
        let ran = place.sandbox(&arguments);
        assert_eq!(ran.code, Some(1), "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(word), "{arguments:?}: {ran:?}");
    }
    place.ok(&["down", &id]);
}

#[test]
fn a_killed_holder_takes_its_sandbox_along() {
    let place = Place::new();
    let id = up(&place, &[]);
    let pid = holder(&place, &id);
    signal(pid, Signal::KILL);
    eventually("the container is gone", || place.containers().is_empty());
    assert_eq!(place.run_directories().len(), 1);
    let ran = place.sandbox(&["exec", &id, "true"]);
    assert_eq!(ran.code, Some(125));
    assert!(ran.stderr.contains("cleanup"), "{ran:?}");
    assert!(place.ok(&["cleanup"]).contains(&format!("removed {id}")));
}

#[test]
fn what_a_killed_holder_left_can_be_taken_down_as_well() {
    let place = Place::new();
    let id = up(&place, &[]);
    signal(holder(&place, &id), Signal::KILL);
    assert_eq!(place.ok(&["down", &id]).trim(), id);
}

#[test]
fn a_holder_that_is_asked_to_end_takes_everything_down() {
    let place = Place::new();
    let id = up(&place, &[]);
    let pid = holder(&place, &id);
    signal(pid, Signal::HUP);
    assert_eq!(place.sandbox(&["exec", &id, "true"]).code, Some(0));
    signal(pid, Signal::TERM);
    eventually("the holder is gone", || !is_alive(pid));
    place.assert_nothing_left();
}

#[test]
fn a_holder_ends_with_its_sandbox() {
    let place = Place::new();
    let id = up(&place, &["--lifetime", "3s"]);
    let pid = holder(&place, &id);
    eventually("the holder is gone", || !is_alive(pid));
    place.assert_nothing_left();
}

#[test]
fn a_holder_has_nothing_of_who_started_it() {
    let place = Place::new();
    let (read, write) = std::io::pipe().unwrap();
    rustix::io::fcntl_setfd(&write, rustix::io::FdFlags::empty()).unwrap();
    let id = up(&place, &[]);
    let pid = holder(&place, &id);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!(fields[3], pid.to_string(), "it leads a session of its own");
    assert_eq!(fields[4], "0", "it has no terminal");
    let ours = rustix::fs::fstat(&read).unwrap().st_ino;
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let target = std::fs::read_link(entry.unwrap().path()).unwrap();
        assert_ne!(text(&target), format!("pipe:[{ours}]"));
    }
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), std::path::Path::new("/"));
    drop(write);
    place.ok(&["down", &id]);
}

#[test]
fn many_commands_are_served_at_once() {
    let place = Place::new();
    let id = up(&place, &[]);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..16)
            .map(|number| {
                let (place, id) = (&place, &id);
                scope.spawn(move || place.ok(&["exec", id, "echo", &number.to_string()]))
            })
            .collect();
        for (number, running) in running.into_iter().enumerate() {
            assert_eq!(running.join().unwrap().trim(), number.to_string());
        }
    });
    place.ok(&["down", &id]);
}

#[test]
fn a_client_that_talks_nonsense_loses_only_its_connection() {
    let place = Place::new();
    let id = up(&place, &[]);
    let socket = place.path("run").join(&id).join("control");
    let mut idle = Vec::new();
    for nonsense in [&b"\xff\xff\xff\xff"[..], b"\x01\0\0\0\x09", b"\x01\0\0\0\0\x05\0\0\0hello", b"\x08\0\0\0\0"] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(nonsense).unwrap();
        idle.push(stream);
    }
    idle.extend((0..20).map(|_| UnixStream::connect(&socket).unwrap()));
    assert_eq!(place.sandbox(&["exec", &id, "true"]).code, Some(0));
    drop(idle);
    place.ok(&["down", &id]);
}

#[test]
fn a_run_can_be_looked_at_and_taken_down_from_outside() {
    let place = Place::new();
    let (child, _stdout, line) = place.started(&["run", "--", "sh", "-c", "echo ready; sleep 300"]);
    assert_eq!(line, "ready\n");
    place.ok(&["down", "--all"]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("taken down"), "{output:?}");
}

#[test]
fn a_start_that_nobody_waits_for_is_undone() {
    let place = Place::new();
    let mut child = place.command(&["up"]).stdout(std::process::Stdio::null()).spawn().unwrap();
    eventually("something is made", || !place.run_directories().is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("everything is gone", || place.run_directories().is_empty() && place.containers().is_empty());
}

#[test]
fn an_id_that_nobody_reads_is_no_sandbox() {
    let place = Place::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = place.command(&["up"]).stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(141));
    eventually("everything is gone", || place.run_directories().is_empty() && place.containers().is_empty());
}

#[test]
fn a_refused_sandbox_is_told_by_up_itself() {
    let place = Place::new();
    let ran = place.sandbox(&["up", "--policy", "standard", "--memory", "1TiB"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert!(ran.stderr.contains("denied: limits.memory: asked for 1TiB"), "{ran:?}");
}
