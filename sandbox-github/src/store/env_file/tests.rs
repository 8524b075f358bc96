use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use proptest::prelude::*;

use super::*;

const MADE_UP: &str = "github_pat_MADE0UP0FOR0TESTS0";

struct Place {
    directory: tempfile::TempDir,
    store: EnvFiles,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = EnvFiles::new(directory.path().join("tokens"));
        Self { directory, store }
    }

    /// A place in a checkout of git's.
    fn in_checkout() -> Self {
        let place = Self::new();
        place.git(&["init", "--quiet"]);
        place
    }

    fn git(&self, arguments: &[&str]) {
        let mut command = Command::new("git");
        command.arg("-C").arg(self.directory.path()).args(["-c", "user.name=a", "-c", "user.email=a@example.org"]);
        assert!(command.args(arguments).status().unwrap().success(), "{arguments:?}");
    }
}

fn repository(name: &str) -> RepoId {
    name.parse().unwrap()
}

fn kept(name: &str) -> KeptToken {
    KeptToken { token: Token::new(repository(name), SecretString::from(MADE_UP)), expires: None }
}

fn denied(result: Result<impl std::fmt::Debug>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    error.to_string()
}

#[test]
fn what_is_kept_is_found_until_it_is_forgotten() {
    let Place { directory: _place, store } = Place::new();
    let name = repository("Owner/Name.x");
    assert!(store.load(&name).unwrap().is_none() && store.list().unwrap().is_empty());
    assert_eq!(store.remove(&name).unwrap(), Removed::Absent);
    let expires = Some(UNIX_EPOCH + Duration::from_secs(1_800_000_001));
    store.save(&KeptToken { expires, ..kept("Owner/Name.x") }).unwrap();
    let found = store.load(&repository("owner/name.X")).unwrap().unwrap();
    assert_eq!((found.token.secret().expose_secret(), found.expires), (MADE_UP, expires));
    assert_eq!(found.token.repository().to_string(), "Owner/Name.x");
    assert_eq!(store.list().unwrap(), std::slice::from_ref(&name));
    assert_eq!(fs::metadata(store.path(&name)).unwrap().permissions().mode() & 0o7777, 0o600);

    let other = SecretString::from("github_pat_ANOTHER0MADE0UP0ONE");
    store.save(&KeptToken { token: Token::new(name.clone(), other.clone()), expires: None }).unwrap();
    let found = store.load(&name).unwrap().unwrap();
    assert_eq!((found.token.secret().expose_secret(), found.expires), (other.expose_secret(), None));
    assert_eq!(store.remove(&name).unwrap(), Removed::Forgotten);
    assert!(store.load(&name).unwrap().is_none() && store.list().unwrap().is_empty());
}

proptest! {
    #[test]
    fn no_two_repositories_share_a_file(
        a in "[a-c]{1,2}([-_][a-c]{1,2})?/[a-cA-C._-]{1,4}",
        b in "[a-c]{1,2}([-_][a-c]{1,2})?/[a-cA-C._-]{1,4}",
    ) {
        if let (Ok(a), Ok(b)) = (a.parse::<RepoId>(), b.parse::<RepoId>()) {
            prop_assert_eq!(a == b, file_name(&a) == file_name(&b));
            prop_assert_eq!(repository_of(&file_name(&a)), Some(a));
        }
    }

    #[test]
    fn no_content_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(Path::new("x"), &repository("a/b"), &bytes);
    }
}

#[test]
fn the_names_that_once_collided_do_not() {
    assert_ne!(file_name(&repository("a-b/c")), file_name(&repository("a/b-c")));
    assert_eq!(file_name(&repository("A/b.C")), ".env.a.b.c");
    for name in [".env.", ".env.a", ".env.A.b", UNFINISHED, ".env.a.b.git", "env.a.b"] {
        assert_eq!(repository_of(name), None, "{name}");
    }
}

#[test]
fn a_file_that_others_could_have_read_or_written_is_refused() {
    let Place { directory, store } = Place::new();
    let name = repository("a/b");
    store.save(&kept("a/b")).unwrap();
    let path = store.path(&name);
    for mode in [0o640, 0o604, 0o620, 0o602] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        assert!(denied(store.load(&name)).contains("others"), "{mode:o}");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert!(store.load(&name).unwrap().is_some());

    let second = directory.path().join("second");
    fs::hard_link(&path, &second).unwrap();
    assert!(denied(store.load(&name)).contains("second name"));
    fs::remove_file(&path).unwrap();
    symlink(&second, &path).unwrap();
    assert!(denied(store.load(&name)).contains("symbolic link"));
    // A link is replaced; where it led, nothing is written.
    store.save(&KeptToken { expires: Some(UNIX_EPOCH), ..kept("a/b") }).unwrap();
    assert!(!fs::read_to_string(&second).unwrap().contains("EXPIRES"));
    assert!(fs::symlink_metadata(&path).unwrap().is_file());

    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(denied(store.load(&name)).contains("no ordinary file"));
}

#[test]
fn a_file_of_somebody_else_is_refused() {
    let Place { directory: _place, store } = Place::new();
    store.save(&kept("a/b")).unwrap();
    let path = store.path(&repository("a/b"));
    // Root can give a file away; to anybody else, root's files are somebody else's.
    let foreign = match std::os::unix::fs::chown(&path, Some(1), None) {
        Ok(()) => path,
        Err(_) => PathBuf::from("/etc/passwd"),
    };
    let opened = OwnedFd::from(fs::File::open(foreign).unwrap());
    assert_eq!(suspicion(&stat(&opened).unwrap()), Some("it belongs to somebody else"));
}

