//! What a repository's token may do, in words, and what those words are called at GitHub.
//!
//! Invariant: a scope that is not granted by name adds nothing, and a permission that nobody knows is more than any
//! grant.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::ParseError;
use crate::parse::{string_form, words};

words! {
    /// Names one kind of work that a token may be used for.
    #[non_exhaustive]
    Scope is "a scope" {
        /// Branches, commits, pushes, issues and pull requests; checks and runs are read.
        Repo = "repo",
        /// The repository's secrets for its workflows.
        Secrets = "secrets",
        /// Workflow files are edited, and the logs of their runs are read.
        Workflow = "workflow",
    }
}

impl Scope {
    /// Returns the permissions that the scope comes to.
    pub fn permissions(self) -> TokenPermissions {
        let permissions: &[(&'static str, TokenLevel)] = match self {
            Self::Repo => &[
                ("actions", TokenLevel::Read),
                ("checks", TokenLevel::Read),
                ("contents", TokenLevel::Write),
                ("issues", TokenLevel::Write),
                ("metadata", TokenLevel::Read),
                ("pull_requests", TokenLevel::Write),
            ],
            Self::Secrets => &[("metadata", TokenLevel::Read), ("secrets", TokenLevel::Write)],
            Self::Workflow => {
                &[("actions", TokenLevel::Read), ("metadata", TokenLevel::Read), ("workflows", TokenLevel::Write)]
            }
        };
        TokenPermissions(
            permissions.iter().map(|(name, level)| (TokenPermission((*name).to_owned()), *level)).collect(),
        )
    }
}

words! {
    /// Tells how far one permission goes; each level holds those before it.
    TokenLevel is "a level of a permission" {
        /// It may be read.
        Read = "read",
        /// It may be read and written.
        Write = "write",
        /// It may be administered.
        Admin = "admin",
    }
}

/// Names a permission as GitHub's interface does: `pull_requests`.
///
/// It need not be one that is known here: what a token carries is told, whatever it is
/// (<https://docs.github.com/en/rest/authentication/permissions-required-for-github-apps>).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenPermission(String);

impl TokenPermission {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenPermission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for TokenPermission {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseError::new("a permission", text, "write 1 to 64 of a-z and _"))
    }
}

string_form!(TokenPermission);

/// Holds permissions and how far each goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct TokenPermissions(BTreeMap<TokenPermission, TokenLevel>);

impl TokenPermissions {
    /// Joins the permissions of some scopes.
    pub fn of(scopes: &BTreeSet<Scope>) -> Self {
        scopes.iter().flat_map(|scope| scope.permissions().0).collect()
    }

    /// Returns how far one permission goes; `None` if it is not held.
    pub fn level(&self, permission: &str) -> Option<TokenLevel> {
        let mut all = self.0.iter();
        all.find(|(name, _)| name.as_str() == permission).map(|(_, level)| *level)
    }

    /// Lists the permissions, sorted by their names.
    pub fn iter(&self) -> impl Iterator<Item = (&TokenPermission, TokenLevel)> {
        self.0.iter().map(|(name, level)| (name, *level))
    }

    /// Tells whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns what these have and the granted ones do not: each at the level that is too high.
    #[must_use]
    pub fn beyond(&self, granted: &Self) -> Self {
        let exceeds = |(name, level): &(&TokenPermission, TokenLevel)| {
            granted.level(name.as_str()).is_none_or(|most| *level > most)
        };
        self.iter().filter(exceeds).map(|(name, level)| (name.clone(), level)).collect()
    }
}

impl FromIterator<(TokenPermission, TokenLevel)> for TokenPermissions {
    /// Collects permissions; of one that comes more than once, the highest level stays.
    fn from_iter<I: IntoIterator<Item = (TokenPermission, TokenLevel)>>(all: I) -> Self {
        let mut permissions = BTreeMap::new();
        for (name, level) in all {
            let held = permissions.entry(name).or_insert(level);
            *held = level.max(*held);
        }
        Self(permissions)
    }
}

impl fmt::Display for TokenPermissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.iter().map(|(name, level)| format!("{name}={level}")).collect();
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn permissions() -> impl Strategy<Value = TokenPermissions> {
        let name = prop::sample::select(&["actions", "contents", "metadata", "secrets", "not_known_here"][..])
            .prop_map(|name| name.parse::<TokenPermission>().unwrap());
        prop::collection::vec((name, prop::sample::select(TokenLevel::ALL)), 0..6)
            .prop_map(|all| all.into_iter().collect())
    }

    proptest! {
        #[test]
        fn nothing_is_beyond_exactly_where_each_is_granted(held in permissions(), granted in permissions()) {
            let within = held.iter().all(|(name, level)| granted.level(name.as_str()) >= Some(level));
            prop_assert_eq!(held.beyond(&granted).is_empty(), within);
            prop_assert!(held.beyond(&held).is_empty());
            prop_assert_eq!(held.beyond(&TokenPermissions::default()), held);
        }
    }

    #[test]
    fn what_leads_to_more_is_granted_by_its_own_name_alone() {
        let repo = TokenPermissions::of(&BTreeSet::from([Scope::Repo]));
        assert_eq!(
            repo.to_string(),
            "actions=read checks=read contents=write issues=write metadata=read pull_requests=write"
        );
        for scope in Scope::ALL.iter().filter(|scope| **scope != Scope::Repo) {
            let more = TokenPermissions::of(&BTreeSet::from([Scope::Repo, *scope])).beyond(&repo);
            assert_eq!(more.iter().count(), 1, "{scope}: {more}");
        }
    }

    #[test]
    fn a_name_fits_into_a_link_as_it_is() {
        for text in ["", "Contents", "a=b", "a&b", "a b", "é", "a\n"] {
            assert!(text.parse::<TokenPermission>().is_err(), "{text:?}");
        }
        for scope in Scope::ALL {
            for (name, _) in scope.permissions().iter() {
                assert_eq!(name.as_str().parse::<TokenPermission>().as_ref(), Ok(name));
            }
        }
    }
}
