//! Fetching images from registries.
//!
//! Invariant: a registry is believed nothing. All that it sends is written to a layout, and the image is taken out of that
//! as out of any other: by digests. How much is read is bounded by what the manifest says, and that by constants.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::distribution::Reference;
use sandbox_core::{Error, ErrorKind, Event, Events, Image, Result};
use sandbox_policy::ImageRef;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::archive::{Descriptor, MAX_INDEXES, MAX_LAYERS, MAX_METADATA, Manifest, blob, digest, invalid, json};
use super::images::hexadecimal;
use super::registry::Registry;
use super::removal::remove;
use super::store::unusable;
use super::{EmbeddedRuntime, blocking};

impl EmbeddedRuntime {
    /// Fetches an image from its registry and keeps it under its name; with an account, if there is one for that registry
    /// and it wants one ([`Self::with_registry_access`]).
    ///
    /// # Errors
    /// `InvalidInput` for an id, which no registry knows; `ImageMissing` where the registry does not give it; `ImageInvalid`
    /// for content that its digest does not name, or that is for other machines; `Denied` where the registry wants an account
    /// to be told to somebody else; `DeadlineExceeded`; those of the system and of who knows the accounts.
    pub async fn pull(&self, reference: &ImageRef, events: &Events) -> Result<Image> {
        let name = reference.to_string();
        let Some(source) = reference.repository().and_then(|_| name.parse::<Reference>().ok()) else {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("image {reference} cannot be pulled: it is no name"),
            ));
        };
        let directory = Layout::make(self.machine.store.temporary_path()?)?;
        let fetching = async {
            let registry = Registry::of(&source, &*self.access, &self.plain_http).await?;
            Fetch { registry, source, image: name, events, layout: &directory.0 }.run(reference.digest()).await
        };
        timeout(WHOLE, fetching).await.unwrap_or_else(|_| {
            let message = format!("image {reference} was not there after {} s", WHOLE.as_secs());
            Err(Error::new(ErrorKind::DeadlineExceeded, message))
        })?;
        let (runtime, reference) = (self.clone(), reference.clone());
        blocking(move || runtime.machine.take_layout(&directory.0, &reference)).await
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
    registry: Registry<'a>,
    source: Reference,
    image: String,
    events: &'a Events,
    layout: &'a Path,
}

impl Fetch<'_> {
    async fn run(&mut self, pinned: Option<&str>) -> Result<()> {
        self.events.announce(self.pulling(0, 0))?;
        let asked = pinned.or(self.source.tag()).unwrap_or(LATEST).to_owned();
        let (mut content, top) = self.manifest(&asked, pinned).await?;
        let index = serde_json::json!({ "manifests": [{ "digest": top }] });
        std::fs::write(self.layout.join("index.json"), index.to_string())
            .map_err(|error| unusable(self.layout, error))?;
        for _ in 0..MAX_INDEXES {
            let Manifest { config, layers, manifests } = json("manifest", &content)?;
            if let (Some(config), Some(layers)) = (config, layers) {
                return self.blobs(&config, &layers).await;
            }
            let ours = manifests.unwrap_or_default().into_iter().find(Descriptor::may_be_ours);
            let Descriptor { digest, .. } = ours.ok_or_else(|| invalid("its index has none for this machine"))?;
            blob(&digest)?;
            content = self.manifest(&digest, Some(&digest)).await?.0;
        }
        Err(invalid(format!("its index leads through more than {MAX_INDEXES} others")))
    }

    /// Fetches a manifest or an index, and keeps it under its digest, which may be known beforehand.
    async fn manifest(&mut self, reference: &str, expected: Option<&str>) -> Result<(Vec<u8>, String)> {
        let content = self.registry.manifest(reference, MANIFESTS, MAX_METADATA).await?;
        let digest = digest(&content);
        if let Some(expected) = expected.filter(|expected| *expected != digest) {
            return Err(invalid(format!("{expected} is named, and the registry gives {digest}")));
        }
        std::fs::write(self.layout.join(blob(&digest)?), &content).map_err(|error| unusable(self.layout, error))?;
        Ok((content, digest))
    }

    /// Fetches the configuration and the layers, each as long as the manifest says.
    async fn blobs(&mut self, config: &Descriptor, layers: &[Descriptor]) -> Result<()> {
        let total = layers.iter().fold(config.size, |total, layer| total.saturating_add(layer.size));
        if layers.len() > MAX_LAYERS || config.size > MAX_METADATA || total > MAX_IMAGE {
            let layers = layers.len();
            return Err(invalid(format!(
                "it has {layers} layers and {total} bytes: {MAX_LAYERS} and {MAX_IMAGE} are allowed"
            )));
        }
        let (mut received, mut told) = (0, Instant::now());
        for descriptor in std::iter::once(config).chain(layers) {
            let path = self.layout.join(blob(&descriptor.digest)?);
            let unusable = |error| unusable(&path, error);
            let mut file = File::create(&path).await.map_err(unusable)?;
            let mut response = self.registry.blob(&descriptor.digest).await?;
            let (mut left, mut hash) = (descriptor.size, Sha256::new());
            while let Some(chunk) = response.chunk().await.map_err(|error| self.registry.broken(error))? {
                let length = chunk.len() as u64;
                left = left
                    .checked_sub(length)
                    .ok_or_else(|| invalid("the registry sends more than its manifest says"))?;
                hash.update(&chunk);
                file.write_all(&chunk).await.map_err(unusable)?;
                received += length;
                if told.elapsed() >= BETWEEN_EVENTS {
                    told = Instant::now();
                    self.events.report(self.pulling(received, total));
                }
            }
            file.flush().await.map_err(unusable)?;
            let found = format!("sha256:{}", hexadecimal(&hash.finalize()));
            if left > 0 || found != descriptor.digest {
                return Err(invalid(format!("{} is named, and the registry gives {found}", descriptor.digest)));
            }
        }
        self.events.announce(self.pulling(received, total))
    }

    fn pulling(&self, received: u64, total: u64) -> Event {
        Event::Pulling { image: self.image.clone(), received, total }
    }
}

/// What is understood (<https://github.com/opencontainers/image-spec/blob/main/media-types.md>, and Docker's own words for the
/// same, <https://distribution.github.io/distribution/spec/manifest-v2-2/>).
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                         application/vnd.docker.distribution.manifest.v2+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json";
/// The tag of a name that has none.
const LATEST: &str = "latest";

/// The largest image, in bytes as they are sent.
const MAX_IMAGE: u64 = 64 << 30;
/// How long all of an image may take.
const WHOLE: Duration = Duration::from_hours(1);
/// How often progress is told.
const BETWEEN_EVENTS: Duration = Duration::from_millis(250);
