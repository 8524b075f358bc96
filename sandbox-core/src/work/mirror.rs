//! Mirrors: what the host has fetched of the repositories that are cloned, so that a second clone costs what changed.
//!
//! A mirror is a bare repository of the host's own. The host alone writes it, one process at a time, and no sandbox sees it: what a
//! sandbox gets is packed out of it. It is made beside its place and moved there when it is whole.
//!
//! ```text
//! DIRECTORY/KEY/lock             held by whoever fetches, and shared by whoever reads
//! DIRECTORY/KEY/size             bytes of all of it, unless it is being changed
//! DIRECTORY/KEY/source           which repository this is, for people
//! DIRECTORY/KEY/number           the number by which its server knows it, if somebody could tell
//! DIRECTORY/KEY/repository.git   the mirror
//! DIRECTORY/KEY/new.git          one that is being made; of no worth once nobody holds the lock
//! DIRECTORY/KEY/checkouts        what lies below workspaces
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use sandbox_policy::{Branch, CloneSource, Decision, History, RemoteRepo};
use sha2::{Digest as _, Sha256};

use super::HostRepository;
use super::checkout::{Checkout, Wanted};
use super::git::{self, ObjectId, QUICK};
use super::remote::{Advertised, MirrorProxy, Server, Way};
use super::room;
use super::seed::{Origin, Seed};
use crate::run_directory::ensure_private;
use crate::{EgressVerdict, Error, ErrorKind, Event, Events, Exposed, Resolve, Result, SystemResolver, Token};

/// The directory in which repositories are kept that are cloned from servers.
///
/// ```no_run
/// use sandbox_core::policy::History;
/// use sandbox_core::{Mirrors, Sandbox};
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let builder = Sandbox::builder()
///     .mirrors(Mirrors::new("/var/lib/sandbox/mirrors"))
///     .workspace_clone("octo-org/widget".parse()?, History::Full)
///     .branch("agent/42-fix".parse()?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Mirrors {
    directory: PathBuf,
    authorities: Option<PathBuf>,
    resolver: Arc<dyn Resolve>,
    proxy: Option<MirrorProxy>,
    limits: MirrorLimits,
}

/// How much may be fetched at once, and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MirrorLimits {
    /// Bytes of each file that git writes, give or take a block.
    pub bytes: u64,
    /// Bytes of all mirrors in the directory, with what is checked out of them. Those that were used least lately, and that nobody uses,
    /// go when it is too much.
    pub total: u64,
    /// Time for all of it, and for whoever fetches the same repository before.
    pub deadline: Duration,
}

impl Default for MirrorLimits {
    /// 8 GiB, 32 GiB in all, half an hour.
    fn default() -> Self {
        Self { bytes: 8 << 30, total: 32 << 30, deadline: Duration::from_mins(30) }
    }
}

impl Mirrors {
    /// Names the directory, which is made with mode 0700 when it is first needed. No sandbox may mount it.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            authorities: None,
            resolver: Arc::new(SystemResolver),
            proxy: None,
            limits: MirrorLimits::default(),
        }
    }

    /// Sets a file of certificates (PEM) that servers are checked against, in place of the machine's own.
    #[must_use]
    pub fn with_authorities(mut self, file: impl Into<PathBuf>) -> Self {
        self.authorities = Some(file.into());
        self
    }

    /// Sets who resolves names.
    #[must_use]
    pub fn with_resolver(mut self, resolver: impl Resolve) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }

    /// Has git go by way of a proxy, which resolves the servers' names: what they lead to is its own to check.
    #[must_use]
    pub fn with_proxy(mut self, proxy: MirrorProxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// Sets how much may be fetched at once, and kept.
    #[must_use]
    pub fn with_limits(mut self, limits: MirrorLimits) -> Self {
        self.limits = limits;
        self
    }
}

