//! What is copied in and out.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

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

/// Makes a directory in memory where there is such a place, since the speed of a disk says nothing about those who copy.
///
/// # Errors
/// The file system's.
pub fn scratch() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    Ok(if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }?)
}
