//! The two ends of the stream, and what each may be sent.

use crate::wire::{MAX_TO_GUEST, MAX_TO_HOST};

/// Whom a relay stands beside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a stream has two ends")]
pub enum Side {
    /// The guest, to whom it hands requests on.
    Guest,
    /// The host, whose requests it takes.
    Host,
}

impl Side {
    pub(super) fn most_from_channel(self) -> usize {
        match self {
            Self::Guest => MAX_TO_HOST,
            Self::Host => MAX_TO_GUEST,
        }
    }

    pub(super) fn most_to_channel(self) -> usize {
        match self {
            Self::Guest => MAX_TO_GUEST,
            Self::Host => MAX_TO_HOST,
        }
    }
}
