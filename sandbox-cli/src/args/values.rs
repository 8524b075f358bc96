//! Values on the command line that are no policy words.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{OsStringValueParser, TypedValueParser};
use sandbox_policy::{Access, AgentUser, CredentialName};
use serde::{Deserialize, Serialize};

/// A directory to mount, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkspaceDirectory {
    pub(crate) path: PathBuf,
    pub(crate) access: Access,
}

impl From<OsString> for WorkspaceDirectory {
    fn from(text: OsString) -> Self {
        for (suffix, access) in [(":ro", Access::ReadOnly), (":rw", Access::ReadWrite)] {
            if let Some(path) = text.as_bytes().strip_suffix(suffix.as_bytes()) {
                return Self { path: OsStr::from_bytes(path).into(), access };
            }
        }
        Self { path: text.into(), access: Access::ReadWrite }
    }
}

/// Reads `DIR[:ro]`.
pub(super) fn workspace() -> impl TypedValueParser<Value = WorkspaceDirectory> {
    OsStringValueParser::new().try_map(|text| match WorkspaceDirectory::from(text) {
        WorkspaceDirectory { path, access: _ } if path.as_os_str().is_empty() => {
            Err("a directory's path is needed, such as `.`, or `.:ro` to mount it read-only")
        }
        workspace => Ok(workspace),
    })
}

/// A variable of the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl FromStr for Variable {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(Self { name: name.to_owned(), value: value.to_owned() }),
            _ => Err("KEY=VALUE is needed; nothing is taken from your own environment"),
        }
    }
}

/// A credential of the policy, and where its secret comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CredentialArgument {
    pub(crate) name: CredentialName,
    pub(crate) source: CredentialSource,
}

/// Where a secret comes from; never the secret itself, which other users of the machine could see among the arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CredentialSource {
    Command(Vec<String>),
    Env(String),
    File(PathBuf),
}

impl CredentialSource {
    /// Reads where a secret is. What stands there instead may be a secret that somebody meant to give, so it is not shown.
    pub(crate) fn read(text: &str) -> Option<Self> {
        match text.split_once(':') {
            Some((_, "")) | None => None,
            Some(("command", words)) => {
                Some(Self::Command(words.split_ascii_whitespace().map(str::to_owned).collect()))
            }
            Some(("env", variable)) => Some(Self::Env(variable.to_owned())),
            Some(("file", path)) => Some(Self::File(path.into())),
            Some(_) => None,
        }
    }
}

impl FromStr for CredentialArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || "NAME=env:VARIABLE, NAME=file:PATH or NAME=command:PROGRAM ARGUMENTS is needed".to_owned();
        let (name, source) = text.split_once('=').ok_or_else(form)?;
        let source = CredentialSource::read(source).ok_or_else(form)?;
        Ok(Self { name: name.parse().map_err(|error: sandbox_policy::ParseError| error.to_string())?, source })
    }
}

/// Reads `UID:GID`.
pub(super) fn user(text: &str) -> Result<AgentUser, String> {
    let ids = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    let (uid, gid) = ids.ok_or_else(|| "two numbers are needed, such as 1000:1000".to_owned())?;
    AgentUser::new(uid, gid).map_err(|error| error.to_string())
}

/// One side of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A path of the host.
    Here(PathBuf),
    /// A path in a sandbox.
    Inside {
        /// The sandbox's id, or the beginning of it.
        id: String,
        /// The path.
        path: OsString,
    },
    /// Standard input or output.
    Stream,
}

impl From<OsString> for Place {
    fn from(text: OsString) -> Self {
        let bytes = text.as_bytes();
        if bytes == b"-" {
            return Self::Stream;
        }
        // An id is hexadecimal, so whatever else stands before a colon is part of a path.
        let colon = bytes.iter().position(|&byte| byte == b':').unwrap_or(0);
        match std::str::from_utf8(&bytes[..colon]) {
            Ok(id) if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Self::Inside { id: id.to_owned(), path: OsString::from_vec(bytes[colon + 1..].to_vec()) }
            }
            _ => Self::Here(text.into()),
        }
    }
}

/// Reads `PATH`, `ID:PATH` or `-`.
pub(super) fn place() -> impl TypedValueParser<Value = Place> {
    OsStringValueParser::new().map(Place::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::from(OsString::from(text))
    }

    #[test]
    fn a_workspace_may_say_how_it_is_mounted() {
        let read = |text: &str| WorkspaceDirectory::from(OsString::from(text));
        assert_eq!(read("/a:ro"), WorkspaceDirectory { path: "/a".into(), access: Access::ReadOnly });
        assert_eq!(read("/a:rw"), WorkspaceDirectory { path: "/a".into(), access: Access::ReadWrite });
        assert_eq!(read("/a:b"), WorkspaceDirectory { path: "/a:b".into(), access: Access::ReadWrite });
    }

    #[test]
    fn a_place_is_inside_only_after_an_id() {
        assert_eq!(place("-"), Place::Stream);
        assert_eq!(place("3f9c:/tmp"), Place::Inside { id: "3f9c".into(), path: "/tmp".into() });
        assert_eq!(place("3f9c:"), Place::Inside { id: "3f9c".into(), path: "".into() });
        for here in ["./3f9c:/tmp", "a.txt", "no:de", ":x", "", "/x:y"] {
            assert_eq!(place(here), Place::Here(here.into()), "{here}");
        }
    }

    #[test]
    fn a_user_is_two_ordinary_ids() {
        assert_eq!(user("1000:100").unwrap(), AgentUser::new(1000, 100).unwrap());
        for bad in ["", "1000", "1000:", "a:b", "-1:1", "0:0", "1000:0"] {
            assert!(user(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_variable_has_a_name_and_a_value() {
        assert_eq!("A=b=c".parse(), Ok(Variable { name: "A".into(), value: "b=c".into() }));
        assert_eq!("A=".parse(), Ok(Variable { name: "A".into(), value: String::new() }));
        assert!("A".parse::<Variable>().is_err());
        assert!("=b".parse::<Variable>().is_err());
    }

    #[test]
    fn a_credential_says_where_its_secret_is_and_never_what_it_is() {
        let source = |text: &str| text.parse::<CredentialArgument>().map(|argument| argument.source);
        assert_eq!(source("model=env:KEY"), Ok(CredentialSource::Env("KEY".into())));
        assert_eq!(source("model=file:/a:b"), Ok(CredentialSource::File("/a:b".into())));
        let words = ["pass", "show", "model"].map(str::to_owned).to_vec();
        assert_eq!(source("model=command:pass show  model"), Ok(CredentialSource::Command(words)));
        for bad in [
            "model",
            "model=not-a-real-secret",
            "model=env:",
            "model=other:not-a-real-secret",
            "a b=env:KEY",
            "=env:KEY",
        ] {
            let error = source(bad).unwrap_err();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
