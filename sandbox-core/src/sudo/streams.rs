//! The streams that a caller brings.
//!
//! They go back to where they came from, and are never read or written here. Still, what names a place rather than a stream is
//! refused: a program that runs as root is not handed directories, devices or paths by whoever asked for it.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, major};
use rustix::termios::isatty;

/// Takes three streams.
///
/// # Errors
/// What is wrong with them, for the caller.
pub(super) fn check(descriptors: &[OwnedFd]) -> Result<(), String> {
    if descriptors.len() != NAMES.len() {
        return Err(format!("{} descriptors were passed, and 3 are needed", descriptors.len()));
    }
    for (name, descriptor) in NAMES.iter().zip(descriptors) {
        let kind = || -> rustix::io::Result<Option<&'static str>> {
            if fcntl_getfl(descriptor)?.contains(OFlags::PATH) {
                return Ok(Some("a path"));
            }
            let found = fstat(descriptor)?;
            Ok(match FileType::from_raw_mode(found.st_mode) {
                FileType::Fifo | FileType::RegularFile | FileType::Socket => None,
                // The null device and its like, and terminals.
                FileType::CharacterDevice if major(found.st_rdev) == MEMORY || isatty(descriptor) => None,
                FileType::Directory => Some("a directory"),
                FileType::Symlink => Some("a link"),
                _ => Some("a device"),
            })
        };
        match kind() {
            Ok(None) => {}
            Ok(Some(kind)) => return Err(format!("{name} is {kind}, and a stream is needed")),
            Err(_) => return Err(format!("{name} is of no known kind, and a stream is needed")),
        }
    }
    Ok(())
}

const NAMES: [&str; 3] = ["standard input", "standard output", "standard error"];

/// The major number of `/dev/null` and its like (null(4)).
const MEMORY: u32 = 1;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    use rustix::fs::{CWD, Mode, openat};

    use super::*;

    fn three(third: OwnedFd) -> Vec<OwnedFd> {
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        vec![null(), null(), third]
    }

    #[test]
    fn streams_are_taken_and_places_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("file", &link).unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        let (socket, _other) = UnixStream::pair().unwrap();
        for stream in [File::open(&file).unwrap().into(), reader.into(), socket.into()] {
            assert_eq!(check(&three(stream)), Ok(()));
        }
        let path = |path: &std::path::Path, flags| openat(CWD, path, flags, Mode::empty()).unwrap();
        let (whole, named) = (OFlags::PATH, OFlags::PATH | OFlags::NOFOLLOW);
        for (place, word) in [
            (path(directory.path(), OFlags::RDONLY), "a directory"),
            (path(directory.path(), whole), "a path"),
            (path(&file, whole), "a path"),
            (path(&link, named), "a path"),
        ] {
            let refused = check(&three(place)).unwrap_err();
            assert_eq!(refused, format!("standard error is {word}, and a stream is needed"));
        }
        assert!(check(&[]).unwrap_err().starts_with("0 descriptors"));
    }
}