/// A clone that is asked for.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) source: &'a CloneSource,
    pub(crate) history: History,
    pub(crate) branch: Option<&'a Branch>,
    pub(crate) decision: Option<&'a Decision>,
    /// A token that is for this very repository of this very server.
    pub(crate) token: Option<&'a Token>,
    /// The number by which the server knows the repository, where somebody could tell.
    pub(crate) number: Option<u64>,
    /// What an agent may write to.
    pub(crate) exposed: &'a [Exposed],
    /// Bytes that a checkout may have which lies below the workspace; none where nothing can lie there.
    pub(crate) below: Option<u64>,
}

impl Asked<'_> {
    /// Finds what the sandbox's repository is made of; brings it to this machine first, where it is not here.
    pub(crate) async fn find(&self, mirrors: Option<&Mirrors>, events: &Events) -> Result<Seed> {
        if self.history == History::Blobless {
            let message = "a clone without blobs is not there yet; full ones and ones with a depth are";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        match self.source {
            CloneSource::Local(path) => {
                if self.history != History::Full {
                    let message = format!("{path} is on this machine, and is cloned whole, not {}", self.history);
                    return Err(Error::new(ErrorKind::InvalidInput, message));
                }
                Seed::local(&HostRepository::open(path.as_path(), self.exposed)?, self.branch).await
            }
            CloneSource::Remote(remote) => {
                let mirrors = mirrors.ok_or_else(|| {
                    Error::new(ErrorKind::InvalidInput, format!("there is no place to keep a mirror of {remote}"))
                        .with_hint("name one: `SandboxBuilder::mirrors(Mirrors::new(DIRECTORY))`")
                })?;
                let finding = self.mirrored(mirrors, remote, events);
                let within = mirrors.limits.deadline;
                tokio::time::timeout(within, finding)
                    .await
                    .unwrap_or_else(|_| Err(Error::deadline(format!("cloning {remote}"), within)))
            }
        }
    }

    async fn mirrored(&self, mirrors: &Mirrors, remote: &RemoteRepo, events: &Events) -> Result<Seed> {
        let Some(decision @ Decision::Allow { rule, .. }) = self.decision else {
            return Err(Error::new(ErrorKind::Denied, format!("nobody has allowed {remote} to be cloned")));
        };
        events.announce(Event::EgressDecided {
            host: remote.host().to_string(),
            port: remote.port(),
            method: None,
            verdict: EgressVerdict::Allowed,
            rule: rule.clone(),
            reason: None,
        })?;
        let way = match &mirrors.proxy {
            Some(proxy) => Way::By(proxy),
            None => Way::Straight(&*mirrors.resolver),
        };
        let server = Server::find(remote, decision, way, events).await?;
        let server = server.within(mirrors.limits).trusting(mirrors.authorities.as_deref()).known_by(self.token)?;

        let mirror = Mirror::lock(mirrors, remote, self.history, self.exposed).await?;
        if let Some(number) = self.number {
            mirror.pin(remote, number)?;
        }
        events.announce(Event::RepositoryFetching { repository: remote.to_string() })?;
        let Advertised { default, asked } = server.advertised(&mirror.place, self.branch).await?;
        let nothing = || {
            Error::new(ErrorKind::NotFound, format!("{remote} names no default branch to start from"))
                .with_hint("name a branch that it has, or push a first commit")
        };
        let branch = self.branch.or(default.as_ref().map(|(branch, _)| branch)).cloned().ok_or_else(nothing)?;
        let mut known: BTreeMap<Branch, ObjectId> = default.iter().cloned().collect();
        known.extend(asked.map(|id| (branch.clone(), id)));
        let tips = mirror.bring(&server, &known, self.history).await?;
        let start = tips.get(&branch).or_else(|| tips.get(&default.as_ref()?.0)).cloned().ok_or_else(nothing)?;
        let checkout = match self.below {
            Some(bytes) => mirror.checkout(&start, &tips, bytes, mirrors.limits).await?,
            None => None,
        };
        mirror.make_room(mirrors).await?;
        let origin = Origin { url: remote.to_string(), tips, default: default.map(|(branch, _)| branch) };
        Ok(Seed::mirrored(mirror.share()?, branch, start, origin, checkout))
    }
}

