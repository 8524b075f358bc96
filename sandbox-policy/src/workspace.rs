//! What an agent works on, and how it comes to be inside.

use std::fmt;
use std::str::FromStr;

use crate::parse::{string_form, words};
use crate::{CloneSource, GuestPath, History, HostPath, ParseError};

/// Describes what the agent works on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Workspace {
    /// Where its content comes from.
    #[serde(flatten)]
    pub source: WorkspaceSource,
    /// Where it lies inside; [`DEFAULT_WORKSPACE_PATH`] is a good place.
    pub guest: GuestPath,
}

impl Workspace {
    /// Describes a directory of the host that is mounted.
    pub fn bind(host: HostPath, guest: GuestPath, access: Access) -> Self {
        Self { source: WorkspaceSource::Bind { host, access }, guest }
    }

    /// Returns the directory of the host that is mounted, and what may be done with it; none for every other kind.
    pub fn mounted(&self) -> Option<(&HostPath, Access)> {
        match &self.source {
            WorkspaceSource::Bind { host, access } => Some((host, *access)),
            WorkspaceSource::Clone { .. } | WorkspaceSource::Copy { .. } | WorkspaceSource::Volume { .. } => None,
        }
    }

    /// Tells whether it lies in the container's own layer, and ends with it.
    pub fn is_in_layer(&self) -> bool {
        matches!(self.source, WorkspaceSource::Clone { .. } | WorkspaceSource::Copy { .. })
    }
}

/// Says where the content of a workspace comes from.
///
/// As JSON it has its [kind](WorkspaceKind) beside what belongs to it: `{"kind":"copy","host":"/srv/widget"}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "a new kind must be thought of wherever kinds are told apart")]
pub enum WorkspaceSource {
    /// A directory of the host, which is mounted.
    Bind {
        /// The directory, with symbolic links already followed.
        host: HostPath,
        /// What may be done with it.
        access: Access,
    },
    /// A repository, whose branch is checked out in the container's own layer.
    Clone {
        /// The repository.
        source: CloneSource,
        /// How much of its history comes along.
        history: History,
    },
    /// What a directory of the host holds when the sandbox starts, without what git ignores, in the container's own layer.
    Copy {
        /// The directory, with symbolic links already followed.
        host: HostPath,
    },
    /// A volume that outlives the sandbox.
    Volume {
        /// Its name.
        name: VolumeName,
    },
}

impl WorkspaceSource {
    /// Returns its kind.
    pub fn kind(&self) -> WorkspaceKind {
        match self {
            Self::Bind { .. } => WorkspaceKind::Bind,
            Self::Clone { .. } => WorkspaceKind::Clone,
            Self::Copy { .. } => WorkspaceKind::Copy,
            Self::Volume { .. } => WorkspaceKind::Volume,
        }
    }
}

words! {
    /// Tells how a workspace comes to be inside.
    WorkspaceKind is "a kind of workspace" {
        /// A directory of the host is mounted.
        Bind = "bind",
        /// A repository is cloned.
        Clone = "clone",
        /// A directory of the host is copied.
        Copy = "copy",
        /// A volume is kept between sandboxes.
        Volume = "volume",
    }
}

words! {
    /// Tells what may be done with a mounted directory.
    Access is "an access" {
        /// It may be read.
        ReadOnly = "read-only",
        /// It may be read and written.
        ReadWrite = "read-write",
    }
}

/// Names a kept volume: 1 to 64 of a-z, 0-9, `-` and `_`, the first a letter or a digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName(String);

impl VolumeName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for VolumeName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_allowed = |byte: u8| is_plain(byte) || matches!(byte, b'-' | b'_');
        if text.len() <= MAX_NAME && text.bytes().all(is_allowed) && text.bytes().next().is_some_and(is_plain) {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseError::new("a volume's name", text, NAME_FORM))
    }
}

string_form!(VolumeName);

/// Where a workspace lies inside unless somebody says otherwise.
pub const DEFAULT_WORKSPACE_PATH: &str = "/workspace";
const MAX_NAME: usize = 64;
const NAME_FORM: &str = "write 1 to 64 of a-z 0-9 - _, the first a letter or a digit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_volumes_are_plain() {
        for text in ["a", "0", "cache-1_x", &"v".repeat(64)] {
            assert_eq!(text.parse::<VolumeName>().unwrap().to_string(), text);
        }
        for text in ["", "-a", "_a", "A", "a b", "a/b", "..", "a.b", "é", "a\n", &"v".repeat(65)] {
            assert!(text.parse::<VolumeName>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn json_tells_the_kind() {
        let guest: GuestPath = DEFAULT_WORKSPACE_PATH.parse().unwrap();
        let json = |source| serde_json::to_string(&Workspace { source, guest: guest.clone() }).unwrap();
        let host: HostPath = "/work/x".parse().unwrap();
        assert_eq!(
            json(WorkspaceSource::Bind { host: host.clone(), access: Access::ReadOnly }),
            r#"{"kind":"bind","host":"/work/x","access":"read-only","guest":"/workspace"}"#
        );
        assert_eq!(json(WorkspaceSource::Copy { host }), r#"{"kind":"copy","host":"/work/x","guest":"/workspace"}"#);
        assert_eq!(
            json(WorkspaceSource::Clone { source: "o/n".parse().unwrap(), history: History::Full }),
            r#"{"kind":"clone","source":"https://github.com/o/n","history":"full","guest":"/workspace"}"#
        );
        assert_eq!(
            json(WorkspaceSource::Volume { name: "v".parse().unwrap() }),
            r#"{"kind":"volume","name":"v","guest":"/workspace"}"#
        );
    }
}
