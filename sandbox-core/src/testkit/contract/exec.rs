//! Programs: streams, statuses, signals, deadlines, and an end that nothing can put off.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use sandbox_policy::Isolation;

use super::{Fixture, eventually, nap, running, sh, text};
use crate::{ErrorKind, Status, Stdin};

const MIB: usize = 1 << 20;

pub async fn two_streams_at_once(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let script = "head -c 10485760 /dev/zero & head -c 10485760 /dev/zero | tr '\\0' e >&2; wait";
    let output = sh(&sandbox, script).await;
    assert_eq!(output.exit.status, Status::Code(0));
    assert!(output.stdout.len() == 10 * MIB && output.stdout.iter().all(|&byte| byte == 0));
    assert!(output.stderr.len() == 10 * MIB && output.stderr.iter().all(|&byte| byte == b'e'));
    assert_eq!((output.stdout_dropped, output.stderr_dropped), (0, 0));
    sandbox.destroy().await.unwrap();
}

pub async fn many_short_lines_arrive(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let output = sh(&sandbox, "seq 1 100000").await;
    let expected: Vec<u8> = (1..=100_000).flat_map(|number| format!("{number}\n").into_bytes()).collect();
    assert!(output.stdout == expected, "{} bytes", output.stdout.len());
    sandbox.destroy().await.unwrap();
}

pub async fn binary_output_is_not_touched(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let bytes: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let command = sandbox.command("cat").stdin(Stdin::Bytes(bytes.clone()));
    assert!(command.output().await.unwrap().stdout == bytes);
    // No newline is added at the end, and none is taken away.
    assert_eq!(sh(&sandbox, "printf 'no newline'").await.stdout, b"no newline");
    sandbox.destroy().await.unwrap();
}

pub async fn input_reaches_the_program(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let input = vec![b'i'; 10 * MIB];
    let output = sandbox.command("wc").arg("-c").stdin(Stdin::Bytes(input)).output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), (10 * MIB).to_string());
    // Without input, a program that reads sees the end at once.
    assert_eq!(sandbox.command("cat").output().await.unwrap().stdout, b"");
    // Input can be fed piece by piece, and its end told.
    let mut process = sandbox.command("cat").stdin(Stdin::Pipe).spawn().await.unwrap();
    let mut stdin = process.take_stdin().unwrap();
    let mut seen = [0; 5];
    stdin.write_all(b"first").await.unwrap();
    process.stdout().unwrap().read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"first");
    drop(stdin);
    assert_eq!(process.wait().await.unwrap().status, Status::Code(0));
    // A program that does not read what it is given is no error.
    let deaf = sandbox.command("true").stdin(Stdin::Bytes(vec![0; 4 * MIB])).output().await.unwrap();
    assert_eq!(deaf.exit.status, Status::Code(0));
    sandbox.destroy().await.unwrap();
}

pub async fn standard_streams_can_be_opened_anew(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let script = "cat /dev/stdin >/dev/stdout; echo told >/dev/stderr; echo also >/proc/self/fd/2";
    let command = sandbox.command("sh").args(["-c", script]).stdin(Stdin::Bytes(b"given".to_vec()));
    let output = command.output().await.unwrap();
    if fixture.runtime.isolation() == Isolation::Gvisor {
        // Its pipes are their maker's alone, who is root inside; what is open already can be used.
        assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"), "{output:?}");
        assert_eq!(sh(&sandbox, "echo told").await.stdout, b"told\n");
        sandbox.destroy().await.unwrap();
        return;
    }
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"given"[..], &b"told\nalso\n"[..]));
    sandbox.destroy().await.unwrap();
}

pub async fn output_is_bounded(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let command = sandbox.command("head").args(["-c", "3000000", "/dev/zero"]).output_limit(1_000_000);
    let output = command.output().await.unwrap();
    assert_eq!((output.stdout.len(), output.stdout_dropped), (1_000_000, 2_000_000));
    assert_eq!(output.exit.status, Status::Code(0));
    sandbox.destroy().await.unwrap();
}

