//! `run`: one program in a sandbox of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sandbox_core::{Cause, ErrorKind, Exit, Runtime, Sandbox, Status};
use serde::Serialize;
use tokio::sync::watch;

use crate::args::RunArgs;
use crate::attend::{Ended, Streams, attend};
use crate::config::Config;
use crate::exit;
use crate::failure::{Failure, Result};
use crate::hold::Holder;
use crate::inspection::{ControlView, controls, controls_text};
use crate::learn;
use crate::outward::Outward;
use crate::progress::{Progress, Sink};
use crate::signals::Signals;
use crate::terminal;

pub(super) async fn run(config: &Config, arguments: RunArgs) -> Result<u8> {
    let mut signals = Signals::install()?;
    let streams = terminal::streams(arguments.terminal)?;
    let began = Instant::now();
    let (sandbox, egress) = match start(config, &arguments, &mut signals).await? {
        Started::Ready(started) => *started,
        Started::GivenUp(signal) => return Ok(exit::after_signal(signal)),
    };
    let started = began.elapsed();

    let ran = attend_in(config, &sandbox, egress.clone(), &arguments, streams, &mut signals).await;
    let went = egress.and_then(|egress| egress.ledger(sandbox.id())).unwrap_or_default();
    let learned = arguments.learn.then(|| learn::policy(&went, sandbox.spec().egress()));
    let controls = controls(&sandbox);
    let ended_by_itself = sandbox.destroy().await;
    let (ran, holder) = ran;
    let residue = ended_by_itself.as_ref().err().map(|error| Failure::new(error.kind(), error.to_string()));
    if let Some(holder) = holder {
        holder.finish(&residue.clone().map_or(Ok(()), Err)).await;
    }
    let ran = match ran {
        Ok(Some(ran)) => ran,
        Ok(None) => {
            return Err(Failure::new(ErrorKind::SandboxGone, "the sandbox was taken down while the program ran"));
        }
        Err(failure) if failure.is(ErrorKind::SandboxGone) => match ended_by_itself {
            Ok(Cause::LifetimeOver) => {
                config.screen.warn("the sandbox's lifetime was over while the program ran");
                return Ok(exit::TIMED_OUT);
            }
            _ => return Err(failure),
        },
        Err(failure) => return Err(failure),
    };
    if arguments.report || config.screen.is_json() {
        let report = Report::new(&ran, started, began.elapsed(), controls);
        // A standard error that nobody reads keeps no program from its exit code.
        let _ = config.screen.aside(&report, || report.text());
    }
    if let Some(learned) = learned {
        // As above.
        let _ = config.screen.aside(&learned, || learned.to_string());
    }
    match ended_by_itself {
        Ok(_) => Ok(ran.code()),
        Err(error) => Err(error.into()),
    }
}

enum Started {
    GivenUp(i32),
    Ready(Box<(Sandbox, Option<Outward>)>),
}

/// Starts the sandbox; a signal meanwhile gives it up, and this returns when what had been made is gone.
async fn start(config: &Config, arguments: &RunArgs, signals: &mut Signals) -> Result<Started> {
    let progress = Arc::new(Progress::new(config.screen));
    let mut wanted = config.wanted(&arguments.sandbox).await?;
    let egress = wanted.egress.clone();
    let shown = Arc::clone(&progress);
    let (sink, destroyed) = Sink::new(wanted.take_audit(), move |step| shown.show(step));
    let mut starting = Box::pin(async {
        let runtime: Arc<dyn Runtime> = config.connect(wanted.isolation()).await?;
        let warnings = [wanted.warning(&*runtime), wanted.find_tokens(config).await?];
        let sandbox = wanted.builder(config, runtime, sink).start().await?;
        Ok::<_, Failure>((sandbox, warnings))
    });
    let started = tokio::select! {
        started = &mut starting => started,
        signal = signals.next() => {
            drop(starting);
            progress.clear();
            gone(destroyed, signals).await;
            return Ok(Started::GivenUp(signal));
        }
    };
    progress.clear();
    let (sandbox, warnings) = started?;
    for warning in warnings.into_iter().flatten() {
        config.screen.warn(&warning);
    }
    Ok(Started::Ready(Box::new((sandbox, egress))))
}

/// Waits until a start that was given up has been undone, or until another signal says not to.
async fn gone(mut destroyed: watch::Receiver<bool>, signals: &mut Signals) {
    tokio::select! {
        // An error means that nothing had been made.
        _ = destroyed.wait_for(|destroyed| *destroyed) => {}
        _ = signals.next() => {}
    }
}

/// Runs the program, and serves other commands meanwhile. Nothing comes back for it if one of them ends the sandbox.
async fn attend_in(
    config: &Config,
    sandbox: &Sandbox,
    egress: Option<Outward>,
    arguments: &RunArgs,
    streams: Streams,
    signals: &mut Signals,
) -> (Result<Option<Ended>>, Option<Holder>) {
    let mut holder = match Holder::open(sandbox, egress, &config.run_root) {
        Ok(holder) => holder,
        Err(failure) => return (Err(failure), None),
    };
    let mut words = arguments.command.iter();
    let command = sandbox.command(words.next().map_or("".as_ref(), |program| program.as_os_str())).args(words);
    let command = match arguments.timeout {
        Some(timeout) => command.deadline(timeout.as_duration()),
        None => command,
    };
    let ran = tokio::select! {
        ran = attend(command, streams, signals) => ran.map(Some),
        () = holder.serve() => Ok(None),
    };
    (ran, Some(holder))
}

/// What `--report` and `--json` tell at the end.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Report {
    exit: ExitView,
    #[serde(rename = "start-seconds")]
    start: f64,
    #[serde(rename = "total-seconds")]
    total: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    controls: Vec<ControlView>,
}

/// How a program ended, as reports say it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct ExitView {
    code: Option<u8>,
    signal: Option<u8>,
    timed_out: bool,
    out_of_memory: bool,
}

impl From<Exit> for ExitView {
    fn from(exit: Exit) -> Self {
        let (code, signal) = match exit.status {
            Status::Code(code) => (Some(code), None),
            Status::Signal(signal) => (None, Some(signal)),
        };
        Self { code, signal, timed_out: exit.timed_out, out_of_memory: exit.out_of_memory }
    }
}

impl Report {
    pub(super) fn new(ended: &Ended, start: Duration, total: Duration, controls: Vec<ControlView>) -> Self {
        Self { exit: ended.exit.into(), start: start.as_secs_f64(), total: total.as_secs_f64(), controls }
    }

    fn text(&self) -> String {
        let ExitView { code, signal, timed_out, out_of_memory } = self.exit;
        let mut end = match (code, signal) {
            (_, Some(signal)) => format!("killed by signal {signal}"),
            (code, None) => format!("exit code {}", code.unwrap_or_default()),
        };
        if timed_out {
            end.push_str(", out of time");
        }
        if out_of_memory {
            end.push_str(", out of memory");
        }
        let Self { start, total, .. } = self;
        format!("{}result: {end}; started in {start:.2} s, {total:.2} s in all\n", controls_text(&self.controls))
    }
}
