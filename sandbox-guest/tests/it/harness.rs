//! A host for one guest, and what tests ask of it.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{geteuid, getgid, getuid};
use sandbox_guest::frame::{receive, send};
use sandbox_guest::wire::{
    Command, Exec, Exit, Failure, Hello, Identity, MAX_TO_GUEST, MAX_TO_HOST, PROTOCOL, Reply, Request, RunAs, Setup,
    Status, Sudo,
};
use tempfile::TempDir;

/// No step of a test takes longer, unless something hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Whom the programs of a test run as.
pub(crate) fn agent() -> Identity {
    if geteuid().is_root() {
        Identity { uid: 1000, gid: 1000 }
    } else {
        Identity { uid: getuid().as_raw(), gid: getgid().as_raw() }
    }
}

pub(crate) fn setup() -> Setup {
    Setup {
        protocol: PROTOCOL,
        agent: agent(),
        user: None,
        lifetime: 600,
        processes: None,
        open_files: 256,
        environment: Vec::new(),
        sudo: Sudo::Denied,
        workspace: None,
    }
}

/// A guest and the host's side of its channel.
pub(crate) struct Host {
    pub(crate) channel: Option<UnixStream>,
    guest: Child,
    directory: TempDir,
}

impl Host {
    /// Starts a guest and agrees on the usual terms.
    pub(crate) fn start() -> Self {
        Self::with_setup(&setup())
    }

    pub(crate) fn with_setup(setup: &Setup) -> Self {
        Self::launch(setup, |socket| {
            let mut guest = Process::new(env!("CARGO_BIN_EXE_sandbox-guest"));
            guest.arg(socket);
            guest
        })
    }

    /// Starts a guest as process 1 of namespaces of its own, in which a script has run first. Needs root.
    pub(crate) fn contained(script: &str) -> Self {
        Self::launch(&setup(), |socket| {
            let mut unshare = Process::new("unshare");
            let line = format!("{script}\nexec {} \"$0\"", env!("CARGO_BIN_EXE_sandbox-guest"));
            unshare.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--net"]);
            unshare.args(["/bin/sh", "-ec", &line]).arg(socket).env("WORK", socket.with_file_name("work"));
            unshare
        })
    }

    /// Starts a guest by way of a command that changes what its process has. Needs root.
    pub(crate) fn through(setup: &Setup, command: &[&str]) -> Self {
        Self::launch(setup, |socket| {
            let mut process = Process::new(command[0]);
            process.args(&command[1..]).arg(env!("CARGO_BIN_EXE_sandbox-guest")).arg(socket);
            process
        })
    }

    fn launch(setup: &Setup, guest: impl FnOnce(&Path) -> Process) -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777)).unwrap();
        make_workspace(&directory.path().join("work"));
        let guest = guest(&socket).env("LD_LIBRARY_PATH", "/nowhere").stderr(Stdio::piped()).spawn().unwrap();
        let (channel, _) = listener.accept().unwrap();
        channel.set_read_timeout(Some(PATIENCE)).unwrap();
        let (hello, _) = receive::<Hello>(&channel, MAX_TO_HOST).unwrap().unwrap();
        assert_eq!(hello.protocol, PROTOCOL);
        send(&channel, setup, &[], MAX_TO_GUEST).unwrap();
        Self { channel: Some(channel), guest, directory }
    }

    pub(crate) fn guest_pid(&self) -> u32 {
        self.guest.id()
    }

    /// A directory that the agent owns, and that goes with the host.
    pub(crate) fn workspace(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// Sends a request with a new control.
    pub(crate) fn request(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Control {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut all = vec![theirs.as_fd()];
        all.extend_from_slice(descriptors);
        send(self.channel.as_ref().unwrap(), request, &all, MAX_TO_GUEST).unwrap();
        Control(ours)
    }

    /// Starts a program on three pipes.
    pub(crate) fn exec(&self, exec: Exec) -> Running {
        let (input, stdin) = io::pipe().unwrap();
        let (stdout, output) = io::pipe().unwrap();
        let (stderr, error) = io::pipe().unwrap();
        let control = self.request(&Request::Exec(exec), &[input.as_fd(), output.as_fd(), error.as_fd()]);
        Running { control, stdin: Some(stdin), stdout, stderr }
    }

    /// Runs a shell script to its end, with nothing to read.
    pub(crate) fn shell(&self, script: &str) -> Finished {
        self.exec(shell(script)).finish().unwrap()
    }

    /// Waits for the guest's end, and gives its status and what it said.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let status = eventually(|| self.guest.try_wait().unwrap());
        let mut text = String::new();
        self.guest.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        (status, text)
    }
}

fn make_workspace(path: &Path) {
    std::fs::create_dir(path).unwrap();
    let agent = agent();
    std::os::unix::fs::chown(path, Some(agent.uid), Some(agent.gid)).unwrap();
}

