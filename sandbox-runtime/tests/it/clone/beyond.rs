//! A proxy beyond, by way of which the host's git goes where it has no other way out.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sandbox_core::{ErrorKind, MirrorProxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::server::NAME;
use super::{Scene, fixture, say};
use crate::egress::harness::{Names, own_address};

/// Made up, and with signs that a URL or a shell would take for their own.
const PASSWORD: &str = "MADE UP'$(id)%40@:/";
const USER: &str = "us@er%";

/// A proxy that wants this user and password, and what it was asked.
struct Proxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Proxy {
    async fn new() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let mut serving = JoinSet::new();
        let noted = Arc::clone(&asked);
        serving.spawn(async move {
            let mut all = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                all.spawn(serve(stream, Arc::clone(&noted)));
            }
        });
        Self { port, asked, _serving: serving }
    }

    fn with(&self, password: &str) -> MirrorProxy {
        MirrorProxy::new("127.0.0.1".parse().unwrap(), self.port).with_login(USER, password.into())
    }
}

async fn serve(mut stream: TcpStream, asked: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let login = format!("Basic {}", BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let is_known = head.contains(&login);
    let port: u16 = head.split([' ', ':']).nth(2).unwrap().parse().unwrap();
    asked.lock().unwrap().push(head);
    if !is_known {
        let refusal = "HTTP/1.1 407 -\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n";
        let _ = stream.write_all(refusal.as_bytes()).await;
        return;
    }
    let mut beyond = TcpStream::connect((own_address(), port)).await.unwrap();
    stream.write_all(b"HTTP/1.1 200 -\r\n\r\n").await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut beyond).await;
}

#[tokio::test]
async fn git_on_the_host_goes_by_way_of_the_proxy_whose_password_nobody_sees() {
    let scene = Scene::new(fixture::fake().await).await;
    let proxy = Proxy::new().await;
    // Nobody here knows the name: the proxy does.
    let names = Names::default();
    let mirrors = scene.server.mirrors_by(scene.mirrors.path(), names.clone()).with_proxy(proxy.with(PASSWORD));
    let sandbox = scene.builder().mirrors(mirrors).start().await.unwrap();
    assert_eq!(say(&sandbox, "git log --format=%s; git status --porcelain").await, "first");
    assert_eq!(names.asked(), [] as [&str; 0]);
    let asked = std::mem::take(&mut *proxy.asked.lock().unwrap());
    let connect = format!("CONNECT {NAME}:{} HTTP/1.1\r\n", scene.server.port);
    assert!(!asked.is_empty() && asked.iter().all(|head| head.starts_with(&connect)), "{asked:?}");
    let seen = scene.server.take_seen();
    // The programs that were looked at are those that had it.
    assert!(seen.told.holds("http.proxy=http://us%40er%2525@127.0.0.1:") && !seen.told.holds("MADE UP"));
    scene.end(sandbox).await;

    let mirrors = scene.server.mirrors_by(scene.mirrors.path(), names).with_proxy(proxy.with("another MADE UP"));
    let error = scene.builder().mirrors(mirrors).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error:?}");
    assert!(!format!("{error:?}").contains("MADE UP"), "{error:?}");
    assert_eq!(scene.server.take_seen().paths, Vec::<String>::new());
}
