//! Checkouts: what a commit of a mirror looks like as a workspace, made once and laid below the workspaces of all sandboxes that start
//! from it.
//!
//! A checkout is the host's own, lies beside its mirror, and is never written to once it is made; what a sandbox writes goes into its own
//! layer. The host's git makes it in a bare repository without a setting, so that no attribute of the repository's starts a program, of
//! a commit whose objects were checked as they came. Whoever holds the mirror's lock makes and removes checkouts; whoever uses one holds
//! a shared lock on it, and only one that nobody uses is removed.
//!
//! ```text
//! DIRECTORY/KEY/checkouts/NAME/lock     shared by whoever uses it; last used when it last changed
//! DIRECTORY/KEY/checkouts/NAME/index    what git keeps of the files, as the host sees them
//! DIRECTORY/KEY/checkouts/NAME/tree     the files, and what a repository has that is the same for all
//! DIRECTORY/KEY/checkouts/new           one that is being made, or removed; of no worth once nobody holds the mirror's lock
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::HostRepository;
use super::git::{self, ObjectId};
use super::quarantine::Quarantine;
use super::room;
use crate::run_directory::ensure_private;
use crate::{Error, Result};

/// A checkout that somebody uses. It stays as it is for as long as this does.
#[derive(Clone, Debug)]
pub(crate) struct Checkout {
    place: PathBuf,
    _lock: Arc<File>,
}

/// What a checkout is made of.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// The mirror.
    pub(super) repository: &'a HostRepository,
    /// The commit that is checked out.
    pub(super) start: &'a ObjectId,
    /// What else the repository has.
    pub(super) tips: Vec<&'a ObjectId>,
    /// Bytes that the files may have.
    pub(super) bytes: u64,
    pub(super) within: Duration,
}

impl Checkout {
    /// Finds one, or makes it, and removes some that nobody has used for long. There is none of a commit that is too large. The caller
    /// holds the lock on the mirror.
    pub(super) async fn find(place: &Path, wanted: &Wanted<'_>) -> Result<Option<Self>> {
        let all = place.join(ALL);
        ensure_private(&all, "the directory of checkouts")?;
        remove(all.join(NEW)).await?;
        let tips = wanted.tips.iter().fold(String::new(), |text, tip| format!("{text} {tip}"));
        let name = super::mirror::hexadecimal(format!("{}{tips}", wanted.start).as_bytes());
        let own = all.join(&name);
        if !own.exists() {
            if !wanted.fits().await? {
                return Ok(None);
            }
            let new = all.join(NEW);
            room::forget_size(place)?;
            wanted.make(&new).await?;
            fs::rename(&new, &own).map_err(failed)?;
        }
        let lock = File::options().write(true).create(true).truncate(false).open(own.join(LOCK)).map_err(failed)?;
        flock(&lock, FlockOperation::NonBlockingLockShared).map_err(|error| failed(error.into()))?;
        lock.set_modified(SystemTime::now()).map_err(failed)?;
        evict(place, &all, &name).await?;
        Ok(Some(Self { place: own, _lock: Arc::new(lock) }))
    }

    /// The files.
    pub(crate) fn tree(&self) -> PathBuf {
        self.place.join(TREE)
    }

    /// What git keeps of the files, if they belong to somebody.
    pub(super) async fn index(&self, uid: u32, gid: u32) -> Result<Vec<u8>> {
        let path = self.place.join(INDEX);
        let rewriting = tokio::task::spawn_blocking(move || {
            let mut index = fs::read(path)?;
            own(&mut index, uid, gid).ok_or_else(|| io::Error::other("git wrote an index of an unknown form"))?;
            Ok(index)
        });
        rewriting.await.map_err(io::Error::other).flatten().map_err(failed)
    }
}

impl Wanted<'_> {
    /// Whether the files are not too many or too large. A small repository can hold a tree that is larger than any disk.
    async fn fits(&self) -> Result<bool> {
        let arguments = ["ls-tree", "-r", "--format=%(objectsize)", self.start.as_str()];
        let mut child = git::spawn(&mut git::git(&self.repository.own, arguments))?;
        let Some(stdout) = child.stdout.take() else { return Ok(false) };
        let counting = async {
            let (mut files, mut bytes) = (0_u64, 0_u64);
            let mut lines = BufReader::new(stdout).lines();
            while let Some(line) = lines.next_line().await.map_err(failed)? {
                // A submodule's commit has no size here.
                bytes = bytes.saturating_add(line.trim().parse().unwrap_or(0));
                files += 1;
                if files > MOST_FILES || bytes > self.bytes {
                    return Ok(false);
                }
            }
            Ok(true)
        };
        let fits = tokio::time::timeout(self.within, counting)
            .await
            .unwrap_or_else(|_| Err(Error::deadline("looking at the size of a checkout", self.within)))?;
        // Dropping it ends git, where it still has more to say.
        drop(child);
        Ok(fits)
    }

    async fn make(&self, new: &Path) -> Result<()> {
        let tree = new.join(TREE);
        let own = tree.join(".git");
        for part in ["objects/info", "objects/pack", "refs/heads", "refs/remotes/origin"] {
            fs::create_dir_all(own.join(part)).map_err(failed)?;
        }
        let bare = Quarantine::within(new, self.repository).await?;
        if let Some(shallow) = self.repository.shallow()? {
            for place in [bare.path(), &own] {
                fs::write(place.join("shallow"), &shallow).map_err(failed)?;
            }
        }
        let place = format!("--work-tree={}", tree.display());
        let settings = CHECKOUT.iter().flat_map(|setting| ["-c", setting]);
        let arguments = [place.as_str()].into_iter().chain(settings).chain(["read-tree", "--reset", "-u"]);
        let mut command = git::git(bare.path(), arguments.chain([self.start.as_str()]));
        command.env("GIT_INDEX_FILE", new.join(INDEX));
        let checking_out =
            async { git::run(command, None, self.within).await?.content("git cannot check a commit out") };
        let mut packing = git::git(bare.path(), ["pack-objects", "--revs", "--delta-base-offset", "--quiet"]);
        packing.arg(own.join("objects/pack/pack")).stdin(Stdio::piped());
        let asked = self.tips.iter().fold(self.start.pack_request(&[]), |asked, tip| asked + tip.as_str() + "\n");
        let packing = async {
            let said = git::run(packing, Some(asked.as_bytes()), self.within).await?;
            said.content("git cannot pack a checkout's repository")
        };
        tokio::try_join!(checking_out, packing)?;
        drop(bare);
        File::create(new.join(LOCK)).map_err(failed).map(drop)
    }
}

