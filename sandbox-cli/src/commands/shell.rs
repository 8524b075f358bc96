//! `shell`: a terminal in a sandbox that is up.

use sandbox_core::Command;

use crate::args::{ShellArgs, TerminalArgs};
use crate::attend::attend;
use crate::client::Attachment;
use crate::config::Config;
use crate::failure::Result;
use crate::signals::Signals;
use crate::terminal;

pub(super) async fn run(config: &Config, arguments: ShellArgs) -> Result<u8> {
    let mut signals = Signals::install()?;
    let streams = terminal::streams(TerminalArgs { tty: true, no_tty: false })?;
    let attachment = Attachment::to(&config.run_root, &arguments.id).await?;
    let mut words = arguments.command.into_iter();
    let command = match words.next() {
        Some(program) => attachment.command(program).args(words),
        None => agents_shell(&attachment),
    };
    Ok(attend(command, streams, &mut signals).await?.code())
}

/// Which shell the agent has is known inside alone.
fn agents_shell(attachment: &Attachment) -> Command {
    attachment.command("/bin/sh").args(["-c", "exec \"${SHELL:-/bin/sh}\" -i"])
}
