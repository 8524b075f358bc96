//! Bytes move both ways between two sockets until both have ended, without being looked at.
//!
//! What is little is read and written on. What is more goes through a pipe of the kernel's (splice(2)) and is never copied
//! here, which costs more steps than a small message is worth. A tunnel that stands still holds no pipe and no memory: it
//! takes one when there is much to move, and gives it back when it is empty.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

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

/// Moves what comes from inside out, and what comes from outside in, until both have ended. Whoever calls closes both then.
pub(crate) async fn run(
    inside: &mut TcpStream,
    outside: &mut TcpStream,
    meter: &Meter,
    pipes: &Pipes,
) -> io::Result<()> {
    let is_half_over = AtomicBool::new(false);
    let ((inside_read, inside_write), (outside_read, outside_write)) = (inside.split(), outside.split());
    let out = Way { from: inside_read, to: outside_write, pipes, is_half_over: &is_half_over };
    let back = Way { from: outside_read, to: inside_write, pipes, is_half_over: &is_half_over };
    tokio::try_join!(out.run(|bytes| meter.sent(bytes)), back.run(|bytes| meter.received(bytes))).map(|((), ())| ())
}

/// One of a tunnel's two ways.
struct Way<'a> {
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    pipes: &'a Pipes,
    /// Whether the other way has ended.
    is_half_over: &'a AtomicBool,
}

/// What was found at the beginning of a way.
enum Found {
    /// So little that all of it is on its way.
    Little,
    /// There may be much more.
    Much,
    /// This did not fit into the other socket.
    Stuck(Vec<u8>),
    /// It has ended.
    Nothing,
}

impl Way<'_> {
    async fn run(mut self, count: impl Fn(usize) -> io::Result<()>) -> io::Result<()> {
        loop {
            match std::future::poll_fn(|cx| self.poll_little(cx, &count)).await? {
                Found::Little => {}
                Found::Stuck(bytes) => self.to.write_all(&bytes).await?,
                Found::Much => {
                    // It comes in bursts, which are not to begin with a copy each.
                    while let Some(moved) = self.splice(&count).await? {
                        if moved < LITTLE {
                            break;
                        }
                        self.from.readable().await?;
                    }
                }
                Found::Nothing => {
                    if !self.is_half_over.swap(true, Ordering::Relaxed) {
                        // The other half may go on.
                        rustix::net::shutdown(self.to.as_ref(), rustix::net::Shutdown::Write)?;
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Waits for something, and writes it on at once if it is little.
    fn poll_little(
        &mut self,
        cx: &mut Context<'_>,
        count: &impl Fn(usize) -> io::Result<()>,
    ) -> Poll<io::Result<Found>> {
        let mut part = [MaybeUninit::uninit(); LITTLE];
        let mut part = ReadBuf::uninit(&mut part);
        ready!(Pin::new(&mut self.from).poll_read(cx, &mut part))?;
        let bytes = part.filled();
        if bytes.is_empty() {
            return Poll::Ready(Ok(Found::Nothing));
        }
        count(bytes.len())?;
        let written = match self.to.try_write(bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Poll::Ready(Err(error)),
        };
        Poll::Ready(Ok(match &bytes[written..] {
            [] if bytes.len() < LITTLE => Found::Little,
            [] => Found::Much,
            left => Found::Stuck(left.to_vec()),
        }))
    }

    /// Moves all that there is, without a copy, and says how much that was; nothing where the way has ended, which is then
    /// found again.
    async fn splice(&mut self, count: &impl Fn(usize) -> io::Result<()>) -> io::Result<Option<usize>> {
        let (from, to): (&TcpStream, &TcpStream) = (self.from.as_ref(), self.to.as_ref());
        let pipe = self.pipes.take()?;
        let mut moved = 0;
        // Dropping it half-full, on an error or with the future, closes it.
        loop {
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            let read = from.try_io(Interest::READABLE, || {
                Ok(rustix::io::retry_on_intr(|| splice(from.as_fd(), None, &pipe.write, None, PIPE_SIZE, flags))?)
            });
            let mut waiting = match read {
                Ok(0) => {
                    self.pipes.give_back(pipe);
                    return Ok(None);
                }
                Ok(waiting) => waiting,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            };
            count(waiting)?;
            moved += waiting;
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
        self.pipes.give_back(pipe);
        Ok(Some(moved))
    }
}

const PIPE_SIZE: usize = 256 << 10;
const MAX_KEPT: usize = 16;
/// Bytes that are copied rather than spliced.
const LITTLE: usize = 16 << 10;
