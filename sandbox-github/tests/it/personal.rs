//! A personal token as a provider: what GitHub says of it is what the policy weighs.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use sandbox_core::{Token, TokenProvider as _};
use sandbox_github::PersonalToken;
use sandbox_policy::{BranchProtection, Capabilities, Control, Policy, RepoId, SandboxRequest, Scope, Support};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::description::example;
use crate::mock::{Answer, GitHub, answer};

const REPO: &str = "/repos/octocat/Hello-World";
const RULES: &str = "/repos/octocat/Hello-World/rules/branches/master";

fn secret() -> SecretString {
    SecretString::from("github_pat_MADE0UP0FOR0TESTS0")
}

fn repository() -> RepoId {
    "octocat/Hello-World".parse().unwrap()
}

fn found() -> Value {
    let mut repository = example("repository");
    repository["full_name"] = json!("octocat/Hello-World");
    repository["private"] = json!(true);
    repository
}

/// A private repository, read with a token that ends in some days.
fn read_with_a_token_of(days: u64) -> Answer {
    let end: DateTime<Utc> = (SystemTime::now() + Duration::from_hours(days * 24)).into();
    let end = end.format("%Y-%m-%d %H:%M:%S UTC").to_string();
    answer("GET", REPO, 200, found()).header("github-authentication-token-expiration", end)
}

fn listed() -> Answer {
    let mut entry = example("/user/repos")[0].clone();
    entry["full_name"] = json!("octocat/Hello-World");
    answer("GET", "/user/repos", 200, json!([entry]))
}

