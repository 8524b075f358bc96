//! Finding, pulling and importing images.

use bollard::Docker;
use bollard::models::ImageInspect;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, PushImageOptionsBuilder, RemoveImageOptions, TagImageOptionsBuilder,
};
use futures_util::TryStreamExt as _;
use sandbox_core::testkit::{Recorder, Refuser};
use sandbox_core::{ErrorKind, Event, Events, LABEL_OWNER, LABEL_SANDBOX, Runtime as _, SandboxId};
use sandbox_policy::{ImageRef, PullRule};

use crate::engine::{debian, empty, engine, events, fresh, resolve, spec, stranger, variable};

/// An archive of a root file system with one file.
fn archive(content: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "file", content).unwrap();
    archive.into_inner().unwrap()
}

/// Bytes that do not compress and that no other run has: a layer that the engine does not have yet.
fn noise(length: usize) -> Vec<u8> {
    let mut noise = vec![0; length];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut noise).unwrap();
    noise
}

async fn inspect(docker: &Docker, name: &str) -> ImageInspect {
    docker.inspect_image(name).await.unwrap()
}

async fn remove(docker: &Docker, name: &str) {
    docker.remove_image(name, None::<RemoveImageOptions>, None).await.unwrap();
}

/// Imports an image with changes to its configuration, beside the crate under test.
async fn import_with(docker: &Docker, name: &str, change: &str) {
    let options =
        CreateImageOptionsBuilder::new().from_src("-").repo(name).tag("latest").changes(vec![change.to_owned()]);
    let body = bollard::body_full(archive(b"x").into());
    docker.create_image(Some(options.build()), Some(body), None).try_collect::<Vec<_>>().await.unwrap();
}

#[tokio::test]
async fn an_image_is_found_by_name_and_by_id_and_means_its_content() {
    let (engine, docker) = (engine().await, stranger().await);
    let id = inspect(&docker, &debian().to_string()).await.id.unwrap();
    let by_name = resolve(&engine, &spec(&engine, debian(), PullRule::Never)).await;
    assert_eq!((by_name.id.as_str(), by_name.reference), (id.as_str(), debian()));
    let by_id = resolve(&engine, &spec(&engine, id.parse().unwrap(), PullRule::Never)).await;
    assert_eq!(by_id.id, id);
}

#[tokio::test]
async fn an_image_that_is_missing_is_told_with_what_to_do() {
    let engine = engine().await;
    let nowhere: ImageRef = fresh("nowhere").parse().unwrap();
    let registry: ImageRef = format!("{}/nobody/nothing:1", variable("SANDBOX_TEST_REGISTRY")).parse().unwrap();
    let id: ImageRef = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
    for (image, pull) in [(&nowhere, PullRule::Never), (&registry, PullRule::IfMissing), (&id, PullRule::IfMissing)] {
        let error = engine.resolve(&spec(&engine, image.clone(), pull), &events()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ImageMissing, "{error}");
        assert!(error.to_string().contains(&image.to_string()), "{error}");
        assert!(error.hint().is_some());
        assert!(!error.to_string().contains('\n'));
    }
}

/// A name that could be the beginning of an image's id means a name.
#[tokio::test]
async fn a_short_name_is_not_taken_for_an_id() {
    let (engine, docker) = (engine().await, stranger().await);
    let id = inspect(&docker, &debian().to_string()).await.id.unwrap();
    let short = &id["sha256:".len()..][..12];
    inspect(&docker, short).await;
    let error = engine.resolve(&spec(&engine, short.parse().unwrap(), PullRule::Never), &events()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ImageMissing);
}

