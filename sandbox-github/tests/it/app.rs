//! A GitHub App: what it asks for, what it accepts, and how its tokens end.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::future::join_all;
use sandbox_core::{ErrorKind, RepoGrant, TokenProvider as _};
use sandbox_github::{AppTokens, Error, PrivateKey, TokenKind};
use sandbox_policy::Scope;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use crate::description::example;
use crate::mock::{Answer, GitHub, answer};

pub(crate) const INSTALLATION: &str = "/repos/octocat/Hello-World/installation";
pub(crate) const MINT: &str = "/app/installations/1/access_tokens";
const ALIVE: &str = "/installation/repositories";
const END: &str = "/installation/token";
const HOUR: Duration = Duration::from_hours(1);

pub(crate) fn app(github: &GitHub) -> AppTokens {
    let key = SecretString::from(include_str!("../keys/app.pkcs8.pem"));
    AppTokens::new(github.client(), "Iv23liMADEUP".parse().unwrap(), PrivateKey::from_pem(&key).unwrap()).unwrap()
}

pub(crate) fn grant() -> RepoGrant {
    RepoGrant { repository: "octocat/Hello-World".parse().unwrap(), scopes: [Scope::Repo].into() }
}

/// A token of today's form, some 520 characters long, that is told from the next one by its number.
pub(crate) fn token(number: u8) -> String {
    format!("ghs_12345_MADEUP{number}.{}.{}", "A-B_".repeat(90), "C".repeat(140))
}

fn permissions() -> Value {
    json!({
        "actions": "read", "checks": "read", "contents": "write", "issues": "write", "metadata": "read",
        "pull_requests": "write",
    })
}

pub(crate) fn installed() -> Answer {
    let mut installation = example("installation");
    installation["permissions"] = permissions();
    installation["permissions"]["administration"] = json!("write");
    answer("GET", INSTALLATION, 200, installation)
}

pub(crate) fn made(number: u8, lives: Duration) -> Value {
    let mut repository = example("repository");
    for grown in ["parent", "source", "organization"] {
        repository.as_object_mut().unwrap().remove(grown);
    }
    let ends: DateTime<Utc> = (SystemTime::now() + lives).into();
    json!({
        "token": token(number), "expires_at": ends.to_rfc3339_opts(SecondsFormat::Secs, true),
        "permissions": permissions(), "repository_selection": "selected", "repositories": [repository],
    })
}

pub(crate) fn minted(number: u8, lives: Duration) -> Answer {
    answer("POST", MINT, 201, made(number, lives))
}

fn alive() -> Answer {
    answer("GET", ALIVE, 200, example("/installation/repositories"))
}

fn dead() -> Answer {
    answer("GET", ALIVE, 401, error("Bad credentials"))
}

fn ended() -> Answer {
    answer("DELETE", END, 204, Value::Null)
}

fn error(message: &str) -> Value {
    json!({ "message": message, "documentation_url": "https://docs.github.com/rest" })
}

