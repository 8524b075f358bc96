//! The same from inside real containers: a model's key works there, and is not there.

use sandbox_core::testkit::contract::Fixture;

use super::harness::{SECRET, Stage, hexadecimal};
use crate::contract::fixture;

/// What a program with an SDK does: the key from the environment, the proxy and the authorities by the usual variables.
const PROGRAM: &str = r#"
import os, urllib.request, urllib.error
def ask(url, key):
    request = urllib.request.Request(url, data=b"{}", headers={"x-api-key": key})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.headers['x-sandbox-denied']}"
key = os.environ["MODEL_KEY"]
print(ask("https://api.example/v1/messages", key))
print(ask("https://other.example/open/a", key))
print(open(os.environ["SSL_CERT_FILE"]).read().count("BEGIN CERTIFICATE"))
print(os.access(os.environ["SSL_CERT_FILE"], os.W_OK), os.access(os.path.dirname(os.environ["SSL_CERT_FILE"]), os.W_OK))
"#;

/// Looks for bytes wherever the agent may.
const LOOK: &str = r#"
import glob, os, sys
wanted = bytes.fromhex(sys.argv[1])
paths = glob.glob("/proc/[0-9]*/environ") + glob.glob("/proc/[0-9]*/cmdline") + ["/proc/self/environ"]
paths = [path for path in paths if str(os.getpid()) not in path]
for top in ("/run", "/tmp", "/etc", "/home", "/var", "/opt", "/workspace"):
    for directory, _, names in os.walk(top):
        paths += [os.path.join(directory, name) for name in names]
found = []
for path in paths:
    try:
        if os.path.isfile(path) and wanted in open(path, "rb").read():
            found.append(path)
    except OSError:
        pass
print(found)
"#;

async fn a_key_works_from_inside(fixture: Fixture) {
    let scene = Stage::new(&["h2", "http/1.1"]).on(fixture).open().await;
    let run = scene.sandbox.command("python3").args(["-c", PROGRAM]).output().await.unwrap();
    let (out, errors) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert_eq!(out, "200\n403 rule other.example\n2\nFalse False\n", "{errors}");
    assert!(scene.api.seen().contains(&format!("x-api-key: {SECRET}")));
    assert_eq!(scene.other.connections(), 0);
    let wanted = hexadecimal(SECRET, "");
    let looked =
        scene.sandbox.command("python3").args(["-c", LOOK, &wanted]).env("SHOWN", SECRET).output().await.unwrap();
    let found = String::from_utf8(looked.stdout).unwrap();
    assert_eq!(found, "['/proc/self/environ']\n", "the positive control, and nothing else");
    scene.sandbox.destroy().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn docker() {
    a_key_works_from_inside(fixture::docker().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn docker_remap() {
    a_key_works_from_inside(fixture::docker_remap().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn podman() {
    a_key_works_from_inside(fixture::podman().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn podman_rootless() {
    a_key_works_from_inside(fixture::podman_rootless().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    a_key_works_from_inside(crate::embedded::fixture().await).await;
}
