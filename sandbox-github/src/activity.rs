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
        let (read, truncated) = self.list::<Entry>(call, MAX_ENTRIES).await?;
        let mut entries = Vec::new();
        for Entry { activity_type, actor, reference, before, after, timestamp } in read {
            let time = expiry::body(&timestamp).ok_or_else(|| Error::Unreadable {
                what: what.clone(),
                why: "an entry whose time cannot be read".to_owned(),
            })?;
            if time >= since {
                let actor = actor.map(|actor| actor.login);
                entries.push(Activity { kind: activity_type, actor, reference, before, after, time });
            } else {
                return Ok(Activities { entries, truncated: false });
            }
        }
        Ok(Activities { entries, truncated })
    }
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
