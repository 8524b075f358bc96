//! Tokens in files: `.env.OWNER.NAME`, in one directory, each for its owner's eyes alone.
//!
//! An owner's name holds no full stop, so the first one ends it and no two repositories share a file. Names are folded
//! to lower case, as GitHub compares them. Files are reached through the directory's descriptor and no link is followed.

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use sandbox_core::{Error, ErrorKind, Result, Token};
use sandbox_policy::RepoId;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use super::ignored::{self, Ignored};
use super::{KeptToken, Removed, TokenStore};
use crate::TokenKind;

/// Keeps tokens in the files of one directory.
///
/// A file is refused if it is not the user's own, if anybody else may read it, if it is a link or has a second name, and
/// if it lies in a git checkout that does not ignore it or already tracks it.
#[derive(Clone, Debug)]
pub struct EnvFiles {
    directory: PathBuf,
}

impl EnvFiles {
    /// Keeps tokens in a directory, which is made when the first one is kept.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Returns the file of a repository's token.
    pub fn path(&self, repository: &RepoId) -> PathBuf {
        self.directory.join(file_name(repository))
    }

    /// Opens the directory, which nobody else may write; `None` if it is not there.
    fn open(&self) -> Result<Option<OwnedFd>> {
        let shown = self.directory.display();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match rustix::fs::openat(CWD, &self.directory, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            opened => {
                opened.map_err(|errno| Error::io(format!("cannot open the token directory {shown}"), errno.into()))?
            }
        };
        let stat = stat(&directory)?;
        if !is_mine(&stat) || stat.st_mode & 0o022 != 0 {
            let message = format!("others may write the token directory {shown}");
            return Err(Error::new(ErrorKind::Denied, message)
                .with_hint(format!("it must be yours alone to write: `chmod go-w {shown}`")));
        }
        Ok(Some(directory))
    }

    fn open_or_make(&self) -> Result<OwnedFd> {
        if let Some(directory) = self.open()? {
            return Ok(directory);
        }
        let failed = |error| Error::io(format!("cannot make the token directory {}", self.directory.display()), error);
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
        builder.create(&self.directory).map_err(failed)?;
        self.open()?.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))
    }

    fn refuse_what_git_keeps(&self, repository: &RepoId) -> Result<()> {
        let name = file_name(repository);
        match ignored::ask(&self.directory, &name)? {
            Ignored::NoCheckout | Ignored::Yes => Ok(()),
            Ignored::No => {
                let message = format!("git does not ignore {}, or tracks it", self.path(repository).display());
                Err(Error::new(ErrorKind::Denied, message).with_hint(
                    "add the line `.env.*` to .gitignore, and `git rm --cached` the file if it is tracked; \
                     a token that was ever committed must be revoked",
                ))
            }
        }
    }
}

impl TokenStore for EnvFiles {
    fn load(&self, repository: &RepoId) -> Result<Option<KeptToken>> {
        let Some(directory) = self.open()? else { return Ok(None) };
        let path = self.path(repository);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&directory, file_name(repository), flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(refused(&path, "it is a symbolic link")),
            opened => opened.map_err(|errno| Error::io(format!("cannot open {}", path.display()), errno.into()))?,
        };
        if let Some(why) = suspicion(&stat(&file)?) {
            return Err(refused(&path, why));
        }
        self.refuse_what_git_keeps(repository)?;
        // All of it at once: a buffer that grows leaves copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE + 1));
        std::fs::File::from(file)
            .take(MAX_FILE as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?;
        parse(&path, repository, &bytes).map(Some)
    }

    fn save(&self, kept: &KeptToken) -> Result<()> {
        let repository = kept.token.repository();
        let text = written(kept)?;
        let path = self.path(repository);
        let failed = |errno: Errno| Error::io(format!("cannot write {}", path.display()), errno.into());
        let directory = self.open_or_make()?;
        self.refuse_what_git_keeps(repository)?;
        rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).map_err(|errno| match errno {
            Errno::WOULDBLOCK => Error::new(ErrorKind::Io, "another process keeps a token in this directory right now")
                .with_hint("try again"),
            errno => failed(errno),
        })?;
        // Left by a process that was killed here; nobody else is here while the lock is held.
        match rustix::fs::unlinkat(&directory, UNFINISHED, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&directory, UNFINISHED, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        let mut file = std::fs::File::from(file);
        let renamed = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
            rustix::fs::renameat(&directory, UNFINISHED, &directory, file_name(repository))?;
            Ok(rustix::fs::fsync(&directory)?)
        });
        renamed.map_err(|error| {
            // What is left would be removed by the next writer; here it is gone at once.
            let _ = rustix::fs::unlinkat(&directory, UNFINISHED, AtFlags::empty());
            Error::io(format!("cannot write {}", path.display()), error)
        })
    }

    fn remove(&self, repository: &RepoId) -> Result<Removed> {
        let Some(directory) = self.open()? else { return Ok(Removed::Absent) };
        let path = self.path(repository);
        match rustix::fs::unlinkat(&directory, file_name(repository), AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(Removed::Absent),
            Err(errno) => return Err(Error::io(format!("cannot remove {}", path.display()), errno.into())),
        }
        rustix::fs::fsync(&directory)
            .map_err(|errno| Error::io(format!("cannot remove {} for good", path.display()), errno.into()))?;
        Ok(Removed::Forgotten)
    }

    fn list(&self) -> Result<Vec<RepoId>> {
        let Some(directory) = self.open()? else { return Ok(Vec::new()) };
        let failed = |errno: Errno| Error::io(format!("cannot list {}", self.directory.display()), errno.into());
        let mut found = Vec::new();
        for entry in Dir::read_from(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            found.extend(entry.file_name().to_str().ok().and_then(repository_of));
        }
        found.sort();
        Ok(found)
    }
}

