//! What an engine does on its bad days, played by a socket that answers as one.
//!
//! The clock stands still unless everything waits, so a deadline of a minute takes no time.

use std::sync::Arc;
use std::time::Duration;

use sandbox_core::testkit::Recorder;
use sandbox_core::{ContainerId, Error, ErrorKind, Events, Image, Result, Runtime as _, SandboxId, Signal};
use sandbox_policy::{Control, PullRule};
use sandbox_runtime::{DockerRuntime, Endpoint};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;

use crate::engine::{spec, wiring};

/// What an engine answers to a request: a status and a body, or nothing for ever.
enum Answer {
    Body(u16, String),
    Stall(&'static str),
}

/// Serves what any engine says of itself, and for the rest what a test wants.
async fn serve(listener: UnixListener, mut answer: impl FnMut(&str) -> Answer) {
    let mut stalled = Vec::new();
    let mut shown = false;
    loop {
        let (mut peer, _) = listener.accept().await.unwrap();
        let request = request(&mut peer).await;
        let answer = if request.starts_with("GET /version ") || request.ends_with("/version") {
            Answer::Body(200, r#"{"ApiVersion":"1.41","Version":"20.10.24"}"#.to_owned())
        } else if request.ends_with("/info") {
            Answer::Body(200, INFO.to_owned())
        } else if request == "POST /containers/create" && !std::mem::replace(&mut shown, true) {
            // Whether it sees a file is the first thing that it is asked for.
            message(404, "no such image")
        } else {
            answer(&request)
        };
        match answer {
            Answer::Body(status, body) => {
                let head =
                    format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                peer.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            }
            Answer::Stall(beginning) => {
                peer.write_all(format!("HTTP/1.1 200 X\r\nconnection: close\r\n\r\n{beginning}").as_bytes())
                    .await
                    .unwrap();
                stalled.push(peer);
            }
        }
    }
}

/// Reads a request with its body; returns its method and path, without the version and the query.
async fn request(peer: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    let (head, length) = loop {
        assert!(peer.read_buf(&mut bytes).await.unwrap() > 0, "a whole request comes");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            break (head.to_owned(), head.len() + 4 + length);
        }
    };
    while bytes.len() < length {
        assert!(peer.read_buf(&mut bytes).await.unwrap() > 0, "a whole body comes");
    }
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let path = path.split('?').next().unwrap();
    format!("{method} {}", path.strip_prefix("/v1.41").unwrap_or(path))
}

/// Connects to an engine that is played by `answer`, and does something with it.
async fn with<T>(answer: impl FnMut(&str) -> Answer, act: impl AsyncFnOnce(DockerRuntime) -> T) -> T {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let act = async { act(DockerRuntime::connect(Endpoint::Unix(path.clone())).await.unwrap()).await };
    tokio::select! {
        result = act => result,
        () = serve(listener, answer) => unreachable!("it serves for ever"),
    }
}

fn message(status: u16, text: &str) -> Answer {
    Answer::Body(status, serde_json::json!({ "message": text }).to_string())
}

fn id() -> ContainerId {
    ContainerId::new("0123")
}

#[tokio::test(start_paused = true)]
async fn a_busy_file_system_is_tried_again() {
    let mut requests = Vec::new();
    let answer = |request: &str| {
        requests.push(request.to_owned());
        match (request, requests.len()) {
            ("DELETE /containers/0123", 1..5) => message(500, "device or resource busy"),
            ("GET /containers/0123/json", 1..5) => Answer::Body(200, "{}".to_owned()),
            ("DELETE /containers/0123", _) => message(409, "removal is already in progress"),
            _ => message(404, "no such container"),
        }
    };
    with(answer, async |engine| engine.delete(&id()).await).await.unwrap();
    assert_eq!(requests.len(), 6, "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_removed_is_told_and_not_waited_for_for_ever() {
    for (status, kind) in [(409, ErrorKind::Residue), (500, ErrorKind::Engine)] {
        let answer = |request: &str| match request {
            "DELETE /containers/0123" => message(status, "driver failed"),
            _ => Answer::Body(200, "{}".to_owned()),
        };
        let since = Instant::now();
        let error = with(answer, async |engine| engine.delete(&id()).await).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!((30..40).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_stops_answering_is_late() {
    async fn late<T>(limit: u64, act: impl AsyncFnOnce(DockerRuntime) -> Result<T>) -> Error {
        let since = Instant::now();
        let Err(error) = with(|_| Answer::Stall("{\"Id\":"), act).await else { panic!("nothing answers") };
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{error}");
        assert!(error.to_string().contains("unix://") && error.hint().is_some(), "{error}");
        let took = since.elapsed();
        assert!(took >= Duration::from_secs(limit) && took < Duration::from_secs(limit + 5), "{took:?}");
        error
    }
    late(10, async |engine| engine.state(&id()).await).await;
    late(10, async |engine| engine.list().await).await;
    let directory = tempfile::tempdir().unwrap();
    late(60, async |engine| {
        let spec = spec(&engine, "a".parse().unwrap(), PullRule::Never);
        let image = Image { reference: spec.image().clone(), id: "sha256:0".to_owned(), user: None };
        engine.create(&spec, &wiring(image, directory.path())).await
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_pull_that_makes_no_progress_is_late() {
    let answer = |request: &str| match request {
        "POST /images/create" => Answer::Stall("{\"status\":\"Pulling from a\",\"id\":\"latest\"}\n"),
        _ => message(404, "no such image"),
    };
    let recorder = Recorder::default();
    let events = Events::new(SandboxId::random().unwrap(), Arc::new(recorder.clone()));
    let error = with(answer, async |engine| {
        engine.resolve(&spec(&engine, "a".parse().unwrap(), PullRule::IfMissing), &events).await
    });
    assert_eq!(error.await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(recorder.events().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_as_such() {
    let answer = |request: &str| match request {
        "POST /containers/create" => message(500, "mkdir /var/lib/docker/x: no space left on device"),
        "POST /images/create" => {
            let failed = r#"{"errorDetail":{"message":"write /x: no space left on device"},"error":"no space"}"#;
            Answer::Body(200, failed.to_owned())
        }
        _ => message(404, "no such image"),
    };
    let directory = tempfile::tempdir().unwrap();
    let (created, pulled) = with(answer, async |engine| {
        let spec = spec(&engine, "a".parse().unwrap(), PullRule::IfMissing);
        let image = Image { reference: spec.image().clone(), id: "sha256:0".to_owned(), user: None };
        let created = engine.create(&spec, &wiring(image, directory.path())).await;
        (created, engine.resolve(&spec, &crate::engine::events()).await)
    })
    .await;
    assert_eq!(created.unwrap_err().kind(), ErrorKind::Exhausted);
    assert_eq!(pulled.unwrap_err().kind(), ErrorKind::Exhausted);
}

#[tokio::test(start_paused = true)]
async fn answers_that_make_no_sense_are_errors() {
    for (body, kind) in
        [("{}", ErrorKind::Engine), ("{\"State\":{}}", ErrorKind::Engine), ("[]", ErrorKind::EngineUnavailable)]
    {
        let answer = |_: &str| Answer::Body(200, body.to_owned());
        let error = with(answer, async |engine| engine.state(&id()).await).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{body}: {error}");
    }
    let answer = |_: &str| message(409, "container 0123 is not running");
    with(answer, async |engine| engine.kill(&id(), Signal::Kill).await).await.unwrap();
}

/// An engine of which nothing is known enforces what every engine does, and nothing more.
#[tokio::test(start_paused = true)]
async fn limits_that_an_engine_does_not_claim_are_not_claimed_for_it() {
    let enforced = with(
        |_| message(404, "x"),
        async |engine| {
            let capabilities = engine.capabilities().clone();
            Control::ALL.iter().copied().filter(|control| capabilities.is_enforced(*control)).collect::<Vec<_>>()
        },
    );
    assert_eq!(
        enforced.await,
        [
            Control::CapabilityDrop,
            Control::HostFilesystem,
            Control::NoNetwork,
            Control::NoNewPrivileges,
            Control::ReadonlyRootfs,
        ]
    );
}

const INFO: &str = r#"{"OSType":"linux","Architecture":"x86_64","Driver":"overlay2","SecurityOptions":[]}"#;
