//! Which engine is used: the rules of Docker's own command, so that both speak to the same one, and after them Podman's.

use std::path::PathBuf;
use std::sync::Arc;

use sandbox_core::{ErrorKind, Runtime};
use sandbox_runtime::Endpoint;
use serde::Deserialize;

use super::{Config, Environment, read};
use crate::failure::{Failure, Result};

/// Where the engine is, and who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EngineAddress {
    pub(crate) endpoint: Endpoint,
    /// `DOCKER_HOST`, `the docker context "x"`, and so on.
    pub(crate) found_by: String,
}

impl Config {
    /// Finds the engine's address: what was typed, `DOCKER_HOST`, the current docker context, the rootless socket, the
    /// default socket (<https://docs.docker.com/engine/manage-resources/contexts/>), and where there is none of these,
    /// `CONTAINER_HOST` and Podman's sockets (podman(1), podman-system-service(1)).
    pub(crate) fn engine(&self) -> Result<EngineAddress> {
        match &self.engine_socket {
            Some(address) => address_from(address, "--engine-socket".to_owned()),
            None => self.environment.engine(),
        }
    }

    /// Connects to the engine, whichever product it is.
    pub(crate) async fn connect(&self) -> Result<Arc<dyn Runtime>> {
        Ok(sandbox_runtime::connect(self.engine()?.endpoint).await?)
    }
}

impl Environment {
    fn engine(&self) -> Result<EngineAddress> {
        if let Some(host) = &self.docker_host {
            return address_from(&host.to_string_lossy(), "DOCKER_HOST".to_owned());
        }
        if let Some(name) = self.current_context()? {
            let address = self.context(&name)?;
            return address_from(&address, format!("the docker context {name:?}"));
        }
        let at = |socket: PathBuf, found_by: &str| EngineAddress {
            endpoint: Endpoint::Unix(socket),
            found_by: found_by.to_owned(),
        };
        let rootless = |name: &str| {
            let socket = self.xdg_runtime_dir.as_ref().map(|directory| PathBuf::from(directory).join(name));
            socket.filter(|socket| socket.exists())
        };
        let default = || at(self.default_socket.clone(), "the default socket");
        if let Some(socket) = rootless("docker.sock") {
            return Ok(at(socket, "the rootless socket"));
        }
        if self.default_socket.exists() {
            return Ok(default());
        }
        if let Some(host) = &self.container_host {
            return address_from(&host.to_string_lossy(), "CONTAINER_HOST".to_owned());
        }
        if let Some(socket) = rootless("podman/podman.sock") {
            return Ok(at(socket, "Podman's rootless socket"));
        }
        if self.podman_socket.exists() {
            return Ok(at(self.podman_socket.clone(), "Podman's socket"));
        }
        Ok(default())
    }

    /// The name of the current context, unless it is the one that means the default socket.
    fn current_context(&self) -> Result<Option<String>> {
        let name = match &self.docker_context {
            Some(name) => Some(name.to_string_lossy().into_owned()),
            None => self.configured_context()?,
        };
        Ok(name.filter(|name| !name.is_empty() && name != "default"))
    }

    fn configured_context(&self) -> Result<Option<String>> {
        let Some(path) = self.docker_directory().map(|directory| directory.join("config.json")) else {
            return Ok(None);
        };
        let unusable = || Failure::new(ErrorKind::InvalidInput, format!("cannot read {}", path.display()));
        let Some(text) = read(&path).map_err(|error| unusable().with_cause(error))? else { return Ok(None) };
        let settings: DockerSettings = serde_json::from_str(&text).map_err(|error| unusable().with_cause(error))?;
        Ok(settings.current_context)
    }

    /// The address in a context, which is found by the name that its file holds.
    fn context(&self, name: &str) -> Result<String> {
        let unknown = || {
            Failure::new(ErrorKind::NotFound, format!("the docker context {name:?} does not exist"))
                .with_hint("`docker context ls` lists them; --engine-socket names a socket without one")
        };
        let directory = self.docker_directory().ok_or_else(unknown)?.join("contexts/meta");
        let entries = std::fs::read_dir(&directory).map_err(|_| unknown())?;
        for entry in entries.flatten() {
            let Ok(Some(text)) = read(&entry.path().join("meta.json")) else { continue };
            let Ok(context) = serde_json::from_str::<Context>(&text) else { continue };
            if context.name == name {
                let endpoint = context.endpoints.docker.and_then(|docker| docker.host);
                return endpoint.ok_or_else(|| {
                    Failure::new(ErrorKind::InvalidInput, format!("the docker context {name:?} names no engine"))
                });
            }
        }
        Err(unknown())
    }

