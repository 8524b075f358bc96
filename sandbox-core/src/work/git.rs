//! The host's git, started so that nothing but its arguments decides what it does.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::guest::Kept;
use crate::{Error, ErrorKind, Result};

/// How long git may take for what costs it little.
pub(super) const QUICK: Duration = Duration::from_mins(1);

/// Bytes of what git says that are kept.
const MAX_SAID: usize = 1 << 20;

/// Settings that no file can change: nothing is started, nothing is fetched on the way, and every object is checked.
const SETTINGS: [&str; 12] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.alternateRefsCommand=true",
    "core.bigFileThreshold=16m",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "protocol.allow=never",
    "protocol.file.allow=always",
    "transfer.fsckObjects=true",
    "fetch.fsckObjects=true",
    "transfer.bundleURI=false",
];

/// Prepares git for one repository, named by its own directory, so that none is looked for.
pub(super) fn git<A: AsRef<OsStr>>(repository: &Path, arguments: impl IntoIterator<Item = A>) -> Command {
    prepared(Command::new("git"), repository, arguments)
}

/// The same, for a program that starts git as its arguments say.
pub(super) fn prepared<A: AsRef<OsStr>>(
    mut command: Command,
    repository: &Path,
    arguments: impl IntoIterator<Item = A>,
) -> Command {
    command
        .env_clear()
        .envs(ENVIRONMENT)
        .current_dir("/")
        .arg("--git-dir")
        .arg(repository)
        .args(SETTINGS.iter().flat_map(|setting| ["-c", setting]))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// What git is told by its environment: no settings of the machine or of a user, and nobody to ask.
const ENVIRONMENT: [(&str, &str); 10] = [
    ("GIT_ASKPASS", "/bin/false"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_TERMINAL_PROMPT", "0"),
    // Without it, libcurl would look for a .netrc in the home that passwd(5) names.
    ("HOME", "/dev/null"),
    ("LC_ALL", "C"),
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
];

/// How git ended.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) code: Option<i32>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
}

impl Said {
    /// What it wrote, if it was content.
    pub(super) fn content(self, what: &str) -> Result<Vec<u8>> {
        if self.code == Some(0) { Ok(self.stdout) } else { Err(self.failed(ErrorKind::Io, what)) }
    }

    /// The error that it gives.
    pub(super) fn failed(&self, kind: ErrorKind, what: &str) -> Error {
        let said = line(&self.stderr);
        Error::new(kind, if said.is_empty() { what.to_owned() } else { format!("{what}: {said}") })
    }

    pub(super) fn complains_of(&self, words: &str) -> bool {
        String::from_utf8_lossy(&self.stderr).contains(words)
    }
}

/// Runs git to its end.
pub(super) async fn run(mut command: Command, input: Option<&[u8]>, within: Duration) -> Result<Said> {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = spawn(&mut command)?;
    let stdin = child.stdin.take();
    let feed = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // Git that does not read to the end says why.
            let _ = stdin.write_all(input).await;
        }
    };
    ended(&mut child, within, feed).await.map(|(said, ())| said)
}

pub(super) fn spawn(command: &mut Command) -> Result<Child> {
    command.spawn().map_err(|error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let error = Error::io("cannot start git on the host", error);
        if missing { error.with_hint("install git") } else { error }
    })
}

/// Does something with git while it runs, and waits for both. What git says is for the caller to look at first: where git
/// breaks something off, it knows best why.
pub(super) async fn ended<T>(
    child: &mut Child,
    within: Duration,
    meanwhile: impl Future<Output = T>,
) -> Result<(Said, T)> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let all = async {
        let (stdout, stderr, done) = tokio::join!(kept(stdout), kept(stderr), meanwhile);
        let status = child.wait().await.map_err(waiting)?;
        Ok((Said { code: status.code(), stdout: stdout?, stderr: stderr? }, done))
    };
    tokio::time::timeout(within, all).await.unwrap_or_else(|_| Err(Error::deadline("git on the host", within)))
}

