//! What was done in a repository since a time: references, pull requests, workflow files and workflow runs.
//!
//! Titles, names and branches are strangers' words; they are cut to a length and hold no control characters. What could not
//! be read, or not in full, is said.

use std::collections::BTreeSet;
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use sandbox_policy::RepoId;
use secrecy::SecretString;
use serde::Deserialize;

use crate::client::{Call, Client};
use crate::{Activity, Change, Error, Result, expiry};

/// What was found, each kind with the latest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Audit {
    /// Pushes, forced pushes, branches that were made or removed, merges.
    pub changes: Vec<Activity>,
    /// Pull requests that were made or changed.
    pub pull_requests: Vec<PullRequest>,
    /// Commits that touch `.github/workflows`, on the default branch and on what was pushed.
    pub workflow_commits: Vec<WorkflowCommit>,
    /// Runs of workflows that were started.
    pub workflow_runs: Vec<WorkflowRun>,
    /// What could not be read or not in full, and why.
    pub missing: Vec<String>,
}

/// A pull request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PullRequest {
    /// Its number.
    pub number: u64,
    /// Its title.
    pub title: String,
    /// Who made it; `None` if the account is gone.
    pub actor: Option<String>,
    /// `open` or `closed`.
    pub state: String,
    /// The branch that it brings.
    pub head: String,
    /// The branch that it goes into.
    pub base: String,
    /// When it last changed.
    pub updated: SystemTime,
    /// When it was merged.
    pub merged: Option<SystemTime>,
}

/// A commit that touches workflow files.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkflowCommit {
    /// Its SHA.
    pub sha: String,
    /// The account that GitHub takes its author for, if any.
    pub actor: Option<String>,
    /// When it was committed, by its own word.
    pub time: Option<SystemTime>,
}

/// A run of a workflow.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkflowRun {
    /// Its number at GitHub.
    pub id: u64,
    /// The workflow's name.
    pub name: Option<String>,
    /// What started it: `push`, `pull_request` and so on.
    pub event: String,
    /// Who started it.
    pub actor: Option<String>,
    /// The branch.
    pub branch: Option<String>,
    /// The commit that it ran for.
    pub sha: String,
    /// `success`, `failure` and so on; `None` while it runs.
    pub conclusion: Option<String>,
    /// When it was made.
    pub time: SystemTime,
}

impl Client {
    /// Reads what was done in a repository since a time: up to a thousand changes, 300 pull requests, 300 runs, and the
    /// workflow files of up to 20 branches.
    ///
    /// # Errors
    /// Where GitHub cannot be asked. What the credential may not see is named in the result.
    pub async fn audit(&self, secret: &SecretString, repository: &RepoId, since: SystemTime) -> Result<Audit> {
        let mut audit = Audit::default();
        let changes = self.activities(secret, repository, since).await.map(|found| (found.entries, found.truncated));
        audit.changes = audit.note("what was pushed", changes)?;
        let pulls = self.pull_requests(secret, repository, since).await;
        audit.pull_requests = audit.note("pull requests", pulls)?;
        let runs = self.workflow_runs(secret, repository, since).await;
        audit.workflow_runs = audit.note("workflow runs", runs)?;
        for tip in audit.tips() {
            let what = format!("commits to workflow files from {}", tip.as_deref().unwrap_or("the default branch"));
            let commits = self.workflow_commits(secret, repository, tip.as_deref(), since).await;
            for commit in audit.note(&what, commits)? {
                if audit.workflow_commits.iter().all(|known| known.sha != commit.sha) {
                    audit.workflow_commits.push(commit);
                }
            }
        }
        audit.workflow_commits.sort_by_key(|commit| std::cmp::Reverse(commit.time));
        Ok(audit)
    }

    async fn pull_requests(
        &self,
        secret: &SecretString,
        repository: &RepoId,
        since: SystemTime,
    ) -> Result<(Vec<PullRequest>, bool)> {
        let path = ["repos", repository.owner(), repository.name(), "pulls"];
        let what = format!("reading the pull requests of {repository}");
        let call = Call::get(&path, what.clone())
            .query("state", "all")
            .query("sort", "updated")
            .query("direction", "desc")
            .bearer(secret)
            .remembered();
        let recent = |pull: &Pull| expiry::body(&pull.updated_at).is_none_or(|time| time >= since);
        let (read, more) = self.list_while(call, MAX_PULLS, |page: Vec<Pull>| page, recent).await?;
        let pull = |pull: Pull| {
            Ok(PullRequest {
                number: pull.number,
                title: words(&pull.title),
                actor: pull.user.map(|user| words(&user.login)),
                state: words(&pull.state),
                head: words(&pull.head.name),
                base: words(&pull.base.name),
                updated: time(&pull.updated_at, &what)?,
                merged: pull.merged_at.as_deref().map(|text| time(text, &what)).transpose()?,
            })
        };
        Ok((read.into_iter().map(pull).collect::<Result<_>>()?, more))
    }

