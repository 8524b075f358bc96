//! Fetching images from registries.
//!
//! Invariant: a registry is believed nothing. All that it sends is written to a layout, and the image is taken out of that
//! as out of any other: by digests. How much is read is bounded by what the manifest says, and that by constants.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE,
};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use sandbox_core::{Error, ErrorKind, Event, Events, Image, Result};
use sandbox_policy::ImageRef;
use tokio::fs::File;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::archive::{Descriptor, MAX_INDEXES, MAX_LAYERS, MAX_METADATA, Manifest, blob, digest, invalid, json};
use super::removal::remove;
use super::store::unusable;
use super::{EmbeddedRuntime, blocking};

impl EmbeddedRuntime {
    /// Fetches an image from its registry, as anybody may who has no account there, and keeps it under its name.
    ///
    /// # Errors
    /// `InvalidInput` for an id, which no registry knows; `ImageMissing` where the registry does not give it; `ImageInvalid`
    /// for content that its digest does not name, or that is for other machines; `DeadlineExceeded`; those of the system.
    pub async fn pull(&self, reference: &ImageRef, events: &Events) -> Result<Image> {
        let name = reference.to_string();
        let Some(source) = reference.repository().and_then(|_| name.parse::<Reference>().ok()) else {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("image {reference} cannot be pulled: it is no name"),
            ));
        };
        let directory = Layout::make(self.machine.store.temporary_path()?)?;
        let fetching = Fetch { client: self.client(), source, image: name, events, layout: &directory.0 };
        timeout(WHOLE, fetching.run(reference.digest())).await.unwrap_or_else(|_| {
            let message = format!("image {reference} was not there after {} s", WHOLE.as_secs());
            Err(Error::new(ErrorKind::DeadlineExceeded, message))
        })?;
        let (runtime, reference) = (self.clone(), reference.clone());
        blocking(move || runtime.machine.take_layout(&directory.0, &reference)).await
    }

    fn client(&self) -> Client {
        // Whoever embeds this may have chosen another provider; then that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::new(ClientConfig {
            protocol: ClientProtocol::HttpsExcept(self.plain_http.clone()),
            connect_timeout: Some(CONNECT),
            read_timeout: Some(STALL),
            user_agent: concat!("sandbox/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        })
    }
}

/// A directory that goes with its owner.
struct Layout(PathBuf);

impl Layout {
    fn make(path: PathBuf) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path.join("blobs/sha256"))
            .map_err(|error| unusable(&path, error))?;
        Ok(Self(path))
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // What cannot be removed now is swept later.
        let _ = remove(&self.0);
    }
}

/// An image that is being fetched.
struct Fetch<'a> {
    client: Client,
    source: Reference,
    image: String,
    events: &'a Events,
    layout: &'a Path,
}