pub async fn each_exit_code_comes_through(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    for code in 0..=255_u8 {
        let output = sandbox.command("sh").args(["-c", &format!("exit {code}")]).output().await.unwrap();
        assert_eq!(output.exit.status, Status::Code(code));
        assert!(!output.exit.timed_out && !output.exit.out_of_memory);
    }
    sandbox.destroy().await.unwrap();
}

pub async fn signals_end_programs(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    for signal in [9_u8, 11, 15] {
        let output = sandbox.command("sh").args(["-c", &format!("kill -{signal} $$")]).output().await.unwrap();
        assert_eq!(output.exit.status, Status::Signal(signal));
    }
    sandbox.destroy().await.unwrap();
}

pub async fn a_signal_reaches_the_program(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let script = "trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.05; done";
    let mut process = sandbox.command("sh").args(["-c", script]).spawn().await.unwrap();
    let mut ready = [0; 6];
    process.stdout().unwrap().read_exact(&mut ready).await.unwrap();
    process.signal(2).unwrap();
    assert_eq!(process.wait().await.unwrap().status, Status::Code(7));
    let mut rest = String::new();
    process.stdout().unwrap().read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "caught\n");
    assert_eq!(process.signal(0).unwrap_err().kind(), ErrorKind::InvalidInput);
    sandbox.destroy().await.unwrap();
}

pub async fn a_missing_command_and_a_file_that_is_none_differ(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let missing = sandbox.command("no-such-command").output().await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::CommandNotFound, "{missing}");
    let missing = sandbox.command("/no/such/command").output().await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::CommandNotFound, "{missing}");
    let file = fixture.path("not-a-program");
    sandbox.write(&file, "text").await.unwrap();
    let refused = sandbox.command(&file).output().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::CommandNotRunnable, "{refused}");
    let refused = sandbox.command(&fixture.scratch).output().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::CommandNotRunnable, "{refused}");
    let lost = sandbox.command("true").directory("/no/such/directory").output().await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::NotFound, "{lost}");
    assert!(lost.to_string().contains("/no/such/directory"), "{lost}");
    sandbox.remove(&file).await.unwrap();
    sandbox.destroy().await.unwrap();
}

pub async fn arguments_stay_apart(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let odd = ["two words", "", "-n", "a\nb", "$HOME `id`", "'\"\\", "\u{e9}"];
    let output = sandbox.command("printf").arg("<%s>").args(odd).output().await.unwrap();
    let expected: Vec<u8> = odd.iter().flat_map(|word| format!("<{word}>").into_bytes()).collect();
    assert_eq!(output.stdout, expected);
    let many: Vec<String> = (0..20_000).map(|number| format!("argument-{number}")).collect();
    let output = sandbox.command("sh").args(["-c", "echo $#", "sh"]).args(&many).output().await.unwrap();
    assert_eq!(output.stdout, b"20000\n");
    sandbox.destroy().await.unwrap();
}

pub async fn the_environment_is_what_was_given(fixture: &Fixture) {
    let sandbox = fixture.builder().env("GIVEN", "to all").start().await.unwrap();
    let command = sandbox.command("sh").args(["-c", "echo \"$GIVEN, $ONLY\""]).env("ONLY", "to one");
    assert_eq!(command.output().await.unwrap().stdout, b"to all, to one\n");
    let names = text(&sandbox, "env | sed 's/=.*//' | sort").await;
    // Nothing of this process's own environment is there.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO")) {
        assert!(!names.lines().any(|line| line == name), "{name} came from outside");
    }
    for name in ["HOME", "PATH", "USER"] {
        assert!(names.lines().any(|line| line == name), "{name} is missing");
    }
    sandbox.destroy().await.unwrap();
}

pub async fn no_descriptor_of_the_guest_is_inherited(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    // `ls` itself opens the directory that it lists, as 3.
    assert_eq!(text(&sandbox, "ls -1 /proc/self/fd | tr '\\n' ' '").await.trim(), "0 1 2 3");
    sandbox.destroy().await.unwrap();
}

