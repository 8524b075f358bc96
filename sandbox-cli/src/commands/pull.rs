//! `image pull`: fetches an image, for sandboxes without an engine.

use std::sync::Arc;

use sandbox_core::{Events, SandboxId};

use super::import::Kept;
use crate::args::PullArgs;
use crate::config::Config;
use crate::failure::Result;
use crate::progress::{Progress, Sink};
use crate::signals::Signals;

pub(super) async fn run(config: &Config, arguments: PullArgs) -> Result<u8> {
    let mut signals = Signals::install()?;
    let runtime = config.connect_embedded("image pull").await?;
    let progress = Arc::new(Progress::new(config.screen));
    let shown = Arc::clone(&progress);
    let (sink, _) = Sink::new(None, move |step| shown.show(step));
    // No sandbox is made; its events are the same as if one were.
    let events = Events::new(SandboxId::random()?, Arc::new(sink));
    let pulled = tokio::select! {
        pulled = runtime.pull(&arguments.image, &events) => pulled,
        signal = signals.next() => {
            progress.clear();
            return Ok(crate::exit::after_signal(signal));
        }
    };
    progress.clear();
    let image = pulled?;
    config.screen.answer(&Kept::from(&image), || image.reference.to_string())?;
    Ok(0)
}
