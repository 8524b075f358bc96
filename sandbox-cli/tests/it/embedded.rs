//! Every verb without an engine, as root: under the policy `standard`, with nothing waived.

use rustix::process::Signal;
use serde_json::Value;

use crate::engine::terminal::on_a_terminal;
use crate::harness::{Place, eventually, signal, text, variable};

#[test]
fn a_first_command_needs_nothing() {
    let place = Place::embedded();
    let workspace = place.workspace();
    let script = "id -u; ls /home; echo made >made; exit 3";
    let ran = place.sandbox(&["run", "-w", text(&workspace), "--report", "--", "sh", "-c", script]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(3), "1000\nagent\n"), "{ran:?}");
    assert!(!ran.stderr.contains("waived") && ran.stderr.contains("34359738368 bytes"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(workspace.join("made")).unwrap(), "made\n");
}

#[test]
fn a_sandbox_stays_and_is_served_by_every_verb() {
    let place = Place::embedded();
    let id = place.ok(&["up"]).trim().to_owned();
    assert_eq!(place.containers(), [format!("sandbox-{id}")]);
    assert_eq!(place.sandbox(&["exec", &id, "sh", "-c", "exit 7"]).code, Some(7));
    std::fs::write(place.path("file"), "content").unwrap();
    place.ok(&["cp", "file", &format!("{id}:/tmp/there")]);
    assert_eq!(place.ok(&["cp", &format!("{id}:/tmp/there"), "-"]), "content");
    let (shown, code) = on_a_terminal(&place, &format!("shell {id}"), "echo $((6 * 7))x; exit 7\n");
    assert!(shown.contains("42x") && code == Some(7), "{code:?}: {shown}");

    let listed: Value = serde_json::from_str(&place.ok(&["ls", "--json"])).unwrap();
    let row = listed.as_array().unwrap().iter().find(|row| row["id"] == id.as_str()).unwrap();
    assert_eq!((row["image"].as_str(), row["status"].as_str()), (Some("host"), Some("running")), "{row}");
    let inspected: Value = serde_json::from_str(&place.ok(&["inspect", &id, "--json"])).unwrap();
    assert_eq!(inspected["engine"]["name"], "embedded", "{inspected}");
    assert_eq!(place.ok(&["down", &id]).trim(), id);
}

#[test]
fn what_a_killed_holder_left_is_found_and_removed() {
    let place = Place::embedded();
    let id = place.ok(&["up"]).trim().to_owned();
    let inspected: Value = serde_json::from_str(&place.ok(&["inspect", &id, "--json"])).unwrap();
    let pid = u32::try_from(inspected["holder"].as_u64().unwrap()).unwrap();
    signal(pid, Signal::KILL);
    eventually("the holder is gone", || !crate::harness::is_alive(pid));
    assert_eq!(place.run_directories().len(), 1);
    let said = place.ok(&["cleanup"]);
    assert!(said.contains(&format!("removed {id}")), "{said}");
    place.assert_nothing_left();
}

#[test]
fn a_doctor_looks_at_the_machine_itself() {
    let place = Place::embedded();
    let ran = place.sandbox(&["doctor", "--json"]);
    let diagnosis: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &diagnosis["engine"]["name"]), (Some(0), &Value::from("embedded")), "{diagnosis}");
    assert_eq!(diagnosis["missing"], Value::Array(Vec::new()));
}

mod gvisor {
    use std::ffi::OsString;

    use super::*;

    /// The search path of this process, with or without gVisor's program in it.
    fn search_path(with: &[std::path::PathBuf]) -> OsString {
        let own = std::env::split_paths("/usr/sbin:/usr/bin:/sbin:/bin").collect::<Vec<_>>();
        std::env::join_paths(with.iter().chain(&own)).unwrap()
    }

