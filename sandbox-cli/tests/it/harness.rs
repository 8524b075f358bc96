//! A place of its own for each test: a run root, a home and a policy that nobody else uses.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What the engine of these tests may lack.
const POLICY: &str = "version = 1\nname = [\"test\"]\nwaive = [\"disk\", \"user-namespace\"]\n";

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_mins(1);

/// A place for one test.
pub(crate) struct Place {
    directory: TempDir,
    engine: Engine,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Engine {
    Absent,
    Embedded,
    Real,
}

impl Place {
    /// A place with the real engine.
    pub(crate) fn new() -> Self {
        Self::make(Engine::Real)
    }

    /// A place in which no engine is named, under the policy `standard` as it is.
    pub(crate) fn embedded() -> Self {
        let place = Self::make(Engine::Embedded);
        std::fs::remove_file(place.path("config/sandbox/policy.toml")).unwrap();
        place
    }

    /// A place in which no engine answers.
    pub(crate) fn without_engine() -> Self {
        Self::make(Engine::Absent)
    }

    fn make(engine: Engine) -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap(), engine };
        std::fs::create_dir_all(place.path("config/sandbox")).unwrap();
        std::fs::write(place.path("config/sandbox/policy.toml"), POLICY).unwrap();
        place
    }

    /// A path in this place.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A workspace that the agent may write.
    pub(crate) fn workspace(&self) -> PathBuf {
        let path = self.path("workspace");
        std::fs::create_dir(&path).unwrap();
        // As root the agent is 1000:1000; as anybody else, it is who runs the test.
        let _ = std::os::unix::fs::chown(&path, Some(1000), Some(1000));
        path
    }

    /// The command, not yet run, with nothing to read.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandbox"));
        let kept = ["PATH"].map(|name| (name, variable(name)));
        command
            .args(arguments)
            .env_clear()
            .envs(kept)
            .env("HOME", self.directory.path())
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("SANDBOX_RUN_ROOT", self.path("run"))
            .env("SANDBOX_STATE", self.path("state"))
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        match self.engine {
            Engine::Absent => command.env("DOCKER_HOST", format!("unix://{}", self.path("none.sock").display())),
            Engine::Embedded => &mut command,
            Engine::Real => {
                command.env("DOCKER_HOST", variable("DOCKER_HOST")).env("SANDBOX_IMAGE", variable("SANDBOX_TEST_IMAGE"))
            }
        };
        command
    }

    /// Runs the command to its end.
    pub(crate) fn sandbox(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).output().unwrap())
    }

    /// Runs the command to its end, which must be a success, and gives its standard output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.sandbox(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
        ran.stdout
    }

    /// Runs the command with something to read.
    pub(crate) fn fed(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeding = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        // A program need not read all that it is given.
        let _ = feeding.join().unwrap();
        Ran::from(output)
    }

    /// Starts the command and waits for the first line that it prints.
    pub(crate) fn started(&self, arguments: &[&str]) -> (Child, BufReader<ChildStdout>, String) {
        let mut child = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        (child, stdout, line)
    }

    /// The engine's containers that belong to this place, by the directory that is mounted into each.
    pub(crate) fn containers(&self) -> Vec<String> {
        match self.engine {
            Engine::Absent => return Vec::new(),
            Engine::Embedded => return self.embedded_containers(),
            Engine::Real => {}
        }
        let format = "{{.ID}} {{.Mounts}}";
        let output = Command::new("docker")
            .args(["ps", "--all", "--no-trunc", "--filter", "label=dev.sandbox.id", "--format", format])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let run = self.path("run").display().to_string();
        let lines = String::from_utf8(output.stdout).unwrap();
        lines.lines().filter(|line| line.contains(&run)).map(str::to_owned).collect()
    }

    fn embedded_containers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("state/containers")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// The sandboxes that have a run directory.
    pub(crate) fn run_directories(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path("run")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// Fails if anything of this place's sandboxes is left.
    pub(crate) fn assert_nothing_left(&self) {
        assert_eq!(self.containers(), Vec::<String>::new());
        assert_eq!(self.run_directories(), Vec::<PathBuf>::new());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A test that has failed leaves nothing behind either.
            let _ = self.command(&["down", "--all"]).output();
        } else {
            self.assert_nothing_left();
        }
    }
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) bytes: Vec<u8>,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout[..output.stdout.len().min(100_000)]).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            bytes: output.stdout,
        }
    }
}

/// Reads one variable, without which no test here can say anything.
#[expect(clippy::disallowed_methods, reason = "tests are told by their environment which engine to use")]
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run these tests by `scripts/test`"))
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come to hold");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal to a process that this test has started.
pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Whether a process is there and no zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    AsRef::<OsStr>::as_ref(path).to_str().unwrap()
}
