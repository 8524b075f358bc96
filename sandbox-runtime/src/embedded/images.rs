//! Images: unpacked once, named by their content, and shared by all sandboxes, which only read them.

use std::fs::{self, DirBuilder};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use sandbox_core::{Error, ErrorKind, Image, Result};
use sandbox_policy::{ImageRef, SandboxSpec};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Machine;
use super::host::HOST_IMAGE;
use super::removal::remove;
use super::store::{Store, unusable};
use super::unpack::{Owners, Whiteouts, unpack};
use super::user;

/// An image that is ready to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unpacked {
    /// Its files.
    pub(super) rootfs: PathBuf,
    /// Directories of the host that belong to it.
    pub(super) trees: Vec<PathBuf>,
    /// Its environment, as `NAME=value`.
    pub(super) environment: Vec<String>,
    /// Its user, as it says it.
    pub(super) user: Option<String>,
}

/// What an image says beside its files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Configuration {
    /// The environment, as `NAME=value`.
    pub(super) environment: Vec<String>,
    /// The user, as the image says it.
    #[serde(default)]
    pub(super) user: Option<String>,
}

/// What a name means.
#[derive(Debug, Serialize, Deserialize)]
struct Name {
    reference: ImageRef,
    id: String,
}

impl Machine {
    /// Finds an image among those that are kept.
    pub(super) fn resolve(&self, spec: &SandboxSpec) -> Result<Image> {
        let reference = spec.image();
        let id = match reference.local_id() {
            Some(id) => Some(id.to_owned()),
            None if reference.to_string() == HOST_IMAGE => Some(HOST_IMAGE.to_owned()),
            None => read_name(&self.store, reference)?,
        };
        match id.map(|id| Image { reference: reference.clone(), id, user: None }) {
            Some(image) if image.id == HOST_IMAGE => Ok(image),
            Some(image) => self.with_user(image).map_err(|_| missing(reference)),
            None => Err(missing(reference)),
        }
    }

    /// Says who an image's user is, by number: ids must be known before a container is made.
    pub(super) fn with_user(&self, image: Image) -> Result<Image> {
        let Unpacked { rootfs, user, .. } = self.unpacked(&image)?;
        let user = user.map(|named| user::numbered(&rootfs, &named).unwrap_or(named));
        Ok(Image { user, ..image })
    }

    /// Finds an image's files, for an agent of a user and a group.
    pub(super) fn image(&self, image: &Image, agent: (u32, u32)) -> Result<Unpacked> {
        if image.id == HOST_IMAGE { self.host.provide(&self.store, agent) } else { self.unpacked(image) }
    }

    fn unpacked(&self, image: &Image) -> Result<Unpacked> {
        let digits = digits(&image.id).ok_or_else(|| missing(&image.reference))?;
        let directory = self.store.images().join(digits);
        let text = match fs::read(directory.join(CONFIGURATION)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(missing(&image.reference)),
            Err(error) => return Err(unusable(&directory, error)),
        };
        let Configuration { environment, user } = serde_json::from_slice(&text).map_err(|error| {
            let message = format!("image {} was kept by something else", image.reference);
            Error::new(ErrorKind::ImageInvalid, message).with_source(error)
        })?;
        Ok(Unpacked { rootfs: directory.join(ROOTFS), trees: Vec::new(), environment, user })
    }

    /// Unpacks an archive of a root file system, and gives it a name.
    pub(super) fn import_rootfs(&self, archive: impl Read, reference: &ImageRef) -> Result<Image> {
        nameable(reference)?;
        let fresh = self.store.temporary_path()?;
        let imported = unpack_rootfs(archive, &fresh).and_then(|id| {
            let image = Image { reference: reference.clone(), id, user: None };
            self.keep(&fresh, &image, &Configuration::default())?;
            Ok(image)
        });
        if imported.is_err() {
            // What cannot be removed now is swept later.
            let _ = remove(&fresh);
        }
        imported
    }

