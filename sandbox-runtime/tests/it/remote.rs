//! Engines that share no file system with us: behind a port with TLS, and behind `ssh`.

mod server;

use std::path::Path;
use std::time::Duration;

use sandbox_core::policy::{Control, Policy, RootFilesystem};
use sandbox_core::testkit::contract::Fixture;
use sandbox_core::{ErrorKind, FileSystem, Runtime as _, Status, Stdin, Transport, Verdict};
use sandbox_runtime::{DockerRuntime, Endpoint};
use tokio::net::TcpListener;

use crate::contract::fixture;
use crate::engine::variable;
use server::Server;

#[tokio::test]
async fn which_files_an_engine_sees_is_found_out_by_showing_it_one() {
    let near = DockerRuntime::connect(variable("DOCKER_HOST").parse().unwrap()).await.unwrap();
    assert_eq!((near.file_system(), near.transport()), (FileSystem::Shared, Transport::Socket));
    assert!(near.capabilities().is_enforced(Control::ReadonlyRootfs));
    let far = DockerRuntime::connect(fixture::remote()).await.unwrap();
    assert_eq!((far.file_system(), far.transport()), (FileSystem::Apart, Transport::Relay));
    assert!(!far.capabilities().is_enforced(Control::ReadonlyRootfs));
    assert_eq!(far.info().endpoint, variable("SANDBOX_TEST_DOCKER_REMOTE"));
    // Neither has made anything to find that out.
    for directory in ["/tmp", "/var/tmp"] {
        let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
        let mine = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("sandbox-shown-");
        let fresh = names.filter(mine).filter(|name| {
            let age = std::fs::metadata(Path::new(directory).join(name)).and_then(|data| data.modified());
            age.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > Duration::from_secs(30)))
        });
        assert_eq!(fresh.count(), 0);
    }
}

#[tokio::test]
async fn without_our_certificate_the_engine_does_not_speak_to_us() {
    let theirs = variable("SANDBOX_TEST_DOCKER_REMOTE_CERTIFICATES");
    let endpoint: Endpoint = variable("SANDBOX_TEST_DOCKER_REMOTE").parse().unwrap();
    let partial = |names: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::copy(Path::new(&theirs).join(name), directory.path().join(name)).unwrap();
        }
        directory
    };
    // In the clear, what speaks TLS is no engine.
    let error = DockerRuntime::connect(endpoint.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EngineUnavailable, "{error:?}");
    // With nothing of our own, it hangs up.
    let directory = partial(&["ca.pem"]);
    let error = DockerRuntime::connect(endpoint.clone().with_certificates(directory.path())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EngineUnavailable, "{error:?}");
    assert!(error.to_string().contains("certificate"), "{error:?}");
    // A certificate without its key is of no use.
    let directory = partial(&["ca.pem", "cert.pem"]);
    let error = DockerRuntime::connect(endpoint.clone().with_certificates(directory.path())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    // An engine of another authority is not believed: here it is a client's certificate that was taken for one.
    let directory = partial(&["cert.pem", "key.pem"]);
    std::fs::copy(directory.path().join("cert.pem"), directory.path().join("ca.pem")).unwrap();
    let error = DockerRuntime::connect(endpoint.with_certificates(directory.path())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EngineUnavailable, "{error:?}");
    assert!(error.to_string().contains("certificate"), "{error:?}");
}

#[tokio::test]
async fn a_podman_elsewhere_is_refused_with_the_reason() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint: Endpoint = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
    let serve = async {
        loop {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4_096];
            let length = peer.read(&mut request).await.unwrap();
            let body = if String::from_utf8_lossy(&request[..length]).contains("/info") {
                r#"{"OSType":"linux"}"#
            } else {
                r#"{"ApiVersion":"1.41","Version":"4.3.1","Components":[{"Name":"Podman Engine","Version":"4.3.1"}]}"#
            };
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            peer.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
    };
    let error = tokio::select! {
        connected = sandbox_runtime::connect(endpoint) => connected.unwrap_err(),
        () = serve => unreachable!("it serves for ever"),
    };
    assert_eq!(error.kind(), ErrorKind::EngineUnavailable, "{error:?}");
    assert!(error.to_string().contains("system call filter") && error.hint().is_some(), "{error:?}");
}

#[tokio::test]
async fn the_guest_that_is_sent_is_nobodys_to_change() {
    let fixture = fixture::docker_remote().await;
    let sandbox = fixture.start().await;
    let script =
        "cat /.sandbox/guest 2>&1; ls /.sandbox 2>&1; rm -rf /.sandbox 2>&1; stat -c '%U %a' /.sandbox; cat /etc/hosts";
    let output = sandbox.command("sh").args(["-c", script]).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches("Permission denied").count(), 3, "{text}");
    assert!(text.contains("root 700") && text.contains("127.0.0.1\tlocalhost"), "{text}");
    let mounts = sandbox.attestation().findings().iter().find(|finding| finding.control == Control::HostFilesystem);
    let mounts = mounts.unwrap();
    assert_eq!((mounts.asked.as_str(), mounts.verdict), ("nothing mounted", Verdict::Holds), "{mounts:?}");
    sandbox.destroy().await.unwrap();
}

