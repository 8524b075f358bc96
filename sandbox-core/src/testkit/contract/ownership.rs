//! Whose the files are that an agent leaves in a mounted workspace.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};

use sandbox_policy::{Access, Control};

use super::{Fixture, HostDirectory, text};
use crate::testkit::Recorder;
use crate::{ErrorKind, Event, FileSystem};

/// Makes one of each kind, and moves and copies them.
const WRITE: &str = "set -e; umask 077; echo one >file; mkdir -p deep/er; echo two >deep/er/file; ln -s nowhere link; \
                     ln file second; mv deep moved; mv file moved/er/gone; cp -p moved/er/gone copy; mktemp -p . >/dev/null; \
                     echo more >>given; mv given renamed";

pub async fn what_an_agent_writes_is_the_workspaces_owners(fixture: &Fixture) {
    if fixture.lacks(Control::HostFilesystem) || fixture.runtime.file_system() == FileSystem::Apart {
        // Nothing is mounted there, as another case shows, and so nobody's is written.
        assert_eq!(fixture.owner, None);
        return;
    }
    let is_root = rustix::process::geteuid().is_root();
    let here = HostDirectory::new("sandbox owner");
    let Some((uid, gid)) = fixture.owner else {
        // Nobody's can be written, of those who could have one.
        for (uid, gid) in [(0, 0), (1_000, 1_000), (fixture.runtime.info().root_uid, fixture.runtime.info().root_gid)] {
            chown(&*here, Some(uid), Some(gid)).unwrap();
            refused(fixture, &here).await;
        }
        return;
    };
    fs::write(here.join("given"), "by the host\n").unwrap();
    if is_root {
        for path in [here.to_path_buf(), here.join("given")] {
            chown(&path, Some(uid), Some(gid)).unwrap();
        }
    }
    fs::set_permissions(&*here, fs::Permissions::from_mode(0o700)).unwrap();
    let sandbox = fixture.builder_without_agent().workspace(&*here).start().await.unwrap();
    assert_eq!(text(&sandbox, "cat given; stat -c %u . given; id -u").await.lines().skip(1).collect::<Vec<_>>(), {
        let uid = sandbox.agent().uid().to_string();
        [uid.clone(), uid.clone(), uid]
    });
    text(&sandbox, WRITE).await;
    // What comes by way of the library is written by the agent as well.
    sandbox.write("/workspace/placed", b"three").await.unwrap();
    sandbox.destroy().await.unwrap();

    let mut seen = 0;
    let mut next = vec![here.to_path_buf()];
    while let Some(path) = next.pop() {
        let data = fs::symlink_metadata(&path).unwrap();
        assert_eq!((data.uid(), data.gid()), (uid, gid), "{}", path.display());
        seen += 1;
        if data.is_dir() {
            next.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    assert_eq!(seen, 11, "each was made");
    assert_eq!(fs::read_to_string(here.join("renamed")).unwrap(), "by the host\nmore\n");
    assert_eq!(fs::read_to_string(here.join("moved/er/gone")).unwrap(), "one\n");

    if is_root {
        // Root's are nobody's whom the agent could be; only to be read, they are as good as any.
        chown(&*here, Some(0), Some(0)).unwrap();
        fs::set_permissions(&*here, fs::Permissions::from_mode(0o777)).unwrap();
        refused(fixture, &here).await;
        let sandbox = fixture.builder_without_agent().workspace_with(&*here, Access::ReadOnly).start().await.unwrap();
        assert!(text(&sandbox, "ls; touch no 2>&1 || true").await.contains("Read-only"));
        sandbox.destroy().await.unwrap();
        // Who says whom has said whose the files are.
        let sandbox = fixture.builder().workspace(&*here).start().await.unwrap();
        assert_eq!(text(&sandbox, "echo >named; id -u").await, fixture.agent.uid().to_string());
        sandbox.destroy().await.unwrap();
        assert_ne!(fs::metadata(here.join("named")).unwrap().uid(), 0, "nothing is root's");
    }
}

/// Nothing is touched for a workspace that the agent would leave strangers' files in.
async fn refused(fixture: &Fixture, here: &HostDirectory) {
    let recorder = Recorder::default();
    let started = fixture.builder_without_agent().workspace(&**here).events(recorder.clone()).start().await;
    let error = started.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WorkspaceOwner, "{error:?}");
    assert!(error.to_string().contains("belongs to user") && error.hint().is_some(), "{error:?}");
    let events = recorder.events();
    assert!(matches!(events[..], [Event::Refused { .. }]), "{events:?}");
}
