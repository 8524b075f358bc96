//! What the program `sudo` inside and the host say to each other.
//!
//! The program connects to [`SOCKET`] and sends one [`Ask`], with its standard input, output and error beside it. The host
//! answers with one [`Answer`], when it has refused or when what it had run has ended. Until then the program may send
//! [`Command::Signal`](crate::wire::Command::Signal)s; a connection that closes ends what was run.

use serde::{Deserialize, Serialize};

use crate::wire::Exit;

/// The directory inside that holds all of it: root's, and open to everybody.
pub const DIRECTORY: &str = "/run/sandbox";

/// The directory below it that the agent finds `sudo` in.
pub const PROGRAMS: &str = "/run/sandbox/bin";

/// The name of the program.
pub const NAME: &str = "sudo";

/// Where the host listens.
pub const SOCKET: &str = "/run/sandbox/sudo";

/// The capabilities of what runs as root, as bits: `CHOWN`, `DAC_OVERRIDE`, `FOWNER`, `SETGID` and `SETUID` (capabilities(7)).
pub const CAPABILITIES: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 6 | 1 << 7;

/// The largest [`Ask`], in bytes.
pub const MAX_ASK: usize = 512 << 10;

/// The largest [`Answer`], in bytes.
pub const MAX_ANSWER: usize = 16 << 10;

/// The largest command that follows an [`Ask`], in bytes.
pub const MAX_COMMAND: usize = 64;

/// What somebody inside wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// What follows the program's name.
    pub arguments: Vec<Vec<u8>>,
    /// The variables that it has.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// The directory that it is in.
    pub directory: Vec<u8>,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "both sides are built from this crate, and must match in full")]
pub enum Answer {
    /// It was run, and has ended.
    Exited(Exit),
    /// Nothing was run.
    Said {
        /// The status to end with.
        status: u8,
        /// What to write as output.
        output: String,
        /// What to write as error.
        error: String,
    },
}
