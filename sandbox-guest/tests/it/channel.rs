//! The channel: its terms, and how it ends.

use std::io::Write;

use sandbox_guest::wire::{Identity, PROTOCOL, Setup};

use crate::harness::{Host, exec, read_all, setup, shell};

#[test]
fn a_closed_channel_ends_the_guest_and_all_that_it_started() {
    let mut host = Host::start();
    let mut running = host.exec(shell("trap '' TERM HUP; echo ready; while :; do sleep 1; done"));
    running.started();
    assert_eq!(running.line(), "ready");
    host.channel = None;
    let (status, text) = host.wait();
    assert!(status.success() && text.is_empty(), "{status} {text}");
    assert!(read_all(&mut running.stdout).is_empty());
}

#[test]
fn another_protocol_is_refused() {
    let host = Host::with_setup(&Setup { protocol: PROTOCOL + 1, ..setup() });
    let (status, text) = host.wait();
    assert!(!status.success() && text.contains("protocol"), "{status} {text}");
}

#[test]
fn an_id_that_means_no_change_is_refused() {
    for agent in [Identity { uid: u32::MAX, gid: 1000 }, Identity { uid: 1000, gid: u32::MAX }] {
        let (status, text) = Host::with_setup(&Setup { agent, ..setup() }).wait();
        assert!(!status.success() && text.contains("4294967294"), "{status} {text}");
    }
}

#[test]
fn the_lifetime_ends_the_guest() {
    let host = Host::with_setup(&Setup { lifetime: 1, ..setup() });
    let (status, _) = host.wait();
    assert!(status.success());
}

#[test]
fn noise_ends_the_guest() {
    for noise in [&b"\xff\xff\xff\xff"[..], &[3, 0, 0, 0, 200, 1, 1], &[0; 4]] {
        let host = Host::start();
        assert_eq!(host.exec(exec(&["true"])).finish().unwrap().code(), 0);
        (&mut host.channel.as_ref().unwrap()).write_all(noise).unwrap();
        let (status, _) = host.wait();
        assert!(status.success());
    }
}

#[test]
fn a_signal_that_asks_ends_the_guest() {
    let host = Host::start();
    assert_eq!(host.exec(exec(&["true"])).finish().unwrap().code(), 0);
    let pid = rustix::process::Pid::from_raw(host.guest_pid().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(host.wait().0.success());
}

#[test]
fn limits_that_cannot_be_set_are_told() {
    let host = Host::with_setup(&Setup { open_files: 1 << 40, ..setup() });
    let failure = host.exec(exec(&["true"])).finish().unwrap_err();
    assert!(failure.message.contains("1099511627776 asked"), "{failure:?}");
}
