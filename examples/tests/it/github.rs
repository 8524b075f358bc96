//! The examples of GitHub, against one that is played.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

const REPO: &str = "/repos/octocat/Hello-World";

async fn lay(server: &MockServer, asked: (&str, &str), answer: ResponseTemplate) {
    Mock::given(method(asked.0)).and(path(asked.1)).respond_with(answer).mount(server).await;
}

fn body(status: u16, body: Value) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_json(body)
}

async fn with_a_repository() -> MockServer {
    let server = MockServer::start().await;
    let repository = json!({
        "id": 1, "full_name": "octocat/Hello-World", "private": true, "default_branch": "main",
        "permissions": { "pull": true, "push": true },
    });
    let read = body(200, repository).insert_header("github-authentication-token-expiration", "2999-01-01 00:00:00 UTC");
    lay(&server, ("GET", REPO), read).await;
    lay(&server, ("GET", "/repos/octocat/Hello-World/rules/branches/main"), body(200, json!([{ "type": "update" }])))
        .await;
    server
}

fn in_an_hour() -> String {
    let ends: chrono::DateTime<chrono::Utc> = (SystemTime::now() + Duration::from_hours(1)).into();
    ends.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// Runs an example with this on its standard input; returns what it printed.
#[cfg(test)]
async fn complete(program: &'static str, arguments: Vec<String>, input: &'static str) -> String {
    let run = move || {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let ran = child.wait_with_output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success(), "{}:\n{text}", ran.status);
        text
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test]
async fn an_apps_token_is_minted_and_seen_to_be_dead() {
    let server = with_a_repository().await;
    let permissions = json!({
        "actions": "read", "checks": "read", "contents": "write", "issues": "write", "metadata": "read",
        "pull_requests": "write",
    });
    let installation = json!({ "id": 1, "permissions": permissions });
    lay(&server, ("GET", "/repos/octocat/Hello-World/installation"), body(200, installation)).await;
    let made = json!({
        "token": "ghs_MADE0UP0FOR0TESTS0", "expires_at": in_an_hour(), "permissions": permissions,
        "repository_selection": "selected", "repositories": [{ "id": 1, "full_name": "octocat/Hello-World" }],
    });
    lay(&server, ("POST", "/app/installations/1/access_tokens"), body(201, made)).await;
    lay(&server, ("GET", "/installation/repositories"), body(401, json!({ "message": "Bad credentials" }))).await;
    lay(&server, ("DELETE", "/installation/token"), ResponseTemplate::new(204)).await;
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/../sandbox-github/tests/keys/app.pkcs8.pem");
    let arguments = [&server.uri(), "Iv23liMADEUP", key, "octocat/Hello-World"].map(str::to_owned).to_vec();
    let text = complete(env!("CARGO_BIN_EXE_github_app"), arguments, "").await;
    for part in ["contents=write", "its default branch: Protected", "tokens held: 0"] {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
    assert!(!text.contains("MADE0UP"), "{text}");
}

#[tokio::test]
async fn a_personal_tokens_report_is_weighed() {
    let server = with_a_repository().await;
    let listed = json!([{ "full_name": "octocat/Hello-World", "private": true }]);
    lay(&server, ("GET", "/user/repos"), body(200, listed)).await;
    let arguments = vec![server.uri(), "octocat/Hello-World".to_owned()];
    let text = complete(env!("CARGO_BIN_EXE_personal_token"), arguments, "github_pat_MADE0UP0FOR0TESTS0\n").await;
    for part in ["reach LikelySingle", "refused: token.lifetime: ", "token-scope: nobody can tell", "Protected"] {
        assert!(text.contains(part), "{part:?} is missing:\n{text}");
    }
    assert!(!text.contains("MADE0UP"), "{text}");
}
