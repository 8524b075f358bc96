//! Git's own server behind TLS, cloned from through a tunnel and through a gateway that sees each request.

use std::path::Path;
use std::process::{Command as Program, Stdio};

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use sandbox_core::policy::{EgressRule, Method};
use sandbox_core::testkit::contract::Fixture;
use sandbox_runtime::Outcome;
use tokio::io::AsyncWriteExt as _;

use super::super::harness::here;
use super::secure::{NAME, Secure};
use super::{hosts, open_by, run, went};

/// Answers as a web server does that has `git http-backend` (git-http-backend(1)).
async fn backend(root: &Path, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let field = |name: &str| parts.headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let mut command = tokio::process::Command::new("git");
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", field("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", field("content-encoding"))
        .env("GIT_PROTOCOL", field("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let ((), output) = tokio::join!(
        async move {
            // It need not read what it has no use for.
            let _ = stdin.write_all(&body).await;
        },
        child.wait_with_output()
    );
    let output = output.unwrap().stdout;
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let mut response = Response::builder();
    for line in std::str::from_utf8(&output[..end]).unwrap().lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = if name == "Status" { response.status(&value[..3]) } else { response.header(name, value) };
    }
    response.body(Full::from(output[end + 4..].to_vec())).unwrap()
}

/// Two bare repositories with a commit each.
fn repositories() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let script = "git init -q a; cd a; echo content >file; git add file; \
        git -c user.name=n -c user.email=e commit -qm m; cd ..; git clone -q --bare a a.git; git clone -q --bare a b.git";
    assert!(Program::new("sh").args(["-ec", script]).current_dir(&directory).status().unwrap().success());
    directory
}

pub(super) async fn git_clones_over_tls(fixture: &Fixture) {
    let directory = repositories();
    let root = directory.path().to_owned();
    let secure = Secure::serving(move |request| {
        let root = root.clone();
        async move { backend(&root, request).await }
    })
    .await;
    let port = secure.origin.port;
    let url = format!("https://{NAME}:{port}");

    // Through a tunnel, in which git checks the server itself.
    let (sandbox, proxy) = open_by(fixture, [here(NAME, &[port])], secure.gateway()).await;
    sandbox.write("/tmp/authority.pem", secure.authority()).await.unwrap();
    run(&sandbox, &format!("cd /tmp; git clone -q {url}/a.git untrusted && exit 1 || true")).await;
    let trusting = "export GIT_SSL_CAINFO=/tmp/authority.pem; cd /tmp";
    assert_eq!(run(&sandbox, &format!("{trusting}; git clone -q {url}/a.git; cat a/file")).await, "content\n");
    let refused = run(&sandbox, "cd /tmp; git clone -q https://elsewhere.example/b.git && exit 1 || true").await;
    assert!(refused.contains("403"), "{refused}");
    assert_eq!(went(&proxy, &sandbox, Outcome::Denied), hosts(&["elsewhere.example"]));
    sandbox.destroy().await.unwrap();

    // Where each request is seen, one repository may be read and another may not, and none is written.
    let reads: EgressRule = here(NAME, &[port])
        .with_methods(["GET", "POST"].map(|method| method.parse::<Method>().unwrap()))
        .with_paths(["/a.git/info/refs", "/a.git/git-upload-pack"].map(|path| path.parse().unwrap()));
    let (sandbox, proxy) = open_by(fixture, [reads], secure.gateway()).await;
    assert_eq!(run(&sandbox, &format!("cd /tmp; git clone -q {url}/a.git; cat a/file")).await, "content\n");
    let refused = run(&sandbox, &format!("cd /tmp; git clone -q {url}/b.git && exit 1 || true")).await;
    assert!(refused.contains("403"), "{refused}");
    let ledger = proxy.ledger(sandbox.id()).unwrap();
    let denied: Vec<_> = ledger.iter().filter(|entry| entry.outcome == Outcome::Denied).collect();
    assert!(denied.len() == 1 && denied[0].reason.as_ref().unwrap().contains("/b.git/info/refs"), "{denied:?}");
    let seen = secure.origin.text();
    assert!(seen.contains("POST /a.git/git-upload-pack\n") && !seen.contains("/b.git"), "{seen}");
    sandbox.destroy().await.unwrap();
}