/// One mirror, held so that nobody else fetches into it.
#[derive(Debug)]
pub(super) struct Mirror {
    place: PathBuf,
    lock: File,
}

impl Mirror {
    async fn lock(mirrors: &Mirrors, remote: &RemoteRepo, history: History, exposed: &[Exposed]) -> Result<Self> {
        ensure_private(&mirrors.directory, "the directory of mirrors")?;
        let directory = mirrors.directory.canonicalize().map_err(failed)?;
        if let Some(Exposed { directory: shared, .. }) = exposed.iter().find(|exposed| exposed.reaches(&directory)) {
            let message =
                format!("mirrors in {} lie in {}, which an agent may write", directory.display(), shared.display());
            return Err(Error::new(ErrorKind::Denied, message).with_hint("name another directory for mirrors"));
        }
        let source = format!("{remote} {history}");
        let place = directory.join(hexadecimal(source.to_ascii_lowercase().as_bytes()));
        ensure_private(&place, "the directory of a mirror")?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(place.join(LOCK)).map_err(failed)?;
        while let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK {
                return Err(failed(error.into()));
            }
            // The wait for it has the deadline of the whole.
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        fs::write(place.join("source"), format!("{source}\n")).map_err(failed)?;
        let mirror = Self { place, lock };
        mirror.sweep()?;
        Ok(mirror)
    }

