//! The image `host`: the machine's own programs, so that a first sandbox needs no image.
//!
//! Invariant: what is copied is named here, and every user of the machine may read it. The rest of `/etc`, every home
//! and all of `/var` are not there.

mod copies;
mod inventory;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sandbox_core::Result;

use super::images::Unpacked;
use super::removal::remove;
use super::store::{Store, unusable};
use copies::Copy;
use inventory::Inventory;

/// The image that is the machine itself: its name, and its id.
pub const HOST_IMAGE: &str = "host";

/// The copies that this process uses. They lie in the store under the name of their content, where every process finds
/// those of the others, and are shared by all sandboxes, which only read them.
#[derive(Debug, Default)]
pub(super) struct HostImage {
    used: Mutex<HashMap<(u32, u32), Vec<Used>>>,
}

/// A copy that is in use.
#[derive(Debug)]
struct Used {
    copy: Copy,
    /// What it was made of, and when that was last compared.
    inventory: Inventory,
    looked: Instant,
}

impl HostImage {
    /// Gives the image's own files for an agent, as they are in `/etc` now.
    pub(super) fn provide(&self, store: &Store, agent: (u32, u32)) -> Result<Unpacked> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        // Earlier ones are kept: sandboxes that run may show them.
        let used = used.entry(agent).or_default();
        if used.last().is_none_or(|last| last.looked.elapsed() >= LOOK_AGAIN) {
            let looked = Instant::now();
            let inventory = Inventory::take(agent).map_err(|error| unusable(&store.hosts(), error))?;
            match used.last_mut() {
                Some(last) if last.inventory == inventory => last.looked = looked,
                _ => {
                    let (copy, inventory) = find_or_make(store, inventory, agent)?;
                    used.push(Used { copy, inventory, looked });
                }
            }
        }
        let rootfs = used.last().map(|last| last.copy.path().to_owned()).unwrap_or_default();
        let is_tree = |path: &&str| fs::symlink_metadata(path).is_ok_and(|data| data.is_dir());
        let trees = TREES.into_iter().filter(is_tree).map(PathBuf::from).collect();
        Ok(Unpacked { rootfs, trees, environment: Vec::new(), user: None })
    }
}

/// Finds the copy that was made of an inventory, or makes it.
fn find_or_make(store: &Store, mut inventory: Inventory, agent: (u32, u32)) -> Result<(Copy, Inventory)> {
    let own = |error| unusable(&store.hosts(), error);
    for _ in 0..MAX_ATTEMPTS {
        if let Some(copy) = Copy::find(store, &inventory.name()).map_err(own)? {
            return Ok((copy, inventory));
        }
        let fresh = store.temporary_path()?;
        let made = make(&fresh, agent).and_then(|()| Inventory::take(agent)).map_err(|error| unusable(&fresh, error));
        let made = made.and_then(|after| {
            if after != inventory {
                // It changed meanwhile.
                inventory = after;
                return Ok(None);
            }
            Copy::keep(store, &fresh, &inventory.name()).map_err(own)
        });
        match made {
            Ok(Some(copy)) => return Ok((copy, inventory)),
            // What cannot be removed now is swept later.
            Ok(None) => drop(remove(&fresh)),
            Err(error) => {
                let _ = remove(&fresh);
                return Err(error);
            }
        }
    }
    Err(unusable(Path::new("/etc"), io::Error::other("its files do not stay as they are")))
}

fn make(root: &Path, (uid, gid): (u32, u32)) -> io::Result<()> {
    directory(root, 0o755)?;
    for (name, mode) in DIRECTORIES {
        directory(&root.join(name), mode)?;
    }
    let home = root.join(HOME.trim_start_matches('/'));
    directory(&home, 0o700)?;
    chown(&home, Some(uid), Some(gid))?;
    for tree in TREES {
        let (there, here) = (Path::new(tree), root.join(tree.trim_start_matches('/')));
        match fs::symlink_metadata(there) {
            Ok(data) if data.is_symlink() => symlink(fs::read_link(there)?, here)?,
            Ok(data) if data.is_dir() => directory(&here, 0o755)?,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let mut left = MAX_ENTRIES;
    for name in COPIED {
        let (from, to) = (Path::new("/etc").join(name), root.join("etc").join(name));
        if let Some(parent) = to.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        copy(&from, &to, &mut left)?;
    }
    for name in prefixed()? {
        copy(&Path::new("/etc").join(&name), &root.join("etc").join(&name), &mut left)?;
    }
    let shell = shell();
    let nobody = "65534:65534:nobody:/nonexistent:/usr/sbin/nologin";
    let users = format!("root:x:0:0:root:/root:{shell}\nagent:x:{uid}:{gid}::{HOME}:{shell}\nnobody:x:{nobody}\n");
    write(&root.join("etc/passwd"), &users)?;
    write(&root.join("etc/group"), &format!("root:x:0:\ntty:x:5:\nagent:x:{gid}:\nnogroup:x:65534:\n"))?;
    write(&root.join("etc/nsswitch.conf"), NAMES)
}

/// What is in `/etc` and bears a version.
fn prefixed() -> io::Result<Vec<OsString>> {
    let names = fs::read_dir("/etc")?.map(|entry| entry.map(|entry| entry.file_name()));
    let is_wanted = |name: &OsString| PREFIXES.iter().any(|prefix| name.to_string_lossy().starts_with(prefix));
    names.filter(|name| name.as_ref().map_or(true, is_wanted)).collect()
}

fn shell() -> &'static str {
    if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" }
}

/// Makes a directory with these bits, whatever the mask is.
fn directory(path: &Path, mode: u32) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::set_permissions(path, Permissions::from_mode(mode)),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, Permissions::from_mode(0o644))
}