/// What makes a file unfit to hold a token.
fn suspicion(stat: &Stat) -> Option<&'static str> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Some("it is no ordinary file");
    }
    if !is_mine(stat) {
        return Some("it belongs to somebody else");
    }
    if stat.st_mode & 0o077 != 0 {
        return Some("others may read or write it; a token that others could read must be revoked, then `chmod 600`");
    }
    (stat.st_nlink != 1).then_some("it has a second name")
}

fn is_mine(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw()
}

fn stat(file: &OwnedFd) -> Result<Stat> {
    rustix::fs::fstat(file).map_err(|errno| Error::io("cannot look at where tokens are kept", errno.into()))
}

fn refused(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::Denied, format!("the token file {} is refused: {why}", path.display()))
}

fn file_name(repository: &RepoId) -> String {
    format!("{PREFIX}{}.{}", repository.owner(), repository.name()).to_ascii_lowercase()
}

/// Reads a repository out of a file's name; `None` where that is not the name that it would have.
fn repository_of(name: &str) -> Option<RepoId> {
    let (owner, rest) = name.strip_prefix(PREFIX)?.split_once('.')?;
    let repository: RepoId = format!("{owner}/{rest}").parse().ok()?;
    (file_name(&repository) == name).then_some(repository)
}

/// The text of a file, which a token of GitHub's cannot break out of: it has neither line ends nor quotes.
fn written(kept: &KeptToken) -> Result<Zeroizing<String>> {
    let repository = kept.token.repository();
    if TokenKind::of(kept.token.secret()).is_none() {
        return Err(Error::new(
            ErrorKind::Token,
            format!("what is to be kept for {repository} is no token of GitHub's"),
        ));
    }
    let secret = kept.token.secret().expose_secret();
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE));
    for part in ["SANDBOX_REPOSITORY=", &repository.to_string(), "\nGITHUB_TOKEN=", secret, "\n"] {
        text.push_str(part);
    }
    if let Some(seconds) = kept.expires.and_then(|expires| expires.duration_since(UNIX_EPOCH).ok()) {
        for part in ["SANDBOX_TOKEN_EXPIRES=", &seconds.as_secs().to_string(), "\n"] {
            text.push_str(part);
        }
    }
    Ok(text)
}

fn parse(path: &Path, repository: &RepoId, bytes: &[u8]) -> Result<KeptToken> {
    let wrong = |why: &str| {
        Error::new(ErrorKind::Token, format!("the token file {} makes no sense: {why}", path.display())).with_hint(
            "it has the lines SANDBOX_REPOSITORY=OWNER/NAME and GITHUB_TOKEN=…, and SANDBOX_TOKEN_EXPIRES=SECONDS",
        )
    };
    if bytes.len() > MAX_FILE {
        return Err(wrong("it is too long"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("it is no text"))?;
    let (mut named, mut secret, mut expires) = (None, None, None);
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = match line.split_once('=') {
            Some(("GITHUB_TOKEN", value)) => secret.replace(value).is_some(),
            Some(("SANDBOX_REPOSITORY", value)) => named.replace(value).is_some(),
            Some(("SANDBOX_TOKEN_EXPIRES", value)) => expires.replace(value).is_some(),
            // The line may hold the token, so it is not shown.
            _ => return Err(wrong(&format!("line {number} sets nothing that is known here"))),
        };
        if place {
            return Err(wrong(&format!("line {number} sets something for the second time")));
        }
    }
    let named: RepoId = named
        .and_then(|named| named.parse().ok())
        .ok_or_else(|| wrong("it does not say which repository it is for"))?;
    if named != *repository {
        return Err(wrong(&format!("it is for {named}, not for {repository}")));
    }
    let secret = SecretString::from(secret.ok_or_else(|| wrong("it holds no token"))?);
    if TokenKind::of(&secret).is_none() {
        return Err(wrong("its token is none of GitHub's"));
    }
    let expires = match expires {
        None => None,
        Some(seconds) => {
            let seconds = seconds.parse().ok().filter(|seconds| *seconds <= MAX_EXPIRY);
            let seconds = seconds.ok_or_else(|| wrong("its expiry is no number of seconds since 1970"))?;
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
        }
    };
    Ok(KeptToken { token: Token::new(named, secret), expires })
}

const PREFIX: &str = ".env.";
/// No repository has this name: an owner is never empty. Git ignores it by the same pattern as the rest.
const UNFINISHED: &str = ".env..unfinished";
const MAX_FILE: usize = 16 * 1024;
/// The year 9999, so that no sum with a clock's reading overflows.
const MAX_EXPIRY: u64 = 253_402_300_799;

#[cfg(test)]
mod tests;
