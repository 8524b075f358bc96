//! Who an image's user is, by its own files, which are hostile: read below its root, without a link out of it, and bounded.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use sandbox_guest::user::{MAX_FILE, find, split};

/// Turns what an image says into `UID:GID`; none where its files do not know whom it names.
pub(super) fn numbered(rootfs: &Path, named: &str) -> Option<String> {
    let (user, group) = split(named)?;
    let found = find(&read(rootfs, "etc/passwd"), &read(rootfs, "etc/group"), user, group)?;
    Some(format!("{}:{}", found.uid, found.gid))
}

/// What can be read; a file that is missing, or none, holds nothing.
fn read(rootfs: &Path, name: &str) -> Vec<u8> {
    let open = || {
        let root = openat(CWD, rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        openat2(root, name, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    };
    let mut text = Vec::new();
    if let Ok(file) = open()
        && fstat(&file).is_ok_and(|data| FileType::from_raw_mode(data.st_mode) == FileType::RegularFile)
    {
        // What could be read until an error is as good as a shorter file.
        let _ = File::from(file).take(MAX_FILE).read_to_end(&mut text);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_name_is_looked_up_in_the_image_and_nowhere_else() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("passwd"), "host:x:7:7::/:\n").unwrap();
        let image = tempfile::tempdir().unwrap();
        fs::create_dir_all(image.path().join("etc")).unwrap();
        fs::create_dir_all(image.path().join("nix")).unwrap();
        assert_eq!(numbered(image.path(), "vscode"), None);
        symlink(outside.path().join("passwd"), image.path().join("etc/passwd")).unwrap();
        assert_eq!(numbered(image.path(), "host"), None, "no link leads out");
        fs::remove_file(image.path().join("etc/passwd")).unwrap();
        symlink("/nix/passwd", image.path().join("etc/passwd")).unwrap();
        fs::write(image.path().join("nix/passwd"), "vscode:x:1000:1001::/home/vscode:\n").unwrap();
        assert_eq!(numbered(image.path(), "vscode").unwrap(), "1000:1001");
        assert_eq!(numbered(image.path(), "vscode:missing"), None);
        assert_eq!(numbered(image.path(), "a b"), None);
        fs::remove_file(image.path().join("nix/passwd")).unwrap();
        rustix::fs::mknodat(CWD, image.path().join("nix/passwd"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert_eq!(numbered(image.path(), "vscode"), None, "a pipe is not waited for");
    }
}