    #[test]
    fn sandboxes_run_on_it_where_it_is_on_the_path_and_doctor_says_so() {
        let place = Place::embedded();
        let runsc = std::path::PathBuf::from(variable("SANDBOX_TEST_RUNSC"));
        let with = search_path(&[runsc.parent().unwrap().to_owned()]);
        let run = |path: &OsString, arguments: &[&str]| {
            crate::harness::Ran::from(place.command(arguments).env("PATH", path).output().unwrap())
        };
        let asked = ["run", "--no-network", "--isolation", "gvisor", "--", "uname", "-r"];
        let ran = run(&with, &asked);
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "4.4.0\n"), "{ran:?}");
        assert!(!ran.stderr.contains("waived"), "{ran:?}");

        let listed = |path: &OsString| {
            let diagnosis: Value = serde_json::from_str(&run(path, &["doctor", "--json"]).stdout).unwrap();
            let others = diagnosis["others"].as_array().unwrap().clone();
            let name = |other: &Value| other["place"].as_str().unwrap_or_default().to_owned();
            others.iter().map(name).any(|place| place.starts_with("embedded") && place.ends_with("--isolation gvisor"))
        };
        assert!(listed(&with), "doctor shows it");

        let nowhere = place.path("nowhere");
        std::fs::create_dir(&nowhere).unwrap();
        let without = std::env::join_paths([nowhere]).unwrap();
        assert!(!listed(&without), "doctor shows what is not there");
        let ran = run(&without, &asked);
        assert!(ran.code == Some(125) && ran.stderr.contains("isolation") && ran.stderr.contains("runsc"), "{ran:?}");
    }
}

#[test]
fn an_engine_that_is_named_is_the_one_that_is_used() {
    let place = Place::embedded();
    let nowhere = format!("unix://{}", place.path("none.sock").display());
    let ran = place.sandbox(&["run", "--engine", &nowhere, "--image", "x", "--", "true"]);
    assert!(ran.code == Some(125) && ran.stderr.contains("none.sock"), "{ran:?}");
    let ran = place.sandbox(&["run", "--engine", &nowhere, "--", "true"]);
    assert!(ran.code == Some(125) && ran.stderr.contains("no image is named"), "{ran:?}");
    let ran = place.sandbox(&["ls", "--engine", "lxc"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("embedded, docker, podman"), "{ran:?}");
}

#[test]
fn images_come_from_registries_where_no_engine_is() {
    let place = Place::embedded();
    let registry = variable("SANDBOX_TEST_REGISTRY");
    let image = format!("{registry}/sandbox-busybox:latest");
    let run = |more: &[&str]| {
        place.sandbox(&[&["run", "--image", &image], more, &["--", "/bin/busybox", "id", "-u"]].concat())
    };
    // The registry speaks no TLS, and nobody has said that it need not.
    let ran = run(&[]);
    assert!(ran.code == Some(125) && ran.stderr.contains("cannot be pulled"), "{ran:?}");
    let ran = run(&["--plain-http", "192.0.2.1:80"]);
    assert!(ran.code == Some(125) && ran.stderr.contains("only one on loopback"), "{ran:?}");
    let ran = run(&["--plain-http", &registry]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "1000\n"), "{ran:?}");
    assert!(ran.stderr.contains("pulling "), "{ran:?}");
    // From now on it is here.
    let ran = run(&[]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "1000\n", ""), "{ran:?}");

    let pull = |image: &str| place.sandbox(&["image", "pull", "--json", "--plain-http", &registry, image]);
    let pulled: Value = serde_json::from_str(&pull(&image).stdout).unwrap();
    assert_eq!(pulled["image"], image);
    let ran = pull(&format!("{registry}/nowhere:latest"));
    assert!(ran.code == Some(1) && ran.stderr.contains("nowhere"), "{ran:?}");
    let ran = pull(&format!("{registry}/sandbox-busybox@sha256:{}", "0".repeat(64)));
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(std::fs::read_dir(place.path("state/temporary")).unwrap().count(), 0);
}