pub async fn a_deadline_ends_what_ignores_it(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let nap = nap(&sandbox);
    // Its children ignore TERM, leave the session and their parent, and are to die all the same.
    let script = format!(
        "trap '' TERM; setsid sh -c '(exec {nap}) & exec {nap}' & (setsid {nap} &); while :; do sleep 0.1; done"
    );
    let deadline = Duration::from_secs(3);
    let command = sandbox.command("sh").args(["-c", &script]).deadline(deadline).grace(Duration::from_millis(200));
    let (output, started) = tokio::join!(command.output(), async {
        eventually("the children run", || async { running(&sandbox, &nap).await == "3" }).await;
    });
    let exit = output.unwrap().exit;
    assert!(exit.timed_out && exit.status == Status::Signal(9), "{exit:?}");
    let () = started;
    assert_eq!(running(&sandbox, &nap).await, "0");
    // A program that does as it is asked ends by itself, and the deadline is told all the same.
    let command = sandbox.command("sleep").arg("600").deadline(Duration::from_millis(100));
    let exit = command.output().await.unwrap().exit;
    assert!(exit.timed_out && exit.status == Status::Signal(15), "{exit:?}");
    sandbox.destroy().await.unwrap();
}

pub async fn a_dropped_exec_ends_all_that_it_started(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let nap = nap(&sandbox);
    let script = format!("setsid {nap} & {nap} & exec {nap}");
    let process = sandbox.command("sh").args(["-c", &script]).spawn().await.unwrap();
    eventually("the programs run", || async { running(&sandbox, &nap).await == "3" }).await;
    drop(process);
    eventually("the dropped program's processes end", || async { running(&sandbox, &nap).await == "0" }).await;
    // A future that is dropped while the program runs does the same.
    let output = sandbox.command("sh").args(["-c", &script]).output();
    tokio::select! {
        output = output => panic!("the program ended by itself: {output:?}"),
        () = eventually("the programs run", || async { running(&sandbox, &nap).await == "3" }) => {}
    }
    eventually("the dropped future's processes end", || async { running(&sandbox, &nap).await == "0" }).await;
    sandbox.destroy().await.unwrap();
}

pub async fn a_background_process_holds_nobody_up(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let nap = nap(&sandbox);
    // It keeps the pipe open; the program is at its end all the same, and the process lives on.
    let output = sh(&sandbox, &format!("{nap} & echo started")).await;
    assert_eq!(output.stdout, b"started\n");
    // The shell may be at its end before what it forked has become the other program.
    eventually("the process is there", || async { running(&sandbox, &nap).await == "1" }).await;
    sandbox.destroy().await.unwrap();
}

pub async fn many_programs_run_at_once(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let mut programs = tokio::task::JoinSet::new();
    for number in 0..64_u8 {
        let command = sandbox.command("sh").args(["-c", &format!("echo {number}; sleep 0.2; exit {number}")]);
        programs.spawn(async move { (number, command.output().await.unwrap()) });
    }
    while let Some(program) = programs.join_next().await {
        let (number, output) = program.unwrap();
        assert_eq!(output.stdout, format!("{number}\n").into_bytes());
        assert_eq!(output.exit.status, Status::Code(number));
    }
    sandbox.destroy().await.unwrap();
}

pub async fn orphans_leave_no_zombies(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    // Some while their program runs, some after it has ended.
    let script = "for i in $(seq 100); do (true & exec true) & done; wait; for i in $(seq 50); do (sleep 0.1 &) & done";
    sh(&sandbox, script).await;
    let zombies = || text(&sandbox, "ps -eo stat,ppid,args | grep -c '^Z.*\\(true\\|sleep\\)' || true");
    eventually("zombies are reaped", || async { zombies().await == "0" }).await;
    sandbox.destroy().await.unwrap();
}
