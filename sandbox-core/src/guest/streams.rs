//! A program's streams: the pipes that they travel in, and what moves them.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncWrite, AsyncWriteExt as _, Interest};
use tokio::net::unix::pipe;

use crate::{Error, Result};

/// Bytes that a pipe may hold, where the kernel grants it (`F_SETPIPE_SZ`, fcntl(2)).
const PIPE_SIZE: usize = 1 << 20;

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

/// Moves a stream. What was read and not yet written stays here when a copy is broken off, so that none of it is lost.
#[derive(Debug, Default)]
pub(super) struct Mover {
    buffer: Vec<u8>,
    /// The part of the buffer that is still to be written.
    rest: Range<usize>,
}

impl Mover {
    /// Copies until the pipe's end; may be broken off at any point.
    pub(super) async fn copy(&mut self, from: &mut Outlet, to: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
        self.make_room();
        let Some(end) = from.idle()? else { return self.write(to).await };
        loop {
            self.write(to).await?;
            match rustix::io::retry_on_intr(|| rustix::io::read(end, &mut self.buffer)) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    self.rest = 0..count;
                    // A program that is never waited for would keep all else in this task waiting.
                    tokio::task::consume_budget().await;
                }
                Err(Errno::AGAIN) => readable(end).await.map_err(reading)?,
                Err(errno) => return Err(reading(errno.into())),
            }
        }
    }

    /// Copies what is in the pipe already, whoever still holds its other end.
    pub(super) async fn drain(&mut self, from: &mut Outlet, to: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
        self.make_room();
        let Some(end) = from.idle()? else { return self.write(to).await };
        // A pipe holds at most its size; a process that goes on writing gets no more than that.
        let mut left = PIPE_SIZE;
        loop {
            self.write(to).await?;
            if left == 0 {
                return Ok(());
            }
            match rustix::io::retry_on_intr(|| rustix::io::read(end, &mut self.buffer)) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(()),
                Ok(count) => {
                    self.rest = 0..count;
                    left = left.saturating_sub(count);
                }
                Err(errno) => return Err(reading(errno.into())),
            }
        }
    }

    /// Makes the buffer when it is first needed: memory that the kernel hands out zeroed costs nothing until it is touched.
    fn make_room(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = vec![0; CHUNK];
        }
    }

    async fn write(&mut self, to: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
        while !self.rest.is_empty() {
            match to.write(&self.buffer[self.rest.clone()]).await.map_err(writing)? {
                0 => return Err(writing(io::ErrorKind::WriteZero.into())),
                count => self.rest.start += count,
            }
        }
        Ok(())
    }
}

/// The host's end of a stream that comes out of a program.
///
/// Tokio watches it only while somebody waits for it. A pipe that is watched all the time wakes a thread for each write of
/// the program, also while another thread reads what was written; on two processors, that costs a fifth of the throughput.
#[derive(Debug)]
pub(super) struct Outlet {
    idle: Option<OwnedFd>,
    watched: Option<pipe::Receiver>,
}

impl Outlet {
    pub(super) fn new(end: OwnedFd) -> Result<Self> {
        nonblocking(&end)?;
        Ok(Self { idle: Some(end), watched: None })
    }

    /// The stream as tokio has it; at its end, once it was taken.
    pub(super) fn watched(&mut self) -> Result<&mut pipe::Receiver> {
        let receiver = self.take()?;
        Ok(self.watched.insert(receiver))
    }

    /// Takes the stream away.
    pub(super) fn take(&mut self) -> Result<pipe::Receiver> {
        match (self.watched.take(), self.idle.take()) {
            (Some(receiver), _) => Ok(receiver),
            (None, Some(end)) => receiver(end),
            (None, None) => ended(),
        }
    }

    /// The stream as nobody watches it; none, once it was taken.
    fn idle(&mut self) -> Result<Option<&OwnedFd>> {
        if let Some(receiver) = self.watched.take() {
            self.idle = Some(receiver.into_nonblocking_fd().map_err(reading)?);
        }
        Ok(self.idle.as_ref())
    }
}

/// Waits until a pipe holds something or has ended.
async fn readable(end: &OwnedFd) -> io::Result<()> {
    #[expect(unsafe_code, reason = "the safe constructor is deprecated, since it takes types that are no owners")]
    // SAFETY: the descriptor is borrowed from its owner for longer than it is watched.
    let watched = unsafe { AsyncFd::register_with_interest(end.as_fd(), Interest::READABLE) }?;
    watched.readable().await.map(|_| ())
}

/// The first bytes of a stream, and how many came after them.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) bytes: Vec<u8>,
    limit: usize,
    pub(crate) dropped: u64,
}

impl Kept {
    pub(crate) fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit, dropped: 0 }
    }
}

impl AsyncWrite for Kept {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        data: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        let room = self.limit - self.bytes.len();
        let (kept, dropped) = data.split_at(room.min(data.len()));
        self.bytes.extend_from_slice(kept);
        self.dropped += dropped.len() as u64;
        std::task::Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

/// The host's end of a pipe, for a thread that waits for whoever has the other end, until it is given up.
#[derive(Debug)]
pub(super) struct Patient {
    end: OwnedFd,
    /// Hangs up when nobody wants the work any more.
    given_up: OwnedFd,
}

impl Patient {
    /// Takes over an end; whoever drops what comes with it gives up the work.
    pub(super) fn new(end: OwnedFd) -> Result<(Self, OwnedFd)> {
        nonblocking(&end)?;
        let (given_up, wanted) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|errno| Error::io("cannot make a pipe", errno.into()))?;
        Ok((Self { end, given_up }, wanted))
    }

