//! `cp`: files and trees, into a sandbox and out of it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sandbox_core::{Entry, EntryKind, ErrorKind, SkipReason, Skipped, Summary, TransferLimits};
use serde::Serialize;
use tokio::fs::File;

use crate::args::{CpArgs, Place};
use crate::client::Attachment;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::progress::{Progress, Step};

/// Bytes that are read from or written to a file at once.
const CHUNK: usize = 256 << 10;

pub(super) async fn run(config: &Config, CpArgs { source, target }: CpArgs) -> Result<u8> {
    let copying = async {
        match (source, target) {
            (from @ (Place::Here(_) | Place::Stream), Place::Inside { id, path }) => {
                let side = Side::open(config, &id, &path).await?;
                match from {
                    Place::Here(from) => side.upload(&from).await,
                    _ => side.write_from(0o644, stream(rustix::stdio::stdin())?, &side.path).await,
                }
            }
            (Place::Inside { id, path }, to @ (Place::Here(_) | Place::Stream)) => {
                let side = Side::open(config, &id, &path).await?;
                match to {
                    Place::Here(to) => side.download(&to).await,
                    _ => side.read_to(stream(rustix::stdio::stdout())?).await,
                }
            }
            _ => Err(Failure::new(ErrorKind::InvalidInput, "exactly one side must be inside a sandbox")
                .with_hint("write it as ID:PATH")),
        }
    };
    let progress = Progress::new(config.screen);
    progress.show(&Step::Working("copying".to_owned()));
    let copied = copying.await;
    progress.clear();
    let copied = Copied::from(copied?);
    for skipped in &copied.skipped {
        config.screen.warn(&format!("left out {}: {}", skipped.path, skipped.why));
    }
    let unnamed = copied.skipped_entries.saturating_sub(u64::try_from(copied.skipped.len()).unwrap_or(u64::MAX));
    if unnamed > 0 {
        config.screen.warn(&format!("left out {unnamed} more"));
    }
    if config.screen.is_json() {
        // Beside the bytes, where those go to standard output.
        config.screen.aside(&copied, String::new)?;
    }
    Ok(0)
}

/// The side that is inside.
#[derive(Debug)]
struct Side {
    attachment: Attachment,
    path: PathBuf,
}

impl Side {
    /// A relative path starts at the workspace.
    async fn open(config: &Config, id: &str, path: &OsStr) -> Result<Self> {
        let attachment = Attachment::to(&config.run_root, id).await?;
        let start = attachment.attached.directory.as_deref().map(Path::new);
        let path = match start {
            _ if Path::new(path).is_absolute() => path.into(),
            Some(start) => start.join(path),
            None => {
                let message = format!(
                    "the path {} inside is relative, and the sandbox has no workspace",
                    Path::new(path).display()
                );
                return Err(Failure::new(ErrorKind::InvalidInput, message).with_hint("write an absolute path"));
            }
        };
        Ok(Self { attachment, path })
    }

