//! What happened in a repository, as GitHub recorded it
//! (<https://docs.github.com/en/rest/repos/repos#list-repository-activities>).

use std::time::SystemTime;

use sandbox_policy::RepoId;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::client::{Call, Client};
use crate::{Error, Result, expiry};

/// One change of a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Activity {
    /// `push`, `force_push`, `branch_creation`, `branch_deletion`, `pr_merge`, `merge_queue_merge`.
    pub kind: String,
    /// Who did it; `None` if the account is gone.
    pub actor: Option<String>,
    /// The full reference.
    pub reference: String,
    /// The commit before.
    pub before: String,
    /// The commit after.
    pub after: String,
    /// When.
    pub time: SystemTime,
}

/// What was found, latest first.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Activities {
    /// The entries.
    pub entries: Vec<Activity>,
    /// Whether there are older ones that were not read.
    pub truncated: bool,
}

impl Client {
    /// Reads what happened in a repository since a time, up to a thousand entries.
    ///
    /// # Errors
    /// Where GitHub cannot be asked, or the credential may not read it.
    pub async fn activities(
        &self,
        secret: &SecretString,
        repository: &RepoId,
        since: SystemTime,
    ) -> Result<Activities> {
        let path = ["repos", repository.owner(), repository.name(), "activity"];
        let call = Call::get(&path, format!("reading the activity of {repository}")).bearer(secret).remembered();
        let what = call.what.clone();
        let recent = |entry: &Entry| expiry::body(&entry.timestamp).is_none_or(|time| time >= since);
        let (read, truncated) = self.list_while(call, MAX_ENTRIES, |page: Vec<Entry>| page, recent).await?;
        let activity = |Entry { activity_type, actor, reference, before, after, timestamp }| {
            let time = expiry::body(&timestamp).ok_or_else(|| Error::Unreadable {
                what: what.clone(),
                why: "an entry whose time cannot be read".to_owned(),
            })?;
            let actor = actor.map(|actor: Actor| actor.login);
            Ok(Activity { kind: activity_type, actor, reference, before, after, time })
        };
        Ok(Activities { entries: read.into_iter().map(activity).collect::<Result<_>>()?, truncated })
    }
}

impl Activity {
    /// What kind of change it was; `None` for a kind that is not known here.
    pub fn change(&self) -> Option<Change> {
        Some(match self.kind.as_str() {
            "branch_creation" => Change::BranchCreation,
            "branch_deletion" => Change::BranchDeletion,
            "force_push" => Change::ForcePush,
            "merge_queue_merge" | "pr_merge" => Change::Merge,
            "push" => Change::Push,
            _ => return None,
        })
    }
}

/// A kind of change of a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// A branch was made.
    BranchCreation,
    /// A branch was removed.
    BranchDeletion,
    /// A branch was moved to a commit that does not follow from the one before.
    ForcePush,
    /// A pull request was merged.
    Merge,
    /// Commits were added.
    Push,
}

/// The SHA-256 of a token, under which GitHub's audit log files what it did, in base64
/// (<https://docs.github.com/en/enterprise-cloud@latest/admin/monitoring-activity-in-your-enterprise/reviewing-audit-logs-for-your-enterprise/identifying-audit-log-events-performed-by-an-access-token>).
pub fn token_sha256(secret: &SecretString) -> [u8; 32] {
    Sha256::digest(secret.expose_secret().as_bytes()).into()
}

#[derive(Deserialize)]
struct Entry {
    activity_type: String,
    actor: Option<Actor>,
    #[serde(rename = "ref")]
    reference: String,
    before: String,
    after: String,
    timestamp: String,
}

#[derive(Deserialize)]
struct Actor {
    login: String,
}

const MAX_ENTRIES: usize = 1000;
