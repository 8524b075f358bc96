//! Bytes move both ways between two sockets until both have ended, without being looked at.
//!
//! They go through a pipe of the kernel's (splice(2)) and are never copied here. A tunnel that stands still holds no pipe and
//! no memory: it takes one when there is something to move, and gives it back when it is empty.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::budget::Meter;

/// Pipes that nobody uses right now.
#[derive(Debug, Default)]
pub(crate) struct Pipes(Mutex<Vec<Pipe>>);

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipes {
    fn take(&self) -> io::Result<Pipe> {
        if let Some(pipe) = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A user who has many pipes gets no larger ones (pipe(7)), and these move the same bytes in more steps.
        let _ = fcntl_setpipe_size(&write, PIPE_SIZE);
        Ok(Pipe { read, write })
    }

    /// Takes back a pipe that is empty.
    fn give_back(&self, pipe: Pipe) {
        let mut pipes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pipes.len() < MAX_KEPT {
            pipes.push(pipe);
        }
    }
}

/// Moves what comes from inside out, and what comes from outside in, until both have ended.
pub(crate) async fn run(inside: &TcpStream, outside: &TcpStream, meter: &Meter, pipes: &Pipes) -> io::Result<()> {
    let out = one_way(inside, outside, pipes, |bytes| meter.sent(bytes));
    let back = one_way(outside, inside, pipes, |bytes| meter.received(bytes));
    tokio::try_join!(out, back).map(|((), ())| ())
}

async fn one_way(
    from: &TcpStream,
    to: &TcpStream,
    pipes: &Pipes,
    count: impl Fn(usize) -> io::Result<()>,
) -> io::Result<()> {
    loop {
        from.readable().await?;
        let pipe = pipes.take()?;
        // Dropping it half-full, on an error or with the future, closes it.
        loop {
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            let read = from.try_io(Interest::READABLE, || {
                Ok(rustix::io::retry_on_intr(|| splice(from.as_fd(), None, &pipe.write, None, PIPE_SIZE, flags))?)
            });
            let mut waiting = match read {
                Ok(0) => {
                    // Half of it is over; the other may go on.
                    rustix::net::shutdown(to, rustix::net::Shutdown::Write)?;
                    pipes.give_back(pipe);
                    return Ok(());
                }
                Ok(waiting) => waiting,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            count(waiting)?;
            while waiting > 0 {
                to.writable().await?;
                let written = to.try_io(Interest::WRITABLE, || {
                    Ok(rustix::io::retry_on_intr(|| splice(&pipe.read, None, to.as_fd(), None, waiting, flags))?)
                });
                match written {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => waiting -= written,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
        pipes.give_back(pipe);
    }
}

const PIPE_SIZE: usize = 256 << 10;
const MAX_KEPT: usize = 16;
