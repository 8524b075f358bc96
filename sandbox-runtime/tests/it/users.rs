//! The image's own user, on each kind of runtime: by name and by number, and what is not one.

use std::io::Cursor;
use std::os::unix::fs::PermissionsExt as _;

use sandbox_core::policy::{Access, AgentUser, ImageRef};
use sandbox_core::testkit::contract::Fixture;
use sandbox_core::{ErrorKind, Sandbox};
use sha2::{Digest as _, Sha256};

use crate::contract::fixture;
use crate::engine;

/// An archive as `docker save` makes them, of busybox and a few users, that runs as one of them.
fn archive(name: &str, user: &str) -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut put = |path: &str, kind: tar::EntryType, mode: u32, owner: u64, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        layer.append_data(&mut header, path, content).unwrap();
    };
    let busybox = std::fs::read("/bin/busybox").unwrap();
    for (directory, mode, owner) in
        [("bin", 0o755, 0), ("etc", 0o755, 0), ("tmp", 0o1777, 0), ("home", 0o755, 0), ("home/vscode", 0o700, 1234)]
    {
        put(directory, tar::EntryType::Directory, mode, owner, b"");
    }
    put("bin/busybox", tar::EntryType::Regular, 0o755, 0, &busybox);
    put("etc/passwd", tar::EntryType::Regular, 0o644, 0, PASSWD.as_bytes());
    put("etc/group", tar::EntryType::Regular, 0o644, 0, b"root:x:0:\nvscode:x:1234:\nstaff:x:50:\n");
    let layer = layer.into_inner().unwrap();
    let (architecture, digest) = (if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }, hexadecimal(&layer));
    let configuration = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": { "User": user },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let configuration = serde_json::to_vec(&configuration).unwrap();
    let configuration_name = format!("{}.json", hexadecimal(&configuration));
    let manifest = serde_json::json!([{ "Config": configuration_name, "RepoTags": [name], "Layers": ["layer.tar"] }]);
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in [
        (configuration_name.as_str(), configuration.as_slice()),
        ("layer.tar", &layer),
        ("manifest.json", &serde_json::to_vec(&manifest).unwrap()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, content).unwrap();
    }
    archive.into_inner().unwrap()
}

const PASSWD: &str = "root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/root:/bin/sh\nvscode:x:1234:1234::/home/vscode:/bin/sh\n\
                      lost:x:77:77::/nowhere/at/all:/bin/sh\nhigh:x:65534:65534::/:\n";

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The agent's ids and its name and home, or words of the error.
type Expected = Result<(&'static str, &'static str), &'static str>;

/// What a user that an image names comes to: the agent's ids and its home, or an error that says this.
const CASES: [(&str, Expected); 9] = [
    ("vscode", Ok(("1234:1234", "vscode /home/vscode"))),
    ("vscode:staff", Ok(("1234:50", "vscode /home/vscode"))),
    ("1234", Ok(("1234:1234", "vscode /home/vscode"))),
    ("77:0", Ok(("77:77", "lost /home/agent"))),
    ("", Ok(("1000:1000", "agent /home/agent"))),
    ("root", Ok(("1000:1000", "agent /home/agent"))),
    ("toor", Ok(("1000:1000", "agent /home/agent"))),
    ("nobody-knows", Err("does not know")),
    ("high", Err("65534")),
];

/// Tries every case; `bring` makes an image of an archive, and `remove` takes it away.
async fn try_all(fixture: &Fixture, base: &str, bring: impl AsyncFn(&str, Vec<u8>), remove: impl AsyncFn(&str)) {
    for (index, (user, expected)) in CASES.into_iter().enumerate() {
        let name = format!("{base}:{index}");
        bring(&name, archive(&name, user)).await;
        let builder = Sandbox::builder()
            .shared_runtime(std::sync::Arc::clone(&fixture.runtime))
            .policy(fixture.policy())
            .run_root(fixture.run_root.clone())
            .image(&name);
        let started = builder.start().await;
        match expected {
            Ok((ids, home)) => {
                let sandbox = started.unwrap_or_else(|error| panic!("{user:?}: {error}"));
                assert_eq!(sandbox.agent().to_string(), ids, "{user:?}");
                let script =
                    "echo $(busybox id -u):$(busybox id -g) $USER $HOME; busybox touch $HOME/x && echo written";
                let output = sandbox.command("busybox").args(["sh", "-c", script]).output().await.unwrap();
                let seen = String::from_utf8(output.stdout).unwrap();
                assert_eq!(seen, format!("{ids} {home}\nwritten\n"), "{user:?}");
                sandbox.destroy().await.unwrap();
            }
            Err(words) => {
                let error = started.err().unwrap_or_else(|| panic!("{user:?} was let in"));
                assert_eq!(error.kind(), ErrorKind::ImageInvalid, "{user:?}: {error:?}");
                assert!(format!("{error:?}").contains(words) && error.hint().is_some(), "{user:?}: {error:?}");
            }
        }
        if user == "vscode" {
            covers_are_the_users(fixture, &name).await;
        }
        if user == "high" {
            // Whoever says whom does not need the image's.
            let asked = AgentUser::new(1234, 50).unwrap();
            let builder = Sandbox::builder().shared_runtime(std::sync::Arc::clone(&fixture.runtime));
            let builder = builder.policy(fixture.policy()).run_root(fixture.run_root.clone());
            let sandbox = builder.image(&name).agent(asked).start().await.unwrap();
            assert_eq!(sandbox.agent(), asked);
            sandbox.destroy().await.unwrap();
        }
        remove(&name).await;
    }
}

