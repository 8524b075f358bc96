//! Process 1: connects, agrees on the terms, and hands each request to a process of its own.
//!
//! It never waits for anything but its host and its time, so that nothing inside the sandbox can hold it up. It ends
//! when either is over, and the kernel then ends everything else in its process namespace (`pid_namespaces(7)`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, geteuid, getpid, set_child_subreaper, set_dumpable_behavior};
use rustix::stdio::{dup2_stdin, dup2_stdout};
use sandbox_guest::frame::{Incoming, receive, send};
use sandbox_guest::relay::{Relay, Side};
use sandbox_guest::wire::{
    FailureKind, Hello, Identity, MAX_TO_GUEST, MAX_TO_HOST, PROTOCOL, Reply, Request, Setup, Sudo,
};

use crate::agent::is_agent;
use crate::cgroup::{self, MemoryEvents};
use crate::control::{Control, refuse};
use crate::environment::Environment;
use crate::failure::{failed, failure, invalid};
use crate::family::{Family, Territory};
use crate::{account, attest, deadline, files, listen, offer, supervise, sys};

/// How long the host may take to answer the first message.
const MAX_SETUP: Duration = Duration::from_mins(1);

/// How long a worker whose host has gone may take to clean up.
const MAX_TIDYING: Duration = Duration::from_secs(2);

/// Where the host is.
#[derive(Debug)]
pub(crate) enum Door {
    /// At the other end of the standard streams, which carry bytes alone.
    Relay,
    /// Behind a socket.
    Socket(PathBuf),
}

/// What the channel carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Bytes alone, as a relay does.
    Bytes,
    /// Descriptors, too.
    Descriptors,
}

/// Whether the image knows the user that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Account {
    /// It does, or it names none.
    Known,
    /// It does not.
    Unknown,
}

/// What holds for every request.
#[derive(Debug)]
pub(crate) struct Guest {
    /// What the channel carries.
    pub(crate) transport: Transport,
    /// The host's terms.
    pub(crate) setup: Setup,
    /// Whether the image knows the user that the terms name, if they name one.
    pub(crate) account: Account,
    /// What programs find in their environment.
    pub(crate) environment: Environment,
    /// What those find that run as root.
    pub(crate) root_environment: Environment,
    /// The count of what the memory limit has killed.
    pub(crate) memory: MemoryEvents,
    /// Whose processes there are beside ours.
    pub(crate) territory: Territory,
    /// When the sandbox ends.
    pub(crate) ends: Instant,
}

/// The descriptors that are process 1's alone.
#[derive(Debug)]
struct Own {
    channel: OwnedFd,
    signals: OwnedFd,
}

/// Serves a host until it has gone, its time is over or it no longer makes sense.
pub(crate) fn run(door: &Door) -> io::Result<()> {
    sys::close_inherited();
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    sys::default_signals();
    sys::ignore_signal(libc::SIGCHLD);
    sys::ignore_signal(libc::SIGPIPE);
    let territory = if getpid().is_init() { Territory::Namespace } else { Territory::Shared };
    if territory == Territory::Shared {
        set_child_subreaper(Some(getpid()))?;
    }
    // A signal's default does nothing to process 1 (pid_namespaces(7)), so these are read rather than awaited.
    let signals = sys::signal_descriptor(&[libc::SIGTERM, libc::SIGINT, libc::SIGHUP])?;
    let (channel, transport) = match door {
        Door::Relay => (relayed()?, Transport::Bytes),
        Door::Socket(path) => (UnixStream::connect(path)?, Transport::Descriptors),
    };
    let (setup, account) = agree(&channel)?;
    channel.set_nonblocking(true)?;
    // Where it cannot be done, the report says so, and the host decides.
    if let Some(processes) = setup.processes {
        let _ = cgroup::limit_processes(processes);
    }
    // What lies on a host of others is not ours to change.
    if territory == Territory::Namespace && geteuid().is_root() {
        account::provide(setup.agent);
        if let Some(workspace) = &setup.workspace {
            account::provide_workspace(setup.agent, workspace);
        }
        // Where it cannot be done, whoever asks for `sudo` finds none.
        if setup.sudo == Sudo::Offered {
            let _ = offer::offer();
        }
    }
    let guest = Guest {
        transport,
        environment: Environment::new(std::env::vars_os(), &setup),
        root_environment: Environment::of_root(std::env::vars_os(), &setup),
        memory: MemoryEvents::find(),
        ends: deadline::after(Duration::from_secs(setup.lifetime)),
        territory,
        setup,
        account,
    };
    let mut own = Some(Own { channel: channel.into(), signals });
    // However it came, the end is the end: what the host sent last is no reason to stay.
    let _ = guest.serve(&mut own);
    if territory == Territory::Shared {
        // Nobody else ends what was started.
        let ended = sys::signal_descriptor(&[libc::SIGCHLD])?;
        Family::new(guest.setup.agent, territory, None).end(ended);
    }
    Ok(())
}

