//! What Podman says of itself and of its containers.
//!
//! In Docker's words it claims every limit and never says that it is rootless, so this asks for its own report
//! (<https://docs.podman.io/en/latest/_static/api.html#tag/system/operation/SystemInfoLibpod>). Of containers it may use
//! words that Docker does not have, and those are put into Docker's.

mod create;

use bollard::models::{ContainerInspectResponse, ContainerSummary};
use sandbox_core::{ContainerId, Error, ErrorKind, LABEL_SANDBOX, Result, RuntimeInfo};
use sandbox_policy::{Capabilities, Control, Isolation, Support};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::connect::Ids;
use super::error::{Answer, senseless};
use super::probe::{self, seccomp_by};
use super::{Endpoint, INSPECT, ownership, raw};

pub(crate) use create::{How, Users, create};

/// Looks at a container. Where it should be on gVisor, Podman is asked in its own words whose container it is: Docker's
/// field for that holds the same word always.
pub(crate) async fn inspect(
    endpoint: &Endpoint,
    what: &str,
    container: &ContainerId,
    isolation: Isolation,
) -> Result<ContainerInspectResponse, Answer> {
    let id = container.as_str();
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
        return Err(Error::new(ErrorKind::InvalidInput, format!("{id:?} is no container's id")).into());
    }
    let mut answer = raw::get(endpoint, INSPECT, what, &format!("/v1.41/containers/{id}/json")).await?;
    if let Some(status) = answer.pointer_mut("/State/Status") {
        put_into_dockers_words(status);
    }
    if isolation == Isolation::Gvisor {
        let own = raw::get(endpoint, INSPECT, what, &format!("/v4.0.0/libpod/containers/{id}/json")).await?;
        if let (Some(runtime), Some(said)) = (own.get("OCIRuntime"), answer.pointer_mut("/HostConfig/Runtime")) {
            *said = runtime.clone();
        }
    }
    parse(answer, "what it says of a container").map_err(Answer::from)
}

/// Lists the containers that carry a sandbox's label.
pub(crate) async fn list(endpoint: &Endpoint, what: &str) -> Result<Vec<ContainerSummary>, Answer> {
    // {"label":["dev.sandbox.id"]}
    let path = format!("/v1.41/containers/json?all=true&filters=%7B%22label%22%3A%5B%22{LABEL_SANDBOX}%22%5D%7D");
    let mut answer = raw::get(endpoint, INSPECT, what, &path).await?;
    for container in answer.as_array_mut().into_iter().flatten() {
        container.get_mut("State").into_iter().for_each(put_into_dockers_words);
    }
    parse(answer, "its list of containers").map_err(Answer::from)
}

fn parse<T: DeserializeOwned>(answer: Value, what: &str) -> Result<T> {
    serde_json::from_value(answer).map_err(|error| senseless(what).with_source(error))
}

/// Podman's states are those of
/// <https://github.com/containers/podman/blob/v4.3.1/libpod/define/containerstate.go>.
fn put_into_dockers_words(state: &mut Value) {
    let word = match state.as_str() {
        Some("configured" | "initialized") => "created",
        Some("stopped") => "exited",
        Some("unknown") => "dead",
        _ => return,
    };
    *state = word.into();
}

/// Podman's report, as far as it is needed.
#[derive(Debug, Deserialize)]
pub(crate) struct Info {
    host: Host,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Host {
    cgroup_manager: String,
    cgroup_version: String,
    #[serde(default)]
    cgroup_controllers: Vec<String>,
    id_mappings: Mappings,
    oci_runtime: OciRuntime,
    security: Security,
}

#[derive(Debug, Deserialize)]
struct Mappings {
    uidmap: Option<Vec<Mapping>>,
    gidmap: Option<Vec<Mapping>>,
}

#[derive(Debug, Deserialize)]
struct Mapping {
    container_id: u32,
    host_id: u32,
    #[serde(default)]
    size: u32,
}

#[derive(Debug, Deserialize)]
struct OciRuntime {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Security {
    capabilities: String,
    rootless: bool,
    seccomp_enabled: bool,
}

impl Info {
    /// Asks for the report.
    pub(crate) async fn ask(endpoint: &Endpoint) -> Result<Self> {
        let answer = raw::get(endpoint, INSPECT, "ask the engine what it can do", "/v4.0.0/libpod/info").await;
        parse(answer.map_err(Answer::into_error)?, "its report is none of Podman's")
    }