/// What is mounted over parts of a workspace is the user's to write, whoever that is and whether the host has those parts or not.
async fn covers_are_the_users(fixture: &Fixture, image: &str) {
    let workspace = tempfile::tempdir().unwrap();
    for (path, mode) in [(workspace.path().to_owned(), 0o777), (workspace.path().join("node_modules"), 0o755)] {
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let owner = fixture.owner.unwrap();
    // Root's is only read, by the image's user; what is written is written as its owner.
    for (access, (uid, gid), expected) in
        [(Access::ReadOnly, (0, 0), "one\n"), (Access::ReadWrite, owner, "one\ntwo\nthree\n")]
    {
        std::os::unix::fs::chown(workspace.path(), Some(uid), Some(gid)).unwrap();
        let builder =
            Sandbox::builder().shared_runtime(std::sync::Arc::clone(&fixture.runtime)).policy(fixture.policy());
        let builder = builder.run_root(fixture.run_root.clone()).image(image).workspace_with(workspace.path(), access);
        let sandbox = builder.start().await.unwrap();
        let script =
            "busybox touch node_modules/x && echo one; busybox touch .git/x && echo two; busybox touch y && echo three";
        let output = sandbox.command("busybox").args(["sh", "-c", script]).output().await.unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected, "{:?}", output.stderr);
        sandbox.destroy().await.unwrap();
    }
    assert_eq!(std::fs::read_dir(workspace.path().join("node_modules")).unwrap().count(), 0);
    assert!(!workspace.path().join(".git").exists() && workspace.path().join("y").exists());
}

mod docker_and_podman {
    use bollard::query_parameters::RemoveImageOptions;
    use sandbox_runtime::{DockerRuntime, PodmanRuntime};

    use super::*;

    async fn remove(variable: &str, name: &str) {
        let stranger = engine::stranger_to(variable).await;
        stranger.remove_image(name, None::<RemoveImageOptions>, None).await.unwrap();
    }

    async fn docker(variable: &str, fixture: Fixture) {
        let runtime: DockerRuntime = engine::docker(variable).await;
        let bring =
            async |_: &str, archive| assert_eq!(runtime.load_archive(Cursor::new(archive)).await.unwrap().len(), 1);
        try_all(&fixture, &engine::fresh("user"), bring, async |name: &str| remove(variable, name).await).await;
    }

    async fn podman(variable: &str, fixture: Fixture) {
        let runtime: PodmanRuntime = engine::podman(variable).await;
        let bring =
            async |_: &str, archive| assert_eq!(runtime.load_archive(Cursor::new(archive)).await.unwrap().len(), 1);
        try_all(&fixture, &engine::fresh("user"), bring, async |name: &str| remove(variable, name).await).await;
    }

    #[tokio::test]
    async fn docker_has_the_images_user() {
        docker("DOCKER_HOST", fixture::docker().await).await;
    }

    #[tokio::test]
    async fn docker_over_a_relay_has_the_images_user() {
        docker("DOCKER_HOST", fixture::docker_relayed().await).await;
    }

    #[tokio::test]
    async fn podman_rootless_has_the_images_user() {
        podman("SANDBOX_TEST_PODMAN_ROOTLESS", fixture::podman_rootless().await).await;
    }
}

/// Images of the embedded runtime are kept with the others of the run.
#[tokio::test]
async fn without_an_engine_the_images_user_is_found_as_well() {
    let fixture = crate::embedded::fixture().await;
    let runtime = crate::embedded::runtime().await;
    let bring = async |name: &str, archive: Vec<u8>| {
        let reference: ImageRef = name.parse().unwrap();
        runtime.import_archive(Cursor::new(archive), &reference).await.unwrap();
    };
    try_all(&fixture, "sandbox-test/user", bring, async |_: &str| ()).await;
}
