//! Images in layers: an OCI layout, alone or in an archive, and the archives of `docker save`.
//!
//! Invariant: an image's id is the digest of its configuration, which names the digest of each layer's content; what does
//! not match is no image. Everything in the archive is hostile.

use std::fs::{DirBuilder, File};
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;
use sandbox_core::{Error, ErrorKind, Image, Result};
use sandbox_policy::ImageRef;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::Machine;
use super::frames::Frames;
use super::images::{Configuration, Hashed, ROOTFS, hexadecimal, nameable, owners};
use super::removal::remove;
use super::store::unusable;
use super::unpack::{Owners, Whiteouts, holds_layers, unpack};

impl Machine {
    /// Takes an image out of a directory or an archive, whatever it holds.
    pub(super) fn import(&self, path: &Path, reference: &ImageRef) -> Result<Image> {
        let open = || File::open(path).map_err(|error| unusable(path, error));
        let name = path.display().to_string();
        let archive = || plain(open()?, &name);
        if path.is_dir() {
            self.import_layout(path, reference)
        } else if holds_layers(archive()?)? {
            self.import_archive(archive()?, reference)
        } else {
            self.import_rootfs(archive()?, reference)
        }
    }

    /// Takes the image out of an archive.
    pub(super) fn import_archive(&self, archive: impl Read, reference: &ImageRef) -> Result<Image> {
        nameable(reference)?;
        let opened = self.store.temporary_path()?;
        let imported = DirBuilder::new()
            .mode(0o700)
            .create(&opened)
            .map_err(|error| unusable(&opened, error))
            .and_then(|()| unpack(archive, &opened, Owners::Caller, Whiteouts::Kept))
            .and_then(|()| self.import_layout(&opened, reference));
        let removed = remove(&opened).map_err(|error| unusable(&opened, error));
        imported.and_then(|image| removed.map(|()| image))
    }

    /// Takes the image out of a directory.
    pub(super) fn import_layout(&self, directory: &Path, reference: &ImageRef) -> Result<Image> {
        nameable(reference)?;
        self.take_layout(directory, reference)
    }

    /// Does so under any name, also one that says what the content is and has been held to that.
    pub(super) fn take_layout(&self, directory: &Path, reference: &ImageRef) -> Result<Image> {
        let layout = Layout::open(directory)?;
        let layered = layout.find()?;
        let fresh = self.store.temporary_path()?;
        let imported = layered.unpack(&layout, &fresh).and_then(|()| {
            let image = Image { reference: reference.clone(), id: layered.id.clone(), user: None };
            let (environment, user) = (layered.environment.clone(), layered.user.clone());
            self.keep(&fresh, &image, &Configuration { environment, user })?;
            self.with_user(image)
        });
        if imported.is_err() {
            // What cannot be removed now is swept later.
            let _ = remove(&fresh);
        }
        imported
    }
}

/// An image whose layers are to be unpacked.
#[derive(Debug)]
struct Layered {
    id: String,
    environment: Vec<String>,
    user: Option<String>,
    /// Each layer's file, and the digest of its content once it is not compressed.
    layers: Vec<(String, String)>,
}

impl Layered {
    fn of(configuration: &[u8], files: Vec<String>) -> Result<Self> {
        let id = digest(configuration);
        let Described { architecture, os, config, rootfs } = json("configuration", configuration)?;
        let own = match std::env::consts::ARCH {
            "aarch64" => "arm64",
            "x86_64" => "amd64",
            other => other,
        };
        if (os.as_str(), architecture.as_str()) != ("linux", own) {
            return Err(invalid(format!("it is for {os}/{architecture}, this machine is linux/{own}")));
        }
        if files.len() != rootfs.diff_ids.len() || files.len() > MAX_LAYERS {
            let (files, named) = (files.len(), rootfs.diff_ids.len());
            return Err(invalid(format!("it has {files} layers and names {named}, up to {MAX_LAYERS} are allowed")));
        }
        let Execution { env, user } = config.unwrap_or_default();
        let environment = env.unwrap_or_default();
        let is_variable = |text: &String| text.find('=').is_some_and(|at| at > 0) && !text.contains('\0');
        if environment.iter().map(String::len).sum::<usize>() > MAX_ENVIRONMENT || !environment.iter().all(is_variable)
        {
            return Err(invalid(format!("its environment is not NAME=value, {MAX_ENVIRONMENT} bytes in all")));
        }
        let user = user.filter(|user| !user.is_empty());
        Ok(Self { id, environment, user, layers: files.into_iter().zip(rootfs.diff_ids).collect() })
    }

