//! A token opens its own repository at its own server, and is seen by nobody else.

use std::collections::BTreeSet;

use async_trait::async_trait;
use sandbox_core::policy::{Capabilities, Control, Host, Scope, Support};
use sandbox_core::{ErrorKind, RepoGrant, Result, Token, TokenProvider};
use secrecy::SecretString;

use super::server::{Manner, NAME};
use super::{Scene, fixture, say};

/// What only the server may see. It is made up.
const SECRET: &str = "ghs_MADE0UP0FOR0TESTS0CLONE";

/// Gives out one token, which is for one server.
#[derive(Debug)]
struct Giver {
    server: Option<(Host, u16)>,
    repository: &'static str,
    number: Option<u64>,
}

#[async_trait]
impl TokenProvider for Giver {
    fn capabilities(&self) -> Capabilities {
        let held = || Support::Enforced { by: "a test".to_owned() };
        Capabilities::new().with(Control::ShortLivedToken, held()).with(Control::TokenScope, held())
    }

    fn server(&self) -> Option<(Host, u16)> {
        self.server.clone()
    }

    async fn token(&self, _: &RepoGrant) -> Result<Token> {
        Ok(Token::new(self.repository.parse().unwrap(), SecretString::from(SECRET)))
    }

    async fn repository_number(&self, _: &Token) -> Result<Option<u64>> {
        Ok(self.number)
    }

    async fn revoke(&self, _: Token) -> Result<()> {
        Ok(())
    }
}

async fn started(scene: &Scene, giver: Giver) -> Result<sandbox_core::Sandbox> {
    let repository = giver.repository.parse().unwrap();
    scene.builder().repository(repository).scopes([Scope::Repo]).tokens(giver).start().await
}

#[tokio::test]
async fn a_token_is_shown_to_its_server_alone_and_lies_nowhere() {
    let scene = Scene::new(fixture::fake().await).await;
    scene.server.behave(Manner { password: Some(SECRET), ..Manner::default() });
    let here = Some((NAME.parse().unwrap(), scene.server.port));
    let sandbox = started(&scene, Giver { server: here, repository: "octo/widget", number: None }).await.unwrap();
    let seen = scene.server.take_seen();
    // It was shown, so that what follows could have found it.
    assert_eq!(seen.credentials, BTreeSet::from([format!("x-access-token:{SECRET}")]));
    // The programs that were looked at are those that had it.
    assert!(seen.told.holds("credential.https://git.example") && seen.told.holds("GIT_CONFIG_NOSYSTEM"));
    assert!(!seen.told.holds(SECRET), "an argument or a variable held the token");
    let inside =
        say(&sandbox, "cat .git/config; env; cat /proc/[0-9]*/environ 2>/dev/null || true; grep -r MADE0UP . || true")
            .await;
    assert!(!inside.contains("MADE0UP"), "{inside}");
    scene.end(sandbox).await;
    let found = std::process::Command::new("grep").args(["-r", "-l", "MADE0UP"]).arg(scene.mirrors.path()).output();
    assert_eq!(String::from_utf8(found.unwrap().stdout).unwrap(), "");
}

#[tokio::test]
async fn a_token_for_another_server_or_repository_is_not_shown() {
    let scene = Scene::new(fixture::fake().await).await;
    scene.server.behave(Manner { password: Some(SECRET), ..Manner::default() });
    let port = scene.server.port;
    for (server, repository) in [
        (None, "octo/widget"),
        (Some(("github.com".parse().unwrap(), 443)), "octo/widget"),
        (Some((NAME.parse().unwrap(), 443)), "octo/widget"),
        (Some((NAME.parse().unwrap(), port)), "octo/other"),
    ] {
        let error = started(&scene, Giver { server, repository, number: None }).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Token, "{error:?}");
    }
    let seen = scene.server.take_seen();
    assert!(seen.paths.len() >= 4 && seen.credentials.is_empty(), "{seen:?}");
}

#[tokio::test]
async fn a_token_that_the_server_refuses_is_an_error_that_does_not_hold_it() {
    let scene = Scene::new(fixture::fake().await).await;
    scene.server.behave(Manner { password: Some("another"), ..Manner::default() });
    let here = Some((NAME.parse().unwrap(), scene.server.port));
    let error = started(&scene, Giver { server: here, repository: "octo/widget", number: None }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Token, "{error:?}");
    assert!(!format!("{error:?}").contains("MADE0UP"), "{error:?}");
    assert_eq!(scene.server.take_seen().credentials.len(), 1);
}

#[tokio::test]
async fn a_repository_that_was_made_anew_under_its_name_is_not_taken_for_the_same() {
    let scene = Scene::new(fixture::fake().await).await;
    let known_as = |number| Giver {
        server: Some((NAME.parse().unwrap(), scene.server.port)),
        repository: "octo/widget",
        number: Some(number),
    };
    for _ in 0..2 {
        let sandbox = started(&scene, known_as(4_711)).await.unwrap();
        scene.end(sandbox).await;
    }
    scene.server.take_seen();
    let error = started(&scene, known_as(4_712)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert!(error.to_string().contains("4712") && error.to_string().contains("4711"), "{error}");
    assert_eq!(scene.server.take_seen().paths, Vec::<String>::new());
    // Whoever means the new one removes the mirror of the old.
    std::fs::remove_dir_all(scene.mirror().parent().unwrap()).unwrap();
    let sandbox = started(&scene, known_as(4_712)).await.unwrap();
    scene.end(sandbox).await;
}
