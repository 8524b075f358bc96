//! Reports what is in force, seen from a process that was made exactly as a program of the agent is.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, getppid, getrlimit};
use sandbox_guest::wire::{Failure, FailureKind, MAX_ENTRIES, Mount, Observed, Reply};

use crate::agent::{Refusal, become_agent};
use crate::control::Control;
use crate::failure::{failed, failure};
use crate::init::{Account, Guest};
use crate::procfs::{MountLine, parse_id_map, parse_interfaces, parse_mounts, parse_status, read};
use crate::{cgroup, deadline, sys};

/// How long the agent's process may take to report; whoever runs as the agent can stop it.
const MAX_REPORT_TIME: Duration = Duration::from_secs(5);

/// How much the agent's process may report, in bytes.
const MAX_REPORT: u64 = 64 << 10;

/// The longest options that are reported of one mount, in bytes; what a control needs comes first.
const MAX_OPTIONS: usize = 512;

/// Answers an attest request.
pub(crate) fn run(guest: &Guest, control: &Control) {
    let reply = match observe(guest) {
        Ok(observed) => Reply::Observed(Box::new(observed)),
        Err(failure) => Reply::Failed(failure),
    };
    if let Err(error) = control.send(&reply)
        && error.kind() == io::ErrorKind::InvalidInput
    {
        let told = failure(FailureKind::Io, libc::EMSGSIZE, format!("report does not fit: {error}"));
        // A host that does not take the answer has gone.
        let _ = control.send(&Reply::Failed(told));
    }
}

fn observe(guest: &Guest) -> Result<Observed, Failure> {
    let file = |path: &str| read(path).map_err(|error| failed(path, &error));
    let agent = observe_agent(guest).map_err(|error| failed("agent's process could not report", &error))?;
    let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let mounts = file("/proc/self/mountinfo")?;
    let root = statvfs("/").map_err(|error| failed("root directory", &error.into()))?;
    Ok(Observed {
        identity: (guest.account == Account::Known).then_some(guest.setup.agent),
        agent: parse_status(&agent.status),
        guest: parse_status(&file(&format!("/proc/{parent}/status"))?),
        cgroup: cgroup::limits(),
        unfiltered: agent.unfiltered,
        open_files: agent.open_files,
        core_size: agent.core_size,
        uid_map: parse_id_map(&file("/proc/self/uid_map")?),
        interfaces: parse_interfaces(&file("/proc/net/dev")?),
        mounts: parse_mounts(&mounts).take(MAX_ENTRIES).map(mount).collect(),
        kernel: kernel(),
        root_writable: !root.f_flag.contains(StatVfsMountFlags::RDONLY),
        remaining: guest.ends.saturating_duration_since(Instant::now()).as_secs(),
    })
}

/// The kernel that answers, in its own words.
fn kernel() -> String {
    let uname = rustix::system::uname();
    format!("{} {}", uname.release().to_string_lossy(), uname.version().to_string_lossy())
}

/// What the agent's process sees of itself.
struct AgentReport {
    unfiltered: Vec<String>,
    open_files: (u64, u64),
    core_size: (u64, u64),
    status: Vec<u8>,
}

/// Makes a process as [`crate::exec`] does and lets it read its own status: it can, although others cannot look into
/// it before it has run a program (prctl(2), `PR_SET_DUMPABLE`).
fn observe_agent(guest: &Guest) -> io::Result<AgentReport> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut writer = Some(File::from(writer));
    let child = sys::spawn(&mut || {
        let Some(mut writer) = writer.take() else { return 1 };
        u8::from(report(guest, &mut writer).is_err())
    })?;
    drop(writer);
    let report = receive(File::from(reader));
    // It has ended, or it must.
    let _ = sys::kill(child.as_raw_nonzero().get(), libc::SIGKILL);
    report
}

fn report(guest: &Guest, writer: &mut File) -> io::Result<()> {
    sys::default_signals();
    become_agent(&guest.setup).map_err(|refusal| match refusal {
        Refusal::Limits(error) | Refusal::Privileges(error) => error,
    })?;
    let mut numbers = Vec::with_capacity(32);
    for resource in [Resource::Nofile, Resource::Core] {
        let limit = getrlimit(resource);
        for value in [limit.current, limit.maximum] {
            numbers.extend(value.unwrap_or(u64::MAX).to_le_bytes());
        }
    }
    let mut status = read("/proc/self/status")?;
    // gVisor leaves the line out, and knows the answer all the same.
    if sys::no_new_privileges() {
        status.extend_from_slice(b"\nNoNewPrivs:\t1\n");
    }
    // Last, since one of them may leave the process in a place of its own.
    let through = sys::get_through().map(u8::from);
    writer.write_all(&[numbers, through.to_vec(), status].concat())
}

fn receive(mut reader: File) -> io::Result<AgentReport> {
    let latest = deadline::after(MAX_REPORT_TIME);
    let mut bytes = Vec::new();
    loop {
        let mut ready = [PollFd::new(&reader, PollFlags::IN)];
        let count = rustix::io::retry_on_intr(|| poll(&mut ready, Some(&deadline::until(latest))))?;
        if count == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut part = [0; 4096];
        match reader.read(&mut part)? {
            0 => break,
            length => bytes.extend_from_slice(&part[..length]),
        }
        if bytes.len() as u64 > MAX_REPORT {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the report is too long"));
        }
    }
    let parts = bytes.split_first_chunk::<32>();
    let parts = parts.and_then(|(numbers, rest)| Some((numbers, rest.split_first_chunk::<{ sys::FILTERED.len() }>()?)));
    let Some((numbers, (through, status))) = parts else {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the process ended before it reported"));
    };
    let through = sys::FILTERED.iter().zip(through).filter(|(_, through)| **through != 0);
    let number = |at: usize| {
        let mut value = [0; 8];
        value.copy_from_slice(&numbers[at * 8..at * 8 + 8]);
        u64::from_le_bytes(value)
    };
    Ok(AgentReport {
        unfiltered: through.map(|(name, _)| (*name).to_owned()).collect(),
        open_files: (number(0), number(1)),
        core_size: (number(2), number(3)),
        status: status.to_vec(),
    })
}

fn mount(line: MountLine) -> Mount {
    let read_only = |options: &str| options.split(',').any(|option| option == "ro");
    let size = statvfs(Path::new(OsStr::from_bytes(&line.target)))
        .ok()
        .map(|found| found.f_blocks.saturating_mul(found.f_frsize))
        .filter(|&size| size > 0);
    let mut options = format!("{},{}", line.options, line.super_options);
    if options.len() > MAX_OPTIONS {
        let end = options[..options.floor_char_boundary(MAX_OPTIONS)].rfind(',').unwrap_or(0);
        options.truncate(end);
    }
    Mount {
        read_only: read_only(&line.options) || read_only(&line.super_options),
        target: line.target,
        kind: line.kind,
        options,
        size,
    }
}
