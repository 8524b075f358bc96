//! Which engine is used: none at all unless one is named; and which ones this machine has.
//!
//! Docker is found by the rules of its own command, so that both speak to the same one, and Podman by those of its own.

mod connect;

use std::path::PathBuf;

use sandbox_core::ErrorKind;
use sandbox_runtime::Endpoint;
use serde::Deserialize;

use super::{Config, Environment, read};
use crate::failure::{Failure, Result};

/// An engine, and who said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) engine: EngineAt,
    /// `DOCKER_HOST`, `the docker context "x"`, and so on.
    pub(crate) found_by: String,
}

/// Where an engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EngineAt {
    /// In this process, with its images and containers in a directory.
    Embedded(PathBuf),
    /// Behind an address.
    Endpoint(Endpoint),
}

impl Config {
    /// The engine that sandboxes are made with: what `--engine` names, else `SANDBOX_ENGINE`, `DOCKER_HOST`,
    /// `DOCKER_CONTEXT` or `CONTAINER_HOST`, else the embedded one. An engine that merely runs here is not named by anybody.
    pub(crate) fn engine(&self) -> Result<Choice> {
        match &self.engine {
            Some(name) => self.environment.named(name, "--engine"),
            None => self.environment.engine(),
        }
    }

    /// The engines in which a sandbox may be that was made by this user: the one that is named, and where none is, all
    /// that are found here.
    pub(crate) fn engines(&self) -> Result<Vec<Choice>> {
        let chosen = self.engine()?;
        if self.engine.is_some() || chosen.found_by != BY_DEFAULT {
            return Ok(vec![chosen]);
        }
        Ok(std::iter::once(chosen).chain(self.environment.sockets()).collect())
    }
}

impl Config {
    /// Every other engine of this machine than the one that is used.
    pub(crate) fn other_engines(&self, used: &Choice) -> Vec<Choice> {
        let all = self.environment.embedded(BY_DEFAULT).into_iter().chain(self.environment.sockets());
        all.filter(|other| other.engine != used.engine).collect()
    }
}

impl Choice {
    fn with_certificates(mut self, directory: PathBuf) -> Self {
        if let EngineAt::Endpoint(endpoint) = self.engine {
            self.engine = EngineAt::Endpoint(endpoint.with_certificates(directory));
        }
        self
    }

    /// Where it is, for people.
    pub(crate) fn place(&self) -> String {
        match &self.engine {
            EngineAt::Embedded(state) => format!("embedded, in {}", state.display()),
            EngineAt::Endpoint(endpoint) => endpoint.to_string(),
        }
    }
}

/// What names the engine where nothing else does.
const BY_DEFAULT: &str = "default";

impl Environment {
    fn engine(&self) -> Result<Choice> {
        let text = |value: &std::ffi::OsString| value.to_string_lossy().into_owned();
        if let Some(name) = &self.sandbox_engine {
            return self.named(&text(name), "SANDBOX_ENGINE");
        }
        if self.docker_host.is_some() || self.docker_context.is_some() {
            return self.docker();
        }
        match &self.container_host {
            Some(host) => self.address_from(&text(host), "CONTAINER_HOST".to_owned()),
            None => self.embedded(BY_DEFAULT),
        }
    }

    /// Understands `embedded`, `docker`, `podman`, or an address.
    fn named(&self, name: &str, found_by: &str) -> Result<Choice> {
        match name {
            "embedded" => self.embedded(found_by),
            "docker" => self.docker(),
            "podman" => self.podman(),
            address if address.contains("://") => self.address_from(address, found_by.to_owned()),
            _ => Err(Failure::new(
                ErrorKind::InvalidInput,
                format!("engine {name:?} is not known (from {found_by}): embedded, docker, podman and addresses are"),
            )
            .with_hint("write an address as unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST")),
        }
    }

    /// Root's state is the machine's (hier(7)); that of a user lies where programs keep their data
    /// (<https://specifications.freedesktop.org/basedir/latest/>).
    pub(super) fn state(&self) -> Option<PathBuf> {
        let of_user = || {
            let home = || self.home.as_ref().map(|home| PathBuf::from(home).join(".local/share"));
            let data = self.xdg_data_home.as_ref().map(PathBuf::from).filter(|path| path.is_absolute());
            data.or_else(home).map(|data| data.join("sandbox"))
        };
        match &self.sandbox_state {
            Some(state) => Some(PathBuf::from(state)),
            None if rustix::process::geteuid().is_root() => Some(self.system_state.clone()),
            None => of_user(),
        }
    }

    fn embedded(&self, found_by: &str) -> Result<Choice> {
        let state = self.state().ok_or_else(|| {
            Failure::new(ErrorKind::InvalidInput, "there is no place for images and containers: HOME is not set")
                .with_hint("set SANDBOX_STATE to a directory")
        })?;
        Ok(Choice { engine: EngineAt::Embedded(state), found_by: found_by.to_owned() })
    }

