//! Whom the agent runs as, before and after the image has been asked.

use sandbox_guest::user;
use sandbox_guest::wire::Identity;
use sandbox_policy::{AgentUser, SandboxSpec};

use crate::{Error, ErrorKind, Image, Ownership, Result, Whose};

/// Tells whom the agent runs as, as far as it is known before the sandbox runs.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "ids are known or they are not")]
pub enum Agent {
    /// A user and a group of these ids.
    Ids(AgentUser),
    /// The user whom the image names; the guest finds out who that is, from the image's own `/etc/passwd`.
    Named(String),
}

impl Agent {
    /// Chooses: who was asked for, else who writes a mounted workspace as its owner, else the image's user, else one that is
    /// provided. An image that runs as root has none.
    ///
    /// # Errors
    /// `ImageInvalid` for an image that names what is no user.
    pub fn of(spec: &SandboxSpec, image: &Image, ownership: Option<&Ownership>) -> Result<Self> {
        if let Some(asked) = spec.agent() {
            return Ok(Self::Ids(asked));
        }
        if let Some(Ownership { agent: Whose::Ids(ids), root: _ }) = ownership {
            return Ok(Self::Ids(*ids));
        }
        let Some(named) = image.user.as_deref().filter(|user| !user.is_empty()) else {
            return Ok(Self::Ids(AgentUser::default()));
        };
        let (name, group) = user::split(named).ok_or_else(|| {
            let named: String = named.chars().take(80).flat_map(char::escape_debug).collect();
            Error::new(
                ErrorKind::ImageInvalid,
                format!("image {} runs as \"{named}\", which is no user", image.reference),
            )
            .with_hint(HINT)
        })?;
        match (name.parse(), group.map(str::parse)) {
            (Ok(0_u32), _) => Ok(Self::Ids(AgentUser::default())),
            (Ok(uid), Some(Ok(gid))) => {
                ids(image, Identity { uid, gid: if gid == 0 { uid } else { gid } }).map(Self::Ids)
            }
            _ => Ok(Self::Named(named.to_owned())),
        }
    }

    /// The ids that are known beforehand.
    pub fn ids(&self) -> Option<AgentUser> {
        match self {
            Self::Ids(ids) => Some(*ids),
            Self::Named(_) => None,
        }
    }

    /// Says who it is, now that the guest has looked.
    pub(crate) fn settle(&self, image: &Image, found: Option<Identity>) -> Result<AgentUser> {
        match (self, found) {
            (Self::Ids(known), _) => Ok(*known),
            (Self::Named(_), Some(found)) => ids(image, found),
            (Self::Named(name), None) => {
                let message = format!("image {} runs as {name}, whom its /etc/passwd does not know", image.reference);
                Err(Error::new(ErrorKind::ImageInvalid, message).with_hint(HINT))
            }
        }
    }
}

fn ids(image: &Image, Identity { uid, gid }: Identity) -> Result<AgentUser> {
    AgentUser::new(uid, gid).map_err(|error| {
        Error::new(ErrorKind::ImageInvalid, format!("image {} runs as {uid}:{gid}", image.reference))
            .with_source(error)
            .with_hint(HINT)
    })
}

const HINT: &str = "name the user that the agent runs as (`--user`, `SandboxBuilder::agent`)";

#[cfg(test)]
mod tests {
    use sandbox_policy::{Capabilities, Control, Policy, SandboxRequest, Support};

    use super::*;

    fn spec(agent: Option<AgentUser>) -> SandboxSpec {
        let mut request = SandboxRequest::new("debian:12".parse().unwrap());
        request.agent = agent;
        let able = Control::ALL.iter().fold(Capabilities::new(), |able, control| {
            able.with(*control, Support::Enforced { by: "a test".to_owned() })
        });
        Policy::standard().check(&request, &able).unwrap()
    }

    fn image(user: Option<&str>) -> Image {
        let reference: sandbox_policy::ImageRef = "debian:12".parse().unwrap();
        Image { id: reference.to_string(), reference, user: user.map(str::to_owned) }
    }

    #[test]
    fn who_was_asked_for_comes_before_the_images_user_and_root_is_nobodys() {
        let stranger = AgentUser::new(7, 8).unwrap();
        assert_eq!(Agent::of(&spec(Some(stranger)), &image(Some("!")), None).unwrap(), Agent::Ids(stranger));
        let provided = Agent::Ids(AgentUser::default());
        for user in [None, Some(""), Some("0"), Some("0:0"), Some("0:5")] {
            assert_eq!(Agent::of(&spec(None), &image(user), None).unwrap(), provided, "{user:?}");
        }
        for (user, uid, gid) in [("7:8", 7, 8), ("7:0", 7, 7)] {
            let expected = Agent::Ids(AgentUser::new(uid, gid).unwrap());
            assert_eq!(Agent::of(&spec(None), &image(Some(user)), None).unwrap(), expected);
        }
        let owner = Ownership { agent: Whose::Ids(AgentUser::new(9, 9).unwrap()), root: (0, 0) };
        let chosen = |asked| Agent::of(&spec(asked), &image(Some("7:8")), Some(&owner)).unwrap();
        assert_eq!(chosen(Some(stranger)), Agent::Ids(stranger));
        assert_eq!(chosen(None), Agent::Ids(AgentUser::new(9, 9).unwrap()));
        for agent in [Whose::Anybody, Whose::Nobody(String::new())] {
            let found = Agent::of(&spec(None), &image(Some("7:8")), Some(&Ownership { agent, root: (0, 0) })).unwrap();
            assert_eq!(found, Agent::Ids(stranger), "the image's");
        }
        for user in ["vscode", "root", "7", "7:staff"] {
            assert_eq!(Agent::of(&spec(None), &image(Some(user)), None).unwrap(), Agent::Named(user.to_owned()));
        }
    }

    #[test]
    fn what_is_no_user_or_nobody_is_refused_with_what_to_do() {
        for user in ["a b", "a\n\u{1b}[0m", "65534:65534", "4294967295:1"] {
            let error = Agent::of(&spec(None), &image(Some(user)), None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ImageInvalid, "{error}");
            assert!(error.hint().is_some() && !error.to_string().contains(char::is_control), "{error}");
        }
        let named = Agent::Named("vscode".to_owned());
        for found in [None, Some(Identity { uid: 0, gid: 1 }), Some(Identity { uid: 65_534, gid: 1 })] {
            assert_eq!(named.settle(&image(None), found).unwrap_err().kind(), ErrorKind::ImageInvalid);
        }
        let found = named.settle(&image(None), Some(Identity { uid: 5, gid: 6 })).unwrap();
        assert_eq!(found, AgentUser::new(5, 6).unwrap());
    }
}
