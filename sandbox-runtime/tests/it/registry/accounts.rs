//! Accounts at registries: whom they are told to, and to whom never; with registries that are played, and a real one.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use sandbox_core::{Error, ErrorKind, Result as CoreResult};
use sandbox_policy::ImageRef;
use sandbox_runtime::{EmbeddedOptions, EmbeddedRuntime, RegistryAccess, RegistryAccount};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{CONFIG, digest};
use crate::engine::{self, events};

const SECRET: &str = "made-up-registry-password";
/// Its hash, made with crypt(5).
const HASH: &str = "$2b$05$Vn0EicPLxdWvLQ4qqYstQ.izItTFUJBz8qqvnDi2b6vEtZJbFPe.a";

/// One account, and the authority of whoever asks.
#[derive(Clone, Debug, Default)]
struct Known {
    account: Option<(String, String)>,
    authority: String,
}

impl Known {
    fn account() -> Self {
        Self { account: Some(("robot".to_owned(), SECRET.to_owned())), authority: String::new() }
    }
}

#[async_trait]
impl RegistryAccess for Known {
    async fn account(&self, _: &str) -> CoreResult<Option<RegistryAccount>> {
        let account = self.account.clone();
        Ok(account.map(|(user, secret)| RegistryAccount { user, secret: secret.into() }))
    }

    async fn authorities(&self, _: &str) -> CoreResult<Vec<u8>> {
        Ok(self.authority.clone().into_bytes())
    }
}

/// A server on loopback that answers each request as it is told to, and keeps what it was asked.
struct Played {
    listener: TcpListener,
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Played {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self { listener, address, asked: Arc::default() }
    }