    async fn workflow_runs(
        &self,
        secret: &SecretString,
        repository: &RepoId,
        since: SystemTime,
    ) -> Result<(Vec<WorkflowRun>, bool)> {
        let path = ["repos", repository.owner(), repository.name(), "actions", "runs"];
        let what = format!("reading the workflow runs of {repository}");
        let created = format!(">={}", iso(since));
        let call = Call::get(&path, what.clone()).query("created", created).bearer(secret).remembered();
        let (read, more) = self.list_while(call, MAX_RUNS, |page: Runs| page.workflow_runs, |_| true).await?;
        let run = |run: Run| {
            Ok(WorkflowRun {
                id: run.id,
                name: run.name.as_deref().map(words),
                event: words(&run.event),
                actor: run.actor.map(|actor| words(&actor.login)),
                branch: run.head_branch.as_deref().map(words),
                sha: words(&run.head_sha),
                conclusion: run.conclusion.as_deref().map(words),
                time: time(&run.created_at, &what)?,
            })
        };
        Ok((read.into_iter().map(run).collect::<Result<_>>()?, more))
    }

    async fn workflow_commits(
        &self,
        secret: &SecretString,
        repository: &RepoId,
        tip: Option<&str>,
        since: SystemTime,
    ) -> Result<(Vec<WorkflowCommit>, bool)> {
        let path = ["repos", repository.owner(), repository.name(), "commits"];
        let what = format!("reading the commits to workflow files of {repository}");
        let call =
            Call::get(&path, what).query("path", WORKFLOWS).query("since", iso(since)).bearer(secret).remembered();
        let call = match tip {
            Some(tip) => call.query("sha", tip),
            None => call,
        };
        let (read, more) = self.list::<Commit>(call, MAX_COMMITS).await?;
        let commit = |Commit { sha, author, inner }: Commit| WorkflowCommit {
            sha: words(&sha),
            actor: author.and_then(|author| author.login).as_deref().map(words),
            time: inner.committer.and_then(|signature| signature.date).as_deref().and_then(expiry::body),
        };
        Ok((read.into_iter().map(commit).collect(), more))
    }
}

impl Audit {
    /// Takes what was read, and notes what was not.
    fn note<T>(&mut self, what: &str, read: Result<(Vec<T>, bool)>) -> Result<Vec<T>> {
        match read {
            Ok((entries, false)) => Ok(entries),
            Ok((entries, true)) => {
                self.missing.push(format!("{what}: there are more than the {} that were read", entries.len()));
                Ok(entries)
            }
            // A branch that is gone, and an empty repository (409), have no commits to be listed.
            Err(
                error @ (Error::Forbidden { .. }
                | Error::Invalid { .. }
                | Error::NotFound { .. }
                | Error::Unexpected { status: 409, .. }),
            ) => {
                self.missing.push(format!("{what}: {error}"));
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// The default branch, and the latest commit of each branch that was changed and is there.
    fn tips(&mut self) -> Vec<Option<String>> {
        let (mut branches, mut tips) = (BTreeSet::new(), vec![None]);
        for Activity { reference, after, .. } in &self.changes {
            let branch = reference.starts_with("refs/heads/") && branches.insert(reference.clone());
            let exists = after.bytes().any(|byte| byte != b'0');
            if branch && exists && !tips.contains(&Some(after.clone())) {
                tips.push(Some(after.clone()));
            }
        }
        if tips.len() > MAX_TIPS {
            self.missing.push(format!("workflow files of {} branches beyond {MAX_TIPS}", tips.len() - MAX_TIPS));
            tips.truncate(MAX_TIPS);
        }
        tips
    }

    /// Changes of a kind.
    pub fn of(&self, change: Change) -> impl Iterator<Item = &Activity> {
        self.changes.iter().filter(move |activity| activity.change() == Some(change))
    }
}

fn time(text: &str, what: &str) -> Result<SystemTime> {
    let unreadable =
        || Error::Unreadable { what: what.to_owned(), why: "an entry whose time cannot be read".to_owned() };
    expiry::body(text).ok_or_else(unreadable)
}

fn iso(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn words(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(MAX_WORDS).collect()
}

#[derive(Deserialize)]
struct Pull {
    number: u64,
    title: String,
    user: Option<User>,
    state: String,
    head: Reference,
    base: Reference,
    updated_at: String,
    merged_at: Option<String>,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(rename = "ref")]
    name: String,
}

#[derive(Deserialize)]
struct User {
    login: String,
}

#[derive(Deserialize)]
struct Runs {
    workflow_runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    id: u64,
    name: Option<String>,
    event: String,
    actor: Option<User>,
    head_branch: Option<String>,
    head_sha: String,
    conclusion: Option<String>,
    created_at: String,
}

#[derive(Deserialize)]
struct Commit {
    sha: String,
    author: Option<Author>,
    #[serde(rename = "commit")]
    inner: Inner,
}

#[derive(Deserialize)]
struct Author {
    login: Option<String>,
}

#[derive(Deserialize)]
struct Inner {
    committer: Option<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    date: Option<String>,
}

const WORKFLOWS: &str = ".github/workflows";
const MAX_PULLS: usize = 300;
const MAX_RUNS: usize = 300;
const MAX_COMMITS: usize = 300;
const MAX_TIPS: usize = 20;
/// Characters.
const MAX_WORDS: usize = 200;
