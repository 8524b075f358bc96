use std::os::unix::fs::{PermissionsExt as _, symlink};

use rustix::fs::{CWD, Mode};

use super::*;
use crate::ErrorKind;

fn paths_of(paths: &[&str]) -> BTreeSet<CoverPath> {
    paths.iter().map(|path| path.parse().unwrap()).collect()
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.workspace()).unwrap();
        place
    }

    fn workspace(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap().join("w")
    }

    fn record(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn lay(&self, name: &str, paths: &[&str]) -> Result<(Vec<Cover>, Held)> {
        self.lay_all(name, paths, &[], Access::ReadWrite).map(|(laid, held)| (laid.covers, held))
    }

    fn lay_all(&self, name: &str, protected: &[&str], covered: &[&str], access: Access) -> Result<(Laid, Held)> {
        let (host, files) = (self.workspace(), self.0.path());
        let laying = Laying { host: &host, guest: Path::new("/workspace"), access, size: ByteSize::mib(1), files };
        laying.lay(plan(&paths_of(protected), &paths_of(covered)), &self.record(name))
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.workspace())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn what_is_missing_gets_a_placeholder_that_goes_again() {
    let place = Place::new();
    fs::write(place.workspace().join(".envrc"), "x").unwrap();
    let (covers, held) = place.lay("a", &[".vscode/", ".envrc", ".mcp.json", "a/b/c"]).unwrap();
    let seen: Vec<_> = covers.iter().map(|cover| (cover.target.to_str().unwrap(), cover.access)).collect();
    assert_eq!(
        seen,
        [
            ("/workspace/.envrc", Access::ReadOnly),
            ("/workspace/.mcp.json", Access::ReadOnly),
            ("/workspace/.vscode", Access::ReadOnly),
            ("/workspace/a", Access::ReadWrite),
            ("/workspace/a/b", Access::ReadWrite),
            ("/workspace/a/b/c", Access::ReadOnly),
        ]
    );
    assert_eq!(place.names(), [".envrc", ".mcp.json", ".vscode", "a"]);
    drop(held);
    clear(&place.record("a")).unwrap();
    assert_eq!(place.names(), [".envrc"]);
    assert_eq!(fs::read(place.workspace().join(".envrc")).unwrap(), b"x");
    clear(&place.record("a")).unwrap();
    clear(&place.record("never")).unwrap();
}

#[test]
fn a_placeholder_stays_until_the_last_sandbox_has_gone() {
    let place = Place::new();
    let (_, first) = place.lay("a", &[".vscode/"]).unwrap();
    let (_, second) = place.lay("b", &[".vscode/"]).unwrap();
    drop(first);
    clear(&place.record("a")).unwrap();
    assert_eq!(place.names(), [".vscode"]);
    drop(second);
    clear(&place.record("b")).unwrap();
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn what_is_somebody_elses_stays() {
    let place = Place::new();
    fs::create_dir(place.workspace().join(".claude")).unwrap();
    let (_, held) = place.lay("a", &[".claude/", ".vscode/", ".mcp.json"]).unwrap();
    drop(held);
    let used = place.workspace().join(".vscode");
    fs::set_permissions(&used, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(place.workspace().join(".mcp.json"), fs::Permissions::from_mode(0o644)).unwrap();
    clear(&place.record("a")).unwrap();
    assert_eq!(place.names(), [".claude", ".mcp.json", ".vscode"]);
}

#[test]
fn a_link_is_refused_and_nothing_is_made_behind_it() {
    let place = Place::new();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), place.workspace().join(".vscode")).unwrap();
    for paths in [&[".vscode/"], &[".vscode/x"], &[".vscode/x/y"]] {
        let error = place.lay("a", paths).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.hint().is_some());
    }
    rustix::fs::mknodat(CWD, place.workspace().join(".envrc"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    assert_eq!(place.lay("a", &[".envrc"]).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(!place.record("a").exists());
}

#[test]
fn what_is_covered_is_the_sandboxs_own_and_needs_no_other_protection() {
    let place = Place::new();
    fs::create_dir_all(place.workspace().join(".git/hooks")).unwrap();
    fs::create_dir(place.workspace().join("sub")).unwrap();
    fs::write(place.workspace().join(".env"), "secret").unwrap();
    let protected = [".git/hooks/", ".claude/", ".envrc"];
    let covered = [".git/", "node_modules/", ".env", "sub/node_modules/", "sub/node_modules/x/", ".claude/own/"];
    let (laid, held) = place.lay_all("a", &protected, &covered, Access::ReadWrite).unwrap();
    let blanks: Vec<&str> = laid.blanks.iter().map(|blank| blank.target.to_str().unwrap()).collect();
    let own = ["/workspace/.claude/own", "/workspace/.git", "/workspace/node_modules", "/workspace/sub/node_modules"];
    assert_eq!(blanks, own);
    let covers: Vec<_> = laid.covers.iter().map(|cover| (cover.target.to_str().unwrap(), cover.access)).collect();
    assert_eq!(
        covers,
        [
            ("/workspace/.claude", Access::ReadOnly),
            ("/workspace/.env", Access::ReadOnly),
            ("/workspace/.envrc", Access::ReadOnly),
            ("/workspace/sub", Access::ReadWrite),
        ]
    );
    assert_eq!(fs::read(&laid.covers[1].source).unwrap(), b"");
    let repository = laid.repository.unwrap();
    assert_eq!((repository.own, repository.ignored), ("/workspace/.git".into(), vec![PathBuf::from(".envrc")]));
    drop(held);
    clear(&place.record("a")).unwrap();
    assert_eq!(place.names(), [".env", ".git", "sub"]);
    assert_eq!(fs::read_dir(place.workspace().join("sub")).unwrap().count(), 0);
}

#[test]
fn a_git_that_is_a_file_leads_to_a_repository_elsewhere() {
    let place = Place::new();
    fs::write(place.workspace().join(".git"), "gitdir: /elsewhere\n").unwrap();
    let (laid, _held) = place.lay_all("a", &[], &[".git/"], Access::ReadOnly).unwrap();
    assert_eq!(fs::read_to_string(&laid.covers[0].source).unwrap(), "gitdir: /.sandbox-git\n");
    assert_eq!(laid.covers[0].target, Path::new("/workspace/.git"));
    assert_eq!(laid.blanks[0].target, Path::new("/.sandbox-git"));
    assert_eq!(laid.repository.unwrap().own, Path::new("/.sandbox-git"));
}

#[test]
fn what_is_only_read_needs_no_placeholder() {
    let place = Place::new();
    let (laid, _held) = place.lay_all("a", &[".claude/"], &[".git/", "a/b/"], Access::ReadOnly).unwrap();
    assert!(laid.covers.is_empty() && laid.blanks.is_empty() && laid.repository.is_none());
    assert_eq!(place.names(), Vec::<String>::new());
    let (laid, _held) = place.lay_all("b", &[], &[".git/"], Access::ReadWrite).unwrap();
    assert!(laid.repository.is_none(), "a placeholder is no repository");
    let (laid, _held) = place.lay_all("c", &[], &[".git/"], Access::ReadOnly).unwrap();
    assert_eq!((laid.blanks.len(), laid.repository), (1, None));
}
