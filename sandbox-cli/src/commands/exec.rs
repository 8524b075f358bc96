//! `exec`: a program in a sandbox that is up.

use std::time::{Duration, Instant};

use crate::args::ExecArgs;
use crate::attend::attend;
use crate::client::Attachment;
use crate::commands::run::Report;
use crate::config::Config;
use crate::failure::Result;
use crate::signals::Signals;
use crate::terminal;

pub(super) async fn run(config: &Config, arguments: ExecArgs) -> Result<u8> {
    let mut signals = Signals::install()?;
    let streams = terminal::streams(arguments.terminal)?;
    let began = Instant::now();
    let attachment = Attachment::to(&config.run_root, &arguments.id).await?;
    let mut words = arguments.command.into_iter();
    let mut command = attachment.command(words.next().unwrap_or_default()).args(words);
    command = command.envs(arguments.environment.into_iter().map(|variable| (variable.name, variable.value)));
    if let Some(directory) = arguments.directory {
        command = command.directory(directory);
    }
    if let Some(timeout) = arguments.timeout {
        command = command.deadline(timeout.as_duration());
    }
    let ended = attend(command, streams, &mut signals).await?;
    if config.screen.is_json() {
        let report = Report::new(&ended, Duration::ZERO, began.elapsed(), Vec::new());
        // A standard error that nobody reads keeps no program from its exit code.
        let _ = config.screen.aside(&report, String::new);
    }
    Ok(ended.code())
}