#[test]
fn a_registry_that_asks_is_told_the_account_that_docker_keeps() {
    let place = Place::embedded();
    let settings = place.path("docker/config.json");
    let helper = place.path("bin/docker-credential-made-up");
    for path in [&settings, &helper] {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    }
    let registry = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = registry.local_addr().unwrap().to_string();
    std::fs::write(
        &helper,
        "#!/bin/sh\ncat >asked\necho '{\"Username\": \"robot\", \"Secret\": \"made-up-secret\"}'\n",
    )
    .unwrap();
    std::fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let account = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "robot:made-up-secret");
    for text in [
        format!(r#"{{"auths": {{"{address}": {{"auth": "{account}"}}}}}}"#),
        format!(r#"{{"credHelpers": {{"{address}": "made-up"}}}}"#),
        r#"{"credsStore": "made-up"}"#.to_owned(),
    ] {
        std::fs::write(&settings, &text).unwrap();
        let image = format!("{address}/tools:latest");
        let mut command = place.command(&["image", "pull", "--plain-http", &address, &image]);
        let path = format!("{}:{}", place.path("bin").display(), variable("PATH"));
        let child = command.env("DOCKER_CONFIG", place.path("docker")).env("PATH", path);
        let child = child.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let first = asked(&registry, "401 Unauthorized\r\nwww-authenticate: Basic realm=\"x\"");
        assert!(!first.contains("authorization"), "{first}");
        let second = asked(&registry, "404 Not Found");
        assert!(second.contains(&format!("authorization: basic {}", account.to_lowercase())), "{text}: {second}");
        let ran = child.wait_with_output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(ran.status.code() == Some(1) && said.contains("404") && !said.contains("made-up-secret"), "{said}");
    }
    assert_eq!(std::fs::read_to_string(place.path("asked")).unwrap(), address);
}

/// Answers one request that has no body, and gives it in lower case.
fn asked(registry: &std::net::TcpListener, answer: &str) -> String {
    use std::io::{Read as _, Write as _};
    let (mut peer, _) = registry.accept().unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        peer.read_exact(&mut byte).unwrap();
        request.extend(byte);
    }
    write!(peer, "HTTP/1.1 {answer}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").unwrap();
    String::from_utf8(request).unwrap().to_lowercase()
}

#[test]
fn a_doctor_tries_what_others_remember() {
    let place = Place::embedded();
    let tried = || -> Vec<(std::path::PathBuf, std::time::SystemTime)> {
        let files = std::fs::read_dir(place.path("state/tried")).unwrap().map(|entry| entry.unwrap().path());
        files.map(|path| (path.clone(), std::fs::metadata(&path).unwrap().modified().unwrap())).collect()
    };
    place.ok(&["ls"]);
    let first = tried();
    assert_eq!(first.len(), 1);
    place.ok(&["ls"]);
    assert_eq!(tried(), first, "it is remembered");
    place.ok(&["doctor"]);
    let second = tried();
    assert!(second.len() == 1 && second != first, "{first:?} {second:?}");
}

#[test]
fn images_come_from_files() {
    let place = Place::embedded();
    let tree = place.path("tree");
    std::fs::create_dir_all(tree.join("bin")).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_sandbox"), tree.join("bin/any")).unwrap();
    std::fs::write(tree.join("note"), "from a file").unwrap();
    let mut packing = std::process::Command::new("tar");
    packing.args(["-czf", "tools.tar.gz", "-C", "tree", "."]);
    assert!(packing.current_dir(place.path("")).status().unwrap().success());
    assert_eq!(place.ok(&["image", "import", "tools.tar.gz"]).trim(), "tools");
    let id = place.ok(&["up", "--image", "tools"]).trim().to_owned();
    assert_eq!(place.ok(&["cp", &format!("{id}:/note"), "-"]), "from a file");
    place.ok(&["down", &id]);
    std::fs::write(place.path("none.tar"), "no archive").unwrap();
    let ran = place.sandbox(&["image", "import", "none.tar", "x"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("tar"), "{ran:?}");
    let ran = place.sandbox(&["image", "import", "--engine", "docker", "tools.tar.gz"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("--engine embedded"), "{ran:?}");
}

#[test]
fn root_inside_is_asked_for_as_the_policy_says() {
    let place = Place::embedded();
    let run = |policy: &str| {
        place.sandbox(&["run", "--no-network", "--sudo", "--policy", policy, "--", "sh", "-c", "sudo id -u; id -u"])
    };
    let any = run("open");
    assert_eq!((any.code, any.stdout.as_str()), (Some(0), "0\n1000\n"), "{any:?}");
    let packages = run("standard");
    assert_eq!(packages.stdout, "1000\n", "{packages:?}");
    assert!(packages.stderr.contains("does not install packages"), "{packages:?}");
    let none = run("maximum");
    assert!(none.code == Some(125) && none.stderr.contains("denied: sudo"), "{none:?}");
    place.assert_nothing_left();
}
