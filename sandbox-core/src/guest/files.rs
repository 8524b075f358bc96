//! Files inside, read and written as the agent, streamed over a pipe.
//!
//! No engine's archive endpoint is involved: those resolve names with the engine's privileges while the container may
//! still change them (CVE-2018-15664). Here the kernel decides, for the agent's own user.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags};
use sandbox_guest::tree::{self, MAX_NAME};
use sandbox_guest::wire::{Command as Order, Entry, Reply, Request, Summary};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::control::unexpected;
use super::streams::{Patient, pipe, receiver, sender};
use super::{ANSWER, Control, Guest, shown};
use crate::{Error, ErrorKind, Result};

/// Bytes that are moved at once.
const CHUNK: usize = 256 << 10;

/// How long a transfer may stand still.
const STALL: Duration = Duration::from_mins(1);

/// The most entries that [`Guest::list`] accepts of one directory.
const MAX_LISTED: usize = 100_000;

/// How long a whole list may take.
const LIST_WITHIN: Duration = Duration::from_mins(5);

/// How much a whole tree may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferLimits {
    /// Entries.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Time for all of it.
    pub deadline: Duration,
}

impl Default for TransferLimits {
    /// A million entries, 32 GiB, an hour.
    fn default() -> Self {
        Self { entries: 1_000_000, bytes: 32 << 30, deadline: Duration::from_hours(1) }
    }
}

impl TransferLimits {
    fn tree(self) -> tree::Limits {
        tree::Limits { entries: self.entries, bytes: self.bytes }
    }
}

impl Guest {
    /// Reads a regular file of at most `limit` bytes.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `InvalidInput` for what is no regular file, `Exhausted` if it is larger.
    pub async fn read(&self, path: impl AsRef<OsStr>, limit: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let limits = TransferLimits { bytes: u64::try_from(limit).unwrap_or(u64::MAX), ..TransferLimits::default() };
        self.read_within(path.as_ref(), &mut bytes, limits).await?;
        Ok(bytes)
    }

    /// Copies a regular file to a writer; says how many bytes it had. It may have as many as a
    /// [whole tree](TransferLimits::default): a file that takes no room inside, since it is all holes, takes room outside.
    ///
    /// # Errors
    /// As [`read`](Self::read), and `Io` if the writer fails.
    pub async fn read_to(&self, path: impl AsRef<OsStr>, to: impl AsyncWrite + Unpin) -> Result<u64> {
        self.read_within(path.as_ref(), to, TransferLimits::default()).await
    }

    pub(super) async fn read_within(
        &self,
        path: &OsStr,
        mut to: impl AsyncWrite + Unpin,
        limits: TransferLimits,
    ) -> Result<u64> {
        let path = absolute(path)?;
        let what = format!("reading {}", shown(&path));
        let (ours, theirs) = pipe()?;
        let mut control = self.request(Request::Read { path }, vec![theirs]).await?;
        let copied = within(&what, limits.deadline, async {
            let from = tokio::io::BufReader::with_capacity(CHUNK, receiver(ours)?);
            let mut from = from.take(limits.bytes.saturating_add(1));
            let mut copied = 0;
            loop {
                let part = moving(&what, from.fill_buf()).await?;
                let count = part.len();
                if count == 0 {
                    break;
                }
                to.write_all(part).await.map_err(|error| Error::io(&*what, error))?;
                from.consume(count);
                copied += count as u64;
            }
            to.flush().await.map_err(|error| Error::io(&*what, error))?;
            Ok(copied)
        })
        .await?;
        if copied > limits.bytes {
            let text = format!("{what}: the file has more than {} bytes", limits.bytes);
            return Err(Error::new(ErrorKind::Exhausted, text));
        }
        done(&mut control, &what).await?;
        Ok(copied)
    }

    /// Writes a file, which appears whole or not at all.
    ///
    /// # Errors
    /// `NotFound` for its directory, `Denied`, `Exhausted`.
    pub async fn write(&self, path: impl AsRef<OsStr>, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.write_from(path, 0o644, bytes.as_ref()).await.map(|_| ())
    }

