//! What was done in a repository since a time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sandbox_github::Change;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::description::example;
use crate::mock::{Answer, GitHub, answer};

const ACTIVITY: &str = "/repos/octocat/Hello-World/activity";
const PULLS: &str = "/repos/octocat/Hello-World/pulls";
const COMMITS: &str = "/repos/octocat/Hello-World/commits";
const RUNS: &str = "/repos/octocat/Hello-World/actions/runs";

fn secret() -> SecretString {
    SecretString::from("github_pat_MADE0UP0FOR0TESTS0")
}

/// 2026-11-24, some day.
fn since() -> SystemTime {
    UNIX_EPOCH + Duration::from_hours(498_744)
}

fn change(kind: &str, branch: &str, after: &str, time: &str) -> Value {
    json!({
        "id": 1, "node_id": "MADEUP", "before": "1".repeat(40), "after": after.repeat(40),
        "ref": format!("refs/heads/{branch}"), "timestamp": time, "activity_type": kind, "actor": null,
    })
}

fn pulls() -> Value {
    let mut recent = example("/repos/{owner}/{repo}/pulls")[0].clone();
    recent["updated_at"] = json!("2026-11-25T10:00:00Z");
    recent["title"] = json!("a title\u{1b}[31m");
    let mut old = recent.clone();
    old["updated_at"] = json!("2020-01-01T00:00:00Z");
    json!([recent, old])
}

fn commits(sha: &str) -> Answer {
    let mut commits = example("/repos/{owner}/{repo}/commits");
    commits[0]["sha"] = json!(sha);
    answer("GET", COMMITS, 200, commits)
}

#[tokio::test]
async fn pushes_pull_requests_workflow_files_and_runs_are_read_since_a_time() {
    let changes = json!([
        change("force_push", "work", "a", "2026-11-25T10:00:00Z"),
        change("branch_deletion", "gone", "0", "2026-11-25T09:00:00Z"),
        change("branch_creation", "work", "b", "2026-11-25T08:00:00Z"),
        change("push", "old", "c", "2020-01-01T00:00:00Z"),
    ]);
    let github = GitHub::play(vec![
        answer("GET", ACTIVITY, 200, changes),
        answer("GET", PULLS, 200, pulls()),
        answer("GET", RUNS, 200, example("/repos/{owner}/{repo}/actions/runs")),
        commits("1"),
        commits("1"),
    ])
    .await;
    let audit = github.client().audit(&secret(), &"octocat/Hello-World".parse().unwrap(), since()).await.unwrap();
    let counts = [Change::ForcePush, Change::BranchDeletion, Change::BranchCreation, Change::Push];
    assert_eq!(counts.map(|change| audit.of(change).count()), [1, 1, 1, 0]);
    assert_eq!((audit.pull_requests.len(), audit.pull_requests[0].title.as_str()), (1, "a title[31m"));
    assert_eq!((audit.pull_requests[0].head.as_str(), audit.pull_requests[0].base.as_str()), ("new-topic", "master"));
    assert_eq!(audit.workflow_commits.len(), 1, "one commit on two branches is one");
    assert_eq!(audit.workflow_runs.len(), 1);
    assert_eq!(audit.workflow_runs[0].event, "push");
    assert_eq!(audit.missing, [""; 0]);
    let work = "a".repeat(40);
    let since = "since=2026-11-24T00%3A00%3A00Z";
    assert_eq!(
        github.asked().await,
        [
            format!("GET {ACTIVITY}?per_page=100"),
            format!("GET {PULLS}?state=all&sort=updated&direction=desc&per_page=100"),
            format!("GET {RUNS}?created=%3E%3D2026-11-24T00%3A00%3A00Z&per_page=100"),
            format!("GET {COMMITS}?path=.github%2Fworkflows&{since}&per_page=100"),
            format!("GET {COMMITS}?path=.github%2Fworkflows&{since}&sha={work}&per_page=100"),
        ]
    );
}

#[tokio::test]
async fn what_may_not_be_seen_is_said_and_what_cannot_be_asked_is_an_error() {
    let hidden = json!({ "message": "Resource not accessible by integration" });
    let github = GitHub::play(vec![
        answer("GET", ACTIVITY, 200, json!([])),
        answer("GET", PULLS, 200, json!([])),
        answer("GET", RUNS, 403, hidden).undescribed(),
        answer("GET", COMMITS, 409, json!({ "message": "Git Repository is empty." })).undescribed(),
    ])
    .await;
    let repository = "octocat/Hello-World".parse().unwrap();
    let audit = github.client().audit(&secret(), &repository, since()).await.unwrap();
    assert!(audit.missing.len() == 2 && audit.missing[0].contains("workflow runs"), "{audit:?}");
    let github = GitHub::play(vec![answer("GET", ACTIVITY, 401, json!({ "message": "no" })).undescribed()]).await;
    github.client().audit(&secret(), &repository, since()).await.unwrap_err();
}

#[tokio::test]
async fn more_than_is_read_is_said() {
    let page: Value = (0..100).map(|_| pulls()[0].clone()).collect();
    let next = |number: u8| format!("<https://api.github.com/x?page={number}>; rel=\"next\"");
    let laid = |number: u8| answer("GET", PULLS, 200, page.clone()).header("link", next(number)).undescribed();
    let github = GitHub::play(vec![
        answer("GET", ACTIVITY, 200, json!([])),
        laid(2),
        laid(3),
        laid(4),
        answer("GET", RUNS, 200, json!({ "total_count": 0, "workflow_runs": [] })),
        answer("GET", COMMITS, 200, json!([])),
    ])
    .await;
    let audit = github.client().audit(&secret(), &"octocat/Hello-World".parse().unwrap(), since()).await.unwrap();
    assert_eq!(audit.pull_requests.len(), 300);
    assert!(audit.missing[0].contains("more than the 300"), "{:?}", audit.missing);
}