/// Whether a test that needs root must be left out, said aloud.
#[expect(clippy::disallowed_methods, reason = "only the environment tells whether anybody reads what a test says")]
pub(crate) fn without_root(test: &str) -> bool {
    let missing = !geteuid().is_root();
    if missing {
        assert!(std::env::var_os("CI").is_none(), "{test} needs root, and where nobody reads along nothing is skipped");
        eprintln!("SKIPPED: {test}: needs root");
    }
    missing
}

/// The children of a process.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let numbers =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    numbers.filter(|&pid| stat(pid).is_some_and(|(_, of)| of == parent)).collect()
}

impl Drop for Host {
    fn drop(&mut self) {
        self.channel = None;
        let latest = Instant::now() + PATIENCE;
        while self.guest.try_wait().unwrap().is_none() && Instant::now() < latest {
            thread::sleep(Duration::from_millis(2));
        }
        let _ = self.guest.kill();
        let _ = self.guest.wait();
    }
}

/// The host's side of a request.
pub(crate) struct Control(pub(crate) UnixStream);

impl Control {
    pub(crate) fn receive(&self) -> Option<(Reply, Vec<OwnedFd>)> {
        receive(&self.0, MAX_TO_HOST).unwrap()
    }

    pub(crate) fn reply(&self) -> Reply {
        self.receive().expect("the guest closed without a reply").0
    }

    pub(crate) fn send(&self, command: &Command) {
        send(&self.0, command, &[], MAX_TO_GUEST).unwrap();
    }

    pub(crate) fn failure(&self) -> Failure {
        match self.reply() {
            Reply::Failed(failure) => failure,
            other => panic!("{other:?} where a failure was due"),
        }
    }
}

/// A program that has been asked for.
pub(crate) struct Running {
    pub(crate) control: Control,
    pub(crate) stdin: Option<PipeWriter>,
    pub(crate) stdout: PipeReader,
    pub(crate) stderr: PipeReader,
}

impl Running {
    /// Waits until the program runs, and gives its process id.
    pub(crate) fn started(&self) -> u32 {
        match self.control.reply() {
            Reply::Started { pid } => pid,
            other => panic!("{other:?} where a start was due"),
        }
    }

    /// Reads one line of the program's output.
    pub(crate) fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.stdout.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// Closes the input and waits for the end of the program and of both streams.
    pub(crate) fn finish(self) -> Result<Finished, Failure> {
        match self.control.reply() {
            Reply::Started { .. } => Ok(self.finish_started()),
            Reply::Failed(failure) => Err(failure),
            other => panic!("{other:?} where a start was due"),
        }
    }

    pub(crate) fn finish_started(mut self) -> Finished {
        self.stdin = None;
        let mut errors = self.stderr;
        let stderr = thread::spawn(move || read_all(&mut errors));
        let stdout = read_all(&mut self.stdout);
        let stderr = stderr.join().unwrap();
        match self.control.reply() {
            Reply::Exited(exit) => Finished { exit, stdout, stderr },
            other => panic!("{other:?} where an exit was due"),
        }
    }
}

/// Reads to the end, which must not take longer than patience lasts.
pub(crate) fn read_all(stream: &mut PipeReader) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut part = vec![0; 1 << 16];
    loop {
        let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&patience)).unwrap();
        assert_eq!(ready, 1, "a stream did not end");
        match stream.read(&mut part).unwrap() {
            0 => return bytes,
            length => bytes.extend_from_slice(&part[..length]),
        }
    }
}

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) exit: Exit,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Finished {
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.stdout).unwrap()
    }

    pub(crate) fn code(&self) -> u8 {
        match self.exit.status {
            Status::Code(code) => code,
            Status::Signal(signal) => panic!("killed by signal {signal}"),
        }
    }
}

pub(crate) fn exec(argv: &[&str]) -> Exec {
    Exec {
        argv: argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
        environment: Vec::new(),
        directory: Some(b"/".to_vec()),
        deadline: None,
        grace: 100,
        terminal: None,
        run_as: RunAs::Agent,
    }
}

pub(crate) fn shell(script: &str) -> Exec {
    exec(&["/bin/sh", "-c", script])
}

/// Waits until a condition gives something; fails when patience is over.
pub(crate) fn eventually<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let latest = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < latest, "the awaited did not happen");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The state and the parent of a process, or nothing if it is not there.
pub(crate) fn stat(pid: u32) -> Option<(char, u32)> {
    let text = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let text = String::from_utf8_lossy(&text);
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Writes a file that anybody may read and run.
pub(crate) fn write_program(path: &Path, content: &[u8]) {
    File::create(path).unwrap().write_all(content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
