//! A program of a test's own in the guest's place: process 1 of a container that is made as all are.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::time::Duration;

use sandbox_core::{ContainerId, Runtime, Wiring};
use sandbox_policy::{SandboxSpec, Workspace};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::engine::{resolve, wiring};

/// A running Python program that answers questions: one line of JSON each.
pub(crate) struct Inside {
    stream: BufReader<UnixStream>,
}

impl Inside {
    /// Waits for a program that [`write`] has prepared.
    pub(crate) async fn accept(listener: &UnixListener) -> Self {
        let accepted = tokio::time::timeout(Duration::from_secs(30), listener.accept()).await;
        let (stream, _) = accepted.unwrap_or_else(|_| panic!("the program does not connect")).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Has Python code run, without waiting for an answer.
    pub(crate) async fn tell(&mut self, code: &str) {
        let question = serde_json::to_string(code).unwrap();
        self.stream.get_mut().write_all(format!("{question}\n").as_bytes()).await.unwrap();
    }

    /// Evaluates a Python expression, or runs statements that set `answer`.
    pub(crate) async fn ask(&mut self, code: &str) -> Value {
        self.tell(code).await;
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        let mut answer: Value =
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("{code}: no answer, but {line:?}"));
        assert!(answer["error"].is_null(), "{code}: {}", answer["error"]);
        answer["answer"].take()
    }
}

/// A container whose process 1 is such a program.
pub(crate) struct Container {
    pub(crate) id: ContainerId,
    pub(crate) wiring: Wiring,
    pub(crate) inside: Inside,
    _directory: TempDir,
}

impl Container {
    /// Makes and starts it.
    pub(crate) async fn start(engine: &impl Runtime, spec: &SandboxSpec) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut wiring = wiring(resolve(engine, spec).await, directory.path());
        let root = match spec.workspace().and_then(Workspace::mounted) {
            Some((host, _)) => {
                let owner = host.as_path().metadata().unwrap();
                engine.ownership((owner.uid(), owner.gid())).root
            }
            None => (engine.info().root_uid, engine.info().root_gid),
        };
        wiring.root = root;
        let listener = write(root, directory.path());
        let id = engine.create(spec, &wiring).await.unwrap();
        engine.start(&id).await.unwrap();
        Self { id, wiring, inside: Inside::accept(&listener).await, _directory: directory }
    }
}

/// Writes the program and listens for it, all of it for the user who is root inside.
pub(crate) fn write((uid, gid): (u32, u32), directory: &Path) -> UnixListener {
    let program = directory.join("guest");
    std::fs::write(&program, include_str!("inside.py")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = directory.join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    for path in [directory, &program, &socket] {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
    listener
}