    /// Finds who is root inside on the host.
    pub(crate) fn root(&self) -> Ids {
        let outside = |map: &Option<Vec<Mapping>>| {
            let root = map.iter().flatten().find(|mapping| mapping.container_id == 0);
            root.map_or(0, |mapping| mapping.host_id)
        };
        let Mappings { uidmap, gidmap } = &self.host.id_mappings;
        Ids { uid: outside(uidmap), gid: outside(gidmap) }
    }

    /// Says how ids of containers are ids of the host.
    pub(crate) fn ids(&self) -> ownership::Ids {
        if !self.host.security.rootless {
            return ownership::Ids::Shifted;
        }
        let ranges = |map: &Option<Vec<Mapping>>| {
            let all = map.iter().flatten();
            all.map(|&Mapping { container_id, host_id, size }| ownership::Range {
                inside: container_id,
                outside: host_id,
                length: size,
            })
            .collect()
        };
        let Mappings { uidmap, gidmap } = &self.host.id_mappings;
        ownership::Ids::Ranges { users: ranges(uidmap), groups: ranges(gidmap) }
    }

    /// Names the capabilities of a container from which nothing is dropped, without `CAP_`.
    pub(crate) fn granted(&self) -> Vec<String> {
        let names = self.host.security.capabilities.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(|name| name.trim_start_matches("CAP_").to_owned()).collect()
    }

    /// Reports on each control that Podman can enforce.
    pub(crate) fn capabilities(&self, runtime: &RuntimeInfo) -> Capabilities {
        let engine = format!("Podman {}", runtime.version);
        let by = |what: &str| Support::Enforced { by: format!("{engine}, {what}") };
        let Security { rootless, seccomp_enabled, capabilities: _ } = self.host.security;
        let user_namespace = if rootless { by("rootless") } else { probe::no_user_namespace() };
        let seccomp = seccomp_by(seccomp_enabled, &self.host.oci_runtime.name, by);
        let limit = |controller: &str| match self.lacks(controller) {
            Some(why) => probe::no_limit(why),
            None => by(&format!("cgroup {}", self.host.cgroup_version)),
        };
        Capabilities::new()
            .with(Control::CapabilityDrop, by("capability sets"))
            .with(Control::Cpu, limit("cpu"))
            .with(Control::Disk, no_quota())
            .with(Control::HostFilesystem, by("mount namespace"))
            .with(Control::Memory, limit("memory"))
            .with(Control::NoNetwork, by("network namespace with nothing but lo"))
            .with(Control::NoNewPrivileges, by("no_new_privs"))
            .with(Control::Pids, limit("pids"))
            .with(Control::ReadonlyRootfs, no_writable_home())
            .with(Control::Seccomp, seccomp)
            .with(Control::UserNamespace, user_namespace)
    }