    /// Answers for ever.
    async fn serve(&self, answer: impl Fn(&str) -> String) {
        loop {
            let (mut peer, _) = self.listener.accept().await.unwrap();
            let mut request = vec![0; 8_192];
            let length = peer.read(&mut request).await.unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
            let answer = answer(&request);
            self.asked.lock().unwrap().push(request);
            // Whoever has heard enough hangs up.
            let _ = peer.write_all(answer.as_bytes()).await;
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn head(status: &str, header: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\n{header}\r\ncontent-length: 0\r\n\r\n")
}

fn manifest() -> String {
    let config = json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(CONFIG), "size": CONFIG.len()});
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": []})
        .to_string()
}

/// What a registry holds, for whom it knows.
fn content(request: &str) -> String {
    ok(&if request.contains("/manifests/") { manifest() } else { String::from_utf8(CONFIG.to_vec()).unwrap() })
}

/// Pulls from the first of these addresses, all of which may be spoken to in the clear.
async fn pull(known: &Known, name: &str, plain: &[&str]) -> Result<String, Error> {
    let state = tempfile::tempdir().unwrap();
    std::fs::set_permissions(state.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let mut options = EmbeddedOptions::new(state.path().join("state"));
    options.plain_http = plain.iter().map(|&address| address.to_owned()).collect();
    let runtime = EmbeddedRuntime::connect(options).await.unwrap().with_registry_access(known.clone());
    let image: ImageRef = name.parse().unwrap();
    let pulled = runtime.pull(&image, &events()).await.map(|image| image.id);
    if let Err(error) = &pulled {
        assert!(!format!("{error:?} {error}").contains(SECRET), "{error:?}");
    }
    pulled
}

fn basic() -> String {
    format!("authorization: basic {}", STANDARD.encode(format!("robot:{SECRET}"))).to_lowercase()
}

#[tokio::test]
async fn a_manifest_without_an_end_is_not_held() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let sent = Mutex::new(0_usize);
    let endless = async {
        loop {
            let (peer, _) = listener.accept().await.unwrap();
            // One after the other: nobody asks twice at once.
            without_end(peer, &sent).await;
        }
    };
    let (known, name) = (Known::default(), format!("{address}/tools:latest"));
    let plain = [&*address];
    let error = tokio::select! {
        pulled = pull(&known, &name, &plain) => pulled.unwrap_err(),
        () = endless => unreachable!("it serves for ever"),
    };
    assert_eq!(error.kind(), ErrorKind::ImageInvalid, "{error:?}");
    assert!(error.to_string().contains("larger than 4194304 bytes"), "{error}");
    assert!(*sent.lock().unwrap() < 64 << 20, "what was sent lies in the sockets' buffers at most");
}

/// Sends a manifest until nobody reads any more, and counts.
async fn without_end(mut peer: TcpStream, sent: &Mutex<usize>) {
    // Whoever answers before it is asked is no server.
    let _ = peer.read(&mut [0; 8_192]).await;
    let _ = peer.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await;
    while peer.write_all(&[b' '; 8_192]).await.is_ok() {
        *sent.lock().unwrap() += 8_192;
    }
}

#[tokio::test]
async fn a_name_that_says_its_digest_is_held_to_it() {
    let registry = Played::new().await;
    let named = |text: &str| format!("{}/tools@{}", registry.address, digest(text.as_bytes()));
    let known = Known::default();
    let pulls = async {
        pull(&known, &named(&manifest()), &[&registry.address]).await.unwrap();
        pull(&known, &named("another"), &[&registry.address]).await.unwrap_err()
    };
    let error = tokio::select! {
        error = pulls => error,
        () = registry.serve(content) => unreachable!("it serves for ever"),
    };
    assert_eq!(error.kind(), ErrorKind::ImageInvalid, "{error:?}");
}

#[tokio::test]
async fn an_account_is_told_to_its_own_registry_once_that_asks() {
    let registry = Played::new().await;
    let serve = registry.serve(|request| {
        if request.contains(&basic()) {
            content(request)
        } else {
            head("401 Unauthorized", "www-authenticate: Basic realm=\"x\"")
        }
    });
    let name = format!("{}/tools:latest", registry.address);
    let (known, nobody) = (Known::account(), Known::default());
    let pulls = async {
        pull(&known, &name, &[&registry.address]).await.unwrap();
        pull(&nobody, &name, &[&registry.address]).await.unwrap_err()
    };
    let error = tokio::select! {
        error = pulls => error,
        () = serve => unreachable!("it serves for ever"),
    };
    assert!(error.to_string().contains("wants an account"), "{error}");
    let asked = registry.asked();
    assert!(!asked[0].contains("authorization") && asked[1].contains(&basic()), "{asked:?}");
}

#[tokio::test]
async fn a_redirection_takes_no_account_along_and_leads_nowhere_in_the_clear() {
    let (registry, store, stranger) = (Played::new().await, Played::new().await, Played::new().await);
    let leading = |to: &Played| {
        let to = to.address.clone();
        move |request: &str| {
            if !request.contains(&basic()) {
                head("401 Unauthorized", "www-authenticate: Basic realm=\"x\"")
            } else if request.contains("/blobs/") {
                head("307 Temporary Redirect", &format!("location: http://{to}/x/blobs/there"))
            } else {
                content(request)
            }
        }
    };
    let name = format!("{}/tools:latest", registry.address);
    let known = Known::account();
    let both = [&*registry.address, &*store.address];
    tokio::select! {
        pulled = pull(&known, &name, &both) => drop(pulled.unwrap()),
        () = registry.serve(leading(&store)) => unreachable!("it serves for ever"),
        () = store.serve(content) => unreachable!("it serves for ever"),
    }
    let asked = store.asked();
    assert!(asked.len() == 1 && !asked[0].contains("authorization"), "{asked:?}");

    let error = tokio::select! {
        pulled = pull(&known, &name, &both[..1]) => pulled.unwrap_err(),
        () = registry.serve(leading(&stranger)) => unreachable!("it serves for ever"),
        () = stranger.serve(content) => unreachable!("it serves for ever"),
    };
    assert!(error.to_string().contains("only https://"), "{error}");
    assert_eq!(stranger.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn no_account_is_told_to_a_realm_that_is_anothers() {
    let (registry, other) = (Played::new().await, Played::new().await);
    let asking = |realm: &str| {
        let header = format!("www-authenticate: Bearer realm=\"http://{realm}/token\",service=\"s\"");
        move |request: &str| {
            if request.contains("/token") {
                ok(r#"{"token": "made-up-token"}"#)
            } else if request.contains("authorization: bearer made-up-token") {
                content(request)
            } else {
                head("401 Unauthorized", &header)
            }
        }
    };
    let token = |_: &str| ok(r#"{"token": "made-up-token"}"#);
    let name = format!("{}/tools:latest", registry.address);
    let plain = [&*registry.address, &*other.address];
    let (known, nobody) = (Known::account(), Known::default());
    let error = tokio::select! {
        pulled = pull(&known, &name, &plain) => pulled.unwrap_err(),
        () = registry.serve(asking(&other.address)) => unreachable!("it serves for ever"),
        () = other.serve(token) => unreachable!("it serves for ever"),
    };
    assert_eq!(error.kind(), ErrorKind::Denied, "{error:?}");
    assert_eq!(other.asked(), Vec::<String>::new());
    assert!(registry.asked().iter().all(|asked| !asked.contains(&basic())), "nobody is told by the way");

    // Whoever has no account may ask there,
    tokio::select! {
        pulled = pull(&nobody, &name, &plain) => drop(pulled.unwrap()),
        () = registry.serve(asking(&other.address)) => unreachable!("it serves for ever"),
        () = other.serve(token) => unreachable!("it serves for ever"),
    }
    assert!(other.asked()[0].contains("scope=repository%3atools%3apull"), "{:?}", other.asked());
    // and the registry's own realm is told.
    tokio::select! {
        pulled = pull(&known, &name, &plain) => drop(pulled.unwrap()),
        () = registry.serve(asking(&registry.address)) => unreachable!("it serves for ever"),
    }
    assert_eq!(registry.asked().iter().filter(|asked| asked.contains(&basic())).count(), 1);
}

/// A registry that is real, with TLS by an authority of its own, and that wants an account.
struct Private {
    _process: tokio::process::Child,
    /// It goes on to say what it does, and is not to wait for a reader.
    _reader: JoinSet<()>,
    address: String,
    authority: String,
}

impl Private {
    async fn start(directory: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap().pem();
        let own = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&own, &Issuer::from_params(&params, &key)).unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(directory.join(name), text).unwrap();
            directory.join(name).display().to_string()
        };
        let (certificate, key) = (write("certificate.pem", &leaf.pem()), write("key.pem", &own.serialize_pem()));
        let accounts = write("accounts", &format!("robot:{HASH}\n"));
        let data = directory.join("data").display().to_string();
        let config = json!({
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": data}},
            "auth": {"htpasswd": {"realm": "tests", "path": accounts}},
            "http": {"addr": "127.0.0.1:0", "tls": {"certificate": certificate, "key": key}},
        });
        // What is JSON is YAML.
        let config = write("config.yml", &config.to_string());
        let mut process = tokio::process::Command::new(engine::variable("SANDBOX_TEST_REGISTRY_PROGRAM"))
            .args(["serve", &config])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let listens = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if let Some((_, rest)) = line.split_once("listening on ") {
                    return rest.split([',', '"']).next().unwrap().to_owned();
                }
            }
            panic!("the registry ended");
        };
        let address = tokio::time::timeout(Duration::from_secs(30), listens).await.unwrap();
        let mut reader = JoinSet::new();
        reader.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { _process: process, _reader: reader, address, authority }
    }

    /// Puts an image there, by the registry's own protocol.
    async fn push(&self) {
        let authority = reqwest::Certificate::from_pem(self.authority.as_bytes()).unwrap();
        let client = reqwest::Client::builder().tls_certs_merge([authority]).build().unwrap();
        let base = format!("https://{}/v2/tools", self.address);
        let with = |request: reqwest::RequestBuilder| request.basic_auth("robot", Some(SECRET));
        let begun = with(client.post(format!("{base}/blobs/uploads/"))).send().await.unwrap();
        let place = begun.headers()["location"].to_str().unwrap();
        let place = format!("{place}{}digest={}", if place.contains('?') { '&' } else { '?' }, digest(CONFIG));
        let sent = with(client.put(place).body(CONFIG.to_vec())).send().await.unwrap();
        assert!(sent.status().is_success(), "{sent:?}");
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let sent = with(client.put(format!("{base}/manifests/latest")).header("content-type", kind).body(manifest()));
        let sent = sent.send().await.unwrap();
        assert!(sent.status().is_success(), "{sent:?}");
    }
}

#[tokio::test]
async fn a_private_registry_is_known_by_its_authority_and_told_its_account() {
    // Whoever connects first chooses; this test speaks to the registry before the runtime does.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let registry = Private::start(directory.path()).await;
    registry.push().await;
    let name = format!("{}/tools:latest", registry.address);
    let known = Known { authority: registry.authority.clone(), ..Known::account() };
    pull(&known, &name, &[]).await.unwrap();
    let wrong = Known { account: Some(("robot".to_owned(), "another".to_owned())), ..known.clone() };
    let nobody = Known { account: None, ..known.clone() };
    let untrusting = Known { authority: String::new(), ..known };
    for (who, why) in [(wrong, "401"), (nobody, "wants an account"), (untrusting, "cannot be reached")] {
        let error = pull(&who, &name, &[]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ImageMissing, "{error:?}");
        assert!(error.to_string().contains(why), "{error}");
    }
}
