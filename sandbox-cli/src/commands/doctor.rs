//! `doctor`: which engine is used, which others there are, and what each can enforce.

mod versions;

use std::path::Path;

use sandbox_core::{Gateway as _, Runtime, own_capabilities};
use sandbox_policy::{
    AddressRule, Capabilities, Control, Egress, EgressRule, Isolation, Policy, SandboxRequest, Support, Violation,
};
use sandbox_runtime::EgressProxy;
use serde::Serialize;

use crate::config::{Choice, Config};
use crate::exit;
use crate::failure::{Failure, Result};
use crate::inspection::EngineView;
use crate::render::{escaped, table};
use versions::Installed;

pub(super) async fn run(config: &Config) -> Result<u8> {
    let address = config.engine()?;
    let runtime = address.connect_anew(config).await?;
    let capabilities = capabilities(&*runtime);
    let run_root = config.run_root.ensure();
    let mut others = Vec::new();
    for other in config.other_engines(&address) {
        others.push(Other::look(config, &other).await?);
    }
    let engines = std::iter::once(runtime.info().into()).chain(others.iter().filter_map(|other| other.engine.clone()));
    let mut versions = versions::installed().await;
    let engines: Vec<EngineView> = engines.filter(|engine: &EngineView| engine.name != "embedded").collect();
    versions.extend(engines.iter().map(|engine| Installed::new(&engine.name, &engine.version, &engine.endpoint)));
    for choice in std::iter::once(address.clone()).chain(config.other_engines(&address)) {
        others.extend(Other::with_gvisor(config, &choice).await?);
    }
    let diagnosis = Diagnosis {
        engine: runtime.info().into(),
        found_by: address.found_by,
        cgroup_version: cgroup_version(),
        run_root: config.run_root.path().display().to_string(),
        run_root_problem: run_root.err().map(|error| error.to_string()),
        missing: missing(&capabilities)?,
        controls: controls(&capabilities),
        others,
        versions,
        internal: internal(&config.policy(None, &[])?.policy),
    };
    config.screen.answer(&diagnosis, || diagnosis.text())?;
    Ok(if diagnosis.is_ready() { 0 } else { exit::FAILED })
}

/// What holds with an engine: the guest, the sandbox's task and the gateways are there with each.
fn capabilities(runtime: &dyn Runtime) -> Capabilities {
    runtime.capabilities().join(&own_capabilities()).join(&EgressProxy::new().capabilities())
}

/// What keeps a sandbox under the standard policy from being granted here.
fn missing(capabilities: &Capabilities) -> Result<Vec<Violation>> {
    let image = "debian:12".parse().map_err(|error: sandbox_policy::ParseError| {
        Failure::new(sandbox_core::ErrorKind::InvalidInput, error.to_string())
    })?;
    let checked = Policy::standard().check(&SandboxRequest::new(image), capabilities);
    Ok(checked.err().map(|error| error.violations().to_vec()).unwrap_or_default())
}

fn controls(capabilities: &Capabilities) -> Vec<ControlRow> {
    let row = |control: &Control| match capabilities.get(*control) {
        Some(Support::Enforced { by }) => {
            ControlRow { control: *control, state: "enforced", detail: by.clone(), hint: None }
        }
        Some(Support::Unsupported { why, hint }) => {
            ControlRow { control: *control, state: "unsupported", detail: why.clone(), hint: Some(hint.clone()) }
        }
        _ => ControlRow { control: *control, state: "absent", detail: "nothing here offers it".to_owned(), hint: None },
    };
    Control::ALL.iter().map(row).collect()
}

/// The addresses beside public ones that rules name.
fn internal(policy: &Policy) -> Vec<Internal> {
    let Egress::Allowlist { lists, addresses: AddressRule::Named } = policy.egress() else { return Vec::new() };
    let rules = lists.iter().flat_map(|list| &list.rules).filter(|rule| !rule.addresses().is_empty());
    let named = |rule: &EgressRule| rule.addresses().iter().map(ToString::to_string).collect();
    rules.map(|rule| Internal { host: rule.host().to_string(), addresses: named(rule) }).collect()
}

/// A host that may be at an address which is not public.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Internal {
    host: String,
    addresses: Vec<String>,
}

