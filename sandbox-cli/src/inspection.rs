//! What is known of a sandbox: the report that `inspect` and `run --report` print.

use sandbox_core::{Finding, Sandbox, Verdict};
use serde::{Deserialize, Serialize};

use crate::render::{escaped, table};

/// A sandbox's report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Inspection {
    pub(crate) id: String,
    /// Seconds since 1970 at which it was ready.
    pub(crate) started: u64,
    /// The process that holds it.
    pub(crate) holder: u32,
    pub(crate) container: String,
    pub(crate) image: String,
    pub(crate) image_id: String,
    pub(crate) engine: EngineView,
    /// What the policy agreed to, as JSON of the specification.
    pub(crate) spec: serde_json::Value,
    pub(crate) controls: Vec<ControlView>,
}

/// An engine, as reports name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct EngineView {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) api: String,
    pub(crate) endpoint: String,
}

impl From<&sandbox_core::RuntimeInfo> for EngineView {
    fn from(info: &sandbox_core::RuntimeInfo) -> Self {
        let sandbox_core::RuntimeInfo { name, version, api, endpoint, root_uid: _, root_gid: _ } = info.clone();
        Self { name, version, api, endpoint }
    }
}

/// One control's line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct ControlView {
    pub(crate) control: String,
    pub(crate) asked: String,
    pub(crate) found: String,
    pub(crate) verdict: String,
    /// Why it cannot be enforced, where the policy waives it.
    pub(crate) waived_because: Option<String>,
}

impl Inspection {
    pub(crate) fn of(sandbox: &Sandbox, started: u64) -> Self {
        Self {
            id: sandbox.id().to_string(),
            started,
            holder: std::process::id(),
            container: sandbox.container().to_string(),
            image: sandbox.image().reference.to_string(),
            image_id: sandbox.image().id.clone(),
            engine: sandbox.runtime().into(),
            spec: serde_json::to_value(sandbox.spec()).unwrap_or_default(),
            controls: controls(sandbox),
        }
    }

    /// A part of the specification, such as `["workspace", "host"]`, where it is a text.
    pub(crate) fn spec_text(&self, path: &[&str]) -> Option<&str> {
        path.iter().try_fold(&self.spec, |value, key| value.get(key))?.as_str()
    }

    /// The report for people.
    pub(crate) fn text(&self) -> String {
        let workspace = match (self.spec_text(&["workspace", "host"]), self.spec_text(&["workspace", "access"])) {
            (Some(host), Some(access)) => format!("{host} ({access})"),
            (Some(host), None) => format!("{host} (copy)"),
            _ => "none".to_owned(),
        };
        let EngineView { name, version, api, endpoint } = &self.engine;
        let lines = [
            ("id", self.id.clone()),
            ("image", format!("{} ({})", self.image, self.image_id)),
            ("container", self.container.clone()),
            ("workspace", workspace),
            ("policy", self.spec_text(&["policy-name"]).unwrap_or("unknown").to_owned()),
            ("engine", format!("{name} {version}, API {api}, at {endpoint}")),
            ("holder", format!("process {}", self.holder)),
        ];
        let head = lines.map(|(key, value)| format!("{:11}{}", format!("{key}:"), escaped(&value)));
        format!("{}\n\n{}", head.join("\n"), controls_text(&self.controls))
    }
}

/// What is in force in a sandbox.
pub(crate) fn controls(sandbox: &Sandbox) -> Vec<ControlView> {
    let findings = sandbox.attestation().findings().iter();
    findings
        .map(|Finding { control, asked, found, verdict }| ControlView {
            control: control.to_string(),
            asked: asked.clone(),
            found: found.clone(),
            verdict: match verdict {
                Verdict::Differs => "differs",
                Verdict::Holds => "holds",
                Verdict::Waived => "waived",
            }
            .to_owned(),
            waived_because: sandbox.spec().waived().get(control).cloned(),
        })
        .collect()
}

/// The table of what is in force, and why what is waived is not.
pub(crate) fn controls_text(controls: &[ControlView]) -> String {
    let row = |view: &ControlView| {
        let ControlView { control, asked, found, verdict, waived_because: _ } = view.clone();
        [control, asked, found, verdict]
    };
    let rows: Vec<_> = controls.iter().map(row).collect();
    let mut lines = Vec::new();
    for ControlView { control, waived_because, .. } in controls {
        if let Some(why) = waived_because {
            lines.push(format!("waived: {control}: {}\n", escaped(why)));
        }
    }
    table(["control", "asked", "found", "verdict"], &rows) + &lines.concat()
}
