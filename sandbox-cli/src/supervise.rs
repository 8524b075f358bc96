//! The process that holds a sandbox for `up`: this program again, with the verb `supervise`.
//!
//! `up` hands over a socket as its standard input. Over it comes the plan, and back go steps, warnings, and either
//! readiness or the failure. From then on nothing ties the supervisor to `up`: it has its own session, none of its
//! descriptors, and ends on `down`, on a signal, or with the sandbox.

mod descriptors;

use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use sandbox_core::{ErrorKind, Runtime, Sandbox};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::args::{Global, SandboxArgs};
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::hold::Holder;
use crate::outward::Outward;
use crate::progress::{Sink, Step};
use crate::protocol::{News, Taken, ended, receive, send};
use crate::signals::Signals;

/// What a supervisor is started with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) global: Global,
    pub(crate) sandbox: SandboxArgs,
}

/// The file of the running program, under which it is found though its own name has changed (proc(5)).
const SELF: &str = "/proc/self/exe";

/// Steps that are on their way to `up`; where it is slow, later ones are left out.
const STEPS: usize = 64;

/// Starts a supervisor; the plan is sent and news comes over what is returned.
pub(crate) fn spawn(plan: &Plan) -> Result<StdUnixStream> {
    let failed = |error| Failure::io("cannot start the process that holds the sandbox", error);
    let (ours, theirs) = StdUnixStream::pair().map_err(failed)?;
    descriptors::keep_from_children().map_err(failed)?;
    // Nobody waits for it: it outlives this process, and is then waited for by the machine's first.
    Command::new(SELF)
        .arg0("sandbox")
        .arg("supervise")
        .stdin(std::os::fd::OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let plan = serde_json::to_string(plan).map_err(|error| failed(error.into()))?;
    sandbox_guest::frame::send(&ours, &plan, &[], crate::protocol::MAX_FRAME).map_err(failed)?;
    Ok(ours)
}

/// Receives one piece of news; nothing when the supervisor has gone.
pub(crate) fn news(stream: &StdUnixStream) -> Result<Option<News>> {
    let failed = |error| Failure::io("cannot hear from the process that holds the sandbox", error);
    match sandbox_guest::frame::receive::<String>(stream, crate::protocol::MAX_FRAME).map_err(failed)? {
        Some((json, _)) => serde_json::from_str(&json).map(Some).map_err(|error| failed(error.into())),
        None => Ok(None),
    }
}

/// Tells the supervisor that its sandbox's id has reached whoever asked for it.
pub(crate) fn take(stream: &StdUnixStream) -> Result<()> {
    sandbox_guest::frame::send(stream, &Taken::Taken, &[], crate::protocol::MAX_FRAME)
        .map_err(|error| Failure::io("the process that holds the sandbox has gone", error))
}

/// Holds a sandbox until its end. What goes wrong before it is ready is told to `up`; afterwards there is nobody to
/// tell but the audit.
pub(crate) async fn supervise() -> Result<()> {
    let stream = starter()?;
    let mut signals = Signals::install()?;
    let told = hold(&stream, &mut signals).await;
    if let Err(failure) = &told {
        // `up` may be gone, and then nobody is left to tell.
        let _ = tell(&stream, &News::Failed(failure.clone())).await;
    }
    told
}

/// Takes the socket out of standard input, and leaves nothing there.
fn starter() -> Result<UnixStream> {
    let failed = |error| Failure::io("`supervise` is started by `up` alone", error);
    let stream = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).map_err(|errno| failed(errno.into()))?;
    let stream = StdUnixStream::from(stream);
    stream.peer_addr().map_err(failed)?;
    let nothing = std::fs::File::open("/dev/null").map_err(failed)?;
    rustix::stdio::dup2_stdin(&nothing).map_err(|errno| failed(errno.into()))?;
    // A session of its own has no terminal whose end could end it (setsid(2)).
    rustix::process::setsid().map_err(|errno| failed(errno.into()))?;
    stream.set_nonblocking(true).map_err(failed)?;
    UnixStream::from_std(stream).map_err(failed)
}

