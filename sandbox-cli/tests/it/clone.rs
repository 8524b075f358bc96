//! `--clone`: a repository becomes the workspace, and its commits come back.

use std::io::Read as _;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::harness::{Place, eventually, signal};

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "init.defaultBranch=trunk"])
        .args(arguments)
        .current_dir(directory)
        .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")])
        .output()
        .unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn own_address() -> IpAddr {
    // Nothing is sent: the kernel looks up where it would be sent from (udp(7)).
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.99:9").unwrap();
    socket.local_addr().unwrap().ip()
}

#[test]
fn a_directory_is_cloned_and_its_branch_is_pulled_back() {
    let place = Place::embedded();
    let host = place.path("wid get");
    std::fs::create_dir(&host).unwrap();
    git(&host, &["init", "-q"]);
    std::fs::write(host.join("file"), "one\n").unwrap();
    std::fs::write(host.join("untracked"), "secret").unwrap();
    git(&host, &["add", "file"]);
    git(&host, &["commit", "-q", "-m", "first"]);
    let id = place.ok(&["up", "--clone", "./wid get", "--branch", "agent/fix"]).trim().to_owned();
    let script = "git branch --show-current; ls; git remote; git config user.name a && git config user.email a@b && \
                  echo two >file && git commit -q -a -m second";
    assert_eq!(place.ok(&["exec", &id, "--", "sh", "-c", script]), "agent/fix\nfile\n");
    let reference = place.ok(&["pull", &id, "--into", "wid get"]);
    assert_eq!(reference.trim(), format!("refs/sandbox/{id}/agent/fix"));
    assert_eq!(git(&host, &["show", &format!("{}:file", reference.trim())]), "two");
    assert_eq!(std::fs::read_to_string(host.join("file")).unwrap(), "one\n");
    let again = place.ok(&["run", "--clone", "./wid get", "--", "cat", "file"]);
    assert_eq!(again, "one\n", "a clone has what was committed");
    place.ok(&["down", &id]);
}

#[test]
fn what_is_no_repository_or_is_not_allowed_is_refused_with_a_reason() {
    let place = Place::embedded();
    std::fs::create_dir(place.path("plain")).unwrap();
    for (arguments, words) in [
        (&["--clone", "./plain"][..], "lies in no git repository"),
        (&["--clone", "./missing"], "a repository to clone"),
        (&["--clone", "ext::sh -c id"], "a repository to clone"),
        (&["--clone", "https://user:word@github.com/o/n"], "a repository to clone"),
        (&["--clone", "https://git.example/o/n"], "workspace.source: asked for https://git.example/o/n"),
        (&["--clone", "o/n", "--policy", "maximum"], "workspace.source: asked for https://github.com/o/n"),
        (&["--clone", "o/n", "-w", "."], "cannot be used with"),
        (&["--clone-depth", "1"], "--clone <"),
    ] {
        let ran = place.sandbox(&[&["run"][..], arguments, &["--", "true"]].concat());
        assert!(ran.code == Some(125) && ran.stderr.contains(words), "{arguments:?}: {ran:?}");
        assert!(!ran.stderr.contains(":word@"), "{ran:?}");
    }
}

#[test]
fn a_command_that_is_killed_leaves_no_git_behind() {
    let place = Place::embedded();
    let own = own_address();
    // It takes the connection, and says nothing.
    let listener = TcpListener::bind((own, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let policy = format!(
        "version = 1\n[egress]\nreach = \"allowlist\"\n[[egress.rules]]\nhost = \"{own}\"\nports = [{port}]\naddresses = [\"{own}\"]\n"
    );
    std::fs::write(place.path("policy.toml"), policy).unwrap();
    let url = format!("https://{own}:{port}/octo/widget");
    let arguments = ["run", "--policy", "policy.toml", "--clone", &url, "--", "true"];
    let mut child = place.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    assert!(stream.read(&mut [0; 1]).unwrap() == 1, "git has begun to speak");
    assert!(!told_of(&url).is_empty());
    signal(child.id(), Signal::KILL);
    child.wait().unwrap();
    eventually("git is gone", || told_of(&url).is_empty());
    place.ok(&["cleanup"]);
}

/// The programs that were told of a server, but for the command itself.
fn told_of(url: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let said = std::fs::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).replace('\0', " ");
        if said.contains(&format!("{url}.git")) {
            found.push(said);
        }
    }
    found
}
