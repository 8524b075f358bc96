//! Who answers, and what it can do.

use std::path::Path;
use std::time::{Duration, Instant};

use sandbox_core::{Error, ErrorKind, Runtime as _};
use sandbox_policy::{Control, Support};
use sandbox_runtime::{DockerRuntime, Endpoint};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use crate::engine::{engine, stranger, variable};

async fn refused(path: &Path) -> Error {
    let error = DockerRuntime::connect(Endpoint::Unix(path.to_owned())).await.unwrap_err();
    assert!(error.to_string().contains(path.to_str().unwrap()), "it names the address: {error}");
    assert!(error.hint().is_some(), "{error}");
    error
}

/// Answers each request with the same bytes and then hangs up.
async fn answering(answer: &'static [u8]) -> Error {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let serve = async {
        loop {
            let (mut peer, _) = listener.accept().await.unwrap();
            let _ = peer.read(&mut [0; 4_096]).await;
            let _ = peer.write_all(answer).await;
        }
    };
    tokio::select! {
        error = refused(&path) => error,
        () = serve => unreachable!("it serves for ever"),
    }
}

#[tokio::test]
async fn no_socket_a_plain_file_and_a_dead_socket_are_no_engine() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    assert_eq!(refused(&path).await.kind(), ErrorKind::EngineUnavailable);

    std::fs::write(&path, "").unwrap();
    let error = refused(&path).await;
    assert!(error.to_string().contains("no socket"), "{error}");

    std::fs::remove_file(&path).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    let error = refused(&path).await;
    assert_eq!(error.kind(), ErrorKind::EngineUnavailable);
    assert!(error.to_string().contains("no engine listens there"), "{error}");
}

#[tokio::test]
async fn a_socket_that_never_answers_is_given_up_within_seconds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let _listener = UnixListener::bind(&path).unwrap();
    let since = Instant::now();
    let error = refused(&path).await;
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
}

#[tokio::test]
async fn what_speaks_something_else_is_no_engine() {
    for answer in [
        b"SSH-2.0-OpenSSH_9.2\r\n".as_slice(),
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n<html",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\ncontent-length: 9\r\n\r\nnot\njson!",
    ] {
        let error = answering(answer).await;
        assert_eq!(error.kind(), ErrorKind::EngineUnavailable, "{error}");
    }
}

#[tokio::test]
async fn a_podman_is_not_taken_for_a_docker() {
    let error = answering(
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n\
          {\"ApiVersion\":\"1.41\",\"Version\":\"4.3.1\",\"Components\":[{\"Name\":\"Podman Engine\",\"Version\":\"4.3.1\"}]}",
    )
    .await;
    assert_eq!(error.kind(), ErrorKind::EngineUnavailable);
    assert!(error.to_string().contains("Podman"), "{error}");
}

#[tokio::test]
async fn the_report_is_that_of_the_engine_itself() {
    let (engine, docker) = (engine().await, stranger().await);
    let info = docker.info().await.unwrap();
    let runtime = engine.info();
    assert_eq!(runtime.name, "docker");
    assert_eq!(Some(&runtime.version), info.server_version.as_ref());
    assert_eq!(runtime.api, docker.client_version().to_string());
    assert_eq!(runtime.endpoint, variable("DOCKER_HOST"));

    let has =
        |name: &str| info.security_options.iter().flatten().any(|option| option.starts_with(&format!("name={name}")));
    let capabilities = engine.capabilities();
    for (control, expected) in [
        (Control::CapabilityDrop, true),
        (Control::HostFilesystem, true),
        (Control::NoNetwork, true),
        (Control::NoNewPrivileges, true),
        (Control::ReadonlyRootfs, true),
        (Control::Seccomp, has("seccomp")),
        (Control::UserNamespace, has("userns") || has("rootless")),
    ] {
        assert_eq!(capabilities.is_enforced(control), expected, "{control}");
    }
    // What enforces it, or why nothing does and what would, is never left empty.
    for control in [Control::Cpu, Control::Disk, Control::Memory, Control::Pids] {
        match capabilities.get(control).unwrap() {
            Support::Enforced { by } => assert!(by.contains("Docker") || control == Control::Disk, "{by}"),
            Support::Unsupported { why, hint } => assert!(!why.is_empty() && !hint.is_empty(), "{control}"),
            other => panic!("{other:?}"),
        }
    }
    // What the guest or a gateway enforces is for others to report.
    assert!(capabilities.get(Control::AgentUser).is_none() && capabilities.get(Control::Sudo).is_none());
}

/// The engine's word on the disk is checked by asking it for a size.
#[tokio::test]
async fn a_disk_limit_is_reported_exactly_where_the_engine_takes_one() {
    use bollard::models::{ContainerCreateBody, HostConfig};
    use bollard::query_parameters::{CreateContainerOptions, RemoveContainerOptions};

    let (engine, docker) = (engine().await, stranger().await);
    let body = ContainerCreateBody {
        image: Some(variable("SANDBOX_TEST_BUSYBOX_IMAGE")),
        cmd: Some(vec!["/never".to_owned()]),
        host_config: Some(HostConfig {
            storage_opt: Some([("size".to_owned(), "1G".to_owned())].into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let made = docker.create_container(None::<CreateContainerOptions>, body).await;
    assert_eq!(engine.capabilities().is_enforced(Control::Disk), made.is_ok());
    if let Ok(made) = made {
        docker.remove_container(&made.id, None::<RemoveContainerOptions>).await.unwrap();
    }
}