fn claim(request: &wiremock::Request) -> Value {
    let claim = request.headers["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claim.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_is_asked_for_as_narrow_as_it_is_needed_and_ends_with_a_401() {
    let github =
        GitHub::play(vec![installed(), minted(1, HOUR), minted(2, HOUR), alive(), dead(), alive(), dead(), ended()])
            .await;
    let app = app(&github);
    let first = app.mint(&grant()).await.unwrap();
    assert_eq!(first.token.secret().expose_secret(), token(1));
    assert_eq!(TokenKind::of(first.token.secret()), Some(TokenKind::Installation));
    assert!(first.token.secret().expose_secret().len() >= 500 && first.token.expires() == Some(first.expires));
    assert_eq!((first.repository, first.permissions.iter().count()), (1_296_269, 6));
    let second = app.token(&grant()).await.unwrap();
    app.revoke(first.token).await.unwrap();
    assert_eq!(app.held().len(), 1);
    app.revoke(second).await.unwrap();
    assert!(app.held().is_empty());

    let end = [format!("GET {ALIVE}"), format!("DELETE {END}"), format!("GET {ALIVE}")];
    let mint = [format!("GET {INSTALLATION}"), format!("POST {MINT}"), format!("POST {MINT}")];
    assert_eq!(github.asked().await, [mint.to_vec(), end.to_vec(), end.to_vec()].concat());
    let requests = github.requests().await;
    let body = |index: usize| requests[index].body_json::<Value>().unwrap();
    assert_eq!(body(1), json!({ "repositories": ["Hello-World"], "permissions": permissions() }));
    assert_eq!(body(2), json!({ "repository_ids": [1_296_269], "permissions": permissions() }));
    assert_eq!(claim(&requests[0])["iss"], "Iv23liMADEUP");
    let bearer = |index: usize| requests[index].headers["authorization"].to_str().unwrap().to_owned();
    assert_eq!([bearer(3), bearer(4), bearer(6)], [1, 1, 2].map(|number| format!("Bearer {}", token(number))));
}

#[tokio::test]
async fn a_clock_that_is_off_is_set_by_githubs_once() {
    let there: DateTime<Utc> = (SystemTime::now() + 2 * HOUR).into();
    let date = there.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let refused = || answer("GET", INSTALLATION, 401, error("'Issued at' is in the future")).undescribed();
    let github = GitHub::play(vec![refused().header("date", date.clone()), installed(), minted(1, 3 * HOUR)]).await;
    app(&github).mint(&grant()).await.unwrap();
    let issued: Vec<i64> =
        github.requests().await.iter().map(|request| claim(request)["iat"].as_i64().unwrap()).collect();
    assert!(issued[1] - issued[0] > 7000 && issued[2] - issued[1] < 60, "{issued:?}");
    github.asked().await;

    let github = GitHub::play(vec![refused().header("date", date)]).await;
    let error = app(&github).mint(&grant()).await.unwrap_err();
    assert!(matches!(error, Error::NotTheApp { .. }) && error.hint().unwrap().contains("private key"), "{error}");
    assert_eq!(github.asked().await.len(), 2);
}

#[tokio::test]
async fn a_token_that_is_more_than_was_asked_for_is_revoked_at_once() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 9] = [
        ("administration=write", |made| made["permissions"]["administration"] = json!("write")),
        ("issues=admin", |made| made["permissions"]["issues"] = json!("admin")),
        ("1 permissions that cannot be read", |made| made["permissions"]["Contents 2"] = json!("write")),
        ("all repositories", |made| made["repository_selection"] = json!("all")),
        ("2 repositories", |made| {
            let one = made["repositories"][0].clone();
            made["repositories"].as_array_mut().unwrap().push(one);
        }),
        ("an unknown number", |made| made["repositories"] = Value::Null),
        ("another repository", |made| made["repositories"][0]["full_name"] = json!("octocat/Renamed")),
        ("longer than an hour", |made| made["expires_at"] = json!("2999-01-01T00:00:00Z")),
        ("no installation token", |made| made["token"] = json!("gho_MADE0UP0FOR0TESTS0")),
    ];
    for (why, change) in cases {
        let mut body = made(1, HOUR);
        change(&mut body);
        let mint = answer("POST", MINT, 201, body).undescribed();
        let github = GitHub::play(vec![installed(), mint, ended(), dead()]).await;
        let app = app(&github);
        let error = app.mint(&grant()).await.unwrap_err();
        assert!(matches!(error, Error::Overreaching { revoked: None, .. }), "{why}: {error}");
        assert!(error.to_string().contains(why) && error.to_string().contains("revoked at once"), "{why}: {error}");
        assert!(!format!("{error:?} {error}").contains("MADE"), "{error:?}");
        assert_eq!(github.asked().await[2..], [format!("DELETE {END}"), format!("GET {ALIVE}")], "{why}");
        assert!(app.held().is_empty());
    }
    let mut body = made(1, HOUR);
    body["repository_selection"] = json!("all");
    let github = GitHub::play(vec![installed(), answer("POST", MINT, 201, body), ended(), alive()]).await;
    let error = app(&github).mint(&grant()).await.unwrap_err();
    assert!(error.to_string().contains("may still be good"), "{error}");
}

#[tokio::test]
async fn each_refusal_says_what_to_do() {
    let suspended = {
        let mut installation = example("installation");
        installation["suspended_at"] = json!("2026-11-24T10:00:00Z");
        answer("GET", INSTALLATION, 200, installation)
    };
    let refused = |status: u16| answer("POST", MINT, status, error("no")).undescribed();
    let cases: [(Vec<Answer>, &str, &str); 6] = [
        (vec![answer("GET", INSTALLATION, 404, error("Not Found"))], "no installation", "install the app"),
        (vec![suspended], "suspended", "lift the suspension"),
        (vec![answer("GET", INSTALLATION, 200, example("installation"))], "contents=write", "give the app"),
        (vec![answer("GET", INSTALLATION, 301, error("Moved Permanently"))], "moved", "renamed"),
        (vec![installed(), refused(403)], "suspended or blocked", "lift"),
        (vec![installed(), refused(422)], "does not have", "accept them for the installation"),
    ];
    for (answers, said, hint) in cases {
        let github = GitHub::play(answers).await;
        let error = app(&github).token(&grant()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Token);
        assert!(error.to_string().contains(said) && error.hint().unwrap().contains(hint), "{said}: {error:?}");
        github.asked().await;
    }
}

