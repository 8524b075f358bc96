//! Whom a user of the host is inside, by how an engine maps ids.

use sandbox_core::{Ownership, RuntimeInfo, Whose};

/// How ids of containers are ids of the host.
#[derive(Debug)]
pub(crate) enum Ids {
    /// Root is the engine's own user, and all others are a range that the engine does not tell.
    Hidden,
    /// Root is the engine's own user, and all others are ranges that it tells; a container may have another user of it as the
    /// engine's own.
    Ranges {
        /// Of users.
        users: Vec<Range>,
        /// Of groups.
        groups: Vec<Range>,
    },
    /// They are one range, which begins with root's.
    Shifted,
}

/// A range of ids: as many from one on inside as from another on outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) inside: u32,
    pub(crate) outside: u32,
    pub(crate) length: u32,
}

impl Ids {
    /// Who is who on this machine, in a container whose engine has a namespace of its own around it.
    pub(super) fn seen_from_here(&self, pid: Option<u32>) -> Option<Vec<(u32, u32, u32)>> {
        match self {
            Self::Ranges { .. } => users_of(pid?),
            Self::Hidden | Self::Shifted => None,
        }
    }

    /// Says whom the agent must be for what it writes to be a user's of the host.
    pub(super) fn ownership(&self, info: &RuntimeInfo, (uid, gid): (u32, u32)) -> Ownership {
        let root = (info.root_uid, info.root_gid);
        let agent = match self {
            Self::Shifted => return Ownership::shifted(info, (uid, gid)),
            Self::Hidden if uid == info.root_uid => {
                Whose::Nobody("which is root inside on this engine, and the agent is never root".to_owned())
            }
            Self::Hidden => Whose::Nobody("and this engine does not tell who that is inside".to_owned()),
            Self::Ranges { users, groups } if uid == info.root_uid => {
                // The agent takes that user's place, and root is the first of the range then.
                let root = outside(users, 1).zip(outside(groups, 1));
                let agent = match Ownership::numbered(uid, gid) {
                    Whose::Ids(agent) if root.is_some() => Whose::Ids(agent),
                    Whose::Ids(_) => Whose::Nobody("whose engine has no ids for anybody else".to_owned()),
                    // Whatever number it has outside, it can have another inside.
                    _ => Whose::Ids(sandbox_policy::AgentUser::default()),
                };
                return Ownership { agent, root: root.unwrap_or((info.root_uid, info.root_gid)) };
            }
            Self::Ranges { users, groups } => match inside(users, uid) {
                Some(user) => Ownership::numbered(user, inside(groups, gid).unwrap_or(0)),
                None => Whose::Nobody("who is nobody inside on this engine".to_owned()),
            },
        };
        Ownership { agent, root }
    }
}

/// Reads the map of a process (`user_namespaces(7)`).
fn users_of(pid: u32) -> Option<Vec<(u32, u32, u32)>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/uid_map")).ok()?;
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    text.lines().map(line).collect()
}

fn inside(ranges: &[Range], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.outside).filter(|offset| *offset < range.length)?;
        range.inside.checked_add(offset)
    })
}

fn outside(ranges: &[Range], id: u32) -> Option<u32> {
    ranges.iter().find_map(|range| {
        let offset = id.checked_sub(range.inside).filter(|offset| *offset < range.length)?;
        range.outside.checked_add(offset)
    })
}

#[cfg(test)]
mod tests {
    use sandbox_policy::AgentUser;

    use super::*;

    fn info(root: u32) -> RuntimeInfo {
        let nothing = String::new;
        RuntimeInfo {
            name: "podman".to_owned(),
            version: nothing(),
            api: nothing(),
            endpoint: nothing(),
            root_uid: root,
            root_gid: root,
        }
    }

    fn ranges(root: u32, more: &[Range]) -> Ids {
        let own = Range { inside: 0, outside: root, length: 1 };
        let all: Vec<Range> = [own].into_iter().chain(more.iter().copied()).collect();
        Ids::Ranges { users: all.clone(), groups: all }
    }

    #[test]
    fn the_engines_own_user_is_the_agent_and_root_is_somebody_else() {
        let ids = ranges(1_000, &[Range { inside: 1, outside: 100_000, length: 65_536 }]);
        let is = |uid| Whose::Ids(AgentUser::new(uid, uid).unwrap());
        assert_eq!(
            ids.ownership(&info(1_000), (1_000, 1_000)),
            Ownership { agent: is(1_000), root: (100_000, 100_000) }
        );
        let of_range = ids.ownership(&info(1_000), (100_006, 100_006));
        assert_eq!(of_range, Ownership { agent: is(7), root: (1_000, 1_000) });
        for stranger in [0, 999, 1_001, 165_536] {
            let found = ids.ownership(&info(1_000), (stranger, stranger));
            assert!(matches!(found.agent, Whose::Nobody(_)), "{stranger}: {found:?}");
        }
        let high = ranges(900_000, &[Range { inside: 1, outside: 100_000, length: 65_536 }]);
        assert_eq!(high.ownership(&info(900_000), (900_000, 5)).agent, is(1_000));
        let alone = ranges(1_000, &[]).ownership(&info(1_000), (1_000, 1_000));
        assert!(matches!(alone.agent, Whose::Nobody(_)) && alone.root == (1_000, 1_000), "{alone:?}");
    }

    #[test]
    fn what_is_not_told_is_nobody() {
        for owner in [0, 1_000, 100_999] {
            let found = Ids::Hidden.ownership(&info(1_000), (owner, owner));
            assert!(matches!(found.agent, Whose::Nobody(_)), "{owner}: {found:?}");
        }
    }
}