/// What a policy says of a sandbox with the token, on a machine that enforces all else.
fn weighed(policy: &Policy, token: &PersonalToken) -> Vec<String> {
    let enforced = || Support::Enforced { by: "a test".to_owned() };
    let all = Control::ALL.iter().fold(Capabilities::new(), |all, control| all.with(*control, enforced()));
    let mut asked = SandboxRequest::new("debian:12".parse().unwrap());
    asked.repository = Some(repository());
    asked.scopes = [Scope::Repo].into();
    asked.token = token.facts();
    let checked = policy.check(&asked, &all.join(&token.capabilities()));
    checked.err().map_or(Vec::new(), |error| error.violations().iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn a_token_for_thirty_days_and_one_repository_needs_one_waiver() {
    let github = GitHub::play(vec![read_with_a_token_of(30), listed()]).await;
    let token = PersonalToken::checked(&github.client(), repository(), secret()).await.unwrap();
    assert!(token.capabilities().is_enforced(Control::ShortLivedToken));
    let lines = weighed(&Policy::standard(), &token);
    assert!(lines.len() == 1 && lines[0].starts_with("token-scope: "), "{lines:?}");
    assert_eq!(weighed(&Policy::standard().with_waived(Control::TokenScope), &token), [""; 0]);
    assert_eq!(token.report().unwrap().scopes, None);
    github.asked().await;
}

#[tokio::test]
async fn a_token_that_lives_longer_never_ends_or_is_classic_is_refused_whatever_is_waived() {
    let all = Policy::standard().with_waived(Control::TokenScope).with_waived(Control::ShortLivedToken);
    let never = || answer("GET", REPO, 200, found());
    let classic = || read_with_a_token_of(7).header("x-oauth-scopes", "repo, admin:org");
    for (read, secret, word) in [
        (read_with_a_token_of(90), secret(), "token.lifetime: asked for a token that lives for 90 days"),
        (never(), secret(), "token.lifetime: asked for a token that never ends"),
        (classic(), SecretString::from("ghp_MADE0UP0FOR0TESTS0"), "token.classic: "),
    ] {
        let github = GitHub::play(vec![read, listed()]).await;
        let token = PersonalToken::checked(&github.client(), repository(), secret).await.unwrap();
        let lines = weighed(&all, &token);
        assert!(lines.len() == 1 && lines[0].starts_with(word), "{lines:?}");
    }
    // Its form needs no asking.
    let unasked = PersonalToken::new(repository(), SecretString::from("ghp_MADE0UP0FOR0TESTS0")).unwrap();
    assert!(weighed(&all, &unasked)[0].starts_with("token.classic: "));
    let unasked = PersonalToken::new(repository(), secret()).unwrap();
    assert_eq!(weighed(&Policy::standard(), &unasked).len(), 2);
}

#[tokio::test]
async fn the_default_branch_is_looked_at_by_its_name() {
    let branch = |protected: bool| {
        let mut branch = example("branch");
        branch["protected"] = json!(protected);
        answer("GET", "/repos/octocat/Hello-World/branches/master", 200, branch)
    };
    let token = Token::new(repository(), secret());
    for (rules, on_the_branch, expected) in [
        (json!([{ "type": "pull_request" }]), true, BranchProtection::Protected),
        (json!([]), true, BranchProtection::Protected),
        (json!([]), false, BranchProtection::Unprotected),
    ] {
        let rules = answer("GET", RULES, 200, rules).undescribed();
        let github = GitHub::play(vec![read_with_a_token_of(7), listed(), rules, branch(on_the_branch)]).await;
        let provider = PersonalToken::checked(&github.client(), repository(), secret()).await.unwrap();
        assert_eq!(provider.default_branch(&token).await.unwrap(), expected);
        github.asked().await;
    }
    let hidden = answer("GET", RULES, 404, json!({ "message": "Not Found" })).undescribed();
    let github = GitHub::play(vec![read_with_a_token_of(7), listed(), hidden]).await;
    let provider = PersonalToken::checked(&github.client(), repository(), secret()).await.unwrap();
    let found = provider.default_branch(&token).await.unwrap();
    assert!(matches!(found, BranchProtection::Unknown { .. }), "{found:?}");
    let unasked = PersonalToken::new(repository(), secret()).unwrap();
    assert!(matches!(unasked.default_branch(&token).await.unwrap(), BranchProtection::Unknown { .. }));
}

#[tokio::test]
async fn a_repository_is_known_by_its_number_and_not_by_a_name_that_has_moved() {
    let token = Token::new(repository(), secret());
    let mut numbered = found();
    numbered["id"] = json!(4_711);
    let github = GitHub::play(vec![answer("GET", REPO, 200, numbered.clone())]).await;
    assert_eq!(github.client().repository_number(token.secret(), token.repository()).await.unwrap(), 4_711);
    numbered["full_name"] = json!("octocat/Elsewhere");
    let github = GitHub::play(vec![answer("GET", REPO, 200, numbered)]).await;
    let error = github.client().repository_number(token.secret(), token.repository()).await.unwrap_err();
    assert!(matches!(error, sandbox_github::Error::Moved { .. }), "{error}");
    // Whom nobody was asked about has no number, and no server that it would be shown to.
    let unasked = PersonalToken::new(repository(), secret()).unwrap();
    assert_eq!((unasked.repository_number(&token).await.unwrap(), unasked.server()), (None, None));
}

#[tokio::test]
async fn a_personal_token_stays_its_users_unless_its_end_was_asked_for() {
    let bad = json!({ "message": "Bad credentials", "documentation_url": "https://docs.github.com/rest" });
    let github = GitHub::play(vec![
        answer("GET", "/user", 200, example("/user")),
        answer("GET", "/user", 401, bad),
        answer("POST", "/credentials/revoke", 202, json!({})).undescribed(),
    ])
    .await;
    let provider = PersonalToken::new(repository(), secret()).unwrap();
    let token = Token::new(repository(), secret());
    provider.revoke(token.clone()).await.unwrap();
    assert!(github.requests().await.is_empty());
    provider.revoked_at_end(&github.client()).revoke(token).await.unwrap();
    assert_eq!(github.asked().await, ["GET /user", "POST /credentials/revoke", "GET /user"]);
}