    /// Makes a call until it does not need to wait for the pipe.
    fn patiently(&self, wanted: PollFlags, mut call: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<usize> {
        loop {
            // Asks for no event of the second: what has ended is told unasked (poll(2)).
            let mut ready = [PollFd::new(&self.end, wanted), PollFd::new(&self.given_up, PollFlags::empty())];
            rustix::io::retry_on_intr(|| poll(&mut ready, None))?;
            if !ready[1].revents().is_empty() {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the work was given up"));
            }
            match call() {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }
}

impl io::Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.patiently(PollFlags::IN, || rustix::io::read(&self.end, &mut *buffer))
    }
}

impl io::Write for Patient {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.patiently(PollFlags::OUT, || rustix::io::write(&self.end, buffer))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A pipe: the end to read, the end to write.
pub(super) fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| Error::io("cannot make a pipe", errno.into()))?;
    // A user's pipes share a budget (pipe(7)); where it is spent, a pipe of the usual size serves as well.
    let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE_SIZE);
    // Programs open `/dev/stderr` and its like anew, as a user who is not the one that made the pipe; who does not hold an
    // end finds no name to open.
    rustix::fs::fchmod(&write, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH)
        .map_err(|errno| Error::io("cannot make a pipe", errno.into()))?;
    Ok((read, write))
}

/// The reading end of a pipe that nobody writes to.
fn ended() -> Result<pipe::Receiver> {
    let (read, _) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| Error::io("cannot make a pipe", errno.into()))?;
    receiver(read)
}

pub(super) fn sender(end: OwnedFd) -> Result<pipe::Sender> {
    nonblocking(&end)?;
    pipe::Sender::from_owned_fd(end).map_err(|error| Error::io("cannot use a pipe", error))
}

pub(super) fn receiver(end: OwnedFd) -> Result<pipe::Receiver> {
    nonblocking(&end)?;
    pipe::Receiver::from_owned_fd(end).map_err(|error| Error::io("cannot use a pipe", error))
}

fn nonblocking(end: &OwnedFd) -> Result<()> {
    rustix::io::ioctl_fionbio(end, true).map_err(|errno| Error::io("cannot use a pipe", errno.into()))
}

fn reading(error: io::Error) -> Error {
    Error::io("cannot read a program's output", error)
}

pub(super) fn writing(error: io::Error) -> Error {
    Error::io("cannot pass on a program's output", error)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn output_beyond_the_limit_is_counted_and_not_kept() {
        let mut kept = Kept::new(4);
        kept.write_all(b"abc").await.unwrap();
        kept.write_all(b"defg").await.unwrap();
        assert_eq!((kept.bytes.as_slice(), kept.dropped), (b"abcd".as_slice(), 3));
    }

    #[tokio::test]
    async fn what_is_in_a_pipe_is_drained_though_its_other_end_stays_open() {
        let (read, write) = pipe().unwrap();
        rustix::io::write(&write, b"left").unwrap();
        let mut read = Outlet::new(read).unwrap();
        let mut got = Vec::new();
        Mover::default().drain(&mut read, &mut got).await.unwrap();
        assert_eq!(got, b"left");
        drop(write);
    }

    #[tokio::test]
    async fn a_copy_that_is_broken_off_loses_nothing() {
        let (read, write) = pipe().unwrap();
        rustix::io::write(&write, b"0123456789").unwrap();
        let mut read = Outlet::new(read).unwrap();
        let (mut slow, mut reader) = tokio::io::duplex(4);
        let mut mover = Mover::default();
        tokio::select! {
            biased;
            result = mover.copy(&mut read, &mut slow) => panic!("the writer takes 4 bytes at once: {result:?}"),
            () = std::future::ready(()) => {}
        }
        let mut got = Vec::new();
        let drained = async {
            mover.drain(&mut read, &mut slow).await.unwrap();
            drop(slow);
        };
        tokio::join!(drained, async { reader.read_to_end(&mut got).await.unwrap() });
        assert_eq!(got, b"0123456789");
        drop(write);
    }
    #[tokio::test]
    async fn a_copy_waits_for_what_comes_late_and_ends_with_the_pipe() {
        let (read, write) = pipe().unwrap();
        let mut read = Outlet::new(read).unwrap();
        // Read once as tokio has it, which the copy then undoes.
        rustix::io::write(&write, b"a").unwrap();
        assert_eq!(read.watched().unwrap().read_u8().await.unwrap(), b'a');
        let mut got = Vec::new();
        let mut mover = Mover::default();
        let copy = mover.copy(&mut read, &mut got);
        let late = async {
            for part in [b"b", b"c"] {
                // The copy has found the pipe empty, and waits.
                tokio::task::yield_now().await;
                rustix::io::write(&write, part).unwrap();
            }
            drop(write);
        };
        let (copied, ()) = tokio::join!(copy, late);
        copied.unwrap();
        assert_eq!(got, b"bc");
    }

    #[tokio::test]
    async fn a_stream_that_was_taken_is_at_its_end_here() {
        let (read, write) = pipe().unwrap();
        let mut outlet = Outlet::new(read).unwrap();
        rustix::io::write(&write, b"theirs").unwrap();
        drop(write);
        let mut taken = outlet.take().unwrap();
        let mut got = Vec::new();
        Mover::default().copy(&mut outlet, &mut got).await.unwrap();
        assert_eq!(outlet.watched().unwrap().read(&mut [0]).await.unwrap(), 0);
        assert!(got.is_empty());
        taken.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"theirs");
    }
}
