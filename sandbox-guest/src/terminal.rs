//! A pseudo-terminal that belongs to the agent.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Gid, Uid, geteuid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use sandbox_guest::wire::{Identity, WindowSize};

/// Both ends of a pseudo-terminal (pty(7)).
#[derive(Debug)]
pub(crate) struct Terminal {
    /// The end that the host reads and writes.
    pub(crate) master: OwnedFd,
    /// The end that the program has as its terminal.
    pub(crate) slave: OwnedFd,
}

impl Terminal {
    /// Opens a terminal of a size.
    pub(crate) fn open(agent: Identity, size: WindowSize) -> io::Result<Self> {
        let master = as_agent(agent, open_master)?;
        unlockpt(&master)?;
        let winsize = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, winsize)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        Ok(Self { master, slave })
    }
}

fn open_master() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let open = |path: &str| openat(CWD, path, flags, Mode::empty());
    Ok(open("/dev/ptmx").or_else(|_| open("/dev/pts/ptmx"))?)
}

/// Runs a call with the agent's effective ids: the kernel gives a slave to whoever opened its master (devpts).
fn as_agent<T>(agent: Identity, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if !geteuid().is_root() {
        return call();
    }
    set_thread_res_gid(None, Gid::from_raw(agent.gid), None)?;
    set_thread_res_uid(None, Uid::from_raw(agent.uid), None)?;
    let result = call();
    set_thread_res_uid(None, Uid::ROOT, None)?;
    set_thread_res_gid(None, Gid::ROOT, None)?;
    result
}