#[tokio::test]
async fn an_image_that_is_in_the_guests_way_is_refused() {
    use bollard::models::ContainerConfig;
    use bollard::query_parameters::{CommitContainerOptionsBuilder, UploadToContainerOptionsBuilder};

    // An image like any other, but for what it keeps where the guest goes: a link for the guest's directory, or a file beside
    // the guest.
    let archive = |link: bool| {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o777);
        header.set_uid(1_000);
        header.set_size(0);
        if link {
            header.set_entry_type(tar::EntryType::Symlink);
            archive.append_link(&mut header, ".sandbox", "tmp").unwrap();
        } else {
            archive.append_data(&mut header, ".sandbox/beside", std::io::empty()).unwrap();
        }
        archive.into_inner().unwrap()
    };
    let docker = stranger_at_remote();
    for (link, refused) in [(true, false), (false, true)] {
        let body = bollard::models::ContainerCreateBody {
            image: Some(variable("SANDBOX_TEST_IMAGE")),
            cmd: Some(vec!["/never".to_owned()]),
            ..Default::default()
        };
        let made =
            docker.create_container(None::<bollard::query_parameters::CreateContainerOptions>, body).await.unwrap();
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        docker.upload_to_container(&made.id, Some(options), bollard::body_full(archive(link).into())).await.unwrap();
        let name = format!("sandbox-test-way-{link}");
        let options = CommitContainerOptionsBuilder::new().container(&made.id).repo(&name).build();
        docker.commit_container(options, ContainerConfig::default()).await.unwrap();
        docker.remove_container(&made.id, None::<bollard::query_parameters::RemoveContainerOptions>).await.unwrap();

        let fixture = Fixture { image: name.clone(), ..fixture::docker_remote().await };
        let started = fixture.builder().start().await;
        if refused {
            let error = started.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ImageInvalid, "{error:?}");
            assert!(error.residue().is_empty(), "{error:?}");
        } else {
            let sandbox = started.unwrap();
            let output = sandbox.command("sh").args(["-c", "ls -A /tmp; stat -c %F /.sandbox"]).output().await.unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), "directory\n");
            sandbox.destroy().await.unwrap();
        }
        docker.remove_image(&name, None::<bollard::query_parameters::RemoveImageOptions>, None).await.unwrap();
    }
}

fn stranger_at_remote() -> bollard::Docker {
    // The engine's second way in, which leads to the same containers.
    let socket = format!("unix://{}", remote_socket());
    bollard::Docker::connect_with_unix(&socket, 120, bollard::API_DEFAULT_VERSION).unwrap()
}

/// The socket of the engine behind the port, which lies beside its certificates.
fn remote_socket() -> String {
    let certificates = variable("SANDBOX_TEST_DOCKER_REMOTE_CERTIFICATES");
    Path::new(&certificates).with_file_name("engine.sock").to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_read_only_root_is_refused_there() {
    let fixture = fixture::docker_remote().await;
    let waived = fixture.policy();
    let policy = waived.waived().iter().filter(|control| **control != Control::ReadonlyRootfs);
    let policy = policy.fold(Policy::maximum(), |policy, control| policy.with_waived(*control));
    let error = fixture.builder().policy(policy).root(RootFilesystem::ReadOnly).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Policy, "{error:?}");
    assert!(format!("{error:?}").contains("shares no file system"), "{error:?}");
}

/// The engine whose socket that server's machine has.
fn behind(server: &Server, socket: &str) -> Endpoint {
    let address: Endpoint = format!("ssh://root@engine{socket}").parse().unwrap();
    address.with_ssh_settings(server.path("client"))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_behind_ssh_is_as_good() {
    let server = Server::start();
    let runtime = DockerRuntime::connect(behind(&server, &remote_socket())).await.unwrap();
    assert_eq!((runtime.file_system(), runtime.transport()), (FileSystem::Apart, Transport::Relay));
    let fixture = Fixture { runtime: std::sync::Arc::new(runtime), ..fixture::docker_remote().await };
    let sandbox = fixture.start().await;
    let id = sandbox.id();
    let output = sandbox
        .command("sh")
        .args(["-c", "cat; exit 3"])
        .stdin(Stdin::Bytes(b"through ssh".to_vec()))
        .output()
        .await
        .unwrap();
    assert_eq!((output.exit.status, output.stdout.as_slice()), (Status::Code(3), b"through ssh".as_slice()));
    sandbox.write("/tmp/large", vec![7; 3 << 20]).await.unwrap();
    assert_eq!(sandbox.read("/tmp/large", 4 << 20).await.unwrap().len(), 3 << 20);
    sandbox.destroy().await.unwrap();
    fixture.assert_nothing_left(id).await;
}

/// Behind `ssh` may be this very machine, and then files are shared all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_of_this_machine_is_known_behind_ssh_too() {
    let server = Server::start();
    let socket = variable("DOCKER_HOST");
    let runtime = DockerRuntime::connect(behind(&server, socket.trim_start_matches("unix://"))).await.unwrap();
    assert_eq!((runtime.file_system(), runtime.transport()), (FileSystem::Shared, Transport::Socket));
}

#[tokio::test]
async fn what_ssh_complains_of_is_told() {
    let server = Server::start();
    // Another machine's key, as somebody in the middle would have.
    let known = server.path("known");
    let text = std::fs::read_to_string(&known).unwrap();
    let mine = std::fs::read_to_string(server.path("mine.pub")).unwrap();
    let (address, _) = text.split_once(' ').unwrap();
    std::fs::write(&known, format!("{address} {mine}")).unwrap();
    let error = DockerRuntime::connect(behind(&server, "")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EngineUnavailable, "{error:?}");
    assert!(format!("{error:?}").contains("ssh ended and said"), "{error:?}");
    assert!(format!("{error:?}").to_lowercase().contains("host key verification failed"), "{error:?}");
}