/// Removes those that were used least lately, and that nobody uses.
async fn evict(mirror: &Path, all: &Path, used: &str) -> Result<()> {
    let mut others = Vec::new();
    for entry in fs::read_dir(all).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name() != used {
            let lock = entry.path().join(LOCK);
            let last = fs::metadata(&lock).and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            others.push((last, entry.path(), lock));
        }
    }
    others.sort();
    let most = others.len().saturating_sub(MOST_OTHERS);
    for (_, place, lock) in others.into_iter().take(most) {
        let lock = File::open(lock).map_err(failed)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            room::forget_size(mirror)?;
            let going = all.join(NEW);
            fs::rename(place, &going).map_err(failed)?;
            remove(going).await?;
        }
    }
    Ok(())
}

/// Whether anybody uses one of a mirror's. The caller holds the lock on the mirror.
pub(super) fn any_in_use(mirror: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(mirror.join(ALL)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        // One that is not whole has none.
        let Ok(lock) = File::open(entry?.path().join(LOCK)) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn remove(directory: PathBuf) -> Result<()> {
    match tokio::fs::remove_dir_all(directory).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Says in an index whose the files are, so that git inside finds them as it left them
/// (<https://git-scm.com/docs/index-format>); nothing, if it is of another form.
fn own(index: &mut [u8], uid: u32, gid: u32) -> Option<()> {
    use sha1::Digest as _;
    let number = |bytes: &[u8]| Some(u32::from_be_bytes(bytes.try_into().ok()?));
    let (version, count) = (number(index.get(4..8)?)?, number(index.get(8..12)?)?);
    if index.get(..4)? != b"DIRC" || !matches!(version, 2 | 3) {
        return None;
    }
    let mut at = 12;
    for _ in 0..count {
        index.get_mut(at + UID..at + UID + 4)?.copy_from_slice(&uid.to_be_bytes());
        index.get_mut(at + UID + 4..at + UID + 8)?.copy_from_slice(&gid.to_be_bytes());
        let extended = index.get(at + FLAGS)? & 0x40 != 0;
        let name = at + FLAGS + if extended { 4 } else { 2 };
        let length = name - at + index.get(name..)?.iter().position(|byte| *byte == 0)?;
        // One to eight zeros, to a multiple of eight.
        at += (length + 8) & !7;
    }
    let (content, checksum) = index.split_at_mut_checked(index.len().checked_sub(SHA1)?)?;
    checksum.copy_from_slice(&sha1::Sha1::digest(content));
    Some(())
}

fn failed(error: io::Error) -> Error {
    Error::io("cannot use a checkout", error)
}

/// No name that another system would take for `.git`, no translation but what the repository itself asks for, and all processors.
const CHECKOUT: [&str; 6] = [
    "core.autocrlf=false",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "core.symlinks=true",
    "checkout.workers=0",
    "checkout.thresholdForParallelism=1000",
];
/// Where a mirror's lie.
pub(super) const ALL: &str = "checkouts";
const NEW: &str = "new";
const LOCK: &str = "lock";
const INDEX: &str = "index";
const TREE: &str = "tree";
/// As many as a workspace may have.
const MOST_FILES: u64 = 1_000_000;
/// How many are kept of one mirror beside the one in use.
const MOST_OTHERS: usize = 3;
/// Where an entry of an index holds the user, with the group behind it, and the flags.
const UID: usize = 28;
const FLAGS: usize = 60;
/// Bytes of the checksum.
const SHA1: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_somebody_elses_after_it_was_rewritten_and_still_whole() {
        let directory = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let mut command = std::process::Command::new("git");
            command
                .current_dir(directory.path())
                .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")]);
            let output = command.args(arguments).output().unwrap();
            assert!(output.status.success(), "{arguments:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        git(&["init", "-q"]);
        for length in 1..20 {
            fs::write(directory.path().join("n".repeat(length)), "x").unwrap();
        }
        git(&["add", "."]);
        // An entry with more flags, and with them the third form.
        git(&["update-index", "--skip-worktree", "nnn"]);
        let path = directory.path().join(".git/index");
        let before = git(&["ls-files", "--stage", "--debug"]);
        let mut index = fs::read(&path).unwrap();
        own(&mut index, 4_711, 4_712).unwrap();
        fs::write(&path, &index).unwrap();
        let after = git(&["ls-files", "--stage", "--debug"]);
        assert_eq!(after.matches("uid: 4711\tgid: 4712").count(), 19, "{after}");
        let others =
            |text: &str| text.lines().filter(|line| !line.contains("uid: ")).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(others(&after), others(&before));
        git(&["fsck"]);
        for broken in [&index[..40], b"DIRC", b"", &[&b"DIRC\0\0\0\x04"[..], &index[8..]].concat()] {
            assert_eq!(own(&mut broken.to_vec(), 1, 1), None);
        }
    }
}
