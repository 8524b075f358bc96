//! A server of repositories: TLS, and git's own program behind it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use sandbox_core::Mirrors;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::egress::harness::{Names, own_address};
use crate::termination::origin::Trusted;

/// The name that leads to the server.
pub(super) const NAME: &str = "git.example";

/// What happened at the server.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Requests, in order.
    pub(super) paths: Vec<String>,
    /// Bytes of answers.
    pub(super) bytes: usize,
    /// What programs of this machine were told while a request was served.
    pub(super) told: Told,
    /// Credentials that were shown.
    pub(super) credentials: BTreeSet<String>,
}

/// Bytes that are too many to be shown.
#[derive(Default)]
pub(super) struct Told(Vec<u8>);

impl Told {
    pub(super) fn holds(&self, text: &str) -> bool {
        self.0.windows(text.len()).any(|part| part == text.as_bytes())
    }
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// How the server behaves.
#[derive(Clone, Debug, Default)]
pub(super) struct Manner {
    /// Asks for this password.
    pub(super) password: Option<&'static str>,
    /// Sends everybody there.
    pub(super) redirect: Option<String>,
    /// Never ends an answer that holds a pack.
    pub(super) stalls: bool,
}

/// A server, gone when dropped.
pub(super) struct Server {
    pub(super) port: u16,
    pub(super) seen: Arc<Mutex<Seen>>,
    manner: Arc<Mutex<Manner>>,
    directory: tempfile::TempDir,
    authorities: PathBuf,
    _serving: JoinSet<()>,
}

impl Server {
    pub(super) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let trusted = Trusted::new();
        let authorities = directory.path().join("authorities.pem");
        std::fs::write(&authorities, trusted.pem()).unwrap();
        let acceptor = trusted.server(NAME, &["http/1.1"]);
        let listener = TcpListener::bind((own_address(), 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, manner) = (Arc::<Mutex<Seen>>::default(), Arc::<Mutex<Manner>>::default());
        let root: Arc<Path> = directory.path().into();
        let mut serving = JoinSet::new();
        let (noted, asked) = (Arc::clone(&seen), Arc::clone(&manner));
        serving.spawn(async move {
            let mut all = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, root) = (acceptor.clone(), Arc::clone(&root));
                let (seen, manner) = (Arc::clone(&noted), Arc::clone(&asked));
                all.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| {
                        let (root, seen) = (Arc::clone(&root), Arc::clone(&seen));
                        let manner = manner.lock().unwrap().clone();
                        async move { Ok::<_, Infallible>(answer(&root, &seen, manner, request).await) }
                    });
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { port, seen, manner, directory, authorities, _serving: serving }
    }

    /// Where a repository of the server lies.
    pub(super) fn place(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.git"))
    }

    pub(super) fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    pub(super) fn url(&self, name: &str) -> String {
        format!("https://{NAME}:{}/{name}", self.port)
    }

    /// Mirrors that find the server and trust it.
    pub(super) fn mirrors(&self, directory: &Path) -> Mirrors {
        let names = Names::default();
        names.lead(NAME, &[&[&own_address().to_string()]]);
        self.mirrors_by(directory, names)
    }

    pub(super) fn mirrors_by(&self, directory: &Path, names: Names) -> Mirrors {
        Mirrors::new(directory).with_authorities(&self.authorities).with_resolver(names)
    }

    /// Forgets what it has seen, and returns it.
    pub(super) fn take_seen(&self) -> Seen {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

async fn answer(root: &Path, seen: &Mutex<Seen>, manner: Manner, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let plain = |status: u16| Response::builder().status(status);
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let path = head.uri.path().to_owned();
    {
        let mut seen = seen.lock().unwrap();
        seen.paths.push(format!("{} {path}", head.method));
        if let Some(login) = header(AUTHORIZATION).strip_prefix("Basic ") {
            let login = BASE64_STANDARD.decode(login).unwrap();
            seen.credentials.insert(String::from_utf8(login).unwrap());
        }
        seen.told.0.extend(told_to_programs());
    }
    if let Some(place) = manner.redirect {
        let place = format!("{place}{}", head.uri.path_and_query().unwrap());
        return plain(302).header(LOCATION, place).body(Full::default()).unwrap();
    }
    if let Some(password) = manner.password {
        let login = BASE64_STANDARD.encode(format!("x-access-token:{password}"));
        if header(AUTHORIZATION) != format!("Basic {login}") {
            return plain(401).header(WWW_AUTHENTICATE, "Basic realm=\"git\"").body(Full::default()).unwrap();
        }
    }
    if manner.stalls && path.ends_with("/git-upload-pack") && body.windows(13).any(|part| part == b"command=fetch") {
        std::future::pending::<()>().await;
    }
    let mut command = tokio::process::Command::new("git");
    command
        .arg("http-backend")
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("GIT_CONFIG_COUNT", "3")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("GIT_CONFIG_KEY_1", "uploadpack.allowFilter")
        .env("GIT_CONFIG_VALUE_1", "true")
        .env("GIT_CONFIG_KEY_2", "uploadpack.allowAnySHA1InWant")
        .env("GIT_CONFIG_VALUE_2", "true")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", head.method.as_str())
        .env("PATH_INFO", &path)
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header(CONTENT_TYPE))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header(CONTENT_ENCODING))
        .env("GIT_PROTOCOL", head.headers.get("git-protocol").map_or("", |value| value.to_str().unwrap()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let ((), output) = tokio::join!(
        async {
            let _ = stdin.write_all(&body).await;
            drop(stdin);
        },
        child.wait_with_output()
    );
    let output = output.unwrap().stdout;
    let end = output.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = match name {
            "Status" => response.status(value.get(..3).unwrap().parse::<u16>().unwrap()),
            name => response.header(name, value),
        };
    }
    let body = output[end + 4..].to_vec();
    seen.lock().unwrap().bytes += body.len();
    response.body(Full::from(body)).unwrap()
}

/// The arguments and the environment of every git and shell of this machine.
fn told_to_programs() -> Vec<u8> {
    let mut told = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let place = entry.unwrap().path();
        let name = std::fs::read(place.join("comm")).unwrap_or_default();
        if name.starts_with(b"git") || name.starts_with(b"sh") {
            told.extend(std::fs::read(place.join("cmdline")).unwrap_or_default());
            told.extend(std::fs::read(place.join("environ")).unwrap_or_default());
        }
    }
    told
}
