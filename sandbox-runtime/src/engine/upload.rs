//! Sending the guest to an engine that does not see it.
//!
//! Invariant: it is sent to a container that has never run, so nothing inside can move what it is written to
//! (CVE-2018-15664), and what lies there is read back before the container is started.

use std::io::Read as _;

use bollard::query_parameters::{DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use futures_util::TryStreamExt as _;
use sandbox_core::{ContainerId, Error, ErrorKind, Result};
use sandbox_guest::wire::{GUEST_DIRECTORY, GUEST_PROGRAM};
use sha2::{Digest as _, Sha256};
use tar::{Archive, Builder, EntryType, Header};

use super::create::{HOSTS_CONTENT, HOSTS_TARGET};
use super::error::{Answer, senseless, within};
use super::{CREATE, Engine};

impl Engine {
    /// Writes the guest and the host names into a container that was made and not started.
    pub(super) async fn upload(&self, container: &ContainerId, program: &[u8]) -> Result<()> {
        let archive = pack(program).map_err(|error| Error::io("cannot pack the guest", error))?;
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        let sent =
            self.docker.upload_to_container(container.as_str(), Some(options), bollard::body_full(archive.into()));
        within(&self.endpoint, CREATE, "send the guest", sent).await.map_err(Answer::into_error)?;

        let most = program.len() + ROOM;
        let options = DownloadFromContainerOptionsBuilder::new().path(GUEST_DIRECTORY).build();
        let stream = self.docker.download_from_container(container.as_str(), Some(options));
        let received = stream.try_fold(Vec::new(), |mut all: Vec<u8>, part| async move {
            // Nothing beyond what is expected is kept, and its lack of sense is told below.
            if all.len() <= most {
                all.extend_from_slice(&part);
            }
            Ok(all)
        });
        let received = within(&self.endpoint, CREATE, "read the guest back", received).await;
        let received = received.map_err(Answer::into_error)?;
        if received.len() > most {
            return Err(other_than_sent("more than was sent"));
        }
        compare(&received, program)
    }
}

/// The guest's directory, which only root inside may enter, and a file of host names in place of the engine's empty one.
fn pack(program: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    let mut add = |path: &str, kind: EntryType, mode: u32, content: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path.trim_start_matches('/'), content)
    };
    add(GUEST_DIRECTORY, EntryType::Directory, DIRECTORY_MODE, b"")?;
    add(&format!("{GUEST_DIRECTORY}/{GUEST_PROGRAM}"), EntryType::Regular, PROGRAM_MODE, program)?;
    add(HOSTS_TARGET, EntryType::Regular, 0o644, HOSTS_CONTENT.as_bytes())?;
    archive.into_inner()
}

/// Looks at what lies there now: the directory and the program, as they were sent, and nothing else.
fn compare(received: &[u8], program: &[u8]) -> Result<()> {
    let mut archive = Archive::new(received);
    let nonsense = |error: std::io::Error| senseless("what it sends back of the guest").with_source(error);
    let directory = GUEST_DIRECTORY.trim_start_matches('/');
    let (mut directories, mut programs) = (0, 0);
    for entry in archive.entries().map_err(nonsense)? {
        let mut entry = entry.map_err(nonsense)?;
        let path = entry.path().map_err(nonsense)?.into_owned();
        let header = entry.header();
        let owned_by_root = header.uid().map_err(nonsense)? == 0 && header.gid().map_err(nonsense)? == 0;
        let mode = header.mode().map_err(nonsense)? & 0o7777;
        match (path.to_str().map(|path| path.trim_end_matches('/')), header.entry_type()) {
            (Some(path), EntryType::Directory) if path == directory => {
                if !owned_by_root || mode != DIRECTORY_MODE {
                    return Err(other_than_sent("a directory that others may enter"));
                }
                directories += 1;
            }
            (Some(path), EntryType::Regular) if path == format!("{directory}/{GUEST_PROGRAM}") => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).map_err(nonsense)?;
                let same = Sha256::digest(&content) == Sha256::digest(program);
                if !owned_by_root || mode != PROGRAM_MODE || !same {
                    return Err(other_than_sent("another program, or one that others may change"));
                }
                programs += 1;
            }
            _ => {
                let error =
                    Error::new(ErrorKind::ImageInvalid, format!("the image has files of its own in {GUEST_DIRECTORY}"));
                return Err(error.with_hint("use an image without that directory"));
            }
        }
    }
    if (directories, programs) == (1, 1) { Ok(()) } else { Err(other_than_sent("something is missing")) }
}

fn other_than_sent(what: &str) -> Error {
    Error::new(ErrorKind::Attestation, format!("the guest in the container is not the one that was sent: {what}"))
        .with_hint("the engine changed what it was given; see its log")
}

const DIRECTORY_MODE: u32 = 0o700;
const PROGRAM_MODE: u32 = 0o500;
/// Bytes of an archive of two entries beside the program: headers, padding and its end.
const ROOM: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, EntryType, u32, u64, &[u8])]) -> Vec<u8> {
        let mut archive = Builder::new(Vec::new());
        for (path, kind, mode, uid, content) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(*mode);
            header.set_uid(*uid);
            header.set_gid(0);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path, *content).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn only_what_was_sent_is_accepted() {
        use EntryType::{Directory, Regular};
        let directory: (&str, EntryType, u32, u64, &[u8]) = (".sandbox/", Directory, 0o40_700, 0, b"");
        let program: (&str, EntryType, u32, u64, &[u8]) = (".sandbox/guest", Regular, 0o100_500, 0, b"guest");
        compare(&archive(&[directory, program]), b"guest").unwrap();
        for (entries, kind) in [
            (vec![directory], ErrorKind::Attestation),
            (vec![program], ErrorKind::Attestation),
            (vec![directory, program, program], ErrorKind::Attestation),
            (vec![directory, (".sandbox/guest", Regular, 0o500, 0, b"other")], ErrorKind::Attestation),
            (vec![directory, (".sandbox/guest", Regular, 0o777, 0, b"guest")], ErrorKind::Attestation),
            (vec![directory, (".sandbox/guest", Regular, 0o4500, 0, b"guest")], ErrorKind::Attestation),
            (vec![directory, (".sandbox/guest", Regular, 0o500, 1_000, b"guest")], ErrorKind::Attestation),
            (vec![(".sandbox", Directory, 0o755, 0, b""), program], ErrorKind::Attestation),
            (vec![(".sandbox", Directory, 0o700, 1_000, b""), program], ErrorKind::Attestation),
            (vec![directory, program, (".sandbox/more", Regular, 0o500, 0, b"")], ErrorKind::ImageInvalid),
            (vec![directory, (".sandbox/guest", EntryType::Symlink, 0o500, 0, b"")], ErrorKind::ImageInvalid),
        ] {
            let error = compare(&archive(&entries), b"guest").unwrap_err();
            assert_eq!(error.kind(), kind, "{entries:?}: {error}");
        }
        for nonsense in [b"no archive at all".as_slice(), &[b'x'; 1_024]] {
            assert_eq!(compare(nonsense, b"guest").unwrap_err().kind(), ErrorKind::Engine);
        }
        assert_eq!(compare(b"", b"guest").unwrap_err().kind(), ErrorKind::Attestation);
    }

    #[test]
    fn what_is_sent_is_what_is_accepted() {
        let sent = pack(b"guest").unwrap();
        let mut names = Vec::new();
        for entry in Archive::new(sent.as_slice()).entries().unwrap() {
            names.push(entry.unwrap().path().unwrap().display().to_string());
        }
        assert_eq!(names, [".sandbox", ".sandbox/guest", "etc/hosts"]);
    }
}
