//! Who inside is who outside.

use rustix::process::{getegid, geteuid, getgroups};
use sandbox_core::{Error, ErrorKind, Ownership, Result, Whose};
use sandbox_guest::launch::Identities;
use sandbox_guest::wire::Identity;

/// How ids of a sandbox are those of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ids {
    /// The agent is the caller, and there is nobody else: what a user may do without privilege.
    Own {
        /// The caller.
        caller: Identity,
    },
    /// All ids of a sandbox are a range of ids that nobody has.
    Range {
        /// The host's id for root inside.
        first: u32,
    },
}

impl Ids {
    /// Chooses by who asks: root gives out a range, everybody else has only what is theirs.
    ///
    /// # Errors
    /// `InvalidInput` for a range that has no end, or that holds an id that systems hand out.
    pub(super) fn choose(first: u32) -> Result<Self> {
        let most = u32::MAX - LENGTH - 1;
        if !(LENGTH..=most).contains(&first) {
            let message = format!("first id {first} is not allowed: {LENGTH} to {most} are");
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let (user, group) = (geteuid(), getegid());
        if user.is_root() {
            return Ok(Self::Range { first });
        }
        Ok(Self::Own { caller: Identity { uid: user.as_raw(), gid: group.as_raw() } })
    }

    /// The maps of a user namespace for an agent.
    pub(super) fn identities(self, agent: Identity) -> Identities {
        match self {
            Self::Own { caller } => Identities {
                users: vec![(agent.uid, caller.uid, 1)],
                groups: vec![(agent.gid, caller.gid, 1)],
                first: agent,
                privileged: false,
            },
            Self::Range { first } => Identities {
                users: vec![(0, first, LENGTH)],
                groups: vec![(0, first, LENGTH)],
                first: Identity { uid: 0, gid: 0 },
                privileged: true,
            },
        }
    }

    /// Says whom the agent must be to write as a user of the host: where ids can be mapped, whoever it is, but for root's files, since
    /// the agent could leave a program behind that runs as its owner (inode(7), `S_ISUID`).
    pub(super) fn ownership(self, (uid, _): (u32, u32)) -> Ownership {
        let agent = match self {
            Self::Own { caller } if caller.uid != uid => {
                Whose::Nobody(format!("and who is not root can only be user {} there", caller.uid))
            }
            Self::Range { .. } if uid == 0 => Whose::Nobody(
                "whose files the agent never writes: it could leave a program that runs as root".to_owned(),
            ),
            Self::Own { .. } | Self::Range { .. } => Whose::Anybody,
        };
        Ownership { agent, root: self.root() }
    }

    /// Who the agent is outside.
    pub(super) fn outside(self, agent: Identity) -> Identity {
        match self {
            Self::Own { caller } => caller,
            Self::Range { first } => {
                Identity { uid: first.saturating_add(agent.uid), gid: first.saturating_add(agent.gid) }
            }
        }
    }

    /// Who owns the guest's directory: process 1's user and group, outside.
    pub(super) fn root(self) -> (u32, u32) {
        match self {
            Self::Own { caller } => (caller.uid, caller.gid),
            Self::Range { first } => (first, first),
        }
    }

    /// What process 1 keeps of what root inside would; who is the agent already needs nothing.
    pub(super) fn capabilities(self, of_root: u64) -> u64 {
        match self {
            Self::Own { .. } => 0,
            Self::Range { .. } => of_root,
        }
    }
}

/// How many groups the caller has beside its own; without privilege they cannot be given up (`user_namespaces(7)`).
pub(super) fn other_groups() -> usize {
    let own = getegid();
    getgroups().map_or(usize::MAX, |groups| groups.iter().filter(|group| **group != own).count())
}

/// The first id of the range that sandboxes have unless the caller names another. Ranges for users begin at 100,000
/// (`login.defs(5)`, `SUB_UID_MIN`) and those of systemd's containers end below this one
/// (<https://systemd.io/UIDS-GIDS/>), so that nobody else is anybody inside.
pub(super) const FIRST: u32 = 1_900_000_000;

/// Ids of a sandbox: as many as ordinary systems use.
pub(super) const LENGTH: u32 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_touches_the_hosts_ids_is_refused() {
        for first in [0, 1_000, 65_535, u32::MAX, u32::MAX - LENGTH] {
            assert_eq!(Ids::choose(first).unwrap_err().kind(), ErrorKind::InvalidInput, "{first}");
        }
        Ids::choose(FIRST).unwrap();
    }

    #[test]
    fn nobody_inside_is_root_outside() {
        let agent = Identity { uid: 1_000, gid: 1_000 };
        let caller = Identity { uid: 5_000, gid: 6_000 };
        for ids in [Ids::Range { first: FIRST }, Ids::Own { caller }] {
            let Identities { users, groups, first, privileged } = ids.identities(agent);
            assert!(users.iter().chain(&groups).all(|(_, outside, _)| *outside != 0));
            assert_eq!(privileged, first.uid == 0);
        }
        assert_eq!(Ids::Own { caller }.outside(agent), caller);
        assert_eq!(Ids::Range { first: 100_000 }.outside(agent), Identity { uid: 101_000, gid: 101_000 });
    }
}