#[test]
fn a_directory_that_others_may_write_is_refused() {
    let Place { directory, store } = Place::new();
    store.save(&kept("a/b")).unwrap();
    let tokens = directory.path().join("tokens");
    fs::set_permissions(&tokens, Permissions::from_mode(0o770)).unwrap();
    for message in [denied(store.load(&repository("a/b"))), denied(store.save(&kept("a/b"))), denied(store.list())] {
        assert!(message.contains("others may write"), "{message}");
    }
    fs::set_permissions(&tokens, Permissions::from_mode(0o700)).unwrap();
    symlink(&tokens, directory.path().join("link")).unwrap();
    let through_a_link = EnvFiles::new(directory.path().join("link"));
    assert!(through_a_link.load(&repository("a/b")).is_err());
}

#[test]
fn a_file_that_git_would_take_along_is_refused() {
    let place = Place::in_checkout();
    let store = &place.store;
    assert!(denied(store.save(&kept("a/b"))).contains("git does not ignore"));
    assert_eq!(store.list().unwrap(), []);
    fs::write(place.directory.path().join(".gitignore"), ".env.*\n").unwrap();
    store.save(&kept("a/b")).unwrap();
    assert!(store.load(&repository("a/b")).unwrap().is_some());
    place.git(&["add", "--force", "tokens/.env.a.b"]);
    assert!(denied(store.load(&repository("a/b"))).contains("tracks it"));
    assert!(denied(store.save(&kept("a/b"))).contains("tracks it"));
}

#[test]
fn git_starts_nothing_that_a_checkout_names() {
    let place = Place::in_checkout();
    let fired = place.directory.path().join("fired");
    let hook = place.directory.path().join("hook");
    fs::write(&hook, format!("#!/bin/sh\ntouch '{}'\n", fired.display())).unwrap();
    fs::set_permissions(&hook, Permissions::from_mode(0o700)).unwrap();
    place.git(&["config", "core.fsmonitor", hook.to_str().unwrap()]);
    fs::write(place.directory.path().join(".gitignore"), ".env.*\n").unwrap();
    place.store.save(&kept("a/b")).unwrap();
    assert!(place.store.load(&repository("a/b")).unwrap().is_some());
    assert!(!fired.exists());
    // What git does unguarded.
    place.git(&["status", "--porcelain=v2", "--untracked-files=no"]);
    assert!(fired.exists());
}

#[test]
fn what_a_killed_writer_left_is_replaced_and_a_second_writer_waits_its_turn() {
    let Place { directory, store } = Place::new();
    store.save(&kept("a/b")).unwrap();
    let tokens = directory.path().join("tokens");
    fs::write(tokens.join(UNFINISHED), "GITHUB_TOKEN=half").unwrap();
    store.save(&kept("a/b")).unwrap();
    assert!(!tokens.join(UNFINISHED).exists());

    let held = fs::File::open(&tokens).unwrap();
    rustix::fs::flock(&held, FlockOperation::LockExclusive).unwrap();
    let error = store.save(&kept("a/b")).unwrap_err();
    assert_eq!(error.hint(), Some("try again"));
    drop(held);
    store.save(&kept("a/b")).unwrap();
}

#[test]
fn what_makes_no_sense_is_named_by_its_line_and_never_shown() {
    let line = format!("GITHUB_TOKEN={MADE_UP}\n");
    for (text, why) in [
        (line.clone(), "does not say which repository"),
        (format!("SANDBOX_REPOSITORY=a/c\n{line}"), "it is for a/c, not for a/b"),
        ("SANDBOX_REPOSITORY=a/b\n".to_owned(), "holds no token"),
        (format!("SANDBOX_REPOSITORY=a/b\n{line}{line}"), "line 3 sets something for the second time"),
        (format!("SANDBOX_REPOSITORY=a/b\n{MADE_UP}\n"), "line 2 sets nothing that is known"),
        (format!("SANDBOX_REPOSITORY=a/b\nGITHUB_TOKEN=\"{MADE_UP}\"\n"), "none of GitHub's"),
        (format!("SANDBOX_REPOSITORY=a/b\n{line}SANDBOX_TOKEN_EXPIRES=18446744073709551615\n"), "its expiry"),
        ("#".repeat(MAX_FILE + 1), "too long"),
    ] {
        let error = parse(Path::new("x"), &repository("a/b"), text.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(!format!("{error:?}").contains(MADE_UP), "{error:?}");
    }
    let text = format!("# mine\r\n\r\nSANDBOX_REPOSITORY=A/B\r\n{line}");
    assert!(parse(Path::new("x"), &repository("a/b"), text.as_bytes()).is_ok());
}

#[test]
fn nothing_is_kept_that_could_set_another_line() {
    let store = Place::new();
    let token = Token::new(repository("a/b"), SecretString::from(format!("{MADE_UP}\nSANDBOX_REPOSITORY=c/d")));
    assert_eq!(store.store.save(&KeptToken { token, expires: None }).unwrap_err().kind(), ErrorKind::Token);
    assert!(!format!("{:?}", kept("a/b")).contains(MADE_UP));
}