/// Has a process of its own carry the channel over the standard streams, which then are that process's alone: when
/// the host closes them, it ends, and with it the channel.
fn relayed() -> io::Result<UnixStream> {
    let (channel, theirs) = UnixStream::pair()?;
    let mut parts = Some((rustix::io::dup(rustix::stdio::stdin())?, rustix::io::dup(rustix::stdio::stdout())?, theirs));
    let (nothing, _) = pipe_with(PipeFlags::CLOEXEC)?;
    dup2_stdin(&nothing)?;
    dup2_stdout(&nothing)?;
    let mut ours = Some(channel);
    sys::spawn(&mut || {
        drop(ours.take());
        let Some((input, output, theirs)) = parts.take() else { return 1 };
        let relay = Relay::new(Side::Guest, input, output, theirs.into());
        u8::from(relay.and_then(Relay::run).is_err())
    })?;
    ours.ok_or_else(|| io::Error::other("the channel is gone"))
}

/// Says hello and learns the terms.
fn agree(channel: &UnixStream) -> io::Result<(Setup, Account)> {
    send(channel, &Hello { protocol: PROTOCOL }, &[], MAX_TO_HOST)?;
    channel.set_read_timeout(Some(MAX_SETUP))?;
    let Some((mut setup, _)) = receive::<Setup>(channel, MAX_TO_GUEST)? else {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the host closed before it sent its terms"));
    };
    if setup.protocol != PROTOCOL {
        let text = format!("the host speaks protocol {}, this guest speaks {PROTOCOL}", setup.protocol);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let account = match setup.user.as_deref().map(account::find) {
        Some(None) => Account::Unknown,
        // Whoever is root in the image is an ordinary user here.
        Some(Some(Identity { uid: 0, .. })) | None => Account::Known,
        Some(Some(found)) => {
            setup.agent = found;
            Account::Known
        }
    };
    if setup.agent.uid == u32::MAX || setup.agent.gid == u32::MAX {
        let text = format!("agent {}:{} asked, ids up to 4294967294 are allowed", setup.agent.uid, setup.agent.gid);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    if !geteuid().is_root() && !is_agent(setup.agent)? {
        let (agent, own) = (setup.agent, geteuid().as_raw());
        let text = format!("agent {}:{} asked, and user {own} can only be itself", agent.uid, agent.gid);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    Ok((setup, account))
}

impl Guest {
    fn serve(&self, own: &mut Option<Own>) -> io::Result<()> {
        let mut frame = Incoming::new(MAX_TO_GUEST);
        while let Some(Own { channel, signals }) = own {
            let mut ready = [PollFd::new(channel, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
            match poll(&mut ready, Some(&deadline::until(self.ends))) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if Instant::now() >= self.ends || !ready[1].revents().is_empty() {
                return Ok(());
            }
            if ready[0].revents().is_empty() {
                continue;
            }
            match frame.advance(channel.as_fd()) {
                Ok(()) => {
                    let complete = std::mem::replace(&mut frame, Incoming::new(MAX_TO_GUEST));
                    let (request, descriptors) = complete.finish()?;
                    self.dispatch(own, request, descriptors)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives a request to a new process; a request that nobody can be told about is an error.
    fn dispatch(&self, own: &mut Option<Own>, request: Request, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let mut descriptors = descriptors.into_iter();
        let Some(control) = descriptors.next() else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a request without its control"));
        };
        let streams: Vec<_> = descriptors.collect();
        let wanted = streams_of(&request);
        if streams.len() != wanted {
            let text = format!("{} descriptors passed beside the control, {wanted} are needed", streams.len());
            refuse(control, invalid(text));
            return Ok(());
        }
        let mut parts = Some((request, control, streams));
        let forked = sys::spawn(&mut || {
            own.take();
            sys::default_signals();
            if let Some((request, control, streams)) = parts.take()
                && let Ok(control) = Control::new(control)
            {
                self.carry_out(request, control, streams);
            }
            0
        });
        if let (Err(error), Some((_, control, _))) = (forked, parts) {
            let told = failed("request could not be started", &error);
            refuse(control, failure(FailureKind::Exhausted, told.errno, told.message));
        }
        Ok(())
    }

    fn carry_out(&self, request: Request, control: Control, streams: Vec<OwnedFd>) {
        match request {
            Request::Attest => attest::run(self, &control),
            Request::Exec(exec) => supervise::run(self, exec, control, streams),
            Request::Listen(socket) => listen::run(self.transport, socket, &control),
            request => self.watch(request, control, streams),
        }
    }

    /// Has a request about files carried out by a process that becomes the agent, and ends it when the host has gone: the
    /// agent may stop that process, and cannot stop this one.
    fn watch(&self, request: Request, control: Control, streams: Vec<OwnedFd>) {
        // The worker's end is to be waited for, so that its number stays its own.
        sys::default_signals();
        let mut work = match pipe_with(PipeFlags::CLOEXEC) {
            Ok((ended, alive)) => Some((ended, alive, request, control, streams)),
            Err(error) => return told(&control, &error.into()),
        };
        let worker = sys::spawn(&mut || {
            if let Some((ended, _alive, request, control, streams)) = work.take() {
                drop(ended);
                files::run(self, request, control, streams);
            }
            0
        });
        let Some((ended, alive, _, control, streams)) = work else { return };
        drop((alive, streams));
        match worker {
            Ok(worker) => {
                // What has ended is told unasked (poll(2)), and there is nothing else to hear.
                let mut ready = [PollFd::new(&control, PollFlags::empty()), PollFd::new(&ended, PollFlags::empty())];
                let _ = rustix::io::retry_on_intr(|| poll(&mut ready, None));
                // A worker that hears of it cleans up after itself.
                let patience = deadline::until(deadline::after(MAX_TIDYING));
                let mut ready = [PollFd::new(&ended, PollFlags::empty())];
                let _ = rustix::io::retry_on_intr(|| poll(&mut ready, Some(&patience)));
                let _ = sys::kill(worker.as_raw_nonzero().get(), libc::SIGKILL);
            }
            Err(error) => told(&control, &error),
        }
    }
}

/// Tells a host that its request could not be started.
fn told(control: &Control, error: &io::Error) {
    let failed = failed("request could not be started", error);
    // A host that does not take the answer has gone.
    let _ = control.post(&Reply::Failed(failure(FailureKind::Exhausted, failed.errno, failed.message)), &[]);
}

/// How many descriptors a request brings beside its control.
fn streams_of(request: &Request) -> usize {
    match request {
        Request::Exec(exec) if exec.terminal.is_none() => 3,
        Request::Attest
        | Request::Exec(_)
        | Request::List { .. }
        | Request::Listen(_)
        | Request::MakeDirectory { .. }
        | Request::Share { .. }
        | Request::Remove { .. }
        | Request::Stat { .. } => 0,
        Request::Pack { .. }
        | Request::Place { .. }
        | Request::Read { .. }
        | Request::Unpack { .. }
        | Request::Write { .. } => 1,
    }
}
