use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;

fn home() -> (TempDir, Environment) {
    let home = tempfile::tempdir().unwrap();
    let environment = Environment {
        home: Some(home.path().into()),
        xdg_runtime_dir: Some(home.path().into()),
        default_socket: "/default.sock".into(),
        podman_socket: "/podman.sock".into(),
        system_state: home.path().join("system"),
        ..Environment::default()
    };
    let context = home.path().join(".docker/contexts/meta/0123");
    fs::create_dir_all(&context).unwrap();
    fs::write(
        context.join("meta.json"),
        r#"{"Name":"lab","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///lab.sock","SkipTLSVerify":false}}}"#,
    )
    .unwrap();
    (home, environment)
}

fn touch(home: &TempDir, name: &str) -> PathBuf {
    let path = home.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "").unwrap();
    path
}

fn told(choice: Result<Choice>) -> (String, String) {
    let Choice { engine, found_by } = choice.unwrap();
    let engine = match engine {
        EngineAt::Embedded(_) => "embedded".to_owned(),
        EngineAt::Endpoint(endpoint) => endpoint.to_string(),
    };
    (engine, found_by)
}

#[test]
fn no_engine_is_used_unless_one_is_named() {
    let (home, mut environment) = home();
    environment.default_socket = touch(&home, "default.sock");
    touch(&home, "docker.sock");
    touch(&home, "podman/podman.sock");
    fs::write(home.path().join(".docker/config.json"), r#"{"auths":{},"currentContext":"lab"}"#).unwrap();
    assert_eq!(told(environment.engine()), ("embedded".into(), "default".into()));

    environment.container_host = Some("unix:///container.sock".into());
    assert_eq!(told(environment.engine()), ("unix:///container.sock".into(), "CONTAINER_HOST".into()));
    environment.docker_context = Some("lab".into());
    assert_eq!(told(environment.engine()), ("unix:///lab.sock".into(), "the docker context \"lab\"".into()));
    environment.docker_host = Some("unix:///host.sock".into());
    assert_eq!(told(environment.engine()), ("unix:///host.sock".into(), "DOCKER_HOST".into()));
    environment.sandbox_engine = Some("embedded".into());
    assert_eq!(told(environment.engine()), ("embedded".into(), "SANDBOX_ENGINE".into()));
    assert_eq!(told(environment.named("unix:///x.sock", "--engine")), ("unix:///x.sock".into(), "--engine".into()));
}

#[test]
fn docker_is_found_as_its_own_command_finds_it() {
    let (home, mut environment) = home();
    let docker = |environment: &Environment| told(environment.named("docker", "--engine"));
    assert_eq!(docker(&environment), ("unix:///default.sock".into(), "Docker's default socket".into()));

    let rootless = touch(&home, "docker.sock");
    assert_eq!(docker(&environment), (format!("unix://{}", rootless.display()), "Docker's rootless socket".into()));

    fs::write(home.path().join(".docker/config.json"), r#"{"auths":{},"currentContext":"lab"}"#).unwrap();
    assert_eq!(docker(&environment), ("unix:///lab.sock".into(), "the docker context \"lab\"".into()));

    environment.docker_context = Some("default".into());
    assert_eq!(docker(&environment).1, "Docker's rootless socket");

    environment.docker_host = Some("unix:///host.sock".into());
    assert_eq!(docker(&environment), ("unix:///host.sock".into(), "DOCKER_HOST".into()));
}

#[test]
fn podman_is_found_as_its_own_command_finds_it() {
    let (home, mut environment) = home();
    let podman = |environment: &Environment| told(environment.named("podman", "--engine"));
    assert_eq!(podman(&environment), ("unix:///podman.sock".into(), "Podman's default socket".into()));
    let rootless = touch(&home, "podman/podman.sock");
    assert_eq!(podman(&environment), (format!("unix://{}", rootless.display()), "Podman's rootless socket".into()));
    environment.container_host = Some("unix:///host.sock".into());
    assert_eq!(podman(&environment), ("unix:///host.sock".into(), "CONTAINER_HOST".into()));
}

#[test]
fn each_engine_of_a_machine_is_found_once() {
    let (home, mut environment) = home();
    let docker = touch(&home, "docker.sock");
    let podman = touch(&home, "podman/podman.sock");
    environment.docker_host = Some(format!("unix://{}", docker.display()).into());
    let found: Vec<_> = environment.sockets().into_iter().map(|choice| told(Ok(choice))).collect();
    let shown = |path: &Path| format!("unix://{}", path.display());
    assert_eq!(
        found,
        [(shown(&docker), "DOCKER_HOST".into()), (shown(&podman), "Podman's rootless socket".to_owned())]
    );
}

#[test]
fn state_lies_where_it_belongs() {
    let (home, mut environment) = home();
    let state = |environment: &Environment| match environment.embedded("x").unwrap().engine {
        EngineAt::Embedded(state) => state,
        EngineAt::Endpoint(endpoint) => panic!("{endpoint}"),
    };
    let is_root = rustix::process::geteuid().is_root();
    let expected = if is_root { "system" } else { ".local/share/sandbox" };
    assert_eq!(state(&environment), home.path().join(expected));
    environment.sandbox_state = Some("/elsewhere".into());
    assert_eq!(state(&environment), Path::new("/elsewhere"));
}

#[test]
fn what_is_broken_is_named() {
    let (home, mut environment) = home();
    environment.docker_context = Some("nowhere".into());
    assert!(environment.engine().unwrap_err().message.contains("\"nowhere\" does not exist"));

    environment.docker_context = None;
    fs::write(home.path().join(".docker/config.json"), "{").unwrap();
    assert!(environment.named("docker", "--engine").unwrap_err().message.contains("config.json"));

    environment.docker_host = Some("what://127.0.0.1:1".into());
    let failure = environment.engine().unwrap_err();
    assert!(failure.message.contains("DOCKER_HOST"), "{failure:?}");
    assert!(failure.hint.is_some());
    let failure = environment.named("lxc", "--engine").unwrap_err();
    assert!(failure.message.contains("\"lxc\"") && failure.message.contains("embedded, docker, podman"), "{failure:?}");
}

#[test]
fn certificates_are_those_that_dockers_own_command_would_take() {
    let (home, mut environment) = home();
    let choice = |environment: &Environment, address: &str| environment.named(address, "--engine").unwrap().engine;
    let at = |directory: &Path| {
        let endpoint: Endpoint = "tcp://engine.example:2376".parse().unwrap();
        EngineAt::Endpoint(endpoint.with_certificates(directory))
    };
    let address = "tcp://engine.example:2376";
    assert_eq!(choice(&environment, address), EngineAt::Endpoint(address.parse().unwrap()));
    environment.docker_tls_verify = Some("1".into());
    assert_eq!(choice(&environment, address), at(&home.path().join(".docker")));
    environment.docker_cert_path = Some("/certificates".into());
    assert_eq!(choice(&environment, address), at(Path::new("/certificates")));
    // A socket and ssh have no use for them.
    for address in ["unix:///x.sock", "ssh://me@there"] {
        assert_eq!(choice(&environment, address), EngineAt::Endpoint(address.parse().unwrap()));
    }
    // A context brings its own.
    environment.docker_tls_verify = None;
    let contexts = home.path().join(".docker/contexts");
    let context = r#"{"Name":"far","Endpoints":{"docker":{"Host":"tcp://engine.example:2376"}}}"#;
    fs::create_dir_all(contexts.join("meta/4567")).unwrap();
    fs::write(contexts.join("meta/4567/meta.json"), context).unwrap();
    fs::create_dir_all(contexts.join("tls/4567/docker")).unwrap();
    environment.docker_context = Some("far".into());
    assert_eq!(choice(&environment, "docker"), at(&contexts.join("tls/4567/docker")));
}
