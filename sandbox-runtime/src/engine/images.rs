//! Finding images, pulling them, and taking them from archives.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bollard::errors::Error as Failure;
use bollard::models::{CreateImageInfo, ImageInspect};
use bollard::query_parameters::{CreateImageOptionsBuilder, ImportImageOptions};
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt as _};
use sandbox_core::{Error, ErrorKind, Event, Events, Image, LABEL_OWNER, LABEL_SANDBOX, Result};
use sandbox_policy::{ImageRef, PullRule, SandboxSpec};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::{Instant, timeout};

use super::error::{Answer, answer, late, one_line, senseless, within};
use super::{Engine, INSPECT, STALL};

impl Engine {
    /// Finds the image of a specification, or pulls it where that is allowed.
    pub(crate) async fn resolve(&self, spec: &SandboxSpec, events: &Events) -> Result<Image> {
        let reference = spec.image();
        if let Some(image) = self.find(reference).await? {
            return Ok(image);
        }
        let pullable = match (spec.pull(), Name::of(reference)) {
            (PullRule::IfMissing, Some(name)) => name,
            (PullRule::IfMissing, None) => {
                return Err(missing(reference, "and an id cannot be pulled").with_hint("name it with its registry"));
            }
            (PullRule::Never, _) => {
                return Err(missing(reference, "and the policy allows no pull").with_hint(self.bring()));
            }
        };
        self.pull(reference, &pullable, events).await?;
        self.find(reference).await?.ok_or_else(|| missing(reference, "although the engine says that it was pulled"))
    }

