//! What was typed, and what that means on this machine: the one place that reads the environment and files.
//!
//! Everything is read when a verb needs it, so that a broken policy file keeps nobody from listing sandboxes.

mod credential;
mod engine;
mod github;
mod policy;
mod registry;
mod sandbox;
mod source;
mod upstream;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use sandbox_core::{Mirrors, RunRoot};
use secrecy::SecretString;

pub(crate) use engine::Choice;
pub(crate) use github::{TokenStores, Tokens};
pub(crate) use policy::{Chosen, Standing};
pub(crate) use sandbox::{isolation, limits, network};

use crate::args::Global;
use crate::render::{Form, Screen, Volume};

/// What holds for every verb.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) screen: Screen,
    pub(crate) run_root: RunRoot,
    engine: Option<String>,
    plain_http: Vec<String>,
    environment: Environment,
}

impl Config {
    /// Joins what was typed with the environment of this process.
    pub(crate) fn new(global: &Global) -> Self {
        let environment = Environment::read();
        let form = if global.json { Form::Json } else { Form::Text };
        let volume = if global.quiet { Volume::Quiet } else { Volume::Normal };
        Self {
            screen: Screen::new(form, volume, environment.no_color.is_some()),
            run_root: environment.run_root.as_ref().map_or_else(RunRoot::default, RunRoot::new),
            engine: global.engine.clone(),
            plain_http: global.plain_http.clone(),
            environment,
        }
    }
}

impl Config {
    /// Where the host keeps what it fetches of repositories that are cloned; none where there is no place for it.
    pub(crate) fn mirrors(&self) -> Option<Mirrors> {
        let mirrors = Mirrors::new(self.environment.state()?.join("mirrors"));
        Some(match &self.environment.ssl_cert_file {
            Some(file) => mirrors.with_authorities(file),
            None => mirrors,
        })
    }
}

/// All that is read from outside, in one place; what is set to nothing counts as unset.
#[derive(Clone, Debug, Default)]
struct Environment {
    container_host: Option<OsString>,
    docker_cert_path: Option<OsString>,
    docker_config: Option<OsString>,
    docker_context: Option<OsString>,
    docker_host: Option<OsString>,
    docker_tls_verify: Option<OsString>,
    egress_upstream: Option<OsString>,
    github: Option<OsString>,
    github_app: Option<OsString>,
    github_app_key_command: Option<OsString>,
    github_app_key_file: Option<OsString>,
    home: Option<OsString>,
    no_color: Option<OsString>,
    path: Option<OsString>,
    run_root: Option<OsString>,
    sandbox_engine: Option<OsString>,
    sandbox_image: Option<OsString>,
    sandbox_state: Option<OsString>,
    session_bus: Option<OsString>,
    ssl_cert_file: Option<OsString>,
    tokens: Option<OsString>,
    xdg_config_home: Option<OsString>,
    xdg_data_home: Option<OsString>,
    xdg_runtime_dir: Option<OsString>,
    /// The file that no policy on this machine may exceed.
    ceiling: PathBuf,
    /// The socket of a Docker that runs as root.
    default_socket: PathBuf,
    /// The socket of a Podman that runs as root.
    podman_socket: PathBuf,
    /// Where the embedded runtime keeps what is root's.
    system_state: PathBuf,
}

impl Environment {
    /// Finds a program where programs are looked for; relative places are passed over.
    fn program(&self, name: &str) -> Option<PathBuf> {
        let mut places = std::env::split_paths(self.path.as_ref()?).filter(|place| place.is_absolute());
        places.find_map(|place| Some(place.join(name)).filter(|program| program.is_file()))
    }

    fn read() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the room in which the environment is read")]
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            container_host: set("CONTAINER_HOST"),
            docker_cert_path: set("DOCKER_CERT_PATH"),
            docker_config: set("DOCKER_CONFIG"),
            docker_context: set("DOCKER_CONTEXT"),
            docker_host: set("DOCKER_HOST"),
            docker_tls_verify: set("DOCKER_TLS_VERIFY"),
            egress_upstream: set("SANDBOX_EGRESS_UPSTREAM"),
            github: set("SANDBOX_GITHUB"),
            github_app: set("SANDBOX_GITHUB_APP"),
            github_app_key_command: set("SANDBOX_GITHUB_APP_KEY_COMMAND"),
            github_app_key_file: set("SANDBOX_GITHUB_APP_KEY_FILE"),
            home: set("HOME"),
            no_color: set("NO_COLOR"),
            path: set("PATH"),
            run_root: set("SANDBOX_RUN_ROOT"),
            sandbox_engine: set("SANDBOX_ENGINE"),
            sandbox_image: set("SANDBOX_IMAGE"),
            sandbox_state: set("SANDBOX_STATE"),
            session_bus: set("DBUS_SESSION_BUS_ADDRESS"),
            ssl_cert_file: set("SSL_CERT_FILE"),
            tokens: set("SANDBOX_TOKENS"),
            xdg_config_home: set("XDG_CONFIG_HOME"),
            xdg_data_home: set("XDG_DATA_HOME"),
            xdg_runtime_dir: set("XDG_RUNTIME_DIR"),
            ceiling: "/etc/sandbox/policy.toml".into(),
            default_socket: "/var/run/docker.sock".into(),
            podman_socket: "/run/podman/podman.sock".into(),
            system_state: "/var/lib/sandbox".into(),
        }
    }
}

/// Reads a secret from a variable of this process.
fn secret_variable(name: &str) -> Option<SecretString> {
    #[expect(clippy::disallowed_methods, reason = "this is the room in which the environment is read")]
    let value = std::env::var(name).ok();
    value.filter(|value| !value.is_empty()).map(SecretString::from)
}

/// Reads a small text file; `None` if there is none.
fn read(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut text = String::new();
    let length = file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if u64::try_from(length).is_ok_and(|length| length > MAX_FILE) {
        let message = format!("it has more than {MAX_FILE} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(Some(text))
}

/// The most bytes that any file of settings may have.
const MAX_FILE: u64 = 1 << 20;
