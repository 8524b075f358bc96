//! Who inside is who outside.

use sandbox_core::{Error, ErrorKind, Result};
use sandbox_guest::launch::Identities;
use sandbox_guest::wire::Identity;

/// How ids of a sandbox are those of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ids {
    /// All ids of a sandbox are a range of ids that nobody has.
    Range {
        /// The host's id for root inside.
        first: u32,
    },
}

impl Ids {
    /// The maps of a user namespace.
    pub(super) fn identities(self, _agent: Identity) -> Identities {
        match self {
            Self::Range { first } => Identities {
                users: vec![(0, first, LENGTH)],
                groups: vec![(0, first, LENGTH)],
                first: Identity { uid: 0, gid: 0 },
                privileged: true,
            },
        }
    }

    /// Who somebody inside is outside.
    pub(super) fn outside(self, inside: Identity) -> Identity {
        match self {
            Self::Range { first } => Identity { uid: first + inside.uid, gid: first + inside.gid },
        }
    }

    /// Who owns the guest's directory: process 1's user and group, outside.
    pub(super) fn root(self) -> (u32, u32) {
        match self {
            Self::Range { first } => (first, first),
        }
    }

    /// What process 1 keeps to become the agent and to end it: `KILL`, `SETGID`, `SETUID` and `SETPCAP`
    /// (capabilities(7)).
    pub(super) fn capabilities(self) -> u64 {
        match self {
            Self::Range { .. } => 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8,
        }
    }
}

/// The first id of the range that sandboxes have unless the caller names another. Ranges for users begin at 100,000
/// (`login.defs(5)`, `SUB_UID_MIN`) and those of systemd's containers end below this one
/// (<https://systemd.io/UIDS-GIDS/>), so that nobody else is anybody inside.
pub(super) const FIRST: u32 = 1_900_000_000;

/// Ids of a sandbox: as many as ordinary systems use.
pub(super) const LENGTH: u32 = 65_536;

/// Chooses how ids are mapped, by who asks.
///
/// # Errors
/// `InvalidInput` for a range that has no end, or that holds the host's root; `EngineUnavailable` for whoever is not root.
pub(super) fn choose(first: u32) -> Result<Ids> {
    if first < LENGTH || first.checked_add(LENGTH).is_none_or(|end| end == u32::MAX) {
        let (least, most) = (LENGTH, u32::MAX - LENGTH - 1);
        let message = format!("first id {first} is not allowed: {least} to {most} are");
        return Err(Error::new(ErrorKind::InvalidInput, message));
    }
    if !rustix::process::geteuid().is_root() {
        let message = "the embedded runtime makes containers for root alone";
        return Err(
            Error::new(ErrorKind::EngineUnavailable, message).with_hint("run as root, or use a rootless engine")
        );
    }
    Ok(Ids::Range { first })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_touches_the_hosts_ids_is_refused() {
        for first in [0, 1_000, 65_535, u32::MAX, u32::MAX - LENGTH] {
            assert_eq!(choose(first).unwrap_err().kind(), ErrorKind::InvalidInput, "{first}");
        }
    }
}
