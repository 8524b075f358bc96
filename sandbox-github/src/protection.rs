//! Whether a branch is protected, and how to protect it.
//!
//! The main question is put to the rules that are in force for a branch, from whatever level
//! (<https://docs.github.com/en/rest/repos/rules#get-rules-for-a-branch>); it needs no more than `metadata: read`.

use http::{Method, StatusCode};
use sandbox_core::Token;
use sandbox_policy::{Branch, BranchProtection, RepoId};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::{Call, Client};
use crate::{Error, Result};

/// Whether a branch is protected from what a sandbox could do to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Protection {
    /// By these rules: `pull_request`, `non_fast_forward` and so on, or `classic` where GitHub says no more.
    Protected(Vec<String>),
    /// It can not be told, for this reason.
    Unknown(String),
    /// No rule keeps a direct or forced push from it.
    Unprotected,
}

impl Client {
    /// Asks whether a branch is protected, by rulesets or by classic protection.
    ///
    /// # Errors
    /// Where GitHub cannot be asked. What the credential may not see makes the answer `Unknown`.
    pub async fn protection(&self, secret: &SecretString, repository: &RepoId, branch: &Branch) -> Result<Protection> {
        let (owner, name) = (repository.owner(), repository.name());
        let what = format!("reading the rules of {branch} in {repository}");
        let path = ["repos", owner, name, "rules", "branches", branch.as_str()];
        let rules = match self.list::<Rule>(Call::get(&path, what).bearer(secret).remembered(), MAX_RULES).await {
            Ok((rules, _)) => rules,
            Err(error @ (Error::Forbidden { .. } | Error::NotFound { .. })) => {
                return Ok(Protection::Unknown(error.to_string()));
            }
            Err(error) => return Err(error),
        };
        let mut kinds: Vec<String> = rules.into_iter().map(|rule| rule.kind).collect();
        kinds.sort();
        kinds.dedup();
        if kinds.iter().any(|kind| GUARDS.contains(&kind.as_str())) {
            return Ok(Protection::Protected(kinds));
        }
        // Classic protection is no rule of that list. The branch itself tells of it, to whoever may read it.
        let what = format!("reading the branch {branch} of {repository}");
        let call = Call::get(&["repos", owner, name, "branches", branch.as_str()], what).bearer(secret).remembered();
        match self.send(&call).await?.json::<BranchState>() {
            Ok(BranchState { protected: true }) => {
                kinds.push("classic".to_owned());
                Ok(Protection::Protected(kinds))
            }
            Ok(BranchState { protected: false }) => Ok(Protection::Unprotected),
            Err(error @ (Error::Forbidden { .. } | Error::NotFound { .. })) => {
                Ok(Protection::Unknown(error.to_string()))
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the name of a repository's default branch.
    ///
    /// # Errors
    /// `NotFound` if the repository is out of the credential's reach; `Moved` if it was renamed.
    pub async fn default_branch(&self, secret: &SecretString, repository: &RepoId) -> Result<Branch> {
        let what = format!("reading {repository}");
        let call =
            Call::get(&["repos", repository.owner(), repository.name()], what.clone()).bearer(secret).remembered();
        let DefaultBranch { default_branch, full_name } = self.send(&call).await?.json()?;
        if full_name.parse::<RepoId>().ok().as_ref() != Some(repository) {
            return Err(Error::Moved { what });
        }
        default_branch
            .parse()
            .map_err(|_| Error::Unreadable { what, why: "a default branch of no good name".to_owned() })
    }

    /// Reads the number by which GitHub knows a repository: it stays when the name changes, and is another when the name is given
    /// to another repository.
    ///
    /// # Errors
    /// As [`default_branch`](Self::default_branch).
    pub async fn repository_number(&self, secret: &SecretString, repository: &RepoId) -> Result<u64> {
        let what = format!("reading {repository}");
        let call =
            Call::get(&["repos", repository.owner(), repository.name()], what.clone()).bearer(secret).remembered();
        let Numbered { id, full_name } = self.send(&call).await?.json()?;
        if full_name.parse::<RepoId>().ok().as_ref() == Some(repository) { Ok(id) } else { Err(Error::Moved { what }) }
    }

    /// Says of the default branch of a token's repository what a policy wants to know.
    pub(crate) async fn default_branch_protection(&self, token: &Token) -> Result<BranchProtection> {
        let (secret, repository) = (token.secret(), token.repository());
        let branch = self.default_branch(secret, repository).await?;
        Ok(match self.protection(secret, repository, &branch).await? {
            Protection::Protected(_) => BranchProtection::Protected,
            Protection::Unknown(why) => BranchProtection::Unknown { why },
            Protection::Unprotected => BranchProtection::Unprotected,
        })
    }

    /// Makes a proposed ruleset; returns its number. It needs `administration: write`.
    ///
    /// # Errors
    /// As GitHub refuses it. It is sent once: if no answer comes, look at the repository's rulesets before trying again.
    pub async fn protect(&self, secret: &SecretString, repository: &RepoId, ruleset: &Ruleset) -> Result<u64> {
        let path = ["repos", repository.owner(), repository.name(), "rulesets"];
        let what = format!("making a ruleset in {repository}");
        let call = Call::new(Method::POST, &path, what).body(ruleset.0.clone()).bearer(secret);
        let answer = self.send(&call).await?.expect(StatusCode::CREATED)?;
        let Made { id } = crate::client::read(&answer.body, answer.what)?;
        Ok(id)
    }
}

/// A ruleset that is proposed for a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset(Value);

impl Ruleset {
    /// Keeps the default branch from being deleted, rewritten, and pushed to without a pull request.
    pub fn default_branch() -> Self {
        Self(json!({
            "name": "sandbox: default branch",
            "target": "branch",
            "enforcement": "active",
            "conditions": { "ref_name": { "include": ["~DEFAULT_BRANCH"], "exclude": [] } },
            "rules": [
                { "type": "deletion" },
                { "type": "non_fast_forward" },
                { "type": "pull_request", "parameters": {
                    "dismiss_stale_reviews_on_push": false,
                    "require_code_owner_review": false,
                    "require_last_push_approval": false,
                    "required_approving_review_count": 1,
                    "required_review_thread_resolution": false,
                } },
            ],
        }))
    }

    /// Keeps workflow files from being pushed. GitHub accepts it for private repositories of paid plans
    /// (<https://docs.github.com/en/repositories/configuring-branches-and-merges-in-your-repository/managing-rulesets/about-rulesets#push-rulesets>).
    pub fn workflow_files() -> Self {
        Self(json!({
            "name": "sandbox: workflow files",
            "target": "push",
            "enforcement": "active",
            "rules": [{
                "type": "file_path_restriction",
                "parameters": { "restricted_file_paths": [".github/workflows/**/*"] },
            }],
        }))
    }

    /// The ruleset as GitHub reads it, for a human to look at.
    pub fn document(&self) -> &Value {
        &self.0
    }
}

#[derive(Deserialize)]
struct Rule {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct BranchState {
    protected: bool,
}

#[derive(Deserialize)]
struct DefaultBranch {
    default_branch: String,
    full_name: String,
}

#[derive(Deserialize)]
struct Numbered {
    id: u64,
    full_name: String,
}

#[derive(Deserialize)]
struct Made {
    id: u64,
}

/// Any of these keeps a push from changing the branch at will.
const GUARDS: [&str; 3] = ["non_fast_forward", "pull_request", "update"];
const MAX_RULES: usize = 1000;
