//! What is asked of GitHub, and what is made of its answers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sandbox_github::{Error, Expiry, Protection, Reach, Revoked, Ruleset, TokenKind};
use sandbox_policy::{Policy, RepoId, Span, TokenLife, TokenReach};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::description::example;
use crate::mock::{Answer, GitHub, answer};

const PAT: &str = "github_pat_MADE0UP0FOR0TESTS0";
const REPO: &str = "/repos/octocat/Hello-World";

fn pat() -> SecretString {
    SecretString::from(PAT)
}

fn repository() -> RepoId {
    "octocat/Hello-World".parse().unwrap()
}

fn private() -> Value {
    let mut repository = example("repository");
    repository["full_name"] = json!("octocat/Hello-World");
    repository["private"] = json!(true);
    repository
}

fn listed(names: &[&str]) -> Value {
    let entry = example("/user/repos")[0].clone();
    let of = |name: &&str| {
        let mut entry = entry.clone();
        entry["full_name"] = json!(name);
        entry
    };
    names.iter().map(of).collect()
}

fn error(message: &str) -> Value {
    json!({ "message": message, "documentation_url": "https://docs.github.com/rest" })
}

fn activity() -> Value {
    json!([{
        "id": 1, "node_id": "MADEUP", "before": "1".repeat(40), "after": "2".repeat(40), "ref": "refs/heads/main",
        "timestamp": "2026-11-25T10:00:00Z", "activity_type": "force_push", "actor": null,
    }])
}

fn branch(protected: bool) -> Answer {
    let mut branch = example("branch");
    branch["protected"] = json!(protected);
    answer("GET", "/repos/octocat/Hello-World/branches/main", 200, branch)
}

#[tokio::test]
async fn a_fine_grained_token_for_one_private_repository_is_likely_single() {
    let github = GitHub::play(vec![
        answer("GET", REPO, 200, private())
            .header("github-authentication-token-expiration", "2026-11-25 12:00:00 +0200"),
        answer("GET", "/user/repos", 200, listed(&["octocat/Hello-World"])),
    ])
    .await;
    let report = github.client().check_pat(&pat(), &repository()).await.unwrap();
    let end = UNIX_EPOCH + Duration::from_hours(498_778);
    assert_eq!((report.kind, report.reach, report.scopes.clone()), (TokenKind::FineGrained, Reach::LikelySingle, None));
    assert_eq!(report.expiry, Expiry::At(end));
    let thirty = Duration::from_hours(30 * 24);
    assert_eq!(report.facts(end - thirty).violations(Policy::standard().token()), []);
    assert_eq!(report.facts(end - 2 * thirty).violations(Policy::standard().token()).len(), 1);
    assert_eq!(report.facts(end + thirty).life, TokenLife::Ends(Span::seconds(0)));
    assert!(report.unknown.iter().any(|unknown| unknown.contains("permissions")), "{report:?}");
    assert_eq!(
        github.asked().await,
        ["GET /repos/octocat/Hello-World", "GET /user/repos?visibility=private&per_page=2"]
    );
}

#[tokio::test]
async fn a_token_that_reaches_more_or_never_ends_breaks_the_rule() {
    let github = GitHub::play(vec![
        answer("GET", REPO, 200, private()),
        answer("GET", "/user/repos", 200, listed(&["octocat/Hello-World", "octocat/other"])),
    ])
    .await;
    let report = github.client().check_pat(&pat(), &repository()).await.unwrap();
    assert_eq!((report.expiry, report.reach), (Expiry::Never, Reach::Many));
    let facts = report.facts(SystemTime::now());
    assert_eq!((facts.life, facts.reach), (TokenLife::Never, TokenReach::Many));
    assert_eq!(facts.violations(Policy::standard().token()).len(), 1);
    github.asked().await;
}

