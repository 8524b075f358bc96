//! This process's own terminal, lent to a program inside: raw, so that every key reaches it, and restored always.

use std::io::{self, IsTerminal as _};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use sandbox_core::{ErrorKind, WindowSize};

use crate::args::TerminalArgs;
use crate::attend::Streams;
use crate::failure::{Failure, Result};

/// Decides whether a program gets a terminal: where it is asked for, or where this process has one.
pub(crate) fn streams(arguments: TerminalArgs) -> Result<Streams> {
    let has_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    match arguments {
        TerminalArgs { no_tty: true, tty: _ } => Ok(Streams::Pipes),
        TerminalArgs { tty: true, no_tty: false } if !has_terminal => {
            Err(Failure::new(ErrorKind::InvalidInput, "standard input and output are no terminal")
                .with_hint("run this in a terminal, or as `run` or `exec` without --tty"))
        }
        TerminalArgs { tty: _, no_tty: false } => Ok(if has_terminal { Streams::Terminal } else { Streams::Pipes }),
    }
}

/// The terminal's size; the usual one where it does not say.
pub(crate) fn size() -> WindowSize {
    match tcgetwinsize(rustix::stdio::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => WindowSize { rows: size.ws_row, columns: size.ws_col },
        _ => WindowSize { rows: 24, columns: 80 },
    }
}

/// Raw mode; dropping it brings back what was before.
#[derive(Debug)]
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    pub(crate) fn enter() -> io::Result<Self> {
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Where the terminal is gone, there is nothing to bring back.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &self.before);
    }
}