async fn hold(stream: &UnixStream, signals: &mut Signals) -> Result<()> {
    let failed = |error| Failure::io("cannot hear from `up`", error);
    let plan = receive::<String>(stream).await.map_err(failed)?.ok_or_else(abandoned)?.0;
    let Plan { global, sandbox } = serde_json::from_str(&plan).map_err(|error| failed(error.into()))?;
    let config = Config::new(&global);
    let (sandbox, egress) = start(&config, &sandbox, stream, signals).await?;
    let served = serve(&config, &sandbox, egress, stream, signals).await;
    let ended = sandbox.destroy().await.map(|_| ()).map_err(Failure::from);
    served?.finish(&ended).await;
    Ok(())
}

/// Serves other commands until the sandbox is to end.
async fn serve(
    config: &Config,
    sandbox: &Sandbox,
    egress: Option<Outward>,
    stream: &UnixStream,
    signals: &mut Signals,
) -> Result<Holder> {
    let failed = |error| Failure::io("cannot hear from `up`", error);
    let mut holder = Holder::open(sandbox, egress, &config.run_root)?;
    // No directory of the user's is kept busy.
    std::env::set_current_dir("/").map_err(|error| Failure::io("cannot leave the working directory", error))?;
    tell(stream, &News::Ready(sandbox.id().to_string())).await.map_err(failed)?;
    // An id that nobody has seen is a sandbox that nobody will take down.
    receive::<Taken>(stream).await.map_err(failed)?.ok_or_else(abandoned)?;

    tokio::select! {
        () = holder.serve() => {}
        () = async { while signals.next().await == rustix::process::Signal::HUP.as_raw() {} } => {}
        // Why it ended, and what is left, is in the audit; the reaper finds the rest.
        _ = sandbox.ended() => {}
    }
    Ok(holder)
}

/// Starts the sandbox, and gives it up if `up` goes away or a signal comes.
async fn start(
    config: &Config,
    arguments: &SandboxArgs,
    stream: &UnixStream,
    signals: &mut Signals,
) -> Result<(Sandbox, Option<Outward>)> {
    let (steps, mut queue) = mpsc::channel::<Step>(STEPS);
    let mut wanted = config.wanted(arguments).await?;
    let egress = wanted.egress.clone();
    let (sink, mut destroyed) = Sink::new(wanted.take_audit(), move |step| {
        // Where `up` is slow to look, it misses a step.
        let _ = steps.try_send(step.clone());
    });
    let mut starting = Box::pin(async {
        let runtime: Arc<dyn Runtime> = config.connect(wanted.isolation()).await?;
        let warnings = [wanted.warning(&*runtime), wanted.find_tokens(config).await?];
        for warning in warnings.into_iter().flatten() {
            tell(stream, &News::Warning(warning)).await.map_err(|_| abandoned())?;
        }
        Ok(wanted.builder(config, runtime, sink).start().await?)
    });
    let given_up = loop {
        tokio::select! {
            started = &mut starting => return started.map(|sandbox| (sandbox, egress)),
            Some(step) = queue.recv() => {
                if tell(stream, &News::Step(step)).await.is_err() {
                    break abandoned();
                }
            }
            // `up` never speaks again: what can be read is its end.
            () = ended(stream) => break abandoned(),
            _ = signals.next() => break Failure::new(ErrorKind::SandboxGone, "the start was given up at a signal"),
        }
    };
    drop(starting);
    // An error means that nothing had been started.
    let _ = destroyed.wait_for(|destroyed| *destroyed).await;
    Err(given_up)
}

async fn tell(stream: &UnixStream, news: &News) -> std::io::Result<()> {
    send(stream, &serde_json::to_string(news)?).await
}

fn abandoned() -> Failure {
    Failure::new(ErrorKind::SandboxGone, "the start was given up")
}