#[tokio::test]
async fn a_token_with_life_left_is_kept_and_of_many_who_renew_one_mints() {
    let github =
        GitHub::play(vec![installed(), minted(1, HOUR / 13), minted(2, HOUR).slow(), alive(), dead(), ended()]).await;
    let app = app(&github);
    let old = app.token(&grant()).await.unwrap();
    let first = tokio::time::timeout(Duration::from_millis(100), app.renew(&old));
    assert!(first.await.is_err(), "the one who began it has given up");
    let renewed = join_all((0..8).map(|_| app.renew(&old))).await;
    for token_now in renewed {
        assert_eq!(token_now.unwrap().secret().expose_secret(), token(2));
    }
    // The old one leads to the new one, which is good for long.
    let again = app.renew(&old).await.unwrap();
    assert_eq!(app.renew(&again).await.unwrap().secret().expose_secret(), token(2));
    github.until_asked(&format!("GET {ALIVE}"), 2).await;
    let asked = github.asked().await;
    assert_eq!(asked.iter().filter(|line| line.starts_with("POST")).count(), 2, "{asked:?}");
    let deleted = github.requests().await.into_iter().find(|request| request.method.as_str() == "DELETE").unwrap();
    assert_eq!(deleted.headers["authorization"].to_str().unwrap(), format!("Bearer {}", token(1)));
}

#[tokio::test]
async fn a_rotation_replaces_a_good_token_and_ends_the_old_one() {
    let github = GitHub::play(vec![installed(), minted(1, HOUR), minted(2, HOUR), alive(), dead(), ended()]).await;
    let app = app(&github);
    let old = app.token(&grant()).await.unwrap();
    assert_eq!(app.renew(&old).await.unwrap().secret().expose_secret(), token(1));
    let new = app.rotate(&old).await.unwrap();
    assert_eq!(new.secret().expose_secret(), token(2));
    app.revoke(new.clone()).await.unwrap();
    for gone in [&old, &new] {
        assert_eq!(app.renew(gone).await.unwrap_err().kind(), ErrorKind::Token);
    }
    assert_eq!(github.requests().await.iter().filter(|request| request.method.as_str() == "POST").count(), 2);
}

#[tokio::test]
async fn a_token_that_nobody_waits_for_any_more_is_revoked() {
    let github = GitHub::play(vec![installed(), minted(1, HOUR).slow(), alive(), dead(), ended()]).await;
    let app = app(&github);
    {
        let (grant, mint) = (grant(), format!("POST {MINT}"));
        let minting = app.token(&grant);
        tokio::pin!(minting);
        tokio::select! {
            _ = &mut minting => panic!("it was to be slow"),
            () = github.until_asked(&mint, 1) => {}
        }
    }
    github.until_asked(&format!("GET {ALIVE}"), 2).await;
    assert_eq!(github.asked().await[3], format!("DELETE {END}"));
    assert!(app.held().is_empty());
}

#[tokio::test]
async fn an_end_waits_for_the_renewal_under_way_and_ends_both() {
    let github = GitHub::play(vec![
        installed(),
        minted(1, HOUR / 30),
        minted(2, HOUR).slow(),
        alive(),
        dead(),
        alive(),
        dead(),
        ended(),
    ])
    .await;
    let app = app(&github);
    let old = app.token(&grant()).await.unwrap();
    let end = async {
        github.until_asked(&format!("POST {MINT}"), 2).await;
        app.revoke(old.clone()).await
    };
    let (renewed, ended) = tokio::join!(app.renew(&old), end);
    ended.unwrap();
    assert_eq!(renewed.unwrap_err().kind(), ErrorKind::Token);
    let deleted = |request: &wiremock::Request| {
        (request.method.as_str() == "DELETE").then(|| request.headers["authorization"].to_str().unwrap().to_owned())
    };
    let mut deleted: Vec<String> = github.requests().await.iter().filter_map(deleted).collect();
    deleted.sort();
    assert_eq!(deleted, [1, 2].map(|number| format!("Bearer {}", token(number))));
    assert!(app.held().is_empty());
}

#[tokio::test]
async fn an_end_that_fails_can_be_tried_again() {
    let github = GitHub::play(vec![installed(), minted(1, HOUR), alive(), ended()]).await;
    let app = app(&github);
    let token = app.token(&grant()).await.unwrap();
    let error = app.revoke(token).await.unwrap_err();
    assert!(error.hint().unwrap().contains("by hand"), "{error:?}");
    assert_eq!(app.held().len(), 1);
    github.lay(dead());
    app.revoke_all().await.unwrap();
    assert!(app.held().is_empty());
}

#[tokio::test]
async fn the_number_of_its_repository_is_asked_for_by_the_token_that_it_made() {
    let numbered = |name: &str| {
        let mut repository = example("repository");
        repository["full_name"] = json!(name);
        repository["id"] = json!(4_711);
        answer("GET", "/repos/octocat/Hello-World", 200, repository)
    };
    let github = GitHub::play(vec![installed(), minted(1, HOUR), numbered("octocat/Hello-World")]).await;
    let app = app(&github);
    let token = app.token(&grant()).await.unwrap();
    assert_eq!(app.repository_number(&token).await.unwrap(), Some(4_711));
    let asked = github.requests().await.pop().unwrap();
    assert_eq!(asked.headers["authorization"], format!("Bearer {}", self::token(1)));
    // A name that leads to another by now says nothing of this one.
    github.lay(numbered("octocat/Elsewhere"));
    app.repository_number(&token).await.unwrap_err();
}