#[tokio::test]
async fn a_classic_token_tells_its_scopes_and_is_refused_by_its_kind() {
    let github = GitHub::play(vec![
        answer("GET", REPO, 200, private())
            .header("x-oauth-scopes", "repo, workflow")
            .header("github-authentication-token-expiration", "tomorrow"),
    ])
    .await;
    let classic = SecretString::from("ghp_MADE0UP0FOR0TESTS0");
    let report = github.client().check_pat(&classic, &repository()).await.unwrap();
    assert_eq!(report.scopes.as_deref(), Some(&["repo".to_owned(), "workflow".to_owned()][..]));
    assert_eq!(report.expiry, Expiry::Unreadable);
    let refused = report.facts(SystemTime::now()).violations(Policy::standard().token());
    assert!(refused.len() == 2 && refused[0].to_string().contains("a classic token"), "{refused:?}");
    github.asked().await;
}

#[tokio::test]
async fn a_renamed_repository_and_one_out_of_reach_are_told_apart_and_nothing_is_followed() {
    let elsewhere = GitHub::play(Vec::new()).await;
    let target = format!("{}/repositories/1", elsewhere.client().url().api());
    let moved =
        json!({ "message": "Moved Permanently", "url": target, "documentation_url": "https://docs.github.com" });
    let github = GitHub::play(vec![
        answer("GET", REPO, 301, moved).header("location", target),
        answer("GET", REPO, 404, error("Not Found")),
    ])
    .await;
    let client = github.client();
    assert!(matches!(client.check_pat(&pat(), &repository()).await, Err(Error::Moved { .. })));
    assert!(matches!(client.check_pat(&pat(), &repository()).await, Err(Error::NotFound { .. })));
    assert_eq!(github.asked().await.len(), 2);
    assert!(elsewhere.requests().await.is_empty());
}

#[tokio::test]
async fn a_personal_token_is_reported_without_credentials_and_seen_to_be_dead() {
    let github = GitHub::play(vec![
        answer("GET", "/user", 200, example("/user")),
        answer("GET", "/user", 401, error("Bad credentials")),
        answer("POST", "/credentials/revoke", 202, json!({})).undescribed(),
    ])
    .await;
    assert_eq!(github.client().revoke(&pat()).await.unwrap(), Revoked::Now);
    assert_eq!(github.asked().await, ["GET /user", "POST /credentials/revoke", "GET /user"]);
    let report = &github.requests().await[1];
    assert!(!report.headers.contains_key("authorization"));
    assert_eq!(report.body_json::<Value>().unwrap(), json!({ "credentials": [PAT] }));
}

#[tokio::test]
async fn a_long_installation_token_ends_itself_and_is_dead_only_after_a_401() {
    let secret = SecretString::from(format!("ghs_12345_{}.{}.{}", "M".repeat(40), "A".repeat(360), "D-E".repeat(36)));
    let alive = || answer("GET", "/installation/repositories", 200, example("/installation/repositories"));
    let github = GitHub::play(vec![alive(), answer("DELETE", "/installation/token", 204, Value::Null)]).await;
    let error = github.client().revoke(&secret).await.unwrap_err();
    assert!(matches!(error, Error::StillGood { .. }), "{error}");
    github.asked().await;
}

#[tokio::test]
async fn a_limit_is_waited_for_within_reason_and_a_write_is_not_repeated_blindly() {
    let limited = || answer("GET", "/user", 403, error("You have exceeded a secondary rate limit.")).undescribed();
    let github =
        GitHub::play(vec![limited().header("retry-after", "1"), answer("GET", "/user", 401, error("Bad credentials"))])
            .await;
    assert_eq!(github.client().revoke(&pat()).await.unwrap(), Revoked::Already);
    assert_eq!(github.asked().await.len(), 2);

    let github = GitHub::play(vec![limited()]).await;
    let client = github.client();
    for _ in 0..2 {
        assert!(matches!(client.revoke(&pat()).await, Err(Error::RateLimited { .. })));
    }
    assert_eq!(github.asked().await.len(), 1, "GitHub is left alone once it asked for it");

    let broken = answer("POST", "/repos/octocat/Hello-World/rulesets", 502, error("Bad gateway")).undescribed();
    let github = GitHub::play(vec![broken]).await;
    let made = github.client().protect(&pat(), &repository(), &Ruleset::default_branch()).await;
    assert!(matches!(made, Err(Error::Unexpected { status: 502, .. })), "{made:?}");
    assert_eq!(github.asked().await.len(), 1);
}