    fn unpack(&self, layout: &Layout, fresh: &Path) -> Result<()> {
        let rootfs = fresh.join(ROOTFS);
        DirBuilder::new().recursive(true).mode(0o755).create(&rootfs).map_err(|error| unusable(&rootfs, error))?;
        for (file, expected) in &self.layers {
            let mut hashed = Hashed { inner: plain(layout.open_file(file)?, file)?, hash: Sha256::new() };
            unpack(&mut hashed, &rootfs, owners(), Whiteouts::Applied)?;
            // What follows the layer's end is part of its content too.
            io::copy(&mut hashed, &mut io::sink()).map_err(|error| unreadable(file, error))?;
            let found = format!("sha256:{}", hexadecimal(&hashed.hash.finalize()));
            if found != *expected {
                return Err(invalid(format!("layer {file} is {found}, and {expected} is named")));
            }
        }
        Ok(())
    }
}

/// Undoes a file's compression, if it has one that is known (RFC 1952, RFC 8878).
pub(super) fn plain(file: File, name: &str) -> Result<Box<dyn Read>> {
    let mut start = [0; 4];
    let length = (&file).read(&mut start).map_err(|error| unreadable(name, error))?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).map_err(|error| unreadable(name, error.into()))?;
    match &start[..length] {
        [0x1f, 0x8b, ..] => Ok(Box::new(MultiGzDecoder::new(BufReader::new(file)))),
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Ok(Box::new(Frames::new(BufReader::new(file)))),
        _ => Ok(Box::new(BufReader::new(file))),
    }
}

/// A directory with the files of an image.
struct Layout(OwnedFd);

impl Layout {
    fn open(directory: &Path) -> Result<Self> {
        openat(CWD, directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map(Self)
            .map_err(|error| unusable(directory, error.into()))
    }

    /// Finds the one image. Archives of newer Docker engines have both forms, and then the older one is the shorter way.
    fn find(&self) -> Result<Layered> {
        if let Some(text) = self.read("manifest.json")? {
            let images: Vec<Saved> = json("manifest.json", &text)?;
            let [Saved { config, layers }] = <[Saved; 1]>::try_from(images)
                .map_err(|images| invalid(format!("it holds {} images, one is needed", images.len())))?;
            let configuration = self.must_read(&config)?;
            return Layered::of(&configuration, layers);
        }
        let Some(text) = self.read("index.json")? else {
            return Err(invalid("it has neither an index.json nor a manifest.json").with_hint(
                "give an OCI layout or the output of `docker save`; a plain root file system is imported as such",
            ));
        };
        let mut text = text;
        for _ in 0..MAX_INDEXES {
            let Manifest { config, layers, manifests } = json("manifest", &text)?;
            if let (Some(config), Some(layers)) = (config, layers) {
                let configuration = self.must_read_blob(&config.digest)?;
                let files = layers.iter().map(|layer| blob(&layer.digest)).collect::<Result<_>>()?;
                return Layered::of(&configuration, files);
            }
            let ours: Vec<Descriptor> =
                manifests.unwrap_or_default().into_iter().filter(Descriptor::may_be_ours).collect();
            let [next] = <[Descriptor; 1]>::try_from(ours)
                .map_err(|ours| invalid(format!("it holds {} images for this machine, one is needed", ours.len())))?;
            text = self.must_read_blob(&next.digest)?;
        }
        Err(invalid(format!("its index leads through more than {MAX_INDEXES} others")))
    }

    /// Reads a file that its digest names, and checks that.
    fn must_read_blob(&self, expected: &str) -> Result<Vec<u8>> {
        let content = self.must_read(&blob(expected)?)?;
        let found = digest(&content);
        if found != expected {
            return Err(invalid(format!("{expected} is named, and its content is {found}")));
        }
        Ok(content)
    }

    fn must_read(&self, name: &str) -> Result<Vec<u8>> {
        self.read(name)?.ok_or_else(|| invalid(format!("{name} is missing")))
    }

    /// Reads a file of metadata, which is small.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let file = match self.open_file(name) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut content = Vec::new();
        file.take(MAX_METADATA + 1).read_to_end(&mut content).map_err(|error| unreadable(name, error))?;
        if content.len() as u64 > MAX_METADATA {
            return Err(invalid(format!("{name} is larger than {MAX_METADATA} bytes")));
        }
        Ok(Some(content))
    }

