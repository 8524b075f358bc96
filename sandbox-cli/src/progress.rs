//! What people see while a sandbox starts, and where its events go.

use std::fmt;
use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use sandbox_core::{Envelope, Event, EventSink};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::audit::Audit;
use crate::render::{Screen, Volume, escaped};

/// A step of a start that is worth a word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    /// An image is fetched.
    Pulling {
        /// Its name.
        image: String,
        /// Bytes that have come.
        received: u64,
        /// Bytes that are known to be due.
        total: u64,
    },
    /// A short step.
    Working(String),
}

impl Step {
    fn of(event: &Event) -> Option<Self> {
        Some(match event {
            Event::Pulling { image, received, total } => {
                Self::Pulling { image: image.clone(), received: *received, total: *total }
            }
            Event::Creating { .. } => Self::Working("making the container".to_owned()),
            Event::Starting { .. } => Self::Working("starting the container".to_owned()),
            Event::GatewayOpening { gateway } => Self::Working(format!("opening the gateway {gateway}")),
            Event::ProtectionChecking { repository } => {
                Self::Working(format!("looking at the default branch of {repository}"))
            }
            Event::RepositoryFetching { repository } => Self::Working(format!("fetching {repository}")),
            Event::TokenMinting { repository } => Self::Working(format!("getting a token for {repository}")),
            _ => return None,
        })
    }
}

/// Shows steps: a line that changes on a terminal, else a line for what takes long, else nothing.
#[derive(Debug)]
pub(crate) enum Progress {
    Lines { pulled: Mutex<Option<String>> },
    None,
    Spinner(ProgressBar),
}

impl Progress {
    pub(crate) fn new(screen: Screen) -> Self {
        match screen.volume {
            Volume::Normal if screen.is_json() => Self::None,
            Volume::Normal if std::io::stderr().is_terminal() => {
                let bar = ProgressBar::new_spinner();
                if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                    bar.set_style(style);
                }
                bar.enable_steady_tick(Duration::from_millis(100));
                Self::Spinner(bar)
            }
            Volume::Normal => Self::Lines { pulled: Mutex::new(None) },
            Volume::Quiet => Self::None,
        }
    }

    pub(crate) fn show(&self, step: &Step) {
        match (self, step) {
            (Self::None, _) | (Self::Lines { .. }, Step::Working(_)) => {}
            (Self::Spinner(bar), Step::Working(what)) => bar.set_message(escaped(what)),
            (Self::Spinner(bar), Step::Pulling { image, received, total }) => {
                bar.set_message(escaped(&format!(
                    "pulling {image}: {} of {}",
                    HumanBytes(*received),
                    HumanBytes(*total)
                )));
            }
            (Self::Lines { pulled }, Step::Pulling { image, .. }) => {
                let mut pulled = pulled.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if pulled.as_ref() != Some(image) {
                    // Progress that cannot be shown changes nothing.
                    let _ = std::io::Write::write_all(
                        &mut std::io::stderr(),
                        format!("pulling {}\n", escaped(image)).as_bytes(),
                    );
                    *pulled = Some(image.clone());
                }
            }
        }
    }

    /// Takes the line away, before anything else is printed.
    pub(crate) fn clear(&self) {
        if let Self::Spinner(bar) = self {
            bar.finish_and_clear();
        }
    }
}

/// Where the events of one sandbox go: to the audit first, which may refuse them, then to whoever watches.
pub(crate) struct Sink {
    audit: Option<Audit>,
    show: Box<dyn Fn(&Step) + Send + Sync>,
    destroyed: watch::Sender<bool>,
}

impl Sink {
    /// Makes a sink, and says when everything of its sandbox has been undone.
    pub(crate) fn new(
        audit: Option<Audit>,
        show: impl Fn(&Step) + Send + Sync + 'static,
    ) -> (Self, watch::Receiver<bool>) {
        let (destroyed, watch) = watch::channel(false);
        (Self { audit, show: Box::new(show), destroyed }, watch)
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("audit", &self.audit).finish_non_exhaustive()
    }
}

impl EventSink for Sink {
    fn record(&self, envelope: &Envelope) -> sandbox_core::Result<()> {
        let recorded = self.audit.as_ref().map_or(Ok(()), |audit| audit.record(envelope));
        if matches!(envelope.event, Event::Destroyed { .. }) {
            self.destroyed.send_replace(true);
        }
        recorded?;
        if let Some(step) = Step::of(&envelope.event) {
            (self.show)(&step);
        }
        Ok(())
    }
}
