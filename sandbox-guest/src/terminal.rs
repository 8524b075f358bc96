//! A pseudo-terminal that belongs to the agent.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use sandbox_guest::wire::{Identity, WindowSize};

use crate::agent::as_agent;

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
        // The kernel gives the slave to whoever opened its master (devpts).
        let master = as_agent(agent, open_master)?;
        unlockpt(&master)?;
        let winsize = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, winsize)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = match ioctl_tiocgptpeer(&master, flags) {
            // Not known to gVisor, where the name is as good: nobody but root can change what it leads to.
            Err(Errno::NOTTY) => as_agent(agent, || open_slave(&master))?,
            slave => slave?,
        };
        Ok(Self { master, slave })
    }
}

fn open_slave(master: &OwnedFd) -> io::Result<OwnedFd> {
    let name = ptsname(master, Vec::new())?;
    Ok(openat(CWD, name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?)
}

fn open_master() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let open = |path: &str| openat(CWD, path, flags, Mode::empty());
    Ok(open("/dev/ptmx").or_else(|_| open("/dev/pts/ptmx"))?)
}
