//! Tokens in a real keyring, which answers on a session bus of the test's own.

use std::time::{Duration, UNIX_EPOCH};

use sandbox_core::{ErrorKind, Token};
use sandbox_github::{GitHubUrl, KeptToken, Keyring, Removed, TokenStore as _};
use secrecy::{ExposeSecret as _, SecretString};

use crate::session::Session;

fn keyring(session: &Session, github: &str) -> Keyring {
    Keyring::new(&session.address, &github.parse::<GitHubUrl>().unwrap())
}

fn answers(session: &Session) -> bool {
    keyring(session, "https://github.com").list().is_ok()
}

fn kept(repository: &str, secret: &str, expires: Option<u64>) -> KeptToken {
    KeptToken {
        token: Token::new(repository.parse().unwrap(), SecretString::from(secret)),
        expires: expires.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)),
    }
}

#[test]
fn each_repository_has_a_token_of_its_own() {
    let session = Session::with_keyring(answers);
    let store = keyring(&session, "https://github.com");
    let names = ["a/b-c", "a/b.c", "a-b/c"];
    let secrets = ["github_pat_MADE0UP0FOR0TESTS0", "github_pat_MADE0UP0FOR0TESTS1", "github_pat_MADE0UP0FOR0TESTS2"];
    for (name, secret) in names.iter().zip(secrets) {
        assert!(store.load(&name.parse().unwrap()).unwrap().is_none());
        store.save(&kept(name, secret, Some(1_800_000_000))).unwrap();
    }
    for (name, secret) in names.iter().zip(secrets) {
        let found = store.load(&name.to_uppercase().parse().unwrap()).unwrap().unwrap();
        assert_eq!(found.token.secret().expose_secret(), secret);
        assert_eq!(found.expires, Some(UNIX_EPOCH + Duration::from_hours(500_000)));
    }
    let listed: Vec<String> = store.list().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(listed, names);
    // Another GitHub's are others.
    let elsewhere = keyring(&session, "https://github.example.org");
    assert!(elsewhere.list().unwrap().is_empty() && elsewhere.load(&names[0].parse().unwrap()).unwrap().is_none());

    store.save(&kept(names[0], secrets[1], None)).unwrap();
    let replaced = store.load(&names[0].parse().unwrap()).unwrap().unwrap();
    assert_eq!((replaced.token.secret().expose_secret(), replaced.expires), (secrets[1], None));
    assert_eq!(store.list().unwrap().len(), 3, "nothing of the old one is left");
    assert_eq!(store.remove(&names[0].parse().unwrap()).unwrap(), Removed::Forgotten);
    assert_eq!(store.remove(&names[0].parse().unwrap()).unwrap(), Removed::Absent);
    assert_eq!(store.list().unwrap().len(), 2);
    let error = store.save(&kept("a/b", "MADE0UP0FOR0TESTS0", None)).unwrap_err();
    assert!(error.kind() == ErrorKind::Token && !error.to_string().contains("MADE0UP"), "{error}");
}

#[test]
fn no_keyring_is_an_answer_and_not_a_wait() {
    let session = Session::bus();
    let error = keyring(&session, "https://github.com").list().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let nowhere = Keyring::new("unix:path=/nonexistent/bus", &GitHubUrl::github());
    let error = nowhere.load(&"a/b".parse().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(Keyring::new("what", &GitHubUrl::github()).list().unwrap_err().kind(), ErrorKind::NotFound);
}