    /// Writes a file with these permission bits from a reader; it appears whole or not at all.
    ///
    /// # Errors
    /// As [`write`](Self::write), and `Io` if the reader fails.
    pub async fn write_from(&self, path: impl AsRef<OsStr>, mode: u32, from: impl AsyncRead + Unpin) -> Result<u64> {
        let path = absolute(path.as_ref())?;
        let what = format!("writing {}", shown(&path));
        self.send_file(&what, Request::Write { path, mode }, from).await
    }

    /// Places a file with these permission bits, and the directories above it, as container root: programs can read it where
    /// the bits let them, and none can change it. It is for gateways, before any program runs.
    ///
    /// # Errors
    /// `Denied` where container root may not write there either, `Exhausted`.
    pub async fn place(&self, path: impl AsRef<OsStr>, mode: u32, bytes: impl AsRef<[u8]>) -> Result<()> {
        let path = absolute(path.as_ref())?;
        let what = format!("placing {}", shown(&path));
        self.send_file(&what, Request::Place { path, mode }, bytes.as_ref()).await.map(|_| ())
    }

    async fn send_file(&self, what: &str, request: Request, from: impl AsyncRead + Unpin) -> Result<u64> {
        let (theirs, ours) = pipe()?;
        let mut control = self.request(request, vec![theirs]).await?;
        let sent = within(what, TransferLimits::default().deadline, async {
            let mut from = tokio::io::BufReader::with_capacity(CHUNK, from);
            let mut to = sender(ours)?;
            let mut sent = 0;
            loop {
                let part = from.fill_buf().await.map_err(|error| Error::io(what, error))?;
                let count = part.len();
                if count == 0 {
                    return Ok(Ok(sent));
                }
                match moving(what, to.write_all(part)).await {
                    Ok(()) => from.consume(count),
                    Err(error) => return Ok(Err(error)),
                }
                sent += count as u64;
            }
        })
        .await?;
        let sent = match sent {
            Ok(sent) => sent,
            // A guest that stopped reading says best why.
            Err(error) if error.kind() == ErrorKind::DeadlineExceeded => return Err(error),
            Err(error) => {
                done(&mut control, what).await?;
                return Err(error);
            }
        };
        commit(&mut control, what).await?;
        Ok(sent)
    }

