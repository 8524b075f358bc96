//! Process 1 of every sandbox.
//!
//! `sandbox-guest [SOCKET]` connects to its host's socket and carries out what the host asks, as the agent's user;
//! `sandbox-guest --relay` does so over its standard input and output. Under the name `sudo` it asks its host for root inside. It
//! has one thread and needs nothing from the image: no shell, no C library, no `/etc/passwd`, no writable file system.

mod account;
mod agent;
mod ask;
mod attest;
mod cgroup;
mod control;
mod deadline;
mod descendants;
mod environment;
mod exec;
mod failure;
mod family;
mod files;
mod init;
mod launcher;
mod listen;
mod offer;
mod procfs;
mod root;
mod supervise;
mod sys;
mod terminal;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use init::Door;
use sandbox_guest::wire::{GUEST_DIRECTORY, GUEST_SOCKET};

fn main() -> ExitCode {
    if ask::is_called() {
        return ExitCode::from(ask::run());
    }
    if std::env::args_os().nth(1).is_some_and(|argument| argument == sandbox_guest::launch::ARGUMENT) {
        return launcher::run();
    }
    let socket =
        std::env::args_os().nth(1).map_or_else(|| Path::new(GUEST_DIRECTORY).join(GUEST_SOCKET), PathBuf::from);
    let door = if socket.as_os_str() == sandbox_guest::relay::ARGUMENT { Door::Relay } else { Door::Socket(socket) };
    match init::run(&door) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever started the guest may not read what it says.
            let _ = writeln!(std::io::stderr(), "sandbox-guest: {error}");
            ExitCode::FAILURE
        }
    }
}
