//! Repository names, by GitHub's rules.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use crate::ParseError;
use crate::parse::string_form;

/// Names a repository as `owner/name`.
///
/// It prints as given and compares without regard to case, as GitHub does. It can only hold what is
/// safe as two path segments of a URL.
///
/// Owners: <https://docs.github.com/en/enterprise-cloud@latest/admin/managing-iam/iam-configuration-reference/username-considerations-for-external-authentication>.
#[derive(Debug, Clone)]
pub struct RepoId {
    owner: String,
    name: String,
}

impl RepoId {
    /// Returns the owner, as given.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// Returns the name without its owner, as given.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn folded(&self) -> (String, String) {
        (self.owner.to_ascii_lowercase(), self.name.to_ascii_lowercase())
    }
}

impl PartialEq for RepoId {
    fn eq(&self, other: &Self) -> bool {
        self.folded() == other.folded()
    }
}

impl Eq for RepoId {}

impl PartialOrd for RepoId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RepoId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.folded().cmp(&other.folded())
    }
}

impl Hash for RepoId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.folded().hash(state);
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)
    }
}

impl FromStr for RepoId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |allowed| ParseError::new(KIND, text, allowed);
        let (owner, name) = text.split_once('/').ok_or_else(|| error("write owner/name, such as rust-lang/cargo"))?;
        if !is_owner(owner) {
            return Err(error(OWNER_FORM));
        }
        if !is_name(name) {
            return Err(error(NAME_FORM));
        }
        Ok(Self { owner: owner.to_owned(), name: name.to_owned() })
    }
}

string_form!(RepoId);

fn is_owner(owner: &str) -> bool {
    (1..=39).contains(&owner.len())
        && owner.split(['-', '_']).all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn is_name(name: &str) -> bool {
    let folded = name.to_ascii_lowercase();
    (1..=100).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && !matches!(name, "." | "..")
        && !SUFFIXES.iter().any(|suffix| folded.ends_with(suffix))
}

const KIND: &str = "a repository";
/// An underscore stands in the names of managed users
/// (<https://docs.github.com/en/enterprise-cloud@latest/admin/managing-iam/iam-configuration-reference/username-considerations-for-external-authentication>).
const OWNER_FORM: &str = "the owner has 1 to 39 letters, digits and single - or _, none at either end";
const NAME_FORM: &str = "the name has 1 to 100 of A-Z a-z 0-9 . _ -, is not . or .., and does not \
                         end in .git or .wiki";
/// GitHub keeps these for the clone URL and for the wiki of a repository.
const SUFFIXES: [&str; 2] = [".git", ".wiki"];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn accepts_and_prints_as_given() {
        for text in ["a/b", "Rust-Lang/Cargo", "x/.github", "a-b-c/_._", "mona-lisa_corp/c", "9/..."] {
            assert_eq!(text.parse::<RepoId>().unwrap().to_string(), text);
        }
        let longest = format!("{}/{}", "a".repeat(39), "b".repeat(100));
        assert_eq!(longest.parse::<RepoId>().unwrap().name().len(), 100);
    }

    #[test]
    fn compares_without_case() {
        let set: HashSet<RepoId> = ["A/b", "a/B", "a/b"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(set.len(), 1);
        assert_ne!("a/b".parse::<RepoId>(), "a/c".parse::<RepoId>());
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "a",
            "/b",
            "a/",
            "a/b/c",
            "-a/b",
            "a-/b",
            "a--b/c",
            "a__b/c",
            "a_/c",
            "a/.",
            "a/..",
            "a/b.git",
            "a/b.GIT",
            "a/b.wiki",
            "a/b c",
            "a/b%2f",
            "a/b?x",
            "é/b",
            "a/é",
            "a/b\n",
            "../b",
            "https://github.com/a/b",
        ] {
            assert!(text.parse::<RepoId>().is_err(), "{text}");
        }
        assert!(format!("{}/b", "a".repeat(40)).parse::<RepoId>().is_err());
        assert!(format!("a/{}", "b".repeat(101)).parse::<RepoId>().is_err());
    }
}
