//! `--engine` with an address of another machine: behind a port with TLS, and behind `ssh`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Place, Ran, text, variable};
use crate::server::Server;

/// The command, with an engine elsewhere in the place of the one that is near.
struct Elsewhere {
    place: Place,
    engine: String,
    variables: Vec<(&'static str, String)>,
}

impl Elsewhere {
    fn command(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = self.place.command(&[&[verb, "--engine", &self.engine], arguments].concat());
        command.env_remove("DOCKER_HOST").envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn sandbox(&self, verb: &str, arguments: &[&str]) -> Ran {
        Ran::from(self.command(verb, arguments).output().unwrap())
    }

    fn ok(&self, verb: &str, arguments: &[&str]) -> String {
        let ran = self.sandbox(verb, arguments);
        assert_eq!(ran.code, Some(0), "{verb} {arguments:?}: {ran:?}");
        ran.stdout
    }

    /// One sandbox that goes with its program, and one that stays until it is told.
    fn is_as_good_as_one_that_is_near(&self) {
        std::fs::create_dir(self.place.path("tree")).unwrap();
        std::fs::write(self.place.path("tree/given"), "by the host").unwrap();
        let script = "cat given; cat; exit 3";
        let mut run = self.command("run", &["--no-network", "--copy", "tree", "--", "sh", "-c", script]);
        let mut child = run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b", and more").unwrap();
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(3), "by the host, and more", ""));

        let id = self.ok("up", &["--no-network"]).trim().to_owned();
        assert_eq!(containers(&id), 1);
        assert_eq!(self.place.ok(&["exec", &id, "--", "sh", "-c", "echo made >/tmp/made; id -u"]), "1000\n");
        self.place.ok(&["cp", &format!("{id}:/tmp/made"), "made"]);
        assert_eq!(std::fs::read(self.place.path("made")).unwrap(), b"made\n");
        let report: Value = serde_json::from_str(&self.place.ok(&["inspect", &id, "--json"])).unwrap();
        assert_eq!(report["id"], *id, "{report}");
        let listed: Value = serde_json::from_str(&self.ok("ls", &["--json"])).unwrap();
        let ours = listed.as_array().unwrap().iter().find(|row| row["id"] == *id).unwrap();
        assert_eq!((&ours["status"], &ours["owner"]), (&"running".into(), &"alive".into()));
        assert_eq!(self.place.ok(&["down", &id]).trim(), id);
        assert_eq!(containers(&id), 0);
        self.place.assert_nothing_left();
    }
}

/// How many containers that engine has for a sandbox, by its second way in.
fn containers(id: &str) -> usize {
    let output = Command::new("docker")
        .args(["--host", &format!("unix://{}", socket().display()), "ps", "--all", "--quiet"])
        .args(["--filter", &format!("label=dev.sandbox.id={id}")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().count()
}

/// The socket of the engine behind the port, which lies beside its certificates.
fn socket() -> PathBuf {
    Path::new(&variable("SANDBOX_TEST_DOCKER_REMOTE_CERTIFICATES")).with_file_name("engine.sock")
}

/// Whose engine is behind the port, with TLS as Docker's own variables have it.
fn behind_a_port() -> Elsewhere {
    let certificates = variable("SANDBOX_TEST_DOCKER_REMOTE_CERTIFICATES");
    let variables = vec![("DOCKER_TLS_VERIFY", "1".to_owned()), ("DOCKER_CERT_PATH", certificates)];
    Elsewhere { place: Place::new(), engine: variable("SANDBOX_TEST_DOCKER_REMOTE"), variables }
}

#[test]
fn an_engine_behind_a_port_is_as_good_as_one_that_is_near() {
    behind_a_port().is_as_good_as_one_that_is_near();
}

#[test]
fn an_engine_behind_ssh_is_as_good_as_one_that_is_near() {
    let server = Server::start();
    let place = Place::new();
    // `ssh` reads the settings of whoever runs it, who is not this test's to write to.
    let programs = place.path("programs");
    std::fs::create_dir(&programs).unwrap();
    let script = format!("#!/bin/sh\nexec /usr/bin/ssh -F '{}' \"$@\"\n", server.path("client").display());
    std::fs::write(programs.join("ssh"), script).unwrap();
    std::fs::set_permissions(programs.join("ssh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), variable("PATH"));
    let engine = format!("ssh://root@engine{}", socket().display());
    Elsewhere { place, engine, variables: vec![("PATH", path)] }.is_as_good_as_one_that_is_near();
}

#[test]
fn what_an_engine_elsewhere_cannot_do_is_said_with_what_to_do_instead() {
    let elsewhere = behind_a_port();
    let workspace = elsewhere.place.workspace();
    let ran = elsewhere.sandbox("run", &["--no-network", "-w", text(&workspace), "--", "true"]);
    assert_eq!(ran.code, Some(125), "{ran:?}");
    assert!(ran.stderr.contains("shares no file system") && ran.stderr.contains("hint: "), "{ran:?}");
    let ran = elsewhere.sandbox("run", &["--", "true"]);
    assert_eq!(ran.code, Some(125), "{ran:?}");
    assert!(ran.stderr.contains("unenforceable: egress-allowlist") && ran.stderr.contains("--no-network"), "{ran:?}");
    // In the clear, what speaks TLS is no engine, and nobody waits for it.
    let clear = Elsewhere { variables: Vec::new(), ..elsewhere };
    let ran = clear.sandbox("run", &["--", "true"]);
    assert_eq!(ran.code, Some(125), "{ran:?}");
    assert!(ran.stderr.contains(&clear.engine) && ran.stderr.contains("hint: "), "{ran:?}");
}
