//! Programs: how they start, what they have, and how they end.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use rustix::process::geteuid;
use rustix::termios::{Winsize, isatty, tcgetwinsize, tcsetwinsize};
use sandbox_guest::wire::{Command, Exec, Exit, FailureKind, Reply, Request, RunAs, Setup, Status, Sudo, WindowSize};

use crate::harness::{
    Host, PATIENCE, agent, children, eventually, exec, read_all, setup, shell, stat, without_root, write_program,
};

/// A script whose every process ignores SIGTERM, one of them twice forked and in a session of its own. The end of its
/// output is the end of all of them.
pub(crate) const STUBBORN: &str = "trap '' TERM; setsid sh -c \"trap '' TERM; (while :; do sleep 1; done) & (while :; do sleep 1; done)\" & \
    echo ready; while :; do sleep 1; done";

#[test]
fn every_exit_code_comes_back() {
    let host = Host::start();
    assert_eq!(
        host.exec(exec(&["true"])).finish().unwrap().exit,
        Exit { status: Status::Code(0), timed_out: false, out_of_memory: false }
    );
    for code in [1, 2, 126, 127, 128, 255] {
        assert_eq!(host.shell(&format!("exit {code}")).code(), code);
    }
}

#[test]
fn a_fatal_signal_comes_back() {
    let host = Host::start();
    assert_eq!(host.shell("kill -KILL $$").exit.status, Status::Signal(9));
    let running = host.exec(shell("sleep 100 & wait"));
    running.started();
    running.control.send(&Command::Signal(libc::SIGUSR1));
    let finished = running.finish_started();
    assert_eq!(finished.exit.status, Status::Signal(libc::SIGUSR1.try_into().unwrap()));
}

#[test]
fn streams_are_separate_and_binary() {
    let host = Host::start();
    let mut running = host.exec(shell("cat; printf 'e\\377' >&2"));
    running.started();
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let mut stdin = running.stdin.take().unwrap();
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let finished = running.finish_started();
    writer.join().unwrap();
    assert!(finished.stdout == bytes);
    assert_eq!(finished.stderr, b"e\xff");
}

#[test]
fn a_program_has_its_three_descriptors_and_no_other() {
    let host = Host::start();
    let finished = host.exec(exec(&["ls", "/proc/self/fd"])).finish().unwrap();
    // `ls` opens the directory itself, as 3.
    assert_eq!(finished.text(), "0\n1\n2\n3\n");
    assert_eq!(host.shell("ls /proc/$$/fd; true").text(), "0\n1\n2\n");
}

#[test]
fn signals_limits_and_mask_are_a_programs_usual_ones() {
    let host = Host::start();
    let status =
        host.shell("cat /proc/self/status | grep -E '^Sig(Blk|Ign|Cgt)'; ulimit -Sn; ulimit -Hn; ulimit -c; umask");
    let zero = "0".repeat(16);
    let wanted = format!("SigBlk:\t{zero}\nSigIgn:\t{zero}\nSigCgt:\t{zero}\n256\n256\n0\n0022\n");
    assert_eq!(status.text(), wanted);
}

#[test]
fn the_agent_has_no_privilege() {
    let host = Host::start();
    let finished = host.shell("cat /proc/self/status; id -u; id -g; id -G");
    let text = finished.text();
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert!(text.contains(&format!("{name}:\t{}\n", "0".repeat(16))), "{name} in {text}");
    }
    assert!(text.contains("NoNewPrivs:\t1\n"), "{text}");
    if geteuid().is_root() {
        let agent = agent();
        assert!(text.contains(&format!("CapBnd:\t{}\n", "0".repeat(16))), "{text}");
        assert!(text.ends_with(&format!("{}\n{}\n{}\n", agent.uid, agent.gid, agent.gid)), "{text}");
    }
}

