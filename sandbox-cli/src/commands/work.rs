//! `pull`, `diff`, `patch`: the commits of a sandbox, taken over or looked at.

use std::io::{IsTerminal as _, stdout};
use std::path::PathBuf;

use sandbox_core::{Commit, ErrorKind, Exposed, HostRepository, Rendering, SandboxId, Work, WorkLimits};
use serde::Serialize;

use crate::args::WorkArgs;
use crate::client::Attachment;
use crate::config::Config;
use crate::exit;
use crate::failure::{Failure, Result};
use crate::progress::{Progress, Step};
use crate::protocol::Exposure;
use crate::signals::Signals;

/// The most commits that are named; of the others, it is told that there are more.
const MOST_NAMED: usize = 100;

/// The most text that is put into JSON, in bytes.
const MOST_TEXT: usize = 64 << 20;

/// What is wanted of the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Commits,
    Diff,
    Patch,
}

pub(super) async fn run(config: &Config, wanted: Wanted, arguments: WorkArgs) -> Result<u8> {
    let mut signals = Signals::install()?;
    let progress = Progress::new(config.screen);
    progress.show(&Step::Working("bringing the work out".to_owned()));
    // Dropped half-way, it leaves no quarantine behind.
    let fetched = tokio::select! {
        fetched = fetch(config, &arguments) => fetched,
        signal = signals.next() => {
            progress.clear();
            return Ok(exit::after_signal(signal));
        }
    };
    progress.clear();
    let (sandbox, work) = fetched?;
    tokio::select! {
        done = tell(config, wanted, sandbox, work) => done,
        signal = signals.next() => Ok(exit::after_signal(signal)),
    }
}

async fn fetch(config: &Config, arguments: &WorkArgs) -> Result<(SandboxId, Work)> {
    let WorkArgs { id, revision, from, into, most } = arguments;
    let attachment = Attachment::to(&config.run_root, id).await?;
    let exposed = attachment.attached.exposed.iter().map(|Exposure { directory, covered }| Exposed {
        directory: PathBuf::from(directory),
        covered: covered.iter().map(PathBuf::from).collect(),
    });
    let exposed: Vec<Exposed> = exposed.collect();
    let repository = HostRepository::open(into, &exposed)?;
    let from = from.clone().or_else(|| attachment.attached.directory.as_ref().map(PathBuf::from)).ok_or_else(|| {
        Failure::new(ErrorKind::InvalidInput, "the sandbox has no workspace to bring work out of")
            .with_hint("say where the repository inside is: --from DIR")
    })?;
    let limits = WorkLimits { bytes: most.bytes(), ..WorkLimits::default() };
    let work = Work::fetch(&attachment.guest, from, revision, &repository, limits).await?;
    Ok((attachment.id, work))
}

async fn tell(config: &Config, wanted: Wanted, sandbox: SandboxId, work: Work) -> Result<u8> {
    let mut told = Told {
        sandbox: sandbox.to_string(),
        tip: work.tip().to_owned(),
        commits: work.commits(MOST_NAMED).await?,
        reference: None,
        text: None,
    };
    match wanted {
        Wanted::Commits => {
            let reference = work.land(sandbox).await?;
            if !config.screen.is_json() {
                config.screen.aside(&told, || told.list())?;
            }
            told.reference = Some(reference.clone());
            config.screen.answer(&told, || reference)?;
        }
        Wanted::Diff | Wanted::Patch if config.screen.is_json() => {
            let mut bytes = Bounded(Vec::new());
            written(wanted, &work, &mut bytes, Rendering::Raw).await?;
            told.text = Some(String::from_utf8_lossy(&bytes.0).into_owned());
            config.screen.answer(&told, String::new)?;
        }
        Wanted::Diff | Wanted::Patch => {
            // What an agent wrote is data; a terminal would take some of it for orders.
            let rendering = if stdout().is_terminal() { Rendering::Shown } else { Rendering::Raw };
            written(wanted, &work, tokio::io::stdout(), rendering).await?;
        }
    }
    Ok(0)
}

async fn written(
    wanted: Wanted,
    work: &Work,
    to: impl tokio::io::AsyncWrite + Unpin,
    rendering: Rendering,
) -> sandbox_core::Result<()> {
    if wanted == Wanted::Patch { work.patch(to, rendering).await } else { work.diff(to, rendering).await }
}

#[derive(Debug, Serialize)]
struct Told {
    sandbox: String,
    tip: String,
    commits: Vec<Commit>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

impl Told {
    /// The commits, one a line; what comes from inside was escaped by the library.
    fn list(&self) -> String {
        let lines = self.commits.iter().map(|Commit { id, author, subject }| {
            let short = id.get(..12).unwrap_or(id);
            format!("{short} {subject} ({author})\n")
        });
        let more = if self.commits.len() == MOST_NAMED { "and perhaps more\n" } else { "" };
        lines.collect::<String>() + more
    }
}

/// Takes text up to a limit, and then no more.
#[derive(Debug)]
struct Bounded(Vec<u8>);

impl tokio::io::AsyncWrite for Bounded {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        data: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        if self.0.len() + data.len() > MOST_TEXT {
            let message = format!("more than {MOST_TEXT} bytes of text are not put into JSON");
            return std::task::Poll::Ready(Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message)));
        }
        self.0.extend_from_slice(data);
        std::task::Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}