    /// Opens a regular file; links stay within the directory (openat2(2)).
    fn open_file(&self, name: &str) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(&self.0, name, flags, Mode::empty(), within);
        let file = file.map_err(|error| unreadable(name, error.into()))?;
        let kind = fstat(&file).map_err(|error: Errno| unreadable(name, error.into()))?.st_mode;
        if FileType::from_raw_mode(kind) != FileType::RegularFile {
            return Err(invalid(format!("{name} is no file")));
        }
        Ok(File::from(file))
    }
}

/// An entry of the manifest that `docker save` writes
/// (<https://github.com/moby/docker-image-spec/blob/main/v1.2.md#combined-image-json--filesystem-changeset-format>).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

/// A manifest or an index (<https://github.com/opencontainers/image-spec/blob/main/manifest.md>).
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Option<Descriptor>,
    pub(super) layers: Option<Vec<Descriptor>>,
    pub(super) manifests: Option<Vec<Descriptor>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Descriptor {
    pub(super) digest: String,
    /// Bytes of what it names; nothing believes it where a digest is at hand.
    #[serde(default)]
    pub(super) size: u64,
    platform: Option<Platform>,
}

impl Descriptor {
    /// Whether it is for this machine, or does not say.
    pub(super) fn may_be_ours(&self) -> bool {
        self.platform.as_ref().is_none_or(|Platform { architecture, os }| {
            let own = if std::env::consts::ARCH == "x86_64" { "amd64" } else { "arm64" };
            os == "linux" && architecture == own
        })
    }
}

#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// A configuration (<https://github.com/opencontainers/image-spec/blob/main/config.md>).
#[derive(Debug, Deserialize)]
struct Described {
    architecture: String,
    os: String,
    config: Option<Execution>,
    rootfs: Layers,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Execution {
    env: Option<Vec<String>>,
    user: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Layers {
    diff_ids: Vec<String>,
}

/// The file of a digest in a layout.
pub(super) fn blob(digest: &str) -> Result<String> {
    let digits = digest.strip_prefix("sha256:").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    match digits {
        Some(digits) if digits.len() == 64 => Ok(format!("blobs/sha256/{digits}")),
        _ => Err(invalid(format!(
            "digest {:?} is not sha256: and 64 digits",
            digest.chars().take(80).collect::<String>()
        ))),
    }
}

pub(super) fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hexadecimal(&Sha256::digest(content)))
}

pub(super) fn json<T: DeserializeOwned>(what: &str, text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|error| invalid(format!("its {what} makes no sense: {error}")))
}

pub(super) fn invalid(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::ImageInvalid, format!("the image cannot be used: {what}"))
}

fn unreadable(name: &str, error: io::Error) -> Error {
    Error::io(format!("cannot read {name} of the image"), error)
}

/// The most layers: what engines take.
pub(super) const MAX_LAYERS: usize = 128;
/// The most indexes that lead to a manifest.
pub(super) const MAX_INDEXES: usize = 4;
/// The largest file that is no layer, in bytes.
pub(super) const MAX_METADATA: u64 = 4 << 20;
/// The largest environment, in bytes.
const MAX_ENVIRONMENT: usize = 128 << 10;

#[cfg(test)]
mod tests;