    fn docker_directory(&self) -> Option<PathBuf> {
        let home = || self.home.as_ref().map(|home| PathBuf::from(home).join(".docker"));
        self.docker_config.as_ref().map(PathBuf::from).or_else(home)
    }
}

fn address_from(text: &str, found_by: String) -> Result<EngineAddress> {
    match text.parse() {
        Ok(endpoint) => Ok(EngineAddress { endpoint, found_by }),
        Err(error) => {
            let mut failure = Failure::from(error);
            failure.message = format!("{} (from {found_by})", failure.message);
            Err(failure)
        }
    }
}

#[derive(Debug, Deserialize)]
struct DockerSettings {
    #[serde(rename = "currentContext")]
    current_context: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Context {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Endpoints")]
    endpoints: Endpoints,
}

#[derive(Debug, Deserialize)]
struct Endpoints {
    docker: Option<Docker>,
}

#[derive(Debug, Deserialize)]
struct Docker {
    #[serde(rename = "Host")]
    host: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn home() -> (TempDir, Environment) {
        let home = tempfile::tempdir().unwrap();
        let environment = Environment {
            home: Some(home.path().into()),
            xdg_runtime_dir: Some(home.path().into()),
            default_socket: "/default.sock".into(),
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

    fn found(environment: &Environment) -> (String, String) {
        let EngineAddress { endpoint, found_by } = environment.engine().unwrap();
        (endpoint.to_string(), found_by)
    }

    #[test]
    fn the_order_is_that_of_docker() {
        let (home, mut environment) = home();
        assert_eq!(found(&environment), ("unix:///default.sock".into(), "the default socket".into()));

        let rootless = home.path().join("docker.sock");
        fs::write(&rootless, "").unwrap();
        assert_eq!(found(&environment), (format!("unix://{}", rootless.display()), "the rootless socket".into()));

        fs::write(home.path().join(".docker/config.json"), r#"{"auths":{},"currentContext":"lab"}"#).unwrap();
        assert_eq!(found(&environment), ("unix:///lab.sock".into(), "the docker context \"lab\"".into()));

        environment.docker_context = Some("default".into());
        assert_eq!(found(&environment).1, "the rootless socket");

        environment.docker_host = Some("unix:///host.sock".into());
        assert_eq!(found(&environment), ("unix:///host.sock".into(), "DOCKER_HOST".into()));
    }

    #[test]
    fn podman_is_found_where_there_is_no_docker() {
        let (home, mut environment) = home();
        let touch = |name: &str| {
            let path = home.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            path
        };
        environment.podman_socket = touch("system.sock");
        assert_eq!(found(&environment).1, "Podman's socket");

        let rootless = touch("podman/podman.sock");
        assert_eq!(found(&environment), (format!("unix://{}", rootless.display()), "Podman's rootless socket".into()));

        environment.container_host = Some("unix:///host.sock".into());
        assert_eq!(found(&environment), ("unix:///host.sock".into(), "CONTAINER_HOST".into()));
        environment.container_host = Some("ssh://somewhere".into());
        assert!(environment.engine().unwrap_err().message.contains("CONTAINER_HOST"));

        environment.default_socket = touch("default.sock");
        assert_eq!(found(&environment).1, "the default socket");
        touch("docker.sock");
        assert_eq!(found(&environment).1, "the rootless socket");
    }

    #[test]
    fn what_is_broken_is_named() {
        let (home, mut environment) = home();
        environment.docker_context = Some("nowhere".into());
        assert!(environment.engine().unwrap_err().message.contains("\"nowhere\" does not exist"));

        environment.docker_context = None;
        fs::write(home.path().join(".docker/config.json"), "{").unwrap();
        assert!(environment.engine().unwrap_err().message.contains("config.json"));

        environment.docker_host = Some("tcp://127.0.0.1:1".into());
        let failure = environment.engine().unwrap_err();
        assert!(failure.message.contains("DOCKER_HOST"), "{failure:?}");
        assert!(failure.hint.is_some());
    }
}