    /// Makes an image of an archive of a root file system.
    pub(crate) async fn import_rootfs<R>(&self, archive: R, reference: &ImageRef) -> Result<Image>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let Some(Name { repository, tag }) = Name::of(reference).filter(|_| reference.digest().is_none()) else {
            let message =
                format!("image {reference} cannot name an import: it is pinned to a content that is not known yet");
            return Err(Error::new(ErrorKind::InvalidInput, message).with_hint("write a name, perhaps with a tag"));
        };
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(&repository).tag(&tag).build();
        let (body, progress) = upload(archive);
        let answers = self.docker.create_image(Some(options), Some(bollard::body_try_stream(body)), None);
        self.drain("import the image", answers, &progress, |_| Ok(())).await?;
        self.find(reference).await?.ok_or_else(|| missing(reference, "although the engine says that it was imported"))
    }

    /// Takes the images out of an archive that `docker save` made.
    pub(crate) async fn load_archive<R>(&self, archive: R) -> Result<Vec<Image>>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let (body, progress) = upload(archive);
        let answers = self.docker.import_image_stream(ImportImageOptions::default(), body, None);
        let mut names = Vec::new();
        self.drain("load the archive", answers, &progress, |answer| {
            for line in answer.stream.iter().flat_map(|text| text.lines()) {
                let name = LOADED.iter().find_map(|prefix| line.trim().strip_prefix(prefix));
                names.extend(name.map(str::to_owned));
            }
            Ok(())
        })
        .await?;
        let mut images = Vec::new();
        for name in names {
            let reference: ImageRef =
                name.parse().map_err(|error| senseless("the name of a loaded image").with_source(error))?;
            images.extend(self.find(&reference).await?);
        }
        if images.is_empty() {
            return Err(Error::new(ErrorKind::ImageInvalid, "the archive holds no image")
                .with_hint("an archive of a root file system is imported, not loaded"));
        }
        Ok(images)
    }

    /// Looks an image up; none if the engine does not have it.
    async fn find(&self, reference: &ImageRef) -> Result<Option<Image>> {
        let name = Name::of(reference).map_or_else(|| reference.to_string(), |name| name.full());
        match within(&self.endpoint, INSPECT, "inspect the image", self.docker.inspect_image(&name)).await {
            Ok(inspected) => self.accept(reference, inspected).map(Some),
            Err(answer) if answer.status() == Some(404) => Ok(None),
            Err(answer) => Err(answer.into_error()),
        }
    }

    /// Refuses an image that would bring more into a container than its files.
    fn accept(&self, reference: &ImageRef, inspected: ImageInspect) -> Result<Image> {
        let invalid = |what: String| Error::new(ErrorKind::ImageInvalid, format!("image {reference} {what}"));
        let id = inspected.id.ok_or_else(|| senseless("an image has no id"))?;
        let os = inspected.os.unwrap_or_default();
        let architecture = inspected.architecture.unwrap_or_default();
        if os != "linux" || architecture != self.architecture {
            let what = format!(
                "is for {}/{}, and this engine runs linux/{}",
                one_line(&os),
                one_line(&architecture),
                self.architecture
            );
            return Err(invalid(what).with_hint("use an image for this machine"));
        }
        let config = inspected.config.unwrap_or_default();
        let user = config.user.filter(|user| !user.is_empty());
        let labels = config.labels.unwrap_or_default();
        if let Some(label) = [LABEL_SANDBOX, LABEL_OWNER].into_iter().find(|label| labels.contains_key(*label)) {
            // Containers take over their image's labels, and by these a reaper knows what it may remove.
            return Err(invalid(format!("carries the label {label}, which marks sandboxes"))
                .with_hint("build it without that label"));
        }
        let volumes = config.volumes.unwrap_or_default();
        if !volumes.is_empty() {
            // The engine would make each one writable, outside the root file system and its disk limit.
            let volumes = one_line(&volumes.join(", "));
            return Err(invalid(format!("declares volumes ({volumes}), which no limit bounds"))
                .with_hint("build it without VOLUME, or export a container of it and import that"));
        }
        Ok(Image { reference: reference.clone(), id, user })
    }

    async fn pull(&self, reference: &ImageRef, name: &Name, events: &Events) -> Result<()> {
        let pulling = |received, total| Event::Pulling { image: reference.to_string(), received, total };
        events.announce(pulling(0, 0))?;
        let options = CreateImageOptionsBuilder::new().from_image(&name.repository).tag(&name.tag).build();
        let answers = self.docker.create_image(Some(options), None, None);
        let (mut layers, no_upload) = (Layers::default(), Progress::default());
        let mut told = Instant::now();
        let pulled = self.drain("pull the image", answers, &no_upload, |answer| {
            layers.note(answer);
            if told.elapsed() < BETWEEN_EVENTS {
                return Ok(());
            }
            told = Instant::now();
            let (received, total) = layers.sum();
            events.announce(pulling(received, total))
        });
        match pulled.await {
            Ok(()) => {
                let (received, total) = layers.sum();
                events.announce(pulling(received, total))
            }
            Err(error) if matches!(error.kind(), ErrorKind::Engine | ErrorKind::NotFound | ErrorKind::Denied) => {
                let message = format!("image {reference} is not in the engine and was not pulled: {error}");
                Err(Error::new(ErrorKind::ImageMissing, message).with_hint(self.bring()))
            }
            Err(error) => Err(error),
        }
    }

    fn bring(&self) -> String {
        let name = self.product.name();
        format!("bring it in with `{name} pull`, `{name} load` or `{name} import`, or name another")
    }

    /// Reads an engine's answers to their end, which is late when neither they nor an upload go on.
    async fn drain<T>(
        &self,
        what: &str,
        answers: impl Stream<Item = Result<T, Failure>>,
        upload: &Progress,
        mut note: impl FnMut(&T) -> Result<()>,
    ) -> Result<()> {
        let mut answers = std::pin::pin!(answers);
        let mut sent = upload.0.load(Ordering::Relaxed);
        loop {
            match timeout(STALL, answers.next()).await {
                Ok(Some(Ok(answer))) => note(&answer)?,
                Ok(Some(Err(failure))) => return Err(Answer::into_error(answer(&self.endpoint, what, failure))),
                Ok(None) => return Ok(()),
                Err(_) => {
                    let now = upload.0.load(Ordering::Relaxed);
                    if now == sent {
                        return Err(late(&self.endpoint, what, STALL));
                    }
                    sent = now;
                }
            }
        }
    }
}

/// An image's name in the two parts that the engine's API takes.
#[derive(Debug, PartialEq, Eq)]
struct Name {
    repository: String,
    /// A tag or a digest; never empty, which would pull every tag there is.
    tag: String,
}

impl Name {
    /// Splits a name; a local id has none.
    fn of(reference: &ImageRef) -> Option<Self> {
        let path = reference.repository()?;
        let repository = match reference.registry() {
            Some(registry) => format!("{registry}/{path}"),
            None => path.to_owned(),
        };
        let tag = reference.digest().or(reference.tag()).unwrap_or("latest");
        Some(Self { repository, tag: tag.to_owned() })
    }