async fn kept(from: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>> {
    let mut kept = Kept::new(MAX_SAID);
    if let Some(mut from) = from {
        tokio::io::copy(&mut from, &mut kept).await.map_err(waiting)?;
    }
    if kept.dropped > 0 {
        return Err(Error::new(ErrorKind::Exhausted, format!("git said more than {MAX_SAID} bytes")));
    }
    Ok(kept.bytes)
}

/// Passes on what git writes as it comes.
pub(super) async fn pass_on(
    mut command: Command,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    rendering: super::Rendering,
    within: Duration,
) -> Result<()> {
    let mut child = spawn(&mut command)?;
    let stdout = child.stdout.take();
    let passing = async {
        let writing = |error| Error::io("cannot pass on what git writes", error);
        if let Some(mut stdout) = stdout {
            let mut chunk = vec![0; 64 << 10];
            loop {
                let count = stdout.read(&mut chunk).await.map_err(waiting)?;
                match (count, rendering) {
                    (0, _) => break,
                    (count, super::Rendering::Raw) => to.write_all(&chunk[..count]).await.map_err(writing)?,
                    (count, super::Rendering::Shown) => {
                        to.write_all(&shown(&chunk[..count])).await.map_err(writing)?;
                    }
                }
            }
        }
        to.flush().await.map_err(writing)
    };
    let (said, passed) = ended(&mut child, within, passing).await?;
    passed?;
    said.content("git on the host failed").map(|_| ())
}

fn waiting(error: std::io::Error) -> Error {
    Error::io("cannot wait for git", error)
}

/// Escapes what a terminal would obey: control characters but line feed and tab, and those of ISO 6429 in UTF-8.
pub(super) fn shown(bytes: &[u8]) -> Vec<u8> {
    let mut safe = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter().peekable();
    while let Some(&byte) = rest.next() {
        match byte {
            b'\n' | b'\t' => safe.push(byte),
            0xc2 if rest.peek().is_some_and(|next| (0x80..0xa0).contains(*next)) => {
                if let Some(next) = rest.next() {
                    safe.extend(format!("\\x{next:02x}").bytes());
                }
            }
            0..0x20 | 0x7f => safe.extend(format!("\\x{byte:02x}").bytes()),
            _ => safe.push(byte),
        }
    }
    safe
}

/// The line of what was said that tells the most, fit for people: the last error, else the last line.
pub(super) fn line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let last = |telling: fn(&str) -> bool| text.lines().rev().find(|line| telling(line));
    let line = last(|line| line.starts_with("error: ")).or_else(|| last(|line| !line.trim().is_empty()));
    let line = line.unwrap_or_default().trim_start_matches("fatal: ").trim_start_matches("error: ");
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}

/// The name of a commit: 40 or 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectId(String);

impl ObjectId {
    /// Reads what git said.
    pub(super) fn parse(said: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(said).unwrap_or_default().trim_end();
        let hexadecimal = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hexadecimal && matches!(text.len(), 40 | 64) {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::new(ErrorKind::InvalidInput, "git did not answer with the id of a commit"))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// What `git pack-objects --revs` reads: this commit, and those that need not come.
    pub(super) fn pack_request(&self, known: &[Self]) -> String {
        known.iter().fold(format!("{self}\n"), |text, id| format!("{text}^{id}\n"))
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hexadecimal_and_of_one_of_two_lengths() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(ObjectId::parse(format!("{id}\n").as_bytes()).unwrap().as_str(), id);
        assert!(ObjectId::parse(format!("{id}{}", &id[..24]).as_bytes()).is_ok());
        for bad in ["", "HEAD", &id[1..], &id.to_uppercase(), &format!("{id} commit"), &format!("{id}\n{id}"), "--all"]
        {
            assert!(ObjectId::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_line_that_tells_the_most_is_told() {
        assert_eq!(
            line(b"error: object 12: hasDotgit\nfatal: fsck error in packed object\n\n"),
            "object 12: hasDotgit"
        );
        assert_eq!(line(b"hint: x\nfatal: not a \x1b git repository\n"), "not a   git repository");
        assert_eq!(line(b""), "");
    }

    #[test]
    fn a_terminal_obeys_nothing_that_is_shown() {
        assert_eq!(
            shown("+a\tb\n\u{1b}[31mred\r\u{7}\u{9b}K é".as_bytes()),
            "+a\tb\n\\x1b[31mred\\x0d\\x07\\x9bK é".as_bytes()
        );
    }
}