#[test]
fn the_environment_is_the_images_then_the_accounts_then_the_requests() {
    let host = Host::start();
    let mut asked = exec(&["env"]);
    asked.environment = vec![(b"X".to_vec(), b"a=b\n".to_vec()), (b"PATH".to_vec(), b"/bin:/usr/bin".to_vec())];
    let text = host.exec(asked).finish().unwrap().text().to_owned();
    assert!(text.contains("X=a=b\n") && text.contains("PATH=/bin:/usr/bin\n"), "{text}");
    assert!(text.contains("\nHOME=/") && text.contains("USER="), "{text}");
    assert!(!text.lines().any(|line| line.starts_with("LD_")), "{text}");
}

#[test]
fn the_directory_is_the_one_asked_for() {
    let host = Host::start();
    let mut asked = exec(&["pwd"]);
    asked.directory = Some(b"/usr/bin/.".to_vec());
    assert_eq!(host.exec(asked).finish().unwrap().text(), "/usr/bin\n");
    let failing = |directory: &str| {
        let mut asked = exec(&["pwd"]);
        asked.directory = Some(directory.as_bytes().to_vec());
        host.exec(asked).finish().unwrap_err()
    };
    assert_eq!(failing("/nowhere").kind, FailureKind::NotFound);
    assert_eq!(failing("/etc/passwd").kind, FailureKind::WrongKind);
    assert_eq!(failing("usr").kind, FailureKind::Invalid);
    if geteuid().is_root() {
        let closed = host.workspace().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(failing(closed.to_str().unwrap()).kind, FailureKind::Denied);
    }
}

#[test]
fn a_program_that_cannot_run_says_why() {
    let host = Host::start();
    let work = host.workspace();
    write_program(&work.join("lost"), b"#!/nowhere/interpreter\n");
    write_program(&work.join("noise"), b"\x01\x02\x03");
    std::fs::write(work.join("plain"), b"text").unwrap();
    let failing = |program: &str| host.exec(exec(&[program])).finish().unwrap_err();
    let at = |name: &str| failing(work.join(name).to_str().unwrap());
    assert_eq!(failing("no-such-program").kind, FailureKind::ProgramNotFound);
    assert_eq!(failing("/no/such/program").kind, FailureKind::ProgramNotFound);
    assert_eq!(failing("").kind, FailureKind::ProgramNotFound);
    assert_eq!(at("plain").kind, FailureKind::NotRunnable);
    assert_eq!(at("noise").kind, FailureKind::NotRunnable);
    assert_eq!(failing("/etc").kind, FailureKind::NotRunnable);
    let lost = at("lost");
    assert_eq!(lost.kind, FailureKind::ProgramNotFound);
    assert!(lost.message.contains("interpreter"), "{lost:?}");
    assert_eq!(host.exec(exec(&[])).finish().unwrap_err().kind, FailureKind::Invalid);
    assert_eq!(failing("a\0b").kind, FailureKind::Invalid);
    let long = "x".repeat(200_000);
    assert_eq!(host.exec(exec(&["true", &long])).finish().unwrap_err().kind, FailureKind::Invalid);
}

#[test]
fn a_deadline_ends_what_listens_and_what_does_not() {
    let host = Host::start();
    let mut asked = shell("trap 'echo asked; exit 3' TERM; echo ready; sleep 100 & wait");
    (asked.deadline, asked.grace) = (Some(300), 20_000);
    let polite = host.exec(asked).finish().unwrap();
    assert_eq!((polite.text(), polite.code(), polite.exit.timed_out), ("ready\nasked\n", 3, true));
    let mut asked = shell(STUBBORN);
    (asked.deadline, asked.grace) = (Some(300), 100);
    let begun = Instant::now();
    let stubborn = host.exec(asked).finish().unwrap();
    assert_eq!((stubborn.exit.status, stubborn.exit.timed_out), (Status::Signal(9), true));
    assert!(begun.elapsed() < PATIENCE / 3, "{:?}", begun.elapsed());
}

#[test]
fn kill_ends_the_whole_tree() {
    let host = Host::start();
    let mut running = host.exec(shell(STUBBORN));
    running.started();
    assert_eq!(running.line(), "ready");
    running.control.send(&Command::Kill);
    let finished = running.finish_started();
    assert_eq!((finished.exit.status, finished.exit.timed_out), (Status::Signal(9), false));
}

