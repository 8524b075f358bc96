//! A mounted workspace in which some things stay as they are, against an agent that tries everything it can.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use sandbox_core::policy::Policy;
use sandbox_core::testkit::contract::Fixture;
use sandbox_core::{ErrorKind, Owner, Sandbox, SandboxId, reap};

use crate::contract::fixture;

/// A workspace that the agent may write, with what it must not change in it, and beside it what it must not reach.
struct Place(tempfile::TempDir, Vec<u8>);

impl Place {
    fn new(name: &[u8]) -> Self {
        let place = Self(tempfile::tempdir().unwrap(), name.to_vec());
        fs::set_permissions(place.0.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let workspace = place.workspace();
        fs::create_dir_all(workspace.join(".claude")).unwrap();
        fs::write(workspace.join(".claude/settings.json"), "{}").unwrap();
        fs::write(workspace.join(".envrc"), "host").unwrap();
        fs::create_dir(workspace.join("deep")).unwrap();
        for (path, mode) in
            [("", 0o777), (".claude", 0o777), (".claude/settings.json", 0o666), (".envrc", 0o666), ("deep", 0o777)]
        {
            fs::set_permissions(workspace.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        place
    }

    fn workspace(&self) -> PathBuf {
        self.0.path().join(OsStr::from_bytes(&self.1))
    }

    /// Which files and directories are where the agent would like others.
    fn held(&self) -> Vec<Option<u64>> {
        let look = |path| fs::symlink_metadata(self.workspace().join(path)).ok().map(|data| data.ino());
        HELD.into_iter().map(look).collect()
    }

    /// What is there that was not, or is not as it was.
    fn changes(&self) -> Vec<String> {
        let mut changes = Vec::new();
        for (path, content) in [(".claude/settings.json", "{}"), (".envrc", "host")] {
            if fs::read_to_string(self.workspace().join(path)).ok().as_deref() != Some(content) {
                changes.push(path.to_owned());
            }
        }
        for entry in fs::read_dir(self.workspace()).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            // What mv(1) copies out of a cover, since it cannot rename across mounts, is a file of the agent's own.
            let is_copy = name == "moved"
                && fs::read(self.workspace().join("moved")).is_ok_and(|copy| copy.is_empty() || copy == b"{}");
            if !is_copy && ![".claude", ".envrc", "deep", "written"].contains(&name.as_str()) {
                changes.push(name);
            }
        }
        let own = |name: &str| fs::read_dir(self.workspace().join(name)).map_or(0, Iterator::count);
        if own(".claude") != 1 || own("deep") != 0 {
            changes.push("in a directory".to_owned());
        }
        changes
    }
}

/// Tries to change, to make, to replace and to move away each of them. None of it may work, all else must.
const ATTACK: &str = "for p in .vscode .mcp.json .envrc .claude .claude/settings.json deep/er/x; do
    (echo evil >$p) 2>&-; (echo evil >$p/tasks.json) 2>&-; (echo evil >>$p) 2>&-
    mkdir -p $p/sub 2>&-; chmod 777 $p 2>&-; mv $p moved 2>&-; mv -T /tmp $p 2>&-
    (echo evil >new; mv -f new $p) 2>&-; rm -f new; ln -s /tmp link; mv -fT link $p 2>&-; rm -f link
    ln $p hard 2>&-; rm -rf $p 2>&-; rmdir $p 2>&-; ln -s /tmp $p 2>&-; mkfifo $p 2>&-
done; mv deep shallow 2>&-; mv deep/er deep/est 2>&-; rm -rf deep 2>&-; echo mine >written
for p in .vscode .mcp.json .envrc .claude .claude/settings.json deep/er/x; do [ -e $p ] && [ ! -L $p ] || echo gone $p; done
cat .envrc";

async fn attack(sandbox: &Sandbox) -> String {
    let deadline = std::time::Duration::from_mins(1);
    let output = sandbox.command("sh").args(["-c", ATTACK]).deadline(deadline).output().await.unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn protecting(policy: Policy, paths: &[&str]) -> Policy {
    policy.with_workspace_protected(paths.iter().map(|path| path.parse().unwrap()))
}

const HELD: [&str; 6] = [".claude", ".claude/settings.json", ".envrc", ".mcp.json", ".vscode", "deep/er/x"];
const PROTECTED: [&str; 5] = [".claude/", ".envrc", ".mcp.json", ".vscode/", "deep/er/x"];

async fn start(fixture: &Fixture, place: &Place, paths: &[&str]) -> sandbox_core::Result<Sandbox> {
    let policy = protecting(fixture.policy(), paths);
    fixture.builder().policy(policy).workspace(place.workspace()).start().await
}

async fn nothing_protected_changes(fixture: Fixture, name: &[u8]) {
    let standard = Policy::standard();
    assert!(PROTECTED[..4].iter().all(|path| standard.workspace_protected().contains(&path.parse().unwrap())));

    let place = Place::new(name);
    let first = start(&fixture, &place, &PROTECTED).await.unwrap();
    let second = start(&fixture, &place, &PROTECTED).await.unwrap();
    let held = place.held();
    assert!(held.iter().all(Option::is_some), "{held:?}");
    assert_eq!(attack(&first).await, "host");
    assert_eq!(place.held(), held, "the very same are there");
    first.destroy().await.unwrap();
    // What the first has made there is still needed by the second.
    assert_eq!(attack(&second).await, "host");
    assert_eq!(place.held(), held, "the very same are there");
    second.destroy().await.unwrap();
    assert_eq!(place.changes(), Vec::<String>::new());
    assert_eq!(fs::read_to_string(place.workspace().join("written")).unwrap(), "mine\n");

    // The same attack where nothing is protected shows what it can do.
    let open = start(&fixture, &place, &[]).await.unwrap();
    attack(&open).await;
    open.destroy().await.unwrap();
    assert!(place.changes().len() > 3, "{:?}", place.changes());

    let place = Place::new(name);
    let outside = Place::new(b"outside");
    symlink(outside.workspace(), place.workspace().join(".vscode")).unwrap();
    let error = start(&fixture, &place, &PROTECTED).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    assert!(error.to_string().contains(".vscode") && error.hint().is_some(), "{error:?}");
    assert_eq!((place.changes(), outside.changes()), (vec![".vscode".to_owned()], Vec::new()));
    assert_eq!(fixture.run_root.sandboxes().unwrap(), []);
}

mod docker {
    #[tokio::test]
    async fn nothing_protected_changes() {
        super::nothing_protected_changes(super::fixture::docker().await, b"-a b \xc3\xa4\n").await;
    }
}

mod podman_rootless {
    #[tokio::test]
    async fn nothing_protected_changes() {
        super::nothing_protected_changes(super::fixture::podman_rootless().await, b"-a b \xc3\xa4").await;
    }
}

#[tokio::test]
async fn without_an_engine_nothing_protected_changes() {
    nothing_protected_changes(crate::embedded::fixture().await, b"-a b \xc3\xa4\n").await;
}

#[tokio::test]
async fn what_a_killed_owner_made_in_a_workspace_is_reaped() {
    let fixture = fixture::fake().await;
    let place = Place::new(b"w");
    let sandbox = SandboxId::random().unwrap();
    let directory = fixture.run_root.of(sandbox);
    fs::create_dir_all(&directory).unwrap();
    let gone = Owner { boot: "earlier".into(), ..Owner::current().unwrap() };
    fs::write(directory.join("owner"), gone.to_string()).unwrap();
    let workspace: PathBuf = place.workspace().canonicalize().unwrap();
    let names = [workspace.as_os_str().as_bytes(), b".vscode", b".envrc", b".mcp.json"].join(&0);
    fs::write(directory.join("placeholders"), names).unwrap();
    fs::create_dir(workspace.join(".vscode")).unwrap();
    fs::set_permissions(workspace.join(".vscode"), fs::Permissions::from_mode(0o1755)).unwrap();
    let mine: &Path = &workspace.join(".mcp.json");
    fs::write(mine, "").unwrap();
    let reaped = reap(&*fixture.runtime, &fixture.run_root).await.unwrap();
    assert!(reaped.removed.contains(&sandbox), "{reaped:?}");
    assert!(mine.exists(), "an empty file without the mark is somebody else's");
    fs::remove_file(mine).unwrap();
    assert_eq!(place.changes(), Vec::<String>::new());
}