    /// What is at a path inside, with links followed where they lead to a directory.
    async fn look(&self, path: &Path) -> Result<Option<Entry>> {
        let guest = &self.attachment.guest;
        let entry = match guest.stat(path).await {
            Ok(entry) => entry,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if entry.kind == EntryKind::Symlink {
            match guest.stat(path.join(".")).await {
                Ok(directory) => return Ok(Some(directory)),
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidInput | ErrorKind::Io) => {
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(entry))
    }

    async fn upload(&self, from: &Path) -> Result<Summary> {
        let failed = |error| Failure::io(format!("cannot read {}", from.display()), error);
        let data = tokio::fs::metadata(from).await.map_err(failed)?;
        let there = self.look(&self.path).await?;
        let into = there.is_some_and(|entry| entry.kind == EntryKind::Directory);
        let target = if into && !is_content(from) { self.path.join(name_here(from)?) } else { self.path.clone() };
        if data.is_dir() {
            return Ok(self.attachment.guest.upload(from, &target, TransferLimits::default()).await?);
        }
        let mut file = File::open(from).await.map_err(failed)?;
        file.set_max_buf_size(CHUNK);
        self.write_from(data.permissions().mode() & 0o777, file, &target).await
    }

    async fn write_from(&self, mode: u32, from: File, to: &Path) -> Result<Summary> {
        let bytes = self.attachment.guest.write_from(to, mode, from).await?;
        Ok(Summary { entries: 1, bytes, ..Summary::default() })
    }

    async fn download(&self, to: &Path) -> Result<Summary> {
        let failed = |error| Failure::io(format!("cannot write {}", to.display()), error);
        let entry = self.look(&self.path).await?.ok_or_else(|| {
            Failure::new(ErrorKind::NotFound, format!("{} does not exist in the sandbox", self.path.display()))
        })?;
        let target = if to.is_dir() && !is_content(&self.path) { to.join(self.name()?) } else { to.to_owned() };
        if entry.kind == EntryKind::Directory {
            match std::fs::create_dir(&target) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
                _ => {}
            }
            return Ok(self.attachment.guest.download(&self.path, &target, TransferLimits::default()).await?);
        }
        if target.exists() && !target.is_file() {
            // A device or a pipe is written to as it is.
            return self.read_to(File::options().write(true).open(&target).await.map_err(failed)?).await;
        }
        // It appears whole or not at all; the process's umask holds as for any new file.
        let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // A link says nothing of the file that it leads to.
        let mode = if entry.kind == EntryKind::Symlink { 0o644 } else { entry.mode & 0o777 };
        let permissions = std::fs::Permissions::from_mode(mode);
        let new = tempfile::Builder::new().permissions(permissions).tempfile_in(directory).map_err(failed)?;
        let copied = self.read_to(File::from_std(new.as_file().try_clone().map_err(failed)?)).await?;
        new.persist(&target).map_err(|error| failed(error.error))?;
        Ok(copied)
    }

    async fn read_to(&self, mut to: File) -> Result<Summary> {
        to.set_max_buf_size(CHUNK);
        let bytes = self.attachment.guest.read_to(&self.path, to).await?;
        Ok(Summary { entries: 1, bytes, ..Summary::default() })
    }

    fn name(&self) -> Result<OsString> {
        self.path.file_name().map(OsStr::to_owned).ok_or_else(|| {
            Failure::new(ErrorKind::InvalidInput, format!("{} has no name to copy it under", self.path.display()))
        })
    }
}

/// Whether a path stands for what is in a directory, as `tree/.` does.
fn is_content(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(b"/.")
}

fn name_here(path: &Path) -> Result<OsString> {
    let failed = |error| Failure::io(format!("cannot tell the name of {}", path.display()), error);
    match path.file_name() {
        Some(name) => Ok(name.to_owned()),
        None => Ok(path.canonicalize().map_err(failed)?.file_name().unwrap_or_default().to_owned()),
    }
}

/// One of this process's own streams as a file.
fn stream(descriptor: impl AsFd) -> Result<File> {
    let failed = |error| Failure::io("cannot use the standard streams", error);
    let own: OwnedFd = descriptor.as_fd().try_clone_to_owned().map_err(failed)?;
    let mut file = File::from_std(own.into());
    file.set_max_buf_size(CHUNK);
    Ok(file)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Copied {
    entries: u64,
    bytes: u64,
    skipped: Vec<LeftOut>,
    skipped_entries: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct LeftOut {
    path: String,
    why: &'static str,
}

impl From<Summary> for Copied {
    fn from(summary: Summary) -> Self {
        let Summary { entries, bytes, skipped, skipped_entries } = summary;
        let left_out = |Skipped { path, why }| LeftOut {
            path: String::from_utf8_lossy(&path).into_owned(),
            why: match why {
                SkipReason::EscapingLink => "a link that leads out of the tree",
                SkipReason::Special => "a device, a pipe or a socket",
                SkipReason::Unreadable => "it may not be read",
            },
        };
        Self { entries, bytes, skipped: skipped.into_iter().map(left_out).collect(), skipped_entries }
    }
}