/// Copies what every user may read, and no link's target.
fn copy(from: &Path, to: &Path, left: &mut usize) -> io::Result<()> {
    let data = match fs::symlink_metadata(from) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    *left = left.checked_sub(1).ok_or(io::ErrorKind::FileTooLarge)?;
    if data.is_symlink() {
        symlink(fs::read_link(from)?, to)
    } else if data.is_dir() && data.mode() & 0o005 == 0o005 {
        directory(to, 0o755)?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name), left)?;
        }
        Ok(())
    } else if data.is_file() && data.mode() & 0o004 != 0 && data.len() <= MAX_FILE {
        fs::copy(from, to)?;
        fs::set_permissions(to, Permissions::from_mode(0o644 | (data.mode() & 0o111)))
    } else {
        Ok(())
    }
}

/// Where programs and libraries are; on most systems all but the last are links into it.
const TREES: [&str; 7] = ["/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin", "/usr"];

const HOME: &str = "/home/agent";

/// An ordinary system's directories (hier(7)), empty, with their bits.
const DIRECTORIES: [(&str, u32); 17] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/log", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
];

/// What programs look for below `/etc`. Files in which people keep passwords (of package registries, of proxies) are left
/// out, also where everybody may read them.
const COPIED: [&str; 31] = [
    "alternatives",
    "bash.bashrc",
    "debian_version",
    "fonts",
    "gai.conf",
    "host.conf",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "locale.conf",
    "localtime",
    "magic",
    "magic.mime",
    "mime.types",
    "networks",
    "os-release",
    "perl",
    "pki/ca-trust/extracted",
    "pki/tls/cert.pem",
    "pki/tls/certs",
    "profile",
    "protocols",
    "rpc",
    "services",
    "shells",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
];

/// Directories that bear a version.
const PREFIXES: [&str; 2] = ["java-", "python3"];

/// Names come from files alone: there is nobody to ask (nsswitch.conf(5)).
const NAMES: &str = "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n";

/// The most entries that are copied, and the largest file, in bytes: no `/etc` has more.
const MAX_ENTRIES: usize = 50_000;
const MAX_FILE: u64 = 64 << 20;

/// How long a look at `/etc` holds.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How often what is copied may change under the copy, or be removed before it is held.
const MAX_ATTEMPTS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_not_everybody_may_read_is_left_out_and_links_are_not_followed() {
        let from = tempfile::tempdir().unwrap();
        let to = tempfile::tempdir().unwrap();
        let file = |name: &str, mode: u32| {
            fs::write(from.path().join(name), "x").unwrap();
            fs::set_permissions(from.path().join(name), Permissions::from_mode(mode)).unwrap();
        };
        file("open", 0o4755);
        file("closed", 0o640);
        symlink("/etc/shadow", from.path().join("link")).unwrap();
        fs::create_dir(from.path().join("private")).unwrap();
        fs::set_permissions(from.path().join("private"), Permissions::from_mode(0o710)).unwrap();
        fs::set_permissions(from.path(), Permissions::from_mode(0o755)).unwrap();
        let target = to.path().join("copy");
        copy(from.path(), &target, &mut 10).unwrap();
        let mut names: Vec<_> = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["link", "open"]);
        assert_eq!(fs::metadata(target.join("open")).unwrap().mode() & 0o7777, 0o755);
        assert!(fs::symlink_metadata(target.join("link")).unwrap().is_symlink());
        assert!(copy(from.path(), &to.path().join("again"), &mut 2).is_err(), "it is bounded");
    }

    #[test]
    fn the_image_has_no_account_but_the_agents() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let image = HostImage::default().provide(&store, me).unwrap();
        assert_eq!(HostImage::default().provide(&store, me).unwrap(), image, "another process finds the same");
        assert!(image.trees.contains(&PathBuf::from("/usr")));
        let users = fs::read_to_string(image.rootfs.join("etc/passwd")).unwrap();
        assert_eq!(users.lines().count(), 3, "{users}");
        for secret in ["etc/shadow", "etc/gshadow", "etc/ssl/private", "etc/ssh", "etc/pip.conf", "etc/npmrc"] {
            assert!(!image.rootfs.join(secret).exists(), "{secret}");
        }
        assert!(image.rootfs.starts_with(store.hosts()));
    }

    #[test]
    fn a_copy_is_made_once_and_another_for_another_agent() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let inventory = Inventory::take(me).unwrap();
        let (copy, _) = find_or_make(&store, inventory.clone(), me).unwrap();
        let made = fs::metadata(copy.path()).unwrap().ino();
        let (again, _) = find_or_make(&store, inventory.clone(), me).unwrap();
        assert_eq!(fs::metadata(again.path()).unwrap().ino(), made);
        assert_ne!(Inventory::take((me.0, me.1 + 1)).unwrap().name(), inventory.name());
        assert_eq!(fs::read_dir(store.hosts()).unwrap().count(), 1);
    }
}
