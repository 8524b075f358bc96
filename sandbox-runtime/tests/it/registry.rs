//! Registries that send something else than they say, played by a listener on loopback.

mod accounts;

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use sandbox_core::{Error, ErrorKind};
use sandbox_policy::ImageRef;
use sandbox_runtime::{EmbeddedOptions, EmbeddedRuntime};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::engine::events;

/// What is sent for a blob.
#[derive(Clone)]
enum Sent {
    /// These bytes.
    Bytes(Vec<u8>),
    /// Bytes without an end.
    Endless,
    /// So many bytes are announced, and the connection ends before they have come.
    Torn(Vec<u8>, usize),
}

const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{}}"#;

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// Answers one request: the manifest, which says `size` of its configuration, and what is sent for that.
async fn answer(mut peer: TcpStream, size: usize, sent: &Sent) {
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(CONFIG), "size": size },
        "layers": [],
    });
    let mut request = vec![0; 8_192];
    let length = peer.read(&mut request).await.unwrap_or(0);
    let request = String::from_utf8_lossy(&request[..length]).into_owned();
    let whole = |body: &[u8], kind: &str| {
        let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: {kind}\r\n");
        [format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
    };
    // Whoever has heard enough hangs up.
    let _ = if request.contains("/manifests/") {
        peer.write_all(&whole(manifest.to_string().as_bytes(), "application/vnd.oci.image.manifest.v1+json")).await
    } else if request.contains("/blobs/") {
        match sent {
            Sent::Bytes(bytes) => peer.write_all(&whole(bytes, "application/octet-stream")).await,
            Sent::Torn(bytes, announced) => {
                let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {announced}\r\n\r\n");
                peer.write_all(&[head.as_bytes(), bytes].concat()).await
            }
            Sent::Endless => {
                let _ = peer.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await;
                while peer.write_all(&[b'x'; 8_192]).await.is_ok() {}
                Ok(())
            }
        }
    } else {
        peer.write_all(&whole(b"{}", "application/json")).await
    };
}

/// Pulls from such a registry into a store of its own.
async fn pull(size: usize, sent: Sent) -> Result<String, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let state = tempfile::tempdir().unwrap();
    std::fs::set_permissions(state.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    let mut options = EmbeddedOptions::new(state.path().join("state"));
    options.plain_http = vec![address.clone()];
    let runtime = EmbeddedRuntime::connect(options).await.unwrap();
    let sent = Arc::new(sent);
    let serve = async {
        let mut connections = JoinSet::new();
        loop {
            let (peer, _) = listener.accept().await.unwrap();
            let sent = Arc::clone(&sent);
            connections.spawn(async move { answer(peer, size, &sent).await });
        }
    };
    let image: ImageRef = format!("{address}/tools:latest").parse().unwrap();
    let events = events();
    tokio::select! {
        pulled = runtime.pull(&image, &events) => pulled.map(|image| image.id),
        () = serve => unreachable!("it serves for ever"),
    }
}

#[tokio::test]
async fn what_a_registry_sends_is_what_its_manifest_says_or_nothing() {
    // The control: all as it is said.
    pull(CONFIG.len(), Sent::Bytes(CONFIG.to_vec())).await.unwrap();

    let mut other = CONFIG.to_vec();
    other[2] = b'b';
    for (what, size, sent) in [
        ("another content of the same length", CONFIG.len(), Sent::Bytes(other)),
        ("less than is said", CONFIG.len(), Sent::Bytes(CONFIG[..20].to_vec())),
        ("more than is said", CONFIG.len() - 1, Sent::Bytes(CONFIG.to_vec())),
        ("an end that does not come", CONFIG.len(), Sent::Endless),
        ("a connection that ends early", CONFIG.len(), Sent::Torn(CONFIG[..20].to_vec(), CONFIG.len())),
        ("a configuration that is too large", usize::MAX >> 1, Sent::Bytes(CONFIG.to_vec())),
    ] {
        let error = pull(size, sent).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ImageInvalid | ErrorKind::ImageMissing), "{what}: {error:?}");
    }
}