    /// `DOCKER_HOST`, the current context, the rootless socket, the default socket
    /// (<https://docs.docker.com/engine/manage-resources/contexts/>).
    fn docker(&self) -> Result<Choice> {
        if let Some(host) = &self.docker_host {
            return self.address_from(&host.to_string_lossy(), "DOCKER_HOST".to_owned());
        }
        if let Some(name) = self.current_context()? {
            let (address, certificates) = self.context(&name)?;
            let choice = address_from(&address, format!("the docker context {name:?}"))?;
            return Ok(match certificates {
                Some(directory) => choice.with_certificates(directory),
                None => choice,
            });
        }
        let rootless = self.rootless("docker.sock").map(|socket| at(socket, "Docker's rootless socket"));
        Ok(rootless.unwrap_or_else(|| at(self.default_socket.clone(), "Docker's default socket")))
    }

    /// `CONTAINER_HOST`, the rootless socket, the default socket (podman(1), podman-system-service(1)).
    fn podman(&self) -> Result<Choice> {
        if let Some(host) = &self.container_host {
            return self.address_from(&host.to_string_lossy(), "CONTAINER_HOST".to_owned());
        }
        let rootless = self.rootless("podman/podman.sock").map(|socket| at(socket, "Podman's rootless socket"));
        Ok(rootless.unwrap_or_else(|| at(self.podman_socket.clone(), "Podman's default socket")))
    }

    /// The engines whose usual sockets are there.
    fn sockets(&self) -> Vec<Choice> {
        let usual = [
            (self.rootless("docker.sock"), "Docker's rootless socket"),
            (Some(self.default_socket.clone()), "Docker's default socket"),
            (self.rootless("podman/podman.sock"), "Podman's rootless socket"),
            (Some(self.podman_socket.clone()), "Podman's default socket"),
        ];
        let named = [&self.docker_host, &self.container_host].into_iter().zip(["DOCKER_HOST", "CONTAINER_HOST"]);
        let named = named
            .filter_map(|(address, by)| self.address_from(&address.as_ref()?.to_string_lossy(), by.to_owned()).ok());
        let mut found: Vec<Choice> = named.collect();
        for (socket, by) in usual {
            let Some(socket) = socket.filter(|socket| socket.exists()) else { continue };
            let choice = at(socket, by);
            if found.iter().all(|other| other.engine != choice.engine) {
                found.push(choice);
            }
        }
        found
    }

    fn rootless(&self, name: &str) -> Option<PathBuf> {
        let socket = self.xdg_runtime_dir.as_ref().map(|directory| PathBuf::from(directory).join(name));
        socket.filter(|socket| socket.exists())
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

    /// Reads an address; TLS is spoken where `DOCKER_TLS_VERIFY` asks for it, with what lies in `DOCKER_CERT_PATH`
    /// (<https://docs.docker.com/engine/security/protect-access/>).
    fn address_from(&self, text: &str, found_by: String) -> Result<Choice> {
        let choice = address_from(text, found_by)?;
        if self.docker_tls_verify.is_none() {
            return Ok(choice);
        }
        let named = self.docker_cert_path.as_ref().map(PathBuf::from);
        Ok(match named.or_else(|| self.docker_directory()) {
            Some(directory) => choice.with_certificates(directory),
            None => choice,
        })
    }

    /// The address in a context, which is found by the name that its file holds, and the directory of its certificates.
    fn context(&self, name: &str) -> Result<(String, Option<PathBuf>)> {
        let unknown = || {
            Failure::new(ErrorKind::NotFound, format!("the docker context {name:?} does not exist"))
                .with_hint("`docker context ls` lists them; --engine names a socket without one")
        };
        let contexts = self.docker_directory().ok_or_else(unknown)?.join("contexts");
        let directory = contexts.join("meta");
        let entries = std::fs::read_dir(&directory).map_err(|_| unknown())?;
        for entry in entries.flatten() {
            let Ok(Some(text)) = read(&entry.path().join("meta.json")) else { continue };
            let Ok(context) = serde_json::from_str::<Context>(&text) else { continue };
            if context.name == name {
                let certificates = contexts.join("tls").join(entry.file_name()).join("docker");
                let endpoint = context.endpoints.docker.and_then(|docker| docker.host);
                let address = endpoint.ok_or_else(|| {
                    Failure::new(ErrorKind::InvalidInput, format!("the docker context {name:?} names no engine"))
                })?;
                return Ok((address, certificates.is_dir().then_some(certificates)));
            }
        }
        Err(unknown())
    }

    pub(super) fn docker_directory(&self) -> Option<PathBuf> {
        let home = || self.home.as_ref().map(|home| PathBuf::from(home).join(".docker"));
        self.docker_config.as_ref().map(PathBuf::from).or_else(home)
    }
}

fn at(socket: PathBuf, found_by: &str) -> Choice {
    Choice { engine: EngineAt::Endpoint(Endpoint::Unix(socket)), found_by: found_by.to_owned() }
}

fn address_from(text: &str, found_by: String) -> Result<Choice> {
    match text.parse() {
        Ok(endpoint) => Ok(Choice { engine: EngineAt::Endpoint(endpoint), found_by }),
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
mod tests;
