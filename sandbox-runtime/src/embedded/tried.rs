//! What a trial has shown, remembered for the next process: making a container takes longer than most commands.
//!
//! Invariant: what is remembered is believed only of the same user and under the same circumstances. It saves a trial and
//! grants nothing: whatever a sandbox asks for is read back from the kernel before it is handed out.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::OFlags;
use sandbox_core::{Owner, Result};
use sandbox_policy::Control;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::cgroups::Cgroups;
use super::disk::PROGRAMS;
use super::identities::Ids;
use super::images::hexadecimal;
use super::store::Store;
use crate::guest::GUEST_BUILD;

/// A control that a trial did not get, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lacking {
    pub(super) control: Control,
    pub(super) why: String,
    pub(super) hint: String,
}

/// What a trial depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Circumstances(Vec<String>);

/// A trial as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Tried {
    circumstances: Circumstances,
    lacking: Vec<Lacking>,
}

impl Circumstances {
    /// Looks around.
    pub(super) fn here(store: &Store, ids: Ids, cgroups: &Cgroups) -> Result<Self> {
        let kernel = rustix::system::uname();
        let groups = rustix::process::getgroups().unwrap_or_default();
        let mut all = vec![
            format!("form {FORM}, version {}, guest {GUEST_BUILD}", env!("CARGO_PKG_VERSION")),
            format!("kernel {:?} {:?}, boot {}", kernel.release(), kernel.version(), Owner::current()?.boot),
            format!("user {}, groups {groups:?}, ids {ids:?}", rustix::process::geteuid()),
            format!("control groups {cgroups:?}"),
            format!("capabilities {:?}, filters {}", status("CapEff"), status("Seccomp")),
            format!(
                "namespaces {:?}",
                ["user", "mnt", "cgroup"].map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")).ok())
            ),
        ];
        let places = PROGRAMS.into_iter().chain(DEPENDS_ON).map(Path::new).chain([store.root()]);
        all.extend(places.map(|path| format!("{}: {}", path.display(), state(path))));
        // Root makes these where they are missing, and removes them again.
        let given = cgroups.bases().filter(|_| !rustix::process::geteuid().is_root());
        all.extend(given.map(|path| format!("{}: {}", path.display(), state(path))));
        all.extend(SETTINGS.map(|path| format!("{path}: {:?}", fs::read_to_string(path).ok())));
        Ok(Self(all))
    }

    fn file_name(&self) -> String {
        let mut hash = Sha256::new();
        for line in &self.0 {
            hash.update(line);
            hash.update([0]);
        }
        hexadecimal(&hash.finalize())
    }
}

/// Which file a path is, and who may use it; its times change with each container.
fn state(path: &Path) -> String {
    fs::metadata(path).map_or_else(
        |error| error.kind().to_string(),
        |data| format!("{} {} {} {} {:o}", data.dev(), data.ino(), data.uid(), data.gid(), data.mode()),
    )
}

/// A field of this process's status.
fn status(name: &str) -> String {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_default().trim().to_owned()
}

/// Recalls what a trial under the same circumstances has shown; `None` where there was none, or where it may not be ours.
pub(super) fn recall(store: &Store, circumstances: &Circumstances) -> Option<Vec<Lacking>> {
    let path = store.tried().join(circumstances.file_name());
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let data = file.metadata().ok()?;
    let is_ours = data.is_file()
        && data.uid() == rustix::process::geteuid().as_raw()
        && data.mode() & 0o777 == 0o600
        && data.nlink() == 1
        && data.len() <= MAX_FILE;
    if !is_ours {
        return None;
    }
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text).ok()?;
    let tried: Tried = serde_json::from_slice(&text).ok()?;
    (tried.circumstances == *circumstances).then_some(tried.lacking)
}

/// Remembers what a trial has shown. What cannot be kept is tried again.
pub(super) fn remember(store: &Store, circumstances: &Circumstances, lacking: &[Lacking]) {
    let keep = || -> io::Result<()> {
        let tried = Tried { circumstances: circumstances.clone(), lacking: lacking.to_vec() };
        let fresh = store.temporary_path().map_err(io::Error::other)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec(&tried)?)?;
        fs::rename(&fresh, store.tried().join(circumstances.file_name()))?;
        prune(&store.tried())
    };
    let _ = keep();
}