#[tokio::test]
async fn an_image_is_pulled_with_progress_and_only_as_far_as_the_audit_allows() {
    let (engine, docker) = (engine().await, stranger().await);
    let (registry, tag) = (variable("SANDBOX_TEST_REGISTRY"), SandboxId::random().unwrap().to_string());
    let repository = format!("{registry}/sandbox-test/pulled");
    let name = format!("{repository}:{tag}");
    let noise = noise(8 << 20);
    let source = fresh("pushed");
    let image = engine.import_rootfs(std::io::Cursor::new(archive(&noise)), &source.parse().unwrap()).await.unwrap();
    let options = TagImageOptionsBuilder::new().repo(&repository).tag(&tag).build();
    docker.tag_image(&source, Some(options)).await.unwrap();
    let options = PushImageOptionsBuilder::new().tag(&tag).build();
    docker.push_image(&repository, Some(options), None).try_collect::<Vec<_>>().await.unwrap();
    let digest = inspect(&docker, &name).await.repo_digests.unwrap()[0].clone();
    remove(&docker, &name).await;
    remove(&docker, &source).await;

    let spec_of = |name: &str| spec(&engine, name.parse().unwrap(), PullRule::IfMissing);
    let refusing = Events::new(
        SandboxId::random().unwrap(),
        std::sync::Arc::new(Refuser(|event| matches!(event, Event::Pulling { .. }))),
    );
    let error = engine.resolve(&spec_of(&name), &refusing).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EventRefused);
    assert!(docker.inspect_image(&name).await.is_err(), "nothing was pulled");

    let recorder = Recorder::default();
    let events = Events::new(SandboxId::random().unwrap(), std::sync::Arc::new(recorder.clone()));
    let pulled = engine.resolve(&spec_of(&name), &events).await.unwrap();
    assert_eq!(pulled.id, image.id);
    let told = recorder.events();
    assert!(told.len() >= 2, "{told:?}");
    assert!(matches!(&told[0], Event::Pulling { image, received: 0, total: 0 } if *image == name), "{told:?}");
    let Some(Event::Pulling { received, total, .. }) = told.last() else { panic!("{told:?}") };
    assert!(*total > 0 && received == total, "{told:?}");

    // It is here now: no pull, no event.
    let recorder = Recorder::default();
    let events = Events::new(SandboxId::random().unwrap(), std::sync::Arc::new(recorder.clone()));
    engine.resolve(&spec_of(&name), &events).await.unwrap();
    assert!(recorder.events().is_empty());
    remove(&docker, &name).await;

    // By its digest, which needs no tag.
    let pulled = engine.resolve(&spec_of(&digest), &events).await.unwrap();
    assert_eq!(pulled.id, image.id);
    remove(&docker, &digest).await;
}

#[tokio::test]
async fn archives_become_images() {
    let (engine, docker) = (engine().await, stranger().await);
    let name = fresh("imported");
    let imported = engine.import_rootfs(std::io::Cursor::new(archive(b"hello")), &name.parse().unwrap()).await.unwrap();
    assert_eq!(inspect(&docker, &name).await.id.unwrap(), imported.id);

    let saved: Vec<_> = docker.export_image(&name).try_collect().await.unwrap();
    remove(&docker, &name).await;
    let loaded = engine.load_archive(std::io::Cursor::new(saved.concat())).await.unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!((&loaded[0].id, loaded[0].reference.to_string()), (&imported.id, format!("{name}:latest")));
    remove(&docker, &name).await;
}

#[tokio::test]
async fn what_is_no_archive_is_refused() {
    let engine = engine().await;
    let name: ImageRef = fresh("broken").parse().unwrap();
    let error = engine
        .import_rootfs(std::io::Cursor::new("this is no archive, whatever it says".repeat(99)), &name)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Engine, "{error}");
    let error = engine.load_archive(std::io::Cursor::new(archive(b"no manifest"))).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Engine | ErrorKind::ImageInvalid), "{error}");

    let pinned: ImageRef = format!("a@sha256:{}", "0".repeat(64)).parse().unwrap();
    let error = engine.import_rootfs(tokio::io::empty(), &pinned).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// An archive that cannot be read to its end leaves no image behind.
#[tokio::test]
async fn an_archive_that_breaks_off_is_an_error() {
    use tokio::io::AsyncReadExt as _;

    struct Broken;
    impl tokio::io::AsyncRead for Broken {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Err(std::io::Error::other("the disk is gone")))
        }
    }

    let (engine, docker) = (engine().await, stranger().await);
    let name = fresh("halved");
    let half = std::io::Cursor::new(archive(&vec![7; 200_000])[..100_000].to_vec()).chain(Broken);
    engine.import_rootfs(half, &name.parse().unwrap()).await.unwrap_err();
    assert!(docker.inspect_image(&name).await.is_err());
}

#[tokio::test]
async fn an_image_that_brings_more_than_files_is_refused() {
    let (engine, docker) = (engine().await, stranger().await);
    let id = "0123456789abcdef0123456789abcdef";
    for (change, word) in [
        (format!("LABEL {LABEL_SANDBOX}={id}"), LABEL_SANDBOX),
        (format!("LABEL {LABEL_OWNER}=x"), LABEL_OWNER),
        ("VOLUME /data".to_owned(), "/data"),
    ] {
        let name = fresh("strange");
        import_with(&docker, &name, &change).await;
        let error =
            engine.resolve(&spec(&engine, name.parse().unwrap(), PullRule::Never), &events()).await.unwrap_err();
        remove(&docker, &name).await;
        assert_eq!(error.kind(), ErrorKind::ImageInvalid, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    // What does no harm is let be: the images of the tests carry a label of their recipe.
    resolve(&engine, &spec(&engine, empty(), PullRule::Never)).await;
}