    /// Holds the mirror to the repository that it is of: one that was made anew under the same name is another.
    fn pin(&self, remote: &RemoteRepo, number: u64) -> Result<()> {
        let pin = self.place.join("number");
        match fs::read_to_string(&pin) {
            Ok(held) if held.trim_end() == number.to_string() => Ok(()),
            Ok(held) => {
                let (held, place) = (git::line(held.as_bytes()), self.place.display());
                let message =
                    format!("{remote} is repository {number} by now, and the mirror of it is of repository {held}");
                Err(Error::new(ErrorKind::Denied, message)
                    .with_hint(format!("if it was deleted and made anew, and you mean the new one, remove {place}")))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let new = self.place.join("number.new");
                fs::write(&new, format!("{number}\n")).map_err(failed)?;
                fs::rename(new, pin).map_err(failed)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Removes what a killed fetch has left.
    fn sweep(&self) -> Result<()> {
        match fs::remove_dir_all(self.new_place()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let Ok(entries) = fs::read_dir(self.repository().join("objects/pack")) else { return Ok(()) };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if entry.file_name().as_encoded_bytes().starts_with(b"tmp_") {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn repository(&self) -> PathBuf {
        self.place.join("repository.git")
    }

    fn new_place(&self) -> PathBuf {
        self.place.join("new.git")
    }

    /// Fetches what is not there yet, and says where each branch stands.
    async fn bring(
        &self,
        server: &Server<'_>,
        known: &BTreeMap<Branch, ObjectId>,
        history: History,
    ) -> Result<BTreeMap<Branch, ObjectId>> {
        let Some(any) = known.values().next() else { return Ok(BTreeMap::new()) };
        let wanted: BTreeMap<Branch, String> = known.keys().map(|branch| (branch.clone(), tip(branch))).collect();
        let whole = self.repository();
        if whole.join("HEAD").exists() {
            let tips = self.tips(&wanted).await?;
            if tips == *known {
                return Ok(tips);
            }
            room::forget_size(&self.place)?;
            server.fetch(&whole, &wanted, history).await?;
            self.join_packs(history).await?;
        } else {
            room::forget_size(&self.place)?;
            let new = self.new_place();
            let format = if any.as_str().len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
            let made = git::git(&new, ["init", "--quiet", "--bare", "--template=", format]);
            git::run(made, None, QUICK).await?.content("git cannot make a mirror")?;
            server.fetch(&new, &wanted, history).await?;
            fs::rename(&new, &whole).map_err(failed)?;
        }
        let tips = self.tips(&wanted).await?;
        // What moved meanwhile is taken as it came.
        if tips.len() == known.len() {
            return Ok(tips);
        }
        Err(Error::new(ErrorKind::Io, "the mirror lacks a branch that was fetched"))
    }

    /// Where branches stand in the mirror.
    async fn tips(&self, wanted: &BTreeMap<Branch, String>) -> Result<BTreeMap<Branch, ObjectId>> {
        let arguments = ["for-each-ref", "--format=%(objectname) %(refname)", "refs/tips/"];
        let said = git::run(git::git(&self.repository(), arguments), None, QUICK).await?;
        let said = said.content("git cannot use a mirror")?;
        let said = String::from_utf8_lossy(&said);
        let found: BTreeMap<&str, &str> =
            said.lines().filter_map(|line| line.split_once(' ')).map(|(id, name)| (name, id)).collect();
        let id = |name: &String| found.get(name.as_str()).map(|id| ObjectId::parse(id.as_bytes()));
        wanted.iter().filter_map(|(branch, name)| Some((branch.clone(), id(name)?))).map(|(a, b)| Ok((a, b?))).collect()
    }

    /// Each fetch adds a pack, and git looks into all of them.
    async fn join_packs(&self, history: History) -> Result<()> {
        let count = fs::read_dir(self.repository().join("objects/pack")).map_err(failed)?.count();
        if history != History::Full || count < MOST_PACK_FILES {
            return Ok(());
        }
        let joined = git::git(&self.repository(), ["repack", "-a", "-d", "-q", "--keep-unreachable"]);
        git::run(joined, None, JOIN_WITHIN).await?.content("git cannot join a mirror's packs").map(|_| ())
    }

    /// What lies below a workspace.
    async fn checkout(
        &self,
        start: &ObjectId,
        tips: &BTreeMap<Branch, ObjectId>,
        bytes: u64,
        limits: MirrorLimits,
    ) -> Result<Option<Checkout>> {
        let directory = self.repository();
        let repository = HostRepository { directory: directory.clone(), own: directory };
        // The index of the other form has another checksum.
        if start.as_str().len() != SHA1_DIGITS {
            return Ok(None);
        }
        let bytes = bytes.min(limits.bytes);
        let mut tips: Vec<&ObjectId> = tips.values().collect();
        tips.sort();
        tips.dedup();
        let wanted = Wanted { repository: &repository, start, tips, bytes, within: limits.deadline };
        Checkout::find(&self.place, &wanted).await
    }

    /// Removes what others have left, where all of it is too much.
    async fn make_room(&self, mirrors: &Mirrors) -> Result<()> {
        let (own, most) = (self.place.clone(), mirrors.limits.total);
        let making = tokio::task::spawn_blocking(move || match own.parent() {
            Some(all) => room::make(all, &own, most),
            None => Ok(()),
        });
        making.await.unwrap_or_else(|error| Err(failed(std::io::Error::other(error))))
    }

    /// Lets others read as well.
    fn share(self) -> Result<(HostRepository, File)> {
        flock(&self.lock, FlockOperation::LockShared).map_err(|error| failed(error.into()))?;
        let repository = self.repository();
        Ok((HostRepository { directory: repository.clone(), own: repository }, self.lock))
    }
}

/// Where a mirror keeps a branch. Two names are in each other's way nowhere, as `a` and `a/b` would be below `refs/heads`.
fn tip(branch: &Branch) -> String {
    format!("refs/tips/{}", hexadecimal(branch.as_str().as_bytes()))
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(16).fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(super) fn failed(error: std::io::Error) -> Error {
    Error::io("cannot use a mirror", error)
}

/// Digits of an id that git makes by SHA-1.
const SHA1_DIGITS: usize = 40;
/// What is held by whoever fetches; last used when it last changed.
pub(super) const LOCK: &str = "lock";
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Each pack has an index and a reverse index beside it.
const MOST_PACK_FILES: usize = 90;
const JOIN_WITHIN: Duration = Duration::from_mins(10);