#[tokio::test]
async fn protection_is_told_by_rules_then_by_the_branch_and_else_unknown() {
    const RULES: &str = "/repos/octocat/Hello-World/rules/branches/main";
    let main = "main".parse().unwrap();
    let rules = example(RULES_EXAMPLE);
    let github = GitHub::play(vec![
        answer("GET", RULES, 200, json!([{ "type": "non_fast_forward" }])),
        answer("GET", RULES, 200, json!([])),
        branch(true),
        branch(false),
    ])
    .await;
    let client = github.client();
    let found = client.protection(&pat(), &repository(), &main).await.unwrap();
    assert_eq!(found, Protection::Protected(vec!["non_fast_forward".to_owned()]));
    let found = client.protection(&pat(), &repository(), &main).await.unwrap();
    assert_eq!(found, Protection::Protected(vec!["classic".to_owned()]));
    assert_eq!(client.protection(&pat(), &repository(), &main).await.unwrap(), Protection::Unprotected);
    github.asked().await;

    let hidden = answer("GET", RULES, 404, error("Not Found")).undescribed();
    let github = GitHub::play(vec![hidden]).await;
    let found = github.client().protection(&pat(), &repository(), &main).await.unwrap();
    assert!(matches!(found, Protection::Unknown(_)), "{found:?}");

    // A rule for messages keeps no push away.
    let github = GitHub::play(vec![answer("GET", RULES, 200, rules), branch(false)]).await;
    let found = github.client().protection(&pat(), &repository(), &main).await.unwrap();
    assert_eq!(found, Protection::Unprotected);
    github.asked().await;
}

const RULES_EXAMPLE: &str = "/repos/{owner}/{repo}/rules/branches/{branch}";

#[tokio::test]
async fn a_ruleset_is_made_as_described_and_refused_with_githubs_reason() {
    let refused = error("Invalid property /target: push rulesets need a paid plan ghp_MADE0UP0FOR0TESTS0");
    let github = GitHub::play(vec![
        answer("POST", "/repos/octocat/Hello-World/rulesets", 201, example("ruleset")),
        answer("POST", "/repos/octocat/Hello-World/rulesets", 422, refused).undescribed(),
    ])
    .await;
    let client = github.client();
    assert_eq!(client.protect(&pat(), &repository(), &Ruleset::default_branch()).await.unwrap(), 42);
    let error = client.protect(&pat(), &repository(), &Ruleset::workflow_files()).await.unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    assert!(error.to_string().contains("paid plan") && !format!("{error:?}").contains("MADE0UP"), "{error}");
    github.asked().await;
}

#[tokio::test]
async fn activity_comes_in_pages_and_is_asked_again_for_free() {
    let path = "/repos/octocat/Hello-World/activity";
    let next = "<https://elsewhere.example.org/x?per_page=100&after=abc>; rel=\"next\"";
    let github = GitHub::play(vec![
        answer("GET", path, 200, activity()).header("link", next).header("etag", "\"one\""),
        answer("GET", path, 200, activity()).header("etag", "\"two\""),
        answer("GET", path, 304, Value::Null).undescribed(),
    ])
    .await;
    let client = github.client();
    let first = client.activities(&pat(), &repository(), UNIX_EPOCH).await.unwrap();
    let second = client.activities(&pat(), &repository(), UNIX_EPOCH).await.unwrap();
    assert_eq!(first, second);
    assert!(!first.entries.is_empty() && !first.truncated);
    let once = ["?per_page=100", "?per_page=100&after=abc"].map(|query| format!("GET {path}{query}"));
    assert_eq!(github.asked().await, [once.clone(), once].concat());
    assert_eq!(github.requests().await[2].headers["if-none-match"], "\"one\"");
}
