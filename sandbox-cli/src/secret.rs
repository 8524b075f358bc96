//! A secret that somebody types, or pipes in. It is shown nowhere.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use sandbox_core::ErrorKind;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use crate::failure::{Failure, Result};

/// The longest secret, in bytes.
const LONGEST: usize = 8 << 10;

/// Asks for a secret: at a terminal without showing it, else as the first line of standard input.
pub(crate) async fn ask(prompt: &'static str) -> Result<SecretString> {
    // A terminal is waited for on a thread of its own, which a signal to the process leaves behind.
    tokio::task::spawn_blocking(move || {
        let stdin = std::io::stdin();
        let _quiet = if stdin.is_terminal() {
            let mut stderr = std::io::stderr().lock();
            // Where there is no standard error, it is typed without being asked for.
            let _ = write!(stderr, "{prompt}: ").and_then(|()| stderr.flush());
            Some(Quiet::begin()?)
        } else {
            None
        };
        read_line()
    })
    .await
    .unwrap_or_else(|_| Err(Failure::new(ErrorKind::Io, "the secret was not read")))
}

fn read_line() -> Result<SecretString> {
    // All of it at once: a buffer that grows leaves copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(LONGEST + 1));
    let mut byte = Zeroizing::new([0]);
    // Byte by byte from the descriptor itself, past the buffer of the standard library's reader.
    let mut stdin = std::fs::File::from(
        std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| Failure::io("cannot read the secret", error))?,
    );
    while line.len() <= LONGEST {
        match stdin.read(&mut byte[..]) {
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) => line.push(byte[0]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::io("cannot read the secret", error)),
        }
    }
    let text = std::str::from_utf8(&line).unwrap_or_default().trim();
    if text.is_empty() || line.len() > LONGEST {
        return Err(Failure::new(ErrorKind::InvalidInput, "no secret was given")
            .with_hint(format!("type or pipe in one line of at most {LONGEST} bytes")));
    }
    Ok(SecretString::from(text))
}

/// A terminal that shows nothing of what is typed, until this is dropped.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> Result<Self> {
        let failed = |errno: rustix::io::Errno| Failure::io("cannot keep the terminal from showing it", errno.into());
        let before = tcgetattr(rustix::stdio::stdin()).map_err(failed)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        quiet.local_modes.insert(LocalModes::ECHONL);
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &quiet).map_err(failed)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that has gone shows nothing.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &self.0);
    }
}
