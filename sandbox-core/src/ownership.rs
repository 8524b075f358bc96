//! Whose a mounted workspace's files are, inside and on the host.
//!
//! What an agent writes there is to belong to the workspace's owner. How that comes about is the engine's to know: it may map ids
//! for the mount or for the container, or the agent has the owner's number, or it cannot be had. Nobody is root inside who could
//! be the agent; so root's workspace is never written with its owner's name.

use std::os::unix::fs::MetadataExt as _;

use sandbox_policy::{Access, AgentUser, SandboxSpec, Workspace};

use crate::{Error, ErrorKind, Result, Runtime, RuntimeInfo};

/// Says how a user of the host is somebody inside.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a runtime says all of it")]
pub struct Ownership {
    /// Whom the agent must be, so that what it writes is that user's.
    pub agent: Whose,
    /// The user and the group on the host that are root's inside, where a directory of that user is mounted.
    pub root: (u32, u32),
}

/// Says whom the agent must be for what it writes to be a user's of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is no fourth answer")]
pub enum Whose {
    /// Whoever it is: ids are mapped, or there is nobody else.
    Anybody,
    /// A user and a group of these ids.
    Ids(AgentUser),
    /// Nobody whom it could be, for this reason.
    Nobody(String),
}

impl Ownership {
    /// The answer of an engine whose containers have the host's ids, or a range of them that begins with root's.
    pub fn shifted(info: &RuntimeInfo, owner: (u32, u32)) -> Self {
        let inside = |id: u32, root: u32| id.checked_sub(root);
        let agent = match (inside(owner.0, info.root_uid), inside(owner.1, info.root_gid)) {
            (Some(0), _) => Whose::Nobody("which is root inside, and the agent is never root".to_owned()),
            // A group that is nobody's inside, or root's, is none that the agent could have.
            (Some(uid), gid) => Self::numbered(uid, gid.unwrap_or(0)),
            (None, _) => Whose::Nobody("who is nobody inside".to_owned()),
        };
        Self { agent, root: (info.root_uid, info.root_gid) }
    }

    /// Whoever has this number inside, with the group if there can be such a one.
    pub fn numbered(uid: u32, gid: u32) -> Whose {
        match AgentUser::new(uid, gid).or_else(|_| AgentUser::new(uid, uid)) {
            Ok(agent) => Whose::Ids(agent),
            Err(error) => Whose::Nobody(format!("who has the number {uid} inside: {error}")),
        }
    }
}

/// Finds out whose a mounted workspace is; none where none is mounted.
///
/// # Errors
/// `WorkspaceOwner` for one that is to be written where its owner is nobody whom the agent could be, and the request does not say
/// who the agent is; those of the host's system.
pub(crate) fn of(spec: &SandboxSpec, runtime: &dyn Runtime) -> Result<Option<Ownership>> {
    let Some((host, access)) = spec.workspace().and_then(Workspace::mounted) else { return Ok(None) };
    let path = host.as_path();
    let data = std::fs::metadata(path)
        .map_err(|error| Error::io(format!("cannot look at the workspace {}", path.display()), error))?;
    let found = runtime.ownership((data.uid(), data.gid()));
    if let (Whose::Nobody(why), Access::ReadWrite, None) = (&found.agent, access, spec.agent()) {
        let message = format!("workspace {} belongs to user {}, {why}", path.display(), data.uid());
        return Err(Error::new(ErrorKind::WorkspaceOwner, message).with_hint(HINT));
    }
    Ok(Some(found))
}

const HINT: &str = "have it copied or mount it read-only, give it to an ordinary user, or use another engine; or name whom the \
                    agent runs as (`--user`, `SandboxBuilder::agent`), whose files they then are";

#[cfg(test)]
mod tests {
    use super::*;

    fn info(root: u32) -> RuntimeInfo {
        RuntimeInfo {
            name: "docker".to_owned(),
            version: String::new(),
            api: String::new(),
            endpoint: String::new(),
            root_uid: root,
            root_gid: root,
        }
    }

    #[test]
    fn an_owner_is_who_has_the_number_inside() {
        let is = |uid, gid| Whose::Ids(AgentUser::new(uid, gid).unwrap());
        for (root, owner, expected) in [
            (0, (1_000, 1_001), is(1_000, 1_001)),
            (0, (1_000, 0), is(1_000, 1_000)),
            (100_000, (101_000, 100_007), is(1_000, 7)),
            (100_000, (101_000, 20), is(1_000, 1_000)),
        ] {
            assert_eq!(Ownership::shifted(&info(root), owner).agent, expected, "{root} {owner:?}");
        }
        for (root, owner) in
            [(0, 0), (0, 65_534), (0, 4_000_000), (100_000, 100_000), (100_000, 1_000), (100_000, 165_534)]
        {
            let found = Ownership::shifted(&info(root), (owner, owner));
            assert!(matches!(found.agent, Whose::Nobody(_)), "{root} {owner}: {found:?}");
            assert_eq!(found.root, (root, root));
        }
    }
}
