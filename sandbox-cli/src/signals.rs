//! Signals that ask this process to end.

use rustix::process::Signal as Number;
use sandbox_core::ErrorKind;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Failure, Result};

/// Waits for `SIGHUP`, `SIGINT`, `SIGQUIT` and `SIGTERM`, but for those that the parent has had ignored, as nohup(1) does.
#[derive(Debug)]
pub(crate) struct Signals {
    hangup: Option<Signal>,
    interrupt: Option<Signal>,
    quit: Option<Signal>,
    terminate: Option<Signal>,
}

impl Signals {
    /// Takes the signals over; from here on, none of them ends the process by itself.
    pub(crate) fn install() -> Result<Self> {
        let ignored = std::fs::read_to_string("/proc/self/status").map_or(0, |status| ignored(&status));
        let take = |number: Number| {
            let raw = number.as_raw();
            if ignored & (1 << (raw - 1)) != 0 {
                return Ok(None);
            }
            signal(SignalKind::from_raw(raw)).map(Some).map_err(|error| {
                Failure::new(ErrorKind::Io, format!("cannot watch for signal {raw}")).with_cause(error)
            })
        };
        Ok(Self {
            hangup: take(Number::HUP)?,
            interrupt: take(Number::INT)?,
            quit: take(Number::QUIT)?,
            terminate: take(Number::TERM)?,
        })
    }

    /// The next signal, by number.
    pub(crate) async fn next(&mut self) -> i32 {
        let Self { hangup, interrupt, quit, terminate } = self;
        let number = tokio::select! {
            () = next(hangup) => Number::HUP,
            () = next(interrupt) => Number::INT,
            () = next(quit) => Number::QUIT,
            () = next(terminate) => Number::TERM,
        };
        number.as_raw()
    }
}

async fn next(signal: &mut Option<Signal>) {
    let came = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if came.is_none() {
        std::future::pending::<()>().await;
    }
}

/// The mask of ignored signals in `/proc/PID/status` (proc(5)); bit 0 is signal 1.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_ignored() {
        assert_eq!(ignored("Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n"), 0x1001);
        assert_eq!(ignored(""), 0);
    }
}