    /// Says why a limit is taken and not applied. A rootless Podman has only what systemd has delegated to its user,
    /// which takes version 2 (<https://docs.podman.io/en/latest/markdown/podman-run.1.html>, at `--memory`).
    fn lacks(&self, controller: &str) -> Option<&'static str> {
        let host = &self.host;
        if host.security.rootless && (host.cgroup_version != "v2" || host.cgroup_manager != "systemd") {
            Some("a rootless engine without delegated control groups takes limits and does not apply them")
        } else if !host.cgroup_controllers.iter().any(|name| name == controller) {
            Some("the engine has no control group controller for it")
        } else {
            None
        }
    }
}

/// Podman knows no owner of a memory file system, and runc 1.1 gives it the mode that the directory has in the image.
fn no_writable_home() -> Support {
    Support::Unsupported {
        why: "beside a read-only root, Podman gives the agent no home that it could write to".to_owned(),
        hint: "use Docker, or no engine at all".to_owned(),
    }
}

fn no_quota() -> Support {
    Support::Unsupported {
        why: "Podman is given no limit for a container's own layer".to_owned(),
        hint: "use Docker with its data on XFS mounted with pquota, or the embedded runtime".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn info(rootless: bool, version: &str, manager: &str, controllers: &[&str], runtime: &str) -> Info {
        let map =
            json!([{ "container_id": 0, "host_id": 1_000, "size": 1 }, { "container_id": 1, "host_id": 2, "size": 9 }]);
        let map = if rootless { map } else { json!(null) };
        let report = json!({ "host": {
            "cgroupManager": manager,
            "cgroupVersion": version,
            "cgroupControllers": controllers,
            "idMappings": { "uidmap": map, "gidmap": map },
            "ociRuntime": { "name": runtime },
            "security": { "capabilities": "CAP_CHOWN,CAP_KILL", "rootless": rootless, "seccompEnabled": true },
        }});
        parse(report, "report").unwrap()
    }

    fn lacking(info: &Info) -> Vec<Control> {
        let runtime = RuntimeInfo {
            name: "podman".to_owned(),
            version: "4.3.1".to_owned(),
            api: "1.41".to_owned(),
            endpoint: String::new(),
            root_uid: 0,
            root_gid: 0,
        };
        let capabilities = info.capabilities(&runtime);
        assert_eq!(capabilities.iter().count(), 11);
        capabilities.iter().map(|(control, _)| control).filter(|control| !capabilities.is_enforced(*control)).collect()
    }

    const ALL: [&str; 3] = ["cpu", "memory", "pids"];

    #[test]
    fn limits_hold_where_there_is_a_controller_that_is_ours_to_use() {
        use Control::{Cpu, Disk, Memory, Pids, ReadonlyRootfs, Seccomp, UserNamespace};

        assert_eq!(lacking(&info(false, "v1", "cgroupfs", &ALL, "runc")), [Disk, ReadonlyRootfs, UserNamespace]);
        assert_eq!(
            lacking(&info(false, "v2", "systemd", &["cpu", "memory"], "crun")),
            [Disk, Pids, ReadonlyRootfs, UserNamespace]
        );
        assert_eq!(lacking(&info(true, "v2", "systemd", &ALL, "crun")), [Disk, ReadonlyRootfs]);
        for (version, manager) in [("v1", "systemd"), ("v2", "cgroupfs")] {
            assert_eq!(lacking(&info(true, version, manager, &ALL, "crun")), [Cpu, Disk, Memory, Pids, ReadonlyRootfs]);
        }
        assert_eq!(lacking(&info(true, "v2", "systemd", &ALL, "runsc")), [Disk, ReadonlyRootfs, Seccomp]);
    }

    #[test]
    fn root_is_who_the_map_says() {
        assert_eq!(info(false, "v1", "cgroupfs", &[], "runc").root(), Ids { uid: 0, gid: 0 });
        assert_eq!(info(true, "v1", "cgroupfs", &[], "runc").root(), Ids { uid: 1_000, gid: 1_000 });
    }

    #[test]
    fn what_is_granted_is_named_as_elsewhere() {
        assert_eq!(info(false, "v1", "cgroupfs", &[], "runc").granted(), ["CHOWN", "KILL"]);
    }

    #[test]
    fn a_report_that_says_too_little_is_an_error() {
        for report in [json!({}), json!([]), json!({ "host": {} })] {
            assert_eq!(parse::<Info>(report, "report").unwrap_err().kind(), ErrorKind::Engine);
        }
    }

    #[test]
    fn each_state_has_a_word_that_docker_knows() {
        for (state, word) in [
            ("configured", "created"),
            ("initialized", "created"),
            ("running", "running"),
            ("stopped", "exited"),
            ("exited", "exited"),
            ("unknown", "dead"),
        ] {
            let mut state = json!(state);
            put_into_dockers_words(&mut state);
            assert_eq!(state, word);
        }
    }

    #[tokio::test]
    async fn an_id_that_would_be_another_question_is_not_asked() {
        for id in ["", "x/y", "x?a=b", "x HTTP/1.0", "x\r\n"] {
            let (nowhere, named) = (Endpoint::Unix("/nowhere".into()), ContainerId::new(id));
            let answer = inspect(&nowhere, "look", &named, Isolation::Standard).await.unwrap_err();
            assert_eq!(answer.into_error().kind(), ErrorKind::InvalidInput, "{id:?}");
        }
    }
}