#[test]
fn a_dropped_control_ends_the_whole_tree() {
    let host = Host::start();
    let mut running = host.exec(shell(STUBBORN));
    running.started();
    assert_eq!(running.line(), "ready");
    drop(running.control);
    read_all(&mut running.stdout);
}

#[test]
fn a_tree_that_keeps_forking_ends() {
    if without_root("exec::a_tree_that_keeps_forking_ends") {
        return;
    }
    // As process 1, which can end whoever outruns it.
    let host = Host::contained(":");
    // The first never holds still, the second also leaves its session each time, the third is many.
    for script in [
        "exec perl -e '$| = 1; fork or do { while (1) { exit if fork } }; print \"ready\\n\"; sleep 1000'",
        "exec perl -MPOSIX -e '$| = 1; fork or do { while (1) { exit if fork; POSIX::setsid } }; print \"ready\\n\"; sleep 1000'",
        "f() { (while :; do (true; true) & wait $!; done) & }; f; f; f; echo ready; while :; do true & done",
    ] {
        let mut running = host.exec(shell(script));
        running.started();
        assert_eq!(running.line(), "ready");
        running.control.send(&Command::Kill);
        assert_eq!(running.finish_started().exit.status, Status::Signal(9), "{script}");
        assert_eq!(host.shell("echo alive").text(), "alive\n");
    }
}

#[test]
fn what_a_program_leaves_running_lives_on_until_the_guest_ends() {
    let host = Host::start();
    let mut running = host.exec(shell("(echo $PPID; exec sleep 1000) & wait_for=1; exit 4"));
    running.started();
    running.line();
    let Reply::Exited(exit) = running.control.reply() else { panic!("no exit") };
    assert_eq!(exit.status, Status::Code(4));
    assert!(running.control.receive().is_none());
    drop(host);
    assert!(read_all(&mut running.stdout).is_empty());
}

#[test]
fn orphans_are_reaped_while_the_program_runs() {
    let host = Host::start();
    let mut running = host.exec(shell("i=0; while [ $i -lt 200 ]; do (true & ); i=$((i+1)); done; echo ready; read x"));
    let program = running.started();
    let supervisor = stat(program).unwrap().1;
    assert_eq!(running.line(), "ready");
    eventually(|| (children(supervisor) == [program]).then_some(()));
    drop(running.stdin.take());
    assert_eq!(running.finish_started().code(), 1);
    eventually(|| children(host.guest_pid()).is_empty().then_some(()));
}