/// Forgets what a trial has shown.
pub(super) fn forget(store: &Store, circumstances: &Circumstances) {
    // What is not there is forgotten.
    let _ = fs::remove_file(store.tried().join(circumstances.file_name()));
}

/// Keeps the latest few.
fn prune(directory: &Path) -> io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let changed = fs::symlink_metadata(&path).and_then(|data| data.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        found.push((changed, path));
    }
    found.sort_unstable_by(|one, other| other.cmp(one));
    for (_, path) in found.into_iter().skip(MAX_KEPT) {
        // Another may have done it.
        let _ = fs::remove_file(path);
    }
    Ok(())
}

/// Changes with what a trial tries.
const FORM: u32 = 2;

/// What a trial uses, and what administrators change to let it.
const DEPENDS_ON: [&str; 3] = ["/dev/loop-control", "/sys/fs/cgroup", "/proc/sys"];
const SETTINGS: [&str; 3] = [
    "/proc/sys/user/max_user_namespaces",
    "/proc/sys/kernel/unprivileged_userns_clone",
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
];

/// The largest file that is read, in bytes, and how many are kept.
const MAX_FILE: u64 = 64 << 10;
const MAX_KEPT: usize = 16;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn lack() -> Vec<Lacking> {
        vec![Lacking { control: Control::Disk, why: "no".to_owned(), hint: "do".to_owned() }]
    }

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        (directory, store)
    }

    #[test]
    fn what_was_tried_is_recalled_under_the_same_circumstances_alone() {
        let (_directory, store) = store();
        let ids = Ids::choose(1_900_000_000).unwrap();
        let cgroups = Cgroups::discover().unwrap();
        let here = Circumstances::here(&store, ids, &cgroups).unwrap();
        assert_eq!(recall(&store, &here), None);
        remember(&store, &here, &lack());
        assert_eq!(recall(&store, &here), Some(lack()));
        assert_eq!(recall(&store, &Circumstances::here(&store, ids, &cgroups).unwrap()), Some(lack()));
        for line in 0..here.0.len() {
            let mut other = here.clone();
            other.0[line].push('x');
            assert_eq!(recall(&store, &other), None, "{}", here.0[line]);
            // Nor where the file has got the other's name.
            fs::copy(store.tried().join(here.file_name()), store.tried().join(other.file_name())).unwrap();
            assert_eq!(recall(&store, &other), None, "{}", here.0[line]);
        }
        let fewer = cgroups.without(Control::Memory);
        assert_ne!(Circumstances::here(&store, ids, &fewer).unwrap(), here);
        forget(&store, &here);
        assert_eq!(recall(&store, &here), None);
    }

    #[test]
    fn what_others_may_have_written_is_not_believed() {
        let (_directory, store) = store();
        let here = Circumstances(vec!["here".to_owned()]);
        let path = store.tried().join(here.file_name());
        let spoil = |what: &str, work: &dyn Fn()| {
            remember(&store, &here, &lack());
            assert_eq!(recall(&store, &here), Some(lack()), "the control for {what}");
            work();
            assert_eq!(recall(&store, &here), None, "{what}");
            fs::remove_file(&path).unwrap();
        };
        spoil("others may write it", &|| fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).unwrap());
        spoil("it has a second name", &|| fs::hard_link(&path, store.root().join("second")).unwrap());
        spoil("it is a link", &|| {
            fs::rename(&path, store.root().join("aside")).unwrap();
            symlink(store.root().join("aside"), &path).unwrap();
        });
        spoil("it is no such text", &|| fs::write(&path, "{}").unwrap());
        spoil("it is too large", &|| fs::write(&path, " ".repeat(100_000)).unwrap());
        if rustix::process::geteuid().is_root() {
            spoil("it is another's", &|| std::os::unix::fs::chown(&path, Some(4_242), None).unwrap());
        }
    }

    #[test]
    fn few_are_kept() {
        let (_directory, store) = store();
        for number in 0..2 * MAX_KEPT {
            remember(&store, &Circumstances(vec![number.to_string()]), &[]);
        }
        assert_eq!(fs::read_dir(store.tried()).unwrap().count(), MAX_KEPT);
    }
}