impl Fetch<'_> {
    async fn run(&self, pinned: Option<&str>) -> Result<()> {
        self.events.announce(self.pulling(0, 0))?;
        let (content, top) = self.manifest(&self.source).await?;
        if let Some(pinned) = pinned.filter(|pinned| *pinned != top) {
            return Err(invalid(format!("{pinned} is named, and the registry gives {top}")));
        }
        let index = serde_json::json!({ "manifests": [{ "digest": top }] });
        std::fs::write(self.layout.join("index.json"), index.to_string())
            .map_err(|error| unusable(self.layout, error))?;
        let mut content = content;
        for _ in 0..MAX_INDEXES {
            let Manifest { config, layers, manifests } = json("manifest", &content)?;
            if let (Some(config), Some(layers)) = (config, layers) {
                return self.blobs(&config, &layers).await;
            }
            let ours = manifests.unwrap_or_default().into_iter().find(Descriptor::may_be_ours);
            let Descriptor { digest, .. } = ours.ok_or_else(|| invalid("its index has none for this machine"))?;
            blob(&digest)?;
            let (registry, repository) = (self.source.registry(), self.source.repository());
            let next = Reference::with_digest(registry.to_owned(), repository.to_owned(), digest);
            content = self.manifest(&next).await?.0;
        }
        Err(invalid(format!("its index leads through more than {MAX_INDEXES} others")))
    }

    /// Fetches a manifest or an index, and keeps it under its digest.
    async fn manifest(&self, source: &Reference) -> Result<(Vec<u8>, String)> {
        let fetched = self.client.pull_manifest_raw(source, &RegistryAuth::Anonymous, &MANIFESTS).await;
        let content = fetched.map_err(|error| self.failed(error))?.0.to_vec();
        if content.len() as u64 > MAX_METADATA {
            return Err(invalid(format!("its manifest is larger than {MAX_METADATA} bytes")));
        }
        let digest = digest(&content);
        std::fs::write(self.layout.join(blob(&digest)?), &content).map_err(|error| unusable(self.layout, error))?;
        Ok((content, digest))
    }

    /// Fetches the configuration and the layers, each as long as the manifest says.
    async fn blobs(&self, config: &Descriptor, layers: &[Descriptor]) -> Result<()> {
        let total = layers.iter().fold(config.size, |total, layer| total.saturating_add(layer.size));
        if layers.len() > MAX_LAYERS || config.size > MAX_METADATA || total > MAX_IMAGE {
            let layers = layers.len();
            return Err(invalid(format!(
                "it has {layers} layers and {total} bytes: {MAX_LAYERS} and {MAX_IMAGE} are allowed"
            )));
        }
        let mut received = 0;
        for descriptor in std::iter::once(config).chain(layers) {
            let path = self.layout.join(blob(&descriptor.digest)?);
            let file = File::create(&path).await.map_err(|error| unusable(&path, error))?;
            let told = Instant::now();
            let mut sink = Sink { file, left: descriptor.size, fetch: self, received, total, told };
            let fetched = self.client.pull_blob(&self.source, descriptor.digest.as_str(), &mut sink).await;
            fetched.map_err(|error| self.failed(error))?;
            sink.flush().await.map_err(|error| unusable(&path, error))?;
            received = sink.received;
        }
        self.events.announce(self.pulling(received, total))
    }

    fn pulling(&self, received: u64, total: u64) -> Event {
        Event::Pulling { image: self.image.clone(), received, total }
    }

    fn failed(&self, error: oci_client::errors::OciDistributionError) -> Error {
        let message = format!("image {} cannot be pulled from {}", self.image, self.source.resolve_registry());
        Error::new(ErrorKind::ImageMissing, message)
            .with_hint(
                "is the name right, and the registry reachable and open to all? `sandbox image import` takes a file instead",
            )
            .with_source(error)
    }
}

/// A file that takes as many bytes as were announced, and tells of them.
struct Sink<'a> {
    file: File,
    left: u64,
    fetch: &'a Fetch<'a>,
    received: u64,
    total: u64,
    told: Instant,
}

impl AsyncWrite for Sink<'_> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.len() as u64 > self.left {
            let message = "the registry sends more than its manifest says";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, message)));
        }
        let written = std::task::ready!(Pin::new(&mut self.file).poll_write(context, bytes))?;
        self.left -= written as u64;
        self.received += written as u64;
        if self.told.elapsed() >= BETWEEN_EVENTS {
            self.told = Instant::now();
            self.fetch.events.report(self.fetch.pulling(self.received, self.total));
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.file).poll_shutdown(context)
    }
}

/// What is understood (<https://github.com/opencontainers/image-spec/blob/main/media-types.md>).
const MANIFESTS: [&str; 4] =
    [OCI_IMAGE_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, IMAGE_MANIFEST_LIST_MEDIA_TYPE];

/// The largest image, in bytes as they are sent.
const MAX_IMAGE: u64 = 64 << 30;
/// How long all of an image may take.
const WHOLE: Duration = Duration::from_hours(1);
/// How long a registry may take until it answers, and how long it may send nothing.
const CONNECT: Duration = Duration::from_secs(20);
const STALL: Duration = Duration::from_mins(1);
/// How often progress is told.
const BETWEEN_EVENTS: Duration = Duration::from_millis(250);
