//! What is copied in and out.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::Result;

/// A directory of equal files.
#[derive(Debug)]
pub struct Tree {
    directory: TempDir,
    files: usize,
    bytes: u64,
}

impl Tree {
    /// Makes files of so many bytes, a hundred to a directory.
    ///
    /// # Errors
    /// The disk's.
    pub fn new(files: usize, bytes: usize) -> Result<Self> {
        let directory = scratch()?;
        let content: Vec<u8> = (0..=u8::MAX).cycle().take(bytes).collect();
        for number in 0..files {
            let folder = directory.path().join((number / 100).to_string());
            std::fs::create_dir_all(&folder)?;
            File::create(folder.join(number.to_string()))?.write_all(&content)?;
        }
        Ok(Self { directory, files, bytes: (files * bytes) as u64 })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Looks whether a copy has as many files and bytes.
    ///
    /// # Errors
    /// If it has not.
    pub fn compare(&self, copy: &Path) -> Result<()> {
        let (mut files, mut bytes) = (0, 0);
        let mut left = vec![copy.to_owned()];
        while let Some(directory) = left.pop() {
            for entry in std::fs::read_dir(directory)? {
                let entry = entry?;
                let data = entry.metadata()?;
                if data.is_dir() {
                    left.push(entry.path());
                } else {
                    files += 1;
                    bytes += data.len();
                }
            }
        }
        if (files, bytes) != (self.files, self.bytes) {
            return Err(format!("{files} files of {bytes} bytes came, not {} of {}", self.files, self.bytes).into());
        }
        Ok(())
    }
}

/// A repository with one commit.
#[derive(Debug)]
pub struct Repository(TempDir);

impl Repository {
    /// Makes one of so many files of 1 to 3 KB, a hundred to a directory, with all of them in one pack.
    ///
    /// # Errors
    /// The disk's, and git's.
    pub fn new(files: usize) -> Result<Self> {
        // Below a system directory, such as /dev, there is no workspace.
        let directory = tempfile::tempdir()?;
        for number in 0..files {
            let folder = directory.path().join("src").join((number / 100).to_string());
            std::fs::create_dir_all(&folder)?;
            std::fs::write(
                folder.join(format!("{number}.txt")),
                format!("line {number}\n").repeat(100 + number % 150),
            )?;
        }
        let settings = ["-c", "user.name=bench", "-c", "user.email=bench@example.org", "-c", "gc.auto=0"];
        for arguments in [&["init", "-q"][..], &["add", "."], &["commit", "-qm", "all"], &["repack", "-qad"]] {
            let status = Command::new("git").arg("-C").arg(directory.path()).args(settings).args(arguments).status()?;
            if !status.success() {
                return Err(format!("git {arguments:?} ended with {status}").into());
            }
        }
        Ok(Self(directory))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Makes a directory in memory where there is such a place, since the speed of a disk says nothing about those who copy.
///
/// # Errors
/// The file system's.
pub fn scratch() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    Ok(if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }?)
}
