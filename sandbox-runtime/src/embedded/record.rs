//! What is known of a container, from its making to its end.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sandbox_core::{Error, ErrorKind, Result, SandboxId};
use serde::{Deserialize, Serialize};

use super::process::Process;
use super::store::unusable;

/// A container as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The form of this file.
    pub(super) version: u32,
    /// The sandbox.
    pub(super) sandbox: SandboxId,
    /// The process that owns it, as its label.
    pub(super) owner: String,
    /// The image's name.
    pub(super) image: String,
    /// Seconds since 1970 at which it was made.
    pub(super) created: i64,
    /// The unpacked image.
    pub(super) rootfs: PathBuf,
    /// Directories of the host that belong to the image.
    pub(super) trees: Vec<PathBuf>,
    /// The image's environment, as `NAME=value`.
    pub(super) environment: Vec<String>,
    /// The agent's user and group inside.
    pub(super) agent: (u32, u32),
    /// Whether the root file system can be written.
    pub(super) writable: bool,
    /// The capabilities that process 1 has where it is root, as bits.
    pub(super) capabilities: u64,
    /// Open files of each process.
    pub(super) open_files: u64,
    /// Bytes of the container's own layer; `None` where nothing limits it.
    pub(super) disk: Option<u64>,
    /// The control groups.
    pub(super) cgroups: Vec<Group>,
    /// Memory file systems: where, and bytes.
    pub(super) tmpfs: Vec<(String, u64)>,
    /// The host's directories.
    pub(super) binds: Vec<Mount>,
    /// Trees of the host below what the container writes.
    pub(super) underlays: Vec<Mount>,
    /// Empty directories of the layer, mounted after that.
    pub(super) blanks: Vec<PathBuf>,
    /// The program of gVisor, where that runs the container.
    pub(super) gvisor: Option<PathBuf>,
    /// Process 1, once it was started; gVisor itself, where that runs the container.
    pub(super) first: Option<Process>,
    /// The number of the loop device below the layer, once it was started.
    pub(super) loop_device: Option<u32>,
}

/// A control group of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    /// Its directory.
    pub(super) directory: PathBuf,
    /// The controllers of a hierarchy of version 1; none for version 2.
    pub(super) controllers: Vec<String>,
}

/// A directory of the host in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mount {
    /// The directory as it was asked for.
    #[serde(with = "bytes")]
    pub(super) source: PathBuf,
    /// The same without links.
    #[serde(with = "bytes")]
    pub(super) resolved: PathBuf,
    /// Where it appears inside.
    pub(super) target: PathBuf,
    /// Whether it can be written.
    pub(super) writable: bool,
    /// The user and group on the host that the agent appears as; `None` where owners are left alone.
    pub(super) owner: Option<(u32, u32)>,
}

/// A path as its bytes in hexadecimal, since a host's need not be text.
mod bytes {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    use std::path::{Path, PathBuf};

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::super::images::hexadecimal;

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hexadecimal(path.as_os_str().as_bytes()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(digits).collect();
        bytes.map(|bytes| OsString::from_vec(bytes).into()).ok_or_else(|| D::Error::custom("a path is not hexadecimal"))
    }
}

impl Record {
    /// Reads the record in a container's directory; `None` where there is none.
    pub(super) fn read(directory: &Path) -> Result<Option<Self>> {
        let path = directory.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(&path, error)),
        };
        let record: Self = serde_json::from_slice(&text).map_err(|error| {
            Error::new(ErrorKind::Io, format!("{} is no record of a container", path.display())).with_source(error)
        })?;
        if record.version != VERSION {
            let message = format!("{} has form {}, this runtime writes {VERSION}", path.display(), record.version);
            return Err(
                Error::new(ErrorKind::Io, message).with_hint("remove the container with the version that made it")
            );
        }
        Ok(Some(record))
    }

    /// Writes the record as a whole, or leaves the one before.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join(FILE);
        let fresh = directory.join(FRESH);
        let write = || -> io::Result<()> {
            let text = serde_json::to_vec(self)?;
            fs::File::create(&fresh)?.write_all(&text)?;
            fs::rename(&fresh, &path)
        };
        write().map_err(|error| unusable(&path, error))
    }
}

/// The form of the record that this version writes.
pub(super) const VERSION: u32 = 6;
const FILE: &str = "record.json";
const FRESH: &str = "record.json.new";
