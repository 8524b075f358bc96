//! Whom the agent runs as.

use std::fmt;

use crate::ParseError;

/// Holds the user and group ids that the agent runs as inside the sandbox.
///
/// Neither is root, and neither is above 65,533: 65,534 is the overflow id, which stands for everyone
/// who has no id in a user namespace
/// (<https://man7.org/linux/man-pages/man7/user_namespaces.7.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct AgentUser {
    uid: u32,
    gid: u32,
}

impl AgentUser {
    /// Makes a user from its ids.
    ///
    /// # Errors
    /// An id outside 1 to 65,533.
    pub fn new(uid: u32, gid: u32) -> Result<Self, ParseError> {
        for (field, id) in [("uid", uid), ("gid", gid)] {
            if !(1..=MAX_ID).contains(&id) {
                return Err(ParseError::new(KIND, &id.to_string(), FORM).in_field(field));
            }
        }
        Ok(Self { uid, gid })
    }

    /// Returns the user id.
    pub const fn uid(self) -> u32 {
        self.uid
    }

    /// Returns the group id.
    pub const fn gid(self) -> u32 {
        self.gid
    }
}

impl Default for AgentUser {
    /// Returns 1000:1000, the first ordinary user of most images.
    fn default() -> Self {
        Self { uid: 1_000, gid: 1_000 }
    }
}

impl fmt::Display for AgentUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

impl<'de> serde::Deserialize<'de> for AgentUser {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Ids {
            uid: u32,
            gid: u32,
        }
        let Ids { uid, gid } = Ids::deserialize(deserializer)?;
        Self::new(uid, gid).map_err(serde::de::Error::custom)
    }
}

const KIND: &str = "an ordinary id";
const FORM: &str = "write a number from 1 to 65533";
const MAX_ID: u32 = 65_533;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_root_and_the_overflow_id() {
        for (uid, gid) in [(0, 1), (1, 0), (65_534, 1), (1, 65_534), (u32::MAX, 1)] {
            assert!(AgentUser::new(uid, gid).is_err(), "{uid}:{gid}");
        }
        let user = AgentUser::new(1, 65_533).unwrap();
        assert_eq!(user.to_string(), "1:65533");
        let error = AgentUser::new(1, 0).unwrap_err();
        assert_eq!(error.field(), Some("gid"));
        assert!(serde_json::from_str::<AgentUser>(r#"{"uid":0,"gid":1}"#).is_err());
    }
}