/// The kernel mounts version 2 alone with this file at its root (cgroups(7)).
fn cgroup_version() -> u8 {
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { 2 } else { 1 }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Diagnosis {
    engine: EngineView,
    found_by: String,
    cgroup_version: u8,
    run_root: String,
    run_root_problem: Option<String>,
    missing: Vec<Violation>,
    controls: Vec<ControlRow>,
    others: Vec<Other>,
    versions: Vec<Installed>,
    internal: Vec<Internal>,
}

/// An engine that is there, and is not the one that is used.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Other {
    place: String,
    found_by: String,
    engine: Option<EngineView>,
    /// Why it cannot be used.
    problem: Option<String>,
    missing: Vec<Violation>,
    controls: Vec<ControlRow>,
}

impl Other {
    async fn look(config: &Config, choice: &Choice) -> Result<Self> {
        let (place, found_by) = (choice.place(), choice.found_by.clone());
        Ok(match choice.connect_anew(config).await {
            Ok(runtime) => {
                let capabilities = capabilities(&*runtime);
                let (engine, missing) = (Some(runtime.info().into()), missing(&capabilities)?);
                Self { place, found_by, engine, problem: None, missing, controls: controls(&capabilities) }
            }
            Err(failure) => {
                let (missing, controls) = (Vec::new(), Vec::new());
                Self { place, found_by, engine: None, problem: Some(failure.message.clone()), missing, controls }
            }
        })
    }

    /// The same engine with sandboxes on gVisor, if it has that.
    async fn with_gvisor(config: &Config, choice: &Choice) -> Result<Option<Self>> {
        let Ok(runtime) = choice.connect_for(config, Isolation::Gvisor).await else { return Ok(None) };
        let capabilities = capabilities(&*runtime);
        if !capabilities.is_enforced(Control::Isolation) {
            return Ok(None);
        }
        Ok(Some(Self {
            place: format!("{}, with --isolation gvisor", choice.place()),
            found_by: choice.found_by.clone(),
            engine: Some(runtime.info().into()),
            problem: None,
            missing: missing(&capabilities)?,
            controls: controls(&capabilities),
        }))
    }

    fn text(&self) -> String {
        let head = format!("also here: {} (found by {})", escaped(&self.place), escaped(&self.found_by));
        let (Some(engine), None) = (&self.engine, &self.problem) else {
            return format!("\n{head}: {}\n", escaped(self.problem.as_deref().unwrap_or_default()));
        };
        format!("\n{head}: {} {}\n\n{}", escaped(&engine.name), escaped(&engine.version), matrix(&self.controls))
    }
}

/// Control by control: what holds and by what, or why not and what to do.
fn matrix(controls: &[ControlRow]) -> String {
    let rows: Vec<_> =
        controls.iter().map(|row| [row.control.to_string(), row.state.to_owned(), row.detail.clone()]).collect();
    let hints = controls.iter().filter_map(|row| Some((row.control, row.hint.as_ref()?)));
    let hints: Vec<String> = hints.map(|(control, hint)| format!("hint: {control}: {}\n", escaped(hint))).collect();
    format!("{}\n{}", table(["control", "state", "by or why"], &rows), hints.concat())
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct ControlRow {
    control: Control,
    state: &'static str,
    detail: String,
    hint: Option<String>,
}

impl Diagnosis {
    fn is_ready(&self) -> bool {
        self.missing.is_empty() && self.run_root_problem.is_none()
    }

    fn text(&self) -> String {
        let EngineView { name, version, api, endpoint } = &self.engine;
        let problem = self.run_root_problem.as_ref().map_or_else(|| "usable".to_owned(), |problem| escaped(problem));
        let mut lines = vec![format!(
            "engine:    {} {}, API {}, at {}\nfound by:  {}\ncgroups:   version {}\nrun root:  {} ({problem})\n\n{}",
            escaped(name),
            escaped(version),
            escaped(api),
            escaped(endpoint),
            escaped(&self.found_by),
            self.cgroup_version,
            escaped(&self.run_root),
            matrix(&self.controls),
        )];
        lines.extend(self.others.iter().map(Other::text));
        lines.push("\n".to_owned());
        lines.extend(self.versions.iter().map(Installed::text));
        lines.extend(self.internal.iter().map(|Internal { host, addresses }| {
            format!("internal: your policy lets sandboxes reach {host} at {}\n", addresses.join(", "))
        }));
        let waivers: Vec<String> = self
            .missing
            .iter()
            .filter_map(|violation| match violation {
                Violation::Unenforceable { control, .. } => Some(format!("--waive {control}")),
                _ => None,
            })
            .collect();
        if self.is_ready() {
            lines.push("ready: the policy `standard` can be enforced here".to_owned());
        } else if waivers.is_empty() {
            lines.push("not ready: see the run root".to_owned());
        } else {
            lines.push(format!("not ready: the policy `standard` would need {}", waivers.join(" ")));
        }
        lines.concat()
    }
}