    /// Lists a directory, sorted by name.
    ///
    /// # Errors
    /// `NotFound`, `Denied`, `InvalidInput` for what is no directory, `Exhausted` beyond 100,000 entries.
    pub async fn list(&self, path: impl AsRef<OsStr>) -> Result<Vec<Entry>> {
        let path = absolute(path.as_ref())?;
        let what = format!("listing {}", shown(&path));
        let mut control = self.request(Request::List { path }, Vec::new()).await?;
        let mut all = within(&what, LIST_WITHIN, listed(&mut control, &what)).await?;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Looks at one entry; a final symbolic link is looked at, not followed.
    ///
    /// # Errors
    /// `NotFound`, `Denied`.
    pub async fn stat(&self, path: impl AsRef<OsStr>) -> Result<Entry> {
        let path = absolute(path.as_ref())?;
        let what = format!("looking at {}", shown(&path));
        let mut control = self.request(Request::Stat { path }, Vec::new()).await?;
        match control.answer(&what, ANSWER).await? {
            (Reply::Entry(entry), _) => Ok(entry),
            (reply, _) => Err(unexpected(&what, &reply)),
        }
    }

    /// Makes a directory and its missing parents.
    ///
    /// # Errors
    /// `Denied`, `Exhausted`, `InvalidInput` where a file is in the way.
    pub async fn make_directory(&self, path: impl AsRef<OsStr>) -> Result<()> {
        let path = absolute(path.as_ref())?;
        let what = format!("making directory {}", shown(&path));
        let mut control = self.request(Request::MakeDirectory { path }, Vec::new()).await?;
        done(&mut control, &what).await.map(|_| ())
    }

    /// Lets everybody write a directory that an engine has mounted for the agent and given to container root; one that is not
    /// root's stays as it is.
    pub(crate) async fn share(&self, path: impl AsRef<OsStr>) -> Result<()> {
        let path = absolute(path.as_ref())?;
        let what = format!("sharing {}", shown(&path));
        let mut control = self.request(Request::Share { path }, Vec::new()).await?;
        done(&mut control, &what).await.map(|_| ())
    }

    /// Removes a file, a link or a whole directory; no link is followed.
    ///
    /// # Errors
    /// `NotFound`, `Denied`.
    pub async fn remove(&self, path: impl AsRef<OsStr>) -> Result<()> {
        let path = absolute(path.as_ref())?;
        let what = format!("removing {}", shown(&path));
        let mut control = self.request(Request::Remove { path }, Vec::new()).await?;
        done(&mut control, &what).await.map(|_| ())
    }

    /// Copies a host directory's tree, or one file, into a directory inside, which is made if it is missing.
    ///
    /// # Errors
    /// Those of both sides; what had been copied before stays.
    pub async fn upload(&self, from: &Path, to: impl AsRef<OsStr>, limits: TransferLimits) -> Result<Summary> {
        self.upload_wanted(from, to.as_ref(), limits, |_| true).await
    }

    /// As [`upload`](Self::upload), without what is not wanted.
    pub(crate) async fn upload_wanted(
        &self,
        from: &Path,
        to: &OsStr,
        limits: TransferLimits,
        wanted: impl FnMut(&tree::Candidate<'_>) -> bool + Send + 'static,
    ) -> Result<Summary> {
        let to = absolute(to)?;
        let what = format!("copying {} to {}", shown(from.as_os_str().as_bytes()), shown(&to));
        let source = open(from, OFlags::RDONLY).map_err(|error| Error::io(&*what, error))?;
        let name = from.file_name().unwrap_or_default().as_bytes().to_vec();
        let (theirs, ours) = pipe()?;
        let mut control = self.request(Request::Unpack { path: to }, vec![theirs]).await?;
        let packed = blocking(&what, limits.deadline, ours, move |pipe| {
            let (out, limits) = (io::BufWriter::with_capacity(CHUNK, pipe), limits.tree());
            match FileType::from_raw_mode(rustix::fs::fstat(&source)?.st_mode) {
                FileType::Directory => tree::pack_selected(&source, out, &limits, wanted),
                _ => tree::pack_file(&name, &source, out, &limits),
            }
        })
        .await?;
        match packed {
            Ok(packed) => {
                commit(&mut control, &what).await?;
                Ok(packed)
            }
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                done(&mut control, &what).await?;
                Err(Error::io(what, error))
            }
            Err(error) => Err(Error::io(what, error)),
        }
    }

    /// Copies a tree, or one file, from inside into a host directory, which must exist.
    ///
    /// What comes is hostile: nothing is written outside the directory or through a link, and what cannot travel safely
    /// (devices, links that lead out) is left out and named in the summary.
    ///
    /// # Errors
    /// Those of both sides; what had been copied before stays.
    pub async fn download(&self, from: impl AsRef<OsStr>, to: &Path, limits: TransferLimits) -> Result<Summary> {
        let from = absolute(from.as_ref())?;
        let what = format!("copying {} to {}", shown(&from), shown(to.as_os_str().as_bytes()));
        let target = open(to, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|error| Error::io(&*what, error))?;
        let (ours, theirs) = pipe()?;
        let mut control = self.request(Request::Pack { path: from }, vec![theirs]).await?;
        let unpacked = blocking(&what, limits.deadline, ours, move |pipe| {
            tree::unpack(io::BufReader::with_capacity(CHUNK, pipe), target.as_fd(), &limits.tree())
        })
        .await?;
        let unpacked = match unpacked {
            Ok(unpacked) => unpacked,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                // The guest says best why its stream ended early.
                done(&mut control, &what).await?;
                return Err(Error::io(what, error));
            }
            Err(error) => return Err(Error::io(what, error)),
        };
        let sent = done(&mut control, &what).await?;
        Ok(Summary { skipped: sent.skipped, skipped_entries: sent.skipped_entries, ..unpacked })
    }
}