    /// Moves what was unpacked to its place, and lets a name mean it.
    pub(super) fn keep(&self, fresh: &std::path::Path, image: &Image, configuration: &Configuration) -> Result<()> {
        let digits = digits(&image.id).ok_or_else(|| missing(&image.reference))?;
        let place = self.store.images().join(digits);
        write_json(&fresh.join(CONFIGURATION), configuration)?;
        match fs::rename(fresh, &place) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                // The same content is there already.
                remove(fresh).map_err(|error| unusable(fresh, error))?;
            }
            Err(error) => return Err(unusable(&place, error)),
        }
        let name = Name { reference: image.reference.clone(), id: image.id.clone() };
        let fresh = self.store.temporary_path()?;
        write_json(&fresh, &name)?;
        let place = self.store.names().join(file_name(&image.reference));
        fs::rename(&fresh, &place).map_err(|error| unusable(&place, error))
    }
}

/// Unpacks an archive below a directory that is made, and gives the image's id.
fn unpack_rootfs(archive: impl Read, fresh: &std::path::Path) -> Result<String> {
    let rootfs = fresh.join(ROOTFS);
    DirBuilder::new().recursive(true).mode(0o755).create(&rootfs).map_err(|error| unusable(&rootfs, error))?;
    let mut hashed = Hashed { inner: archive, hash: Sha256::new() };
    unpack(&mut hashed, &rootfs, owners(), Whiteouts::Kept)?;
    // What follows the archive's end is part of its name too.
    io::copy(&mut hashed, &mut io::sink()).map_err(|error| Error::io("cannot read the archive", error))?;
    Ok(format!("sha256:{}", hexadecimal(&hashed.hash.finalize())))
}

/// Who the files of an image belong to: only root can give files away.
pub(super) fn owners() -> Owners {
    if rustix::process::geteuid().is_root() { Owners::Kept } else { Owners::Caller }
}

/// What a name means; `None` where it means nothing.
fn read_name(store: &Store, reference: &ImageRef) -> Result<Option<String>> {
    let path = store.names().join(file_name(reference));
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(&path, error)),
    };
    let name: Name = serde_json::from_slice(&text).map_err(|error| unusable(&path, error.into()))?;
    Ok((name.reference == *reference).then_some(name.id))
}

/// The file that keeps a name: its hash, since names have slashes.
fn file_name(reference: &ImageRef) -> String {
    hexadecimal(&Sha256::digest(reference.to_string().as_bytes()))
}

/// Refuses names that say what their content is.
pub(super) fn nameable(reference: &ImageRef) -> Result<()> {
    if reference.to_string() == HOST_IMAGE {
        let message = format!("image {HOST_IMAGE} is the machine itself; another name is needed to import one");
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    if reference.is_pinned() {
        let message = format!("image {reference} names its content; a name without a digest is needed to import one");
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    Ok(())
}

fn write_json(path: &std::path::Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|error| unusable(path, error.into()))?;
    fs::write(path, text).map_err(|error| unusable(path, error))
}

/// The digits of an image's id, if it is one.
fn digits(id: &str) -> Option<&str> {
    let digits = id.strip_prefix("sha256:")?;
    (digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))).then_some(digits)
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

fn missing(reference: &ImageRef) -> Error {
    Error::new(ErrorKind::ImageMissing, format!("image {reference} is not in the store of the embedded runtime"))
        .with_hint("import it from an archive of a root file system, or use `host`, the machine's own programs")
}

/// Hashes what is read through it.
pub(super) struct Hashed<R> {
    pub(super) inner: R,
    pub(super) hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

/// The files of an image, in its directory.
pub(super) const ROOTFS: &str = "rootfs";
const CONFIGURATION: &str = "image.json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_digest_and_nothing_else() {
        let good = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(digits(&good), Some(&good[7..]));
        for bad in ["sha256:../../etc", "sha256:", "0f", &good.to_uppercase(), &format!("{good}0")] {
            assert_eq!(digits(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_name_with_slashes_is_one_file() {
        let name = file_name(&"registry.example:5000/a/b:c".parse().unwrap());
        assert!(name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
