//! The work, done by the engine's own command.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::bare::swallow;
use crate::{Engine, IMAGE, Result, Turn};

/// Runs `docker`.
#[derive(Debug)]
pub struct CommandLine {
    engine: Engine,
}

impl CommandLine {
    /// Uses the engine.
    pub fn new(engine: &Engine) -> Self {
        Self { engine: engine.clone() }
    }

    /// Runs a program in a new container, waits for its first output, and for the end of all of it.
    ///
    /// # Errors
    /// If the command fails.
    pub fn turn(&self) -> Result<Turn> {
        let begun = Instant::now();
        let mut command = self.docker();
        command.args(["run", "--rm", "--network", "none", IMAGE, "echo", "ready"]).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut byte = [0];
        child.stdout.as_mut().ok_or("docker has no output")?.read_exact(&mut byte)?;
        let first_output = begun.elapsed();
        let ended = Instant::now();
        succeeded(child.wait()?)?;
        Ok(Turn { first_output, destroy: ended.elapsed() })
    }

    /// Starts so many containers at once and waits for the first output of each, and then for their end; returns after what
    /// time all had answered.
    ///
    /// # Errors
    /// If one of the commands fails.
    pub fn crowd(&self, count: usize) -> Result<Duration> {
        let begun = Instant::now();
        let mut running = Vec::new();
        for _ in 0..count {
            let mut command = self.docker();
            // Each stays until its input ends, as each sandbox stays until it is destroyed.
            command.args([
                "run",
                "--rm",
                "--interactive",
                "--network",
                "none",
                IMAGE,
                "sh",
                "-c",
                "echo ready; exec cat",
            ]);
            running.push(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?);
        }
        for child in &mut running {
            child.stdout.as_mut().ok_or("docker has no output")?.read_exact(&mut [0])?;
        }
        let took = begun.elapsed();
        for child in &mut running {
            drop(child.stdin.take());
        }
        running.into_iter().try_for_each(|mut child| succeeded(child.wait()?))?;
        Ok(took)
    }

    /// Runs `true` to its end in a container.
    ///
    /// # Errors
    /// If the command fails.
    pub fn exec(&self, container: &str) -> Result<Duration> {
        let begun = Instant::now();
        succeeded(self.docker().args(["exec", container, "true"]).status()?)?;
        Ok(begun.elapsed())
    }

    /// Takes this many bytes of a program's output in a container.
    ///
    /// # Errors
    /// If the command fails, or the bytes are not as many.
    pub fn stream(&self, container: &str, bytes: u64) -> Result<Duration> {
        let mut command = self.docker();
        command.args(["exec", container, "head", "-c", &bytes.to_string(), "/dev/zero"]);
        swallow(command, bytes)
    }

    /// Copies a host directory into a container; what an earlier copy left is removed first.
    ///
    /// # Errors
    /// If the command fails.
    pub fn upload(&self, container: &str, from: &Path) -> Result<Duration> {
        succeeded(self.docker().args(["exec", container, "rm", "-rf", INSIDE]).status()?)?;
        let begun = Instant::now();
        succeeded(self.docker().arg("cp").arg(from).arg(format!("{container}:{INSIDE}")).status()?)?;
        Ok(begun.elapsed())
    }

    /// Copies out what [`upload`](Self::upload) copied in.
    ///
    /// # Errors
    /// If the command fails.
    pub fn download(&self, container: &str, to: &Path) -> Result<Duration> {
        let begun = Instant::now();
        succeeded(self.docker().arg("cp").arg(format!("{container}:{INSIDE}/.")).arg(to).status()?)?;
        Ok(begun.elapsed())
    }

    fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command.args(["--host", &self.engine.address]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

/// Where files go inside.
const INSIDE: &str = "/home/agent/tree";

fn succeeded(status: std::process::ExitStatus) -> Result<()> {
    if status.success() { Ok(()) } else { Err(format!("docker ended with {status}").into()) }
}
