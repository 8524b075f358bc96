//! Terminals.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use sandbox_policy::Isolation;

use super::{Fixture, eventually, nap, running};
use crate::{Status, Terminal, WindowSize};

const SIZE: WindowSize = WindowSize { rows: 30, columns: 100 };

async fn read_until(terminal: &mut Terminal, end: &str) -> String {
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while !seen.contains(end) {
        let count = terminal.read(&mut buffer).await.unwrap();
        assert_ne!(count, 0, "the terminal ended after {seen:?}, before {end:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    seen
}

pub async fn a_terminal_types_and_shows(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let script = "test -t 0 && test -t 1 && test -t 2 && echo terminal; read line; echo \"got $line\"; exit 3";
    let mut terminal = sandbox.command("sh").args(["-c", script]).terminal(SIZE).await.unwrap();
    read_until(&mut terminal, "terminal").await;
    terminal.write_all(b"typed\n").await.unwrap();
    read_until(&mut terminal, "got typed").await;
    assert_eq!(terminal.wait().await.unwrap().status, Status::Code(3));
    // Control-C is typed, not sent. What is shown stays: a terminal else drops output around a signal (termios(3), NOFLSH).
    let script = "stty noflsh; trap 'echo interrupted; exit 4' INT; echo ready; while :; do sleep 0.05; done";
    let mut terminal = sandbox.command("sh").args(["-c", script]).terminal(SIZE).await.unwrap();
    read_until(&mut terminal, "ready").await;
    terminal.write_all(&[3]).await.unwrap();
    read_until(&mut terminal, "interrupted").await;
    assert_eq!(terminal.wait().await.unwrap().status, Status::Code(4));
    sandbox.destroy().await.unwrap();
}

pub async fn a_terminal_has_a_size_that_can_change(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let script = match fixture.runtime.isolation() {
        // gVisor changes the size and sends nobody the signal.
        Isolation::Gvisor => {
            "stty size; echo ready; until [ \"$(stty size)\" = '40 120' ]; do sleep 0.05; done; stty size"
        }
        Isolation::Standard => "stty size; trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done",
    };
    let mut terminal = sandbox.command("sh").args(["-c", script]).terminal(SIZE).await.unwrap();
    let first = read_until(&mut terminal, "ready").await;
    assert!(first.contains("30 100"), "{first:?}");
    terminal.resize(WindowSize { rows: 40, columns: 120 }).unwrap();
    read_until(&mut terminal, "40 120").await;
    sandbox.destroy().await.unwrap();
}

pub async fn a_terminal_that_is_dropped_hangs_up(fixture: &Fixture) {
    let sandbox = fixture.start().await;
    let nap = nap(&sandbox);
    let script = format!("echo ready; exec {nap}");
    let mut terminal = sandbox.command("sh").args(["-c", &script]).terminal(SIZE).await.unwrap();
    read_until(&mut terminal, "ready").await;
    drop(terminal);
    eventually("the program on the dropped terminal ends", || async { running(&sandbox, &nap).await == "0" }).await;
    sandbox.destroy().await.unwrap();
}
