//! A program on a terminal of its own, made inside and held outside.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::{FileType, fstat, major, minor};
use sandbox_guest::wire::{Command as Order, Exit, WindowSize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Control;
use super::exec::{exited, signal_over};
use crate::{Error, ErrorKind, Result};

/// A program on a terminal: what is written is typed, what is read is shown. Dropping it hangs up and ends the program.
#[derive(Debug)]
pub struct Terminal {
    control: Control,
    pid: u32,
    latest: Option<Instant>,
    master: AsyncFd<OwnedFd>,
    kind: Kind,
    exit: Option<Exit>,
}

impl Terminal {
    pub(super) fn new(control: Control, pid: u32, latest: Option<Instant>, descriptors: Vec<OwnedFd>) -> Result<Self> {
        let [master] = <[OwnedFd; 1]>::try_from(descriptors).map_err(|given| {
            Error::new(ErrorKind::Guest, format!("{} descriptors instead of one terminal", given.len()))
        })?;
        let kind = check(&master)?;
        rustix::io::ioctl_fionbio(&master, true).map_err(terminal_error)?;
        #[expect(unsafe_code, reason = "the safe constructor is deprecated, since it takes types that are no owners")]
        // SAFETY: an `OwnedFd` is open for as long as it lives, and always names the same descriptor.
        let master = unsafe { AsyncFd::register(master) };
        let master = master.map_err(|error| Error::io("cannot use the terminal", error.into()))?;
        Ok(Self { control, pid, latest, master, kind, exit: None })
    }

    /// The process id inside.
    pub fn id(&self) -> u32 {
        self.pid
    }

    /// Changes the terminal's size; the program gets `SIGWINCH`.
    ///
    /// # Errors
    /// `Io` when the terminal is gone.
    pub fn resize(&self, size: WindowSize) -> Result<()> {
        if self.kind == Kind::Relayed {
            return self.control.command(&Order::Resize(size));
        }
        let size = rustix::termios::Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(self.master.get_ref(), size).map_err(terminal_error)
    }

    /// Sends a signal, by number, to the program's process group.
    ///
    /// # Errors
    /// As [`Process::signal`](super::Process::signal).
    pub fn signal(&self, signal: i32) -> Result<()> {
        signal_over(&self.control, signal)
    }

    /// Ends the program and everything that it started, at once.
    ///
    /// # Errors
    /// `SandboxGone` when the program has ended.
    pub fn kill(&self) -> Result<()> {
        self.control.command(&Order::Kill)
    }

    /// Waits for the program to end.
    ///
    /// # Errors
    /// As [`Process::wait`](super::Process::wait).
    pub async fn wait(&mut self) -> Result<Exit> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let exit = exited(&mut self.control, self.latest).await?;
        self.exit = Some(exit);
        Ok(exit)
    }
}

/// What stands for the terminal here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The master itself.
    Master,
    /// A socket, whose other end a relay holds.
    Relayed,
}

/// A descriptor from inside is a claim. Only a connected socket, which can do nothing but carry bytes, and the master of
/// a pseudo-terminal are taken: the character device 5:2
/// (`Documentation/admin-guide/devices.txt` in the kernel's source).
fn check(master: &OwnedFd) -> Result<Kind> {
    let stat = fstat(master).map_err(terminal_error)?;
    let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if device && (major(stat.st_rdev), minor(stat.st_rdev)) == (5, 2) {
        return Ok(Kind::Master);
    }
    if FileType::from_raw_mode(stat.st_mode) == FileType::Socket && rustix::net::getpeername(master).is_ok() {
        return Ok(Kind::Relayed);
    }
    Err(Error::new(ErrorKind::Guest, "the guest passed something that is no terminal"))
}

fn terminal_error(errno: rustix::io::Errno) -> Error {
    Error::io("cannot use the terminal", errno.into())
}

/// The terminal's master, non-blocking, for a caller who moves the bytes by other means.
impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.get_ref().as_fd()
    }
}

impl AsyncRead for Terminal {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.master.poll_read_ready(context))?;
            let room = buffer.initialize_unfilled();
            match guard.try_io(|master| Ok(rustix::io::read(master.get_ref(), &mut *room)?)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // When the last process closes the other side, the kernel says EIO: that is the end.
                Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.master.poll_write_ready(context))?;
            match guard.try_io(|master| Ok(rustix::io::write(master.get_ref(), data)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_master_of_a_terminal_or_a_relays_socket_is_taken() {
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        assert_eq!(check(&rustix::pty::openpt(flags).unwrap()).unwrap(), Kind::Master);
        for other in ["/dev/null", "/etc/hostname", "/"] {
            let file = OwnedFd::from(std::fs::File::open(other).unwrap());
            assert_eq!(check(&file).unwrap_err().kind(), ErrorKind::Guest, "{other}");
        }
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(check(&OwnedFd::from(socket)).unwrap(), Kind::Relayed);
        let unconnected = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert_eq!(check(&OwnedFd::from(unconnected)).unwrap_err().kind(), ErrorKind::Guest);
    }
}
