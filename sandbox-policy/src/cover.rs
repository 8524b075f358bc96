//! Which parts of a mounted workspace nothing inside may change, and which it does not even see.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::ParseError;
use crate::parse::string_form;

/// Names a part of a workspace: one to eight names, joined by `/`, with a `/` at the end where it is a directory.
///
/// What it is on the host decides there; the end of the name decides what is kept from being made, where it does not exist yet.
/// A name means that spelling alone: on a file system that tells `.git` from `.GIT`, the latter is another file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoverPath(String);

impl CoverPath {
    /// Makes a path that is known to be valid.
    pub(crate) fn known(path: &'static str) -> Self {
        Self(path.to_owned())
    }

    /// Returns the path, relative to the workspace.
    pub fn as_path(&self) -> &Path {
        Path::new(self.0.trim_end_matches('/'))
    }

    /// Returns the path as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether it names a directory.
    pub fn is_directory(&self) -> bool {
        self.0.ends_with('/')
    }
}

impl fmt::Display for CoverPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CoverPath {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names: Vec<&str> = text.strip_suffix('/').unwrap_or(text).split('/').collect();
        let is_allowed = |c: char| !c.is_control() && c != '"' && c != '\\';
        let is_name =
            |name: &&str| !matches!(*name, "" | "." | "..") && name.len() <= MAX_NAME && name.chars().all(is_allowed);
        if names.len() <= MAX_DEPTH && names.iter().all(is_name) {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseError::new("a part of a workspace", text, FORM))
    }
}

string_form!(CoverPath);

/// What programs of the host run or obey (CVE-2026-25725): these are read, and neither changed nor made.
pub(crate) const PROTECTED: [&str; 4] = [".claude/", ".envrc", ".mcp.json", ".vscode/"];

/// What is the host's alone: its repository, whose hooks and settings its git obeys, and packages built for the host. In their place
/// are empty directories of the sandbox's own.
pub(crate) const COVERED: [&str; 2] = [".git/", "node_modules/"];

const MAX_NAME: usize = 255;
const MAX_DEPTH: usize = 8;
const FORM: &str = "write 1 to 8 names joined by /, relative to the workspace, none of them . or .., and a / at the end of a directory";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_in_the_workspace() {
        for text in [".git/", "node_modules", "a/b/c/", "a b", "-x", "ä"] {
            let path: CoverPath = text.parse().unwrap();
            assert_eq!((path.as_str(), path.is_directory()), (text, text.ends_with('/')));
            assert!(path.as_path().is_relative());
        }
        for text in [
            "",
            "/",
            "/a",
            "a//b",
            "..",
            "a/../b",
            ".",
            "a/.",
            "a\0",
            "a\nb",
            "a\"",
            "a\\",
            &"a/".repeat(9),
            &"a".repeat(256),
        ] {
            assert!(text.parse::<CoverPath>().is_err(), "{text:?}");
        }
        for text in PROTECTED.into_iter().chain(COVERED) {
            text.parse::<CoverPath>().unwrap();
        }
    }
}
