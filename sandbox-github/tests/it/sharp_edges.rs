//! Where octocrab cuts: each of its edges is kept away from tokens, and has a test here or is named with the one it has.
//!
//! - minting takes no permissions: `app::a_token_is_asked_for_as_narrow_as_it_is_needed_and_ends_with_a_401`
//! - its answer drops permissions: `app::a_token_that_is_more_than_was_asked_for_is_revoked_at_once`
//! - its types print tokens: `leaks`
//! - claims name apps by number alone: `claim::tests::an_issuer_is_a_client_id_or_a_number`
//! - answers hide headers: `calls::a_fine_grained_token_for_one_private_repository_is_likely_single`
//! - redirects are followed: `calls::a_renamed_repository_and_one_out_of_reach_are_told_apart_and_nothing_is_followed`
//! - no version is sent: `mock` notes each request without one

use std::time::{SystemTime, UNIX_EPOCH};

use sandbox_core::TokenProvider as _;
use sandbox_github::{AppTokens, Error, OAuthApp, PrivateKey, Protection, Revoked, Ruleset};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::app::{INSTALLATION, MINT, grant, installed, minted};
use crate::description::example;
use crate::mock::{Answer, GitHub, answer};

const HOUR: std::time::Duration = std::time::Duration::from_hours(1);

fn error(message: &str) -> Value {
    json!({ "message": message, "documentation_url": "https://docs.github.com/rest" })
}

fn pat() -> SecretString {
    SecretString::from("github_pat_MADE0UP0FOR0TESTS0")
}

fn alive() -> Answer {
    answer("GET", "/user", 200, example("/user"))
}

fn dead() -> Answer {
    answer("GET", "/user", 401, error("Bad credentials"))
}

#[tokio::test]
async fn a_write_is_not_sent_again_and_a_limit_that_ends_in_an_hour_is_not_waited_for() {
    const RULESETS: &str = "/repos/octocat/Hello-World/rulesets";
    let in_an_hour = (SystemTime::now() + HOUR).duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
    let repository = "octocat/Hello-World".parse().unwrap();
    for (status, headers) in [
        (500, vec![]),
        (503, vec![]),
        (429, vec![("x-ratelimit-remaining", "0".to_owned()), ("x-ratelimit-reset", in_an_hour)]),
    ] {
        let mut refused = answer("POST", RULESETS, status, error("no")).undescribed();
        for (name, value) in headers {
            refused = refused.header(name, value);
        }
        let github = GitHub::play(vec![refused]).await;
        github.client().protect(&pat(), &repository, &Ruleset::default_branch()).await.unwrap_err();
        assert_eq!(github.asked().await.len(), 1, "{status}");
    }
}

#[tokio::test]
async fn a_branch_with_a_slash_is_one_part_of_the_path() {
    const RULES: &str = "/repos/octocat/Hello-World/rules/branches/fix%2Fx";
    let github = GitHub::play(vec![answer("GET", RULES, 200, json!([{ "type": "update" }])).undescribed()]).await;
    let (repository, branch) = ("octocat/Hello-World".parse().unwrap(), "fix/x".parse().unwrap());
    let found = github.client().protection(&pat(), &repository, &branch).await.unwrap();
    assert_eq!(found, Protection::Protected(vec!["update".to_owned()]));
    assert_eq!(github.asked().await, [format!("GET {RULES}?per_page=100")]);
}

#[tokio::test]
async fn a_report_carries_no_credential_though_the_client_has_just_used_one() {
    let report = || answer("POST", "/credentials/revoke", 202, json!({})).undescribed();
    let repository = answer("GET", "/repos/octocat/Hello-World", 200, example("repository"));
    let github = GitHub::play(vec![repository, alive(), dead(), report()]).await;
    let client = github.client();
    client.default_branch(&pat(), &"octocat/Hello-World".parse().unwrap()).await.unwrap();
    client.revoke(&pat()).await.unwrap();
    let requests = github.requests().await;
    let sent: Vec<bool> = requests.iter().map(|request| request.headers.contains_key("authorization")).collect();
    assert_eq!(sent, [true, true, false, true]);
}

#[tokio::test]
async fn an_enterprise_server_is_spoken_to_below_its_path_with_the_credential_of_each_call() {
    let github = GitHub::play(vec![
        installed(),
        minted(1, HOUR),
        answer("GET", "/installation/repositories", 200, example("/installation/repositories")),
        answer("GET", "/installation/repositories", 401, error("Bad credentials")),
        answer("DELETE", "/installation/token", 204, Value::Null),
        alive(),
        dead(),
        answer("DELETE", "/applications/Iv1.MADEUP/token", 204, Value::Null),
    ])
    .await;
    let client = github.enterprise_client();
    assert!(client.url().is_enterprise_server());
    let key = PrivateKey::from_pem(&SecretString::from(include_str!("../keys/app.pkcs1.pem"))).unwrap();
    let app = AppTokens::new(client.clone(), "12345".parse().unwrap(), key).unwrap();
    let token = app.token(&grant()).await.unwrap();
    app.revoke(token).await.unwrap();
    let oauth = OAuthApp { client_id: "Iv1.MADEUP".to_owned(), client_secret: SecretString::from("made-up-secret") };
    let user = SecretString::from("gho_MADE0UP0FOR0TESTS0");
    assert_eq!(client.revoke_of_app(&oauth, &user).await.unwrap(), Revoked::Now);
    let asked = github.asked().await;
    assert!(asked.iter().all(|line| line.contains(" /api/v3/")), "{asked:?}");
    assert_eq!(asked[..2], [format!("GET /api/v3{INSTALLATION}"), format!("POST /api/v3{MINT}")]);
    let requests = github.requests().await;
    let schemes: Vec<&str> = requests
        .iter()
        .map(|request| request.headers["authorization"].to_str().unwrap().split(' ').next().unwrap())
        .collect();
    assert_eq!(schemes, ["Bearer", "Bearer", "Bearer", "Bearer", "Bearer", "Bearer", "Basic", "Bearer"]);
    assert_eq!(requests[6].headers["authorization"], "Basic SXYxLk1BREVVUDptYWRlLXVwLXNlY3JldA==");
    assert_eq!(requests[6].body_json::<Value>().unwrap(), json!({ "access_token": "gho_MADE0UP0FOR0TESTS0" }));
    assert!(!format!("{oauth:?}").contains("made-up-secret"));
}

#[tokio::test]
async fn a_server_that_cannot_revoke_a_kind_says_that_the_token_is_still_good() {
    let missing = || answer("POST", "/credentials/revoke", 404, error("Not Found")).undescribed();
    let github = GitHub::play(vec![alive(), missing()]).await;
    let error = github.enterprise_client().revoke(&pat()).await.unwrap_err();
    assert!(matches!(error, Error::StillGood { .. }), "{error}");
    assert!(error.hint().unwrap().contains("by hand"));
    let oauth = OAuthApp { client_id: "Iv1.MADEUP".to_owned(), client_secret: SecretString::from("made-up-secret") };
    let error = github.client().revoke_of_app(&oauth, &pat()).await.unwrap_err();
    assert!(matches!(error, Error::Input { .. }), "{error}");
}
