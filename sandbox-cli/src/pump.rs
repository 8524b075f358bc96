//! Moves bytes between descriptors on a thread of its own: between pipes the kernel moves them, without a copy.
//!
//! The threads are the command's own to the end: one that waits for a terminal or a stuck reader may be abandoned, and
//! ends with the process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};
use tokio::sync::oneshot;

/// Bytes that are moved at once; as much as a program's pipe holds.
const CHUNK: usize = 1 << 20;

/// Bytes that are copied at once, where the kernel cannot move them.
const COPY: usize = 256 << 10;

/// A stream on its way.
#[derive(Debug)]
pub(crate) struct Pump {
    orders: Arc<Orders>,
    done: oneshot::Receiver<io::Result<()>>,
}

impl Pump {
    /// Moves everything from `source` to `target`, and then closes both.
    pub(crate) fn start(
        name: &str,
        source: impl AsFd + Send + 'static,
        target: impl AsFd + Send + 'static,
    ) -> io::Result<Self> {
        // A wider pipe means fewer turns; what is no pipe, or where the user's pipes hold enough, stays as it is (pipe(7)).
        let _ = rustix::pipe::fcntl_setpipe_size(&target, CHUNK);
        let orders = Arc::new(Orders::new()?);
        let (tell, done) = oneshot::channel();
        let theirs = Arc::clone(&orders);
        std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(move || {
            let moved = Mover { source: source.as_fd(), target: target.as_fd(), orders: &theirs }.run();
            drop((source, target));
            // Whoever started it may have stopped listening.
            let _ = tell.send(moved);
        })?;
        Ok(Self { orders, done })
    }

    /// Takes only what is in the source already, whoever still holds its other end; [`done`](Self::done) tells when.
    pub(crate) fn drain(&self) {
        self.orders.give(DRAIN);
    }

    /// Waits until everything has been moved, or nobody takes any more.
    pub(crate) async fn done(&mut self) -> io::Result<()> {
        // A thread that is gone without a word has panicked.
        (&mut self.done).await.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.orders.give(STOP);
    }
}

/// What the thread is told.
#[derive(Debug)]
struct Orders {
    order: AtomicU8,
    wake: OwnedFd,
}

const GO: u8 = 0;
const DRAIN: u8 = 1;
const STOP: u8 = 2;

impl Orders {
    fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { order: AtomicU8::new(GO), wake })
    }

    fn give(&self, order: u8) {
        self.order.fetch_max(order, Ordering::Release);
        // The counter can only be full of wake-ups that have not been seen yet.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn get(&self) -> u8 {
        self.order.load(Ordering::Acquire)
    }

    fn is_stop(&self) -> bool {
        self.get() == STOP
    }
}

#[derive(Debug)]
struct Mover<'a> {
    source: BorrowedFd<'a>,
    target: BorrowedFd<'a>,
    orders: &'a Orders,
}

/// What one attempt came to.
enum Moved {
    /// This many bytes.
    Bytes(usize),
    /// The source has ended.
    End,
    /// Nothing is there, or nothing fits.
    Nothing,
}