    /// The whole name, with its tag, so that no engine takes it for the beginning of an id.
    fn full(&self) -> String {
        let separator = if self.tag.contains(':') { '@' } else { ':' };
        format!("{}{separator}{}", self.repository, self.tag)
    }
}

/// Counts what the engine has taken of an upload, in bytes.
#[derive(Debug, Clone, Default)]
struct Progress(Arc<AtomicU64>);

/// Turns an archive into a request's body, read as the engine takes it.
fn upload<R, B>(archive: R) -> (impl Stream<Item = std::io::Result<B>> + Send + 'static, Progress)
where
    R: AsyncRead + Send + Unpin + 'static,
    B: From<Vec<u8>> + 'static,
{
    let progress = Progress::default();
    let stream = unfold((archive, progress.clone()), |(mut archive, progress)| async move {
        let mut chunk = Vec::with_capacity(CHUNK);
        match archive.read_buf(&mut chunk).await {
            Ok(0) => None,
            Ok(length) => {
                progress.0.fetch_add(length as u64, Ordering::Relaxed);
                Some((Ok(B::from(chunk)), (archive, progress)))
            }
            Err(error) => Some((Err(error), (archive, progress))),
        }
    });
    (stream, progress)
}

/// How far each layer has come, in bytes.
#[derive(Debug, Default)]
struct Layers(HashMap<String, (u64, u64)>);

impl Layers {
    /// Takes note of an answer; a registry's answers are bounded, since it may not be the user's own.
    fn note(&mut self, answer: &CreateImageInfo) {
        let Some(id) = &answer.id else { return };
        if !self.0.contains_key(id) && self.0.len() >= MOST_LAYERS {
            return;
        }
        let count = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
        match (answer.status.as_deref(), &answer.progress_detail) {
            (Some("Downloading"), Some(detail)) => {
                let total = count(detail.total);
                self.0.insert(id.clone(), (count(detail.current).min(total), total));
            }
            (Some("Download complete" | "Pull complete"), _) => {
                if let Some((received, total)) = self.0.get_mut(id) {
                    *received = *total;
                }
            }
            _ => {}
        }
    }

    fn sum(&self) -> (u64, u64) {
        self.0.values().fold((0, 0), |(received, total): (u64, u64), layer| {
            (received.saturating_add(layer.0), total.saturating_add(layer.1))
        })
    }
}

fn missing(reference: &ImageRef, why: &str) -> Error {
    Error::new(ErrorKind::ImageMissing, format!("image {reference} is not in the engine, {why}"))
}

const LOADED: [&str; 2] = ["Loaded image ID: ", "Loaded image: "];
/// Bytes of an archive that are read at once.
const CHUNK: usize = 64 << 10;
const MOST_LAYERS: usize = 512;
const BETWEEN_EVENTS: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    #[test]
    fn a_name_is_never_without_a_tag_and_a_digest_goes_before_a_tag() {
        let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
        for (text, full) in [
            ("add", "add:latest".to_owned()),
            ("a/b:c", "a/b:c".to_owned()),
            ("localhost:5000/a", "localhost:5000/a:latest".to_owned()),
            (&format!("a:b@{digest}"), format!("a@{digest}")),
        ] {
            assert_eq!(Name::of(&text.parse().unwrap()).unwrap().full(), full);
        }
        assert_eq!(Name::of(&digest.parse().unwrap()), None);
    }

    #[test]
    fn progress_adds_up_over_layers_and_never_runs_over() {
        let note = |id: &str, status: &str, current, total| CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
            ..Default::default()
        };
        let mut layers = Layers::default();
        layers.note(&note("a", "Downloading", 10, 100));
        layers.note(&note("b", "Downloading", 500, 50));
        layers.note(&note("c", "Extracting", 1, 9));
        layers.note(&note("d", "Downloading", -1, -1));
        assert_eq!(layers.sum(), (60, 150));
        layers.note(&note("a", "Download complete", 0, 0));
        assert_eq!(layers.sum(), (150, 150));
        (0..2_000).for_each(|id| layers.note(&note(&id.to_string(), "Downloading", 1, 1)));
        assert_eq!(layers.0.len(), MOST_LAYERS);
    }
}
