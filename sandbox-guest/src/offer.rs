//! Puts `sudo` where the agent finds it, without a change to the image.
//!
//! The guest copies its own program into `/run`, which every system clears, before anything of the agent's runs. The image is
//! not trusted: no link of it is followed, since it could lead into the workspace.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, openat, openat2, symlinkat};
use sandbox_guest::sudo::{DIRECTORY, NAME, PROGRAMS};

/// Makes the directory and the program in it.
pub(crate) fn offer() -> io::Result<()> {
    let mut place = open("/")?;
    for part in PROGRAMS.split('/').filter(|part| !part.is_empty()) {
        place = enter(&place, part)?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mode = Mode::from_raw_mode(0o755);
    let mut program = File::from(openat(&place, NAME, flags, mode)?);
    io::copy(&mut File::open("/proc/self/exe")?, &mut program)?;
    fchmod(&program, mode)?;
    // For who sets PATH anew, as login shells do. An image that has its own, or whose root cannot be written, keeps it.
    if let Ok(place) = open(USUAL) {
        let _ = symlinkat(format!("{PROGRAMS}/{NAME}"), place, NAME);
    }
    Ok(())
}

/// Enters a directory that only root may write, and makes it if it is missing.
fn enter(place: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(0o755);
    let is_new = match mkdirat(place, name, mode) {
        Ok(()) => true,
        Err(rustix::io::Errno::EXIST) => false,
        Err(error) => return Err(error.into()),
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let entered = openat(place, name, flags, Mode::empty())?;
    if is_new {
        // Whatever the mask is.
        fchmod(&entered, mode)?;
    }
    let found = fstat(&entered)?;
    if found.st_uid != 0 || found.st_mode & 0o022 != 0 {
        let text = format!("\"{name}\" on the way to {DIRECTORY} can be written by others than root");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok(entered)
}

fn open(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?)
}

/// Where programs of the machine's own are looked up first.
const USUAL: &str = "/usr/local/bin";
