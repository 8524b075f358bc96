//! No word of ours holds a token: not in an error, not in `Debug`, not in a line at TRACE of any crate on the way, whatever a
//! hostile GitHub repeats of it.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use sandbox_core::TokenProvider as _;
use sandbox_github::{OAuthApp, PersonalToken};
use secrecy::SecretString;
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::app::{MINT, app, grant, installed, made};
use crate::mock::{Answer, GitHub, answer};

const REPO: &str = "/repos/octocat/Hello-World";

/// Writes down all that any crate says on this thread.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<String>>);

impl Visit for Capture {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        writeln!(self.0.lock().unwrap(), "{field}={value:?}").unwrap();
    }
}

impl Subscriber for Capture {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn hex(text: &str) -> String {
    text.bytes().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    })
}

/// The forms in which a hostile GitHub could repeat a secret.
fn forms(secret: &str) -> Vec<String> {
    let percent = secret.bytes().fold(String::new(), |mut text, byte| {
        write!(text, "%{byte:02X}").unwrap();
        text
    });
    let pieces = |size: usize, between: &str| {
        secret.as_bytes().chunks(size).map(|piece| String::from_utf8_lossy(piece)).collect::<Vec<_>>().join(between)
    };
    let mut forms = vec![secret.to_owned(), hex(secret), hex(secret).to_uppercase(), percent];
    for before in ["", "x", "xy"] {
        forms.push(STANDARD_NO_PAD.encode(format!("{before}{secret}")));
        forms.push(URL_SAFE_NO_PAD.encode(format!("{before}{secret}")));
    }
    forms.extend([pieces(3, " "), pieces(2, "\u{200b} "), pieces(9, "-"), pieces(5, "\n")]);
    forms
}

/// Whether a text holds a part of a secret, in any form.
fn holds(text: &str, secret: &str) -> bool {
    let plain = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>();
    // What comes before it is no secret.
    let body = secret.trim_start_matches("github_pat_").trim_start_matches("ghs_");
    let (text, lower) = (plain(text), plain(text).to_lowercase());
    let shows = |text: &str, form: &str, size: usize| {
        form.as_bytes().windows(size).any(|piece| text.contains(std::str::from_utf8(piece).unwrap()))
    };
    let base64 = ["", "x", "xy"].iter().any(|before| {
        let form = STANDARD_NO_PAD.encode(format!("{before}{body}"));
        shows(&text, &plain(&form[4..form.len() - 4]), 12)
    });
    shows(&text, &plain(body), 10) || shows(&lower, &hex(body), 20) || base64
}

fn refused(path: &'static str, form: &str) -> Answer {
    answer("GET", path, 403, json!({ "message": form, "errors": [form, { "message": form }] })).undescribed()
}

/// Each form in an answer of its own, and then for ever a success that says nothing.
fn echoes(path: &'static str, secret: &str) -> Vec<Answer> {
    forms(secret).iter().map(|form| refused(path, form)).chain([refused(path, "Forbidden")]).collect()
}

async fn of_an_app(secret: &str, said: &mut String) {
    let mut body = made(1, Duration::from_hours(1));
    body["token"] = json!(secret);
    let mut answers = vec![installed(), answer("POST", MINT, 201, body)];
    answers.extend(echoes(REPO, secret));
    answers.extend(echoes("/installation/repositories", secret));
    answers.push(answer("DELETE", "/installation/token", 422, json!({ "message": secret })).undescribed());
    let github = GitHub::play(answers).await;
    let app = app(&github);
    let minted = app.mint(&grant()).await.unwrap();
    let token = minted.token.clone();
    writeln!(said, "{minted:?} {app:?} {:?} {:?}", app.held(), github.client()).unwrap();
    for _ in forms(secret) {
        writeln!(said, "{:?}", app.default_branch(&token).await).unwrap();
    }
    writeln!(said, "{:?}", app.revoke(token).await).unwrap();
}

async fn of_a_person(secret: &str, said: &mut String) {
    let mut answers = echoes(REPO, secret);
    let refused = |path, form: &str| answer("POST", path, 422, json!({ "message": form })).undescribed();
    answers.extend(forms(secret).iter().map(|form| refused("/credentials/revoke", form)));
    answers.push(answer("GET", "/user", 200, json!({})).undescribed());
    let github = GitHub::play(answers).await;
    let client = github.client();
    let repository: sandbox_policy::RepoId = "octocat/Hello-World".parse().unwrap();
    let secret = SecretString::from(secret);
    for _ in 0..14 {
        let checked = PersonalToken::checked(&client, repository.clone(), secret.clone()).await.unwrap_err();
        let asked = client.check_pat(&secret, &repository).await.unwrap_err();
        let ended = client.revoke(&secret).await.unwrap_err();
        writeln!(said, "{checked} {checked:?} {asked} {asked:?} {ended} {ended:?}").unwrap();
    }
    let unasked = PersonalToken::new(repository, secret.clone()).unwrap();
    let oauth = OAuthApp { client_id: "Iv1.MADEUP".to_owned(), client_secret: secret };
    writeln!(said, "{unasked:?} {:?} {oauth:?}", unasked.facts()).unwrap();
}

#[test]
fn every_form_would_be_found() {
    let secret = "ghs_Q7h2Lz9PxT4vBn8KcW3yRm5JdF6gSa1ZeU0o";
    for form in forms(secret) {
        assert!(holds(&format!("before {form} after"), secret), "{form}");
    }
    assert!(!holds("the token for octocat/Hello-World may still be good", secret));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_word_of_ours_holds_a_token_in_any_form(body in "[A-Za-z0-9]{36}") {
        let capture = Capture::default();
        let mut said = String::new();
        let secrets = [format!("ghs_{body}"), format!("github_pat_{body}")];
        tracing::subscriber::with_default(capture.clone(), || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tracing::trace!(control = "is written down");
                of_an_app(&secrets[0], &mut said).await;
                of_a_person(&secrets[1], &mut said).await;
            });
        });
        let traced = capture.0.lock().unwrap().clone();
        prop_assert!(traced.contains("is written down"));
        prop_assert!(said.contains("Forbidden") || said.contains("forbids"), "{said}");
        for secret in &secrets {
            for (where_from, text) in [("ours", &said), ("traces", &traced)] {
                let line = text.lines().find(|line| holds(line, secret));
                prop_assert!(line.is_none() && !holds(text, secret), "{where_from}: {line:?}");
            }
        }
    }
}
