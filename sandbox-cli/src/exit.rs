//! Exit codes: a program's own, and those that shells and other engines have made usual.

use sandbox_core::{ErrorKind, Exit, Status};

use crate::args::Verb;
use crate::failure::Failure;

/// The program or the sandbox ran out of time, as timeout(1) says it.
pub(crate) const TIMED_OUT: u8 = 124;
/// The sandbox failed, not the program in it.
pub(crate) const SANDBOX_FAILED: u8 = 125;
/// The program exists and cannot be run.
const NOT_RUNNABLE: u8 = 126;
/// The program does not exist.
const NOT_FOUND: u8 = 127;
/// Added to the number of a signal.
const SIGNAL: u8 = 128;
/// A verb that runs no program failed.
pub(crate) const FAILED: u8 = 1;
/// The arguments of a verb that runs no program make no sense.
const USAGE: u8 = 2;
/// `SIGPIPE` (signal(7)).
const PIPE: u8 = 13;

/// The code of a program that has ended.
pub(crate) fn of(exit: Exit) -> u8 {
    match exit.status {
        _ if exit.timed_out => TIMED_OUT,
        Status::Code(code) => code,
        Status::Signal(signal) => SIGNAL.saturating_add(signal),
    }
}

/// The code after a signal to this process.
pub(crate) fn after_signal(signal: i32) -> u8 {
    SIGNAL.saturating_add(u8::try_from(signal).unwrap_or(u8::MAX))
}

/// What a verb's own failures look like to who started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It passes on a program's exit code, and keeps its own apart.
    Program,
    /// It runs no program.
    Plain,
}

impl Kind {
    pub(crate) fn of(verb: &Verb) -> Self {
        match verb {
            Verb::Exec(_) | Verb::Run(_) | Verb::Shell(_) => Self::Program,
            _ => Self::Plain,
        }
    }

    /// Guesses the kind from arguments that make no sense.
    pub(crate) fn guess<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let verb = arguments.into_iter().find(|argument| ["exec", "run", "shell"].contains(argument));
        if verb.is_some() { Self::Program } else { Self::Plain }
    }

    /// The code of arguments that make no sense.
    pub(crate) fn usage(self) -> u8 {
        match self {
            Self::Program => SANDBOX_FAILED,
            Self::Plain => USAGE,
        }
    }

    /// The code of a failure.
    pub(crate) fn failure(self, failure: &Failure) -> u8 {
        match self {
            _ if failure.is_unheard() => SIGNAL + PIPE,
            Self::Plain => FAILED,
            Self::Program if failure.is(ErrorKind::CommandNotFound) => NOT_FOUND,
            Self::Program if failure.is(ErrorKind::CommandNotRunnable) => NOT_RUNNABLE,
            Self::Program => SANDBOX_FAILED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_shells() {
        let exit = |status, timed_out| Exit { status, timed_out, out_of_memory: false };
        assert_eq!(of(exit(Status::Code(3), false)), 3);
        assert_eq!(of(exit(Status::Signal(9), false)), 137);
        assert_eq!(of(exit(Status::Signal(15), true)), TIMED_OUT);
        assert_eq!(after_signal(2), 130);
        let failure = |kind| Failure::new(kind, "");
        assert_eq!(Kind::Program.failure(&failure(ErrorKind::CommandNotFound)), 127);
        assert_eq!(Kind::Program.failure(&failure(ErrorKind::CommandNotRunnable)), 126);
        assert_eq!(Kind::Program.failure(&failure(ErrorKind::Policy)), 125);
        assert_eq!(Kind::Plain.failure(&failure(ErrorKind::CommandNotFound)), 1);
        assert_eq!(Kind::Plain.failure(&Failure::unheard()), 141);
    }

    #[test]
    fn bad_arguments_of_run_are_no_exit_code_of_a_program() {
        assert_eq!(Kind::guess(["--json", "run", "--what"]).usage(), 125);
        assert_eq!(Kind::guess(["ls", "--what"]).usage(), 2);
    }
}