#[test]
fn a_terminal_has_a_size_belongs_to_the_agent_and_hangs_up() {
    let host = Host::start();
    let mut asked =
        shell("trap 'exit 9' HUP; tty; stat -c %u $(tty); stty size; echo $TERM; read x; stty size; read y; sleep 30");
    asked.terminal = Some(WindowSize { rows: 31, columns: 97 });
    let control = host.request(&Request::Exec(asked), &[]);
    let (reply, mut descriptors) = control.receive().unwrap();
    assert!(matches!(reply, Reply::Started { .. }), "{reply:?}");
    assert_eq!(descriptors.len(), 1);
    let mut master = std::fs::File::from(descriptors.remove(0));
    assert!(isatty(&master));
    assert_eq!(tcgetwinsize(&master).unwrap().ws_col, 97);
    let mut seen = String::new();
    let mut until = |master: &mut std::fs::File, wanted: &str| {
        while !seen.contains(wanted) {
            let mut part = [0; 256];
            let length = master.read(&mut part).unwrap();
            seen.push_str(str::from_utf8(&part[..length]).unwrap());
        }
        seen.clone()
    };
    let first = until(&mut master, "31 97\r\n");
    assert!(first.contains("/dev/pts/") && first.contains(&format!("\r\n{}\r\n", agent().uid)), "{first}");
    tcsetwinsize(&master, Winsize { ws_row: 50, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    master.write_all(b"go\n").unwrap();
    until(&mut master, "50 132\r\n");
    drop(master);
    let Reply::Exited(exit) = control.reply() else { panic!("no exit") };
    assert!(matches!(exit.status, Status::Code(9) | Status::Signal(1)), "{exit:?}");
}

#[test]
fn many_programs_run_at_once() {
    let host = Host::start();
    let running: Vec<_> = (0..64).map(|n| host.exec(shell(&format!("echo {n}; exit {n}")))).collect();
    for (n, running) in running.into_iter().enumerate() {
        let finished = running.finish().unwrap();
        assert_eq!((finished.text().trim(), usize::from(finished.code())), (n.to_string().as_str(), n));
    }
}

#[test]
fn an_agent_cannot_signal_what_watches_it() {
    if without_root("an agent that is another user") {
        return;
    }
    let host = Host::start();
    let finished = host.shell("kill -KILL $PPID; kill -STOP $PPID; echo still");
    assert_eq!(finished.text(), "still\n");
    assert!(!finished.stderr.is_empty());
}

#[test]
fn descriptors_that_do_not_fit_the_request_are_refused() {
    let host = Host::start();
    let null = std::fs::File::open("/dev/null").unwrap();
    let control = host.request(&Request::Exec(exec(&["true"])), &[null.as_fd()]);
    assert_eq!(control.failure().kind, FailureKind::Invalid);
    assert!(control.receive().is_none());
}

#[test]
fn process_one_reaps_and_its_end_is_everybodys() {
    if without_root("a guest that is process 1") {
        return;
    }
    let mut host = Host::contained(":");
    assert_eq!(host.shell("echo $PPID; cat /proc/net/dev | wc -l").text(), "2\n3\n");
    let mut left = host.exec(shell("trap '' TERM HUP; echo ready; (while :; do sleep 1; done) & exit 0"));
    left.started();
    assert_eq!(left.line(), "ready");
    host.shell("i=0; while [ $i -lt 100 ]; do (true & ); i=$((i+1)); done");
    eventually(|| (!host.shell("cat /proc/[0-9]*/stat 2>/dev/null").text().contains(") Z ")).then_some(()));
    host.channel = None;
    assert!(host.wait().0.success());
    assert!(read_all(&mut left.stdout).is_empty());
}

#[test]
fn a_program_lets_the_guest_go_first() {
    let host = Host::start();
    let finished = host.shell("nice; cat /proc/self/oom_score_adj; nice -n -5 true 2>&1; renice -n 0 $$ 2>&1; nice");
    let lines: Vec<&str> = finished.text().lines().collect();
    assert_eq!((lines[0], lines[1], lines.last()), ("10", "1000", Some(&"10")), "{lines:?}");
}

#[test]
fn nothing_runs_as_root_where_nobody_may_ask_for_it() {
    let host = Host::start();
    let failure = host.exec(Exec { run_as: RunAs::Root, ..exec(&["/bin/true"]) }).finish().unwrap_err();
    assert_eq!((failure.kind, failure.errno), (FailureKind::Denied, 1));
}

#[test]
fn what_runs_as_root_has_few_capabilities_and_an_environment_of_its_own() {
    if without_root("what_runs_as_root_has_few_capabilities_and_an_environment_of_its_own") {
        return;
    }
    let host = Host::with_setup(&Setup { sudo: Sudo::Offered, ..setup() });
    let script = "grep -E '^(Uid|Groups|Cap|NoNewPrivs)' /proc/self/status | tr -s '\\t\\n' ' '; ulimit -n; pwd; echo $USER $SUDO_UID";
    let root = host.exec(Exec { run_as: RunAs::Root, directory: None, ..shell(script) }).finish().unwrap();
    let (few, none) = ("00000000000000cb", "0000000000000000");
    let expected = format!(
        "Uid: 0 0 0 0 Groups: CapInh: {none} CapPrm: {few} CapEff: {few} CapBnd: {few} CapAmb: {none} NoNewPrivs: 1 256\n\
         /root\nroot 1000\n"
    );
    assert_eq!(root.text(), expected);
    let agent = host.shell("grep -E '^Cap(Prm|Eff|Bnd)' /proc/self/status | grep -vc 0000000000000000");
    assert_eq!(agent.text(), "0\n");
}