impl Mover<'_> {
    fn run(&self) -> io::Result<()> {
        let mut buffer = Vec::new();
        let mut left = CHUNK;
        let mut splices = true;
        while !self.orders.is_stop() {
            let moved = if splices {
                match self.splice() {
                    // Terminals, files open for appending, and what else has no such operation (splice(2)).
                    Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                        splices = false;
                        continue;
                    }
                    moved => moved?,
                }
            } else {
                self.copy(&mut buffer)?
            };
            let draining = self.orders.get() == DRAIN;
            match moved {
                Moved::End => return Ok(()),
                Moved::Bytes(count) if draining => {
                    // A pipe holds no more than this; what is written meanwhile comes too late.
                    left = left.saturating_sub(count);
                    if left == 0 {
                        return Ok(());
                    }
                }
                Moved::Bytes(_) => {}
                Moved::Nothing if draining && !readable(self.source)? => return Ok(()),
                Moved::Nothing if readable(self.source)? => self.wait(self.target, PollFlags::OUT)?,
                Moved::Nothing => self.wait(self.source, PollFlags::IN)?,
            }
        }
        Ok(())
    }

    fn splice(&self) -> io::Result<Moved> {
        match rustix::io::retry_on_intr(|| {
            splice(self.source, None, self.target, None, CHUNK, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)
        }) {
            Ok(0) => Ok(Moved::End),
            Ok(count) => Ok(Moved::Bytes(count)),
            Err(Errno::AGAIN) => Ok(Moved::Nothing),
            Err(errno) => Err(errno.into()),
        }
    }

    fn copy(&self, buffer: &mut Vec<u8>) -> io::Result<Moved> {
        // The source may be shared with others, so it is not ours to make non-blocking.
        if !readable(self.source)? {
            return Ok(Moved::Nothing);
        }
        buffer.resize(COPY, 0);
        let count = match rustix::io::retry_on_intr(|| rustix::io::read(self.source, &mut buffer[..])) {
            // A terminal says EIO when the last program on it has closed it.
            Ok(0) | Err(Errno::IO) => return Ok(Moved::End),
            Ok(count) => count,
            Err(Errno::AGAIN) => return Ok(Moved::Nothing),
            Err(errno) => return Err(errno.into()),
        };
        let mut rest = &buffer[..count];
        while !rest.is_empty() && !self.orders.is_stop() {
            match rustix::io::retry_on_intr(|| rustix::io::write(self.target, rest)) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::AGAIN) => self.wait(self.target, PollFlags::OUT)?,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Moved::Bytes(count))
    }

    /// Waits for a descriptor or for an order.
    fn wait(&self, what: BorrowedFd<'_>, flags: PollFlags) -> io::Result<()> {
        let mut both = [PollFd::from_borrowed_fd(what, flags), PollFd::new(&self.orders.wake, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut both, None))?;
        if !both[1].revents().is_empty() {
            // Emptied before the order is looked at, so that a later one wakes again.
            let _ = rustix::io::read(&self.orders.wake, &mut [0_u8; 8]);
        }
        Ok(())
    }
}

/// Whether a read would not block: there is something, or the end.
fn readable(source: BorrowedFd<'_>) -> io::Result<bool> {
    let mut one = [PollFd::from_borrowed_fd(source, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(rustix::io::retry_on_intr(|| poll(&mut one, Some(&now)))? > 0)
}

/// The mover's buffer is on the heap.
const STACK: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    use super::*;

    fn pipe() -> (File, File) {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        rustix::io::ioctl_fionbio(&read, true).unwrap();
        (read.into(), write.into())
    }

    #[tokio::test]
    async fn everything_is_moved_and_then_both_ends_are_closed() {
        let (source, mut writer) = pipe();
        let (mut reader, target) = io::pipe().unwrap();
        let mut pump = Pump::start("test", source, target).unwrap();
        let sent: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let writing = sent.clone();
        let writer = std::thread::spawn(move || writer.write_all(&writing).unwrap());
        let reader = tokio::task::spawn_blocking(move || {
            let mut got = Vec::new();
            reader.read_to_end(&mut got).unwrap();
            got
        });
        pump.done().await.unwrap();
        assert!(reader.await.unwrap() == sent);
        writer.join().unwrap();
    }

    #[tokio::test]
    async fn a_file_for_appending_is_copied_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "before ").unwrap();
        let target = File::options().append(true).open(&path).unwrap();
        let (source, mut writer) = pipe();
        let mut pump = Pump::start("test", source, target).unwrap();
        writer.write_all(b"after").unwrap();
        drop(writer);
        pump.done().await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before after");
    }

    #[tokio::test]
    async fn draining_waits_for_nobody() {
        let (source, mut writer) = pipe();
        let (mut reader, target) = io::pipe().unwrap();
        let mut pump = Pump::start("test", source, target).unwrap();
        writer.write_all(b"left").unwrap();
        pump.drain();
        pump.done().await.unwrap();
        let mut got = [0; 4];
        reader.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"left");
        drop(writer);
    }

    #[tokio::test]
    async fn who_does_not_read_any_more_is_told_apart() {
        let (source, mut writer) = pipe();
        let (reader, target) = io::pipe().unwrap();
        drop(reader);
        let mut pump = Pump::start("test", source, target).unwrap();
        writer.write_all(b"x").unwrap();
        assert_eq!(pump.done().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(writer.write_all(b"y").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
