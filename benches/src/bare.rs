//! The work, done by a child process and a pipe: the most that can be had.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::{CHUNK, Result};

/// Runs programs of the host.
#[derive(Clone, Copy, Debug)]
pub struct Bare;

impl Bare {
    /// Runs `true` to its end.
    ///
    /// # Errors
    /// If it fails.
    pub fn exec() -> Result<Duration> {
        let begun = Instant::now();
        let status = Command::new("true").status()?;
        if status.success() { Ok(begun.elapsed()) } else { Err(format!("true ended with {status}").into()) }
    }

    /// Takes this many bytes of a program's output.
    ///
    /// # Errors
    /// If the program fails, or the bytes are not as many.
    pub fn stream(bytes: u64) -> Result<Duration> {
        let mut command = Command::new("head");
        command.args(["-c", &bytes.to_string(), "/dev/zero"]);
        swallow(command, bytes)
    }
}

impl Bare {
    /// Copies a file by two of `cat` and the pipe between them.
    ///
    /// # Errors
    /// If one of them fails.
    pub fn cat(from: &Path, to: &Path) -> Result<Duration> {
        let begun = Instant::now();
        let mut reader = Command::new("cat").arg(from).stdout(Stdio::piped()).spawn()?;
        let pipe = reader.stdout.take().ok_or("cat has no output")?;
        let written = Command::new("cat").stdin(pipe).stdout(std::fs::File::create(to)?).status()?;
        let read = reader.wait()?;
        let took = begun.elapsed();
        if read.success() && written.success() {
            Ok(took)
        } else {
            Err(format!("cat ended with {read}, {written}").into())
        }
    }

    /// Copies a directory by `cp -a`.
    ///
    /// # Errors
    /// If it fails.
    pub fn copy(from: &Path, to: &Path) -> Result<Duration> {
        let begun = Instant::now();
        let status = Command::new("cp").arg("-a").args([from, to]).status()?;
        if status.success() { Ok(begun.elapsed()) } else { Err(format!("cp ended with {status}").into()) }
    }
}

/// Reads a command's output, a chunk at a time, to its end.
pub(crate) fn swallow(mut command: Command, bytes: u64) -> Result<Duration> {
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut output = child.stdout.take().ok_or("the program has no output")?;
    let (mut buffer, mut came) = (vec![0; CHUNK], 0);
    loop {
        match output.read(&mut buffer)? {
            0 => break,
            count => came += count as u64,
        }
    }
    let status = child.wait()?;
    let took = begun.elapsed();
    if !status.success() || came != bytes {
        return Err(format!("{came} bytes came, not {bytes}; the program ended with {status}").into());
    }
    Ok(took)
}