/// Takes the entries of a directory, each of which must be one that a directory can have.
async fn listed(control: &mut Control, what: &str) -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    loop {
        match control.answer(what, ANSWER).await? {
            (Reply::Entries(entries), _) if !entries.is_empty() => {
                if all.len() + entries.len() > MAX_LISTED {
                    return Err(Error::new(ErrorKind::Exhausted, format!("{what}: more than {MAX_LISTED} entries")));
                }
                if let Some(entry) = entries.iter().find(|entry| !is_name(&entry.name)) {
                    let text = format!("{what}: the guest named an entry {}, which none can be", shown(&entry.name));
                    return Err(Error::new(ErrorKind::Guest, text));
                }
                all.extend(entries);
            }
            (Reply::Done(_), _) => return Ok(all),
            (reply, _) => return Err(unexpected(what, &reply)),
        }
    }
}

/// Whether a name stays in its directory when it is joined to a path.
fn is_name(name: &[u8]) -> bool {
    let dots = name == b"." || name == b"..";
    !name.is_empty() && !dots && name.len() <= MAX_NAME && !name.contains(&b'/') && !name.contains(&0)
}

/// Makes what was written last, and hears that it is.
async fn commit(control: &mut Control, what: &str) -> Result<Summary> {
    if let Err(error) = control.command(&Order::Commit) {
        // A guest that has already given up says why.
        done(control, what).await?;
        return Err(error);
    }
    done(control, what).await
}

async fn done(control: &mut Control, what: &str) -> Result<Summary> {
    match control.answer(what, ANSWER).await? {
        (Reply::Done(summary), _) => Ok(summary),
        (reply, _) => Err(unexpected(what, &reply)),
    }
}

/// Waits for one step of a transfer. The other side is a process of the agent's user, which the agent can stop.
async fn moving<T>(what: &str, step: impl Future<Output = io::Result<T>>) -> Result<T> {
    match tokio::time::timeout(STALL, step).await {
        Ok(result) => result.map_err(|error| Error::io(what, error)),
        Err(_) => Err(Error::deadline(format!("{what}: a step"), STALL)),
    }
}

async fn within<T>(what: &str, deadline: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| Err(Error::deadline(what, deadline)))
}

/// Runs file work on a thread of its own. When it is given up, the thread's next read or write ends the work, though
/// whoever has the other end of the pipe inside may neither move nor end.
async fn blocking<T: Send + 'static>(
    what: &str,
    deadline: Duration,
    pipe: OwnedFd,
    work: impl FnOnce(Patient) -> T + Send + 'static,
) -> Result<T> {
    let (pipe, _wanted) = Patient::new(pipe)?;
    within(what, deadline, async {
        tokio::task::spawn_blocking(move || work(pipe))
            .await
            .map_err(|error| Error::new(ErrorKind::Io, format!("{what}: the work was broken off")).with_source(error))
    })
    .await
}

fn open(path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY, Mode::empty())?)
}

fn absolute(path: &OsStr) -> Result<Vec<u8>> {
    let bytes = path.as_bytes();
    let reason = if !bytes.starts_with(b"/") {
        "is not absolute"
    } else if bytes.contains(&0) {
        "holds a zero byte"
    } else if bytes.len() > 4096 {
        "has more than 4096 bytes"
    } else {
        return Ok(bytes.to_vec());
    };
    Err(Error::new(ErrorKind::InvalidInput, format!("path {} inside the sandbox {reason}", shown(bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_inside_are_absolute() {
        assert!(absolute(OsStr::new("/tmp/x")).is_ok());
        for bad in ["", "x", "../x", "/a\0b", &format!("/{}", "x".repeat(5000))] {
            assert_eq!(absolute(OsStr::new(bad)).unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }
}
