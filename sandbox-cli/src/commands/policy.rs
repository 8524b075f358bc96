//! `policy`: shows, checks and explains policies.

use sandbox_core::{ErrorKind, Gateway as _, SudoGateway, own_capabilities};
use sandbox_policy::{
    Control, DEFAULT_WORKSPACE_PATH, HostPath, ParseError, RootFilesystem, SandboxRequest, SandboxSpec, SudoRequest,
    Workspace, WorkspaceSource,
};
use sandbox_runtime::EgressProxy;
use serde::Serialize;

use crate::args::{PolicyArgs, PolicyCheckArgs, PolicyVerb, SandboxArgs};
use crate::config::{Chosen, Config, isolation, limits, network};
use crate::failure::{Failure, Result};
use crate::render::table;

pub(super) async fn run(config: &Config, verb: PolicyVerb) -> Result<u8> {
    match verb {
        PolicyVerb::Show(arguments) => {
            let policy = chosen(config, &arguments)?.policy;
            config.screen.answer(&policy, || policy.to_toml())?;
        }
        PolicyVerb::Explain(arguments) => {
            let parts = chosen(config, &arguments)?.policy.explain();
            let rows: Vec<_> =
                parts.iter().map(|part| [part.field.to_owned(), part.value.clone(), part.meaning.to_owned()]).collect();
            config.screen.answer(&parts, || table(["key", "value", "meaning"], &rows))?;
        }
        PolicyVerb::Check(arguments) => check(config, *arguments).await?,
    }
    Ok(0)
}

/// A policy that is named stands alone; without a name it is the one that `run` would use.
fn chosen(config: &Config, arguments: &PolicyArgs) -> Result<Chosen> {
    match &arguments.policy {
        Some(name) => Chosen::alone(name),
        None => config.policy(None, &[]),
    }
}

async fn check(config: &Config, PolicyCheckArgs { subject, sandbox }: PolicyCheckArgs) -> Result<()> {
    let choice = subject.as_deref().or(sandbox.policy.as_deref());
    let Chosen { policy, origin, ceiling } = config.policy(choice, &sandbox.waive)?;
    let mut request = request(&sandbox)?;
    request.network = network(&policy, &sandbox);
    if sandbox.sudo {
        request.sudo = SudoRequest::Allow;
    }
    let mut answer = Checked {
        policy: policy.name(),
        origin: origin.to_string(),
        ceiling: ceiling.map(|path| path.display().to_string()),
        engine: None,
        unchecked_because: None,
        required: Vec::new(),
        waived: Vec::new(),
    };
    match config.connect(isolation(&policy, &sandbox)).await {
        Ok(runtime) => {
            let gateways = EgressProxy::new().capabilities().join(&SudoGateway::new().capabilities());
            let capabilities = runtime.capabilities().join(&own_capabilities()).join(&gateways);
            let spec = policy.check(&request, &capabilities).map_err(sandbox_core::Error::from)?;
            answer.granted(runtime.info().endpoint.clone(), &spec);
        }
        Err(failure) => answer.unchecked_because = Some(failure.message.clone()),
    }
    config.screen.answer(&answer, || answer.text())?;
    Ok(())
}

/// The request that these arguments make; an image that is not named is one that every policy lets pass.
fn request(arguments: &SandboxArgs) -> Result<SandboxRequest> {
    let invalid = |error: ParseError| Failure::new(ErrorKind::InvalidInput, error.to_string());
    let image = arguments.image.clone().unwrap_or_else(|| format!("sha256:{}", "0".repeat(64)));
    let mut request = SandboxRequest::new(image.parse().map_err(invalid)?);
    if let Some(workspace) = &arguments.workspace {
        let path = workspace
            .path
            .canonicalize()
            .map_err(|error| Failure::io(format!("workspace {} cannot be used", workspace.path.display()), error))?;
        request.workspace = Some(Workspace::bind(
            HostPath::try_from(path).map_err(invalid)?,
            DEFAULT_WORKSPACE_PATH.parse().map_err(invalid)?,
            workspace.access,
        ));
    }
    if let Some(copied) = &arguments.copy {
        let path = copied
            .canonicalize()
            .map_err(|error| Failure::io(format!("workspace {} cannot be used", copied.display()), error))?;
        request.workspace = Some(Workspace {
            source: WorkspaceSource::Copy { host: HostPath::try_from(path).map_err(invalid)? },
            guest: DEFAULT_WORKSPACE_PATH.parse().map_err(invalid)?,
        });
    }
    if let Some(source) = &arguments.clone.clone {
        request.workspace = Some(Workspace {
            source: WorkspaceSource::Clone { source: source.clone(), history: arguments.clone.history() },
            guest: DEFAULT_WORKSPACE_PATH.parse().map_err(invalid)?,
        });
    }
    for variable in &arguments.environment {
        let name = variable.name.parse().map_err(invalid)?;
        request.environment.insert(name, variable.value.parse().map_err(invalid)?);
    }
    request.credentials = arguments.credential.iter().map(|argument| argument.name.clone()).collect();
    request.agent = arguments.user;
    request.limits = limits(arguments);
    request.root = arguments.read_only.then_some(RootFilesystem::ReadOnly);
    request.isolation = arguments.isolation;
    request.repository.clone_from(&arguments.repo);
    request.branch.clone_from(&arguments.branch);
    Ok(request)
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Checked {
    policy: String,
    origin: String,
    ceiling: Option<String>,
    /// The engine that could grant the request.
    engine: Option<String>,
    unchecked_because: Option<String>,
    required: Vec<Control>,
    waived: Vec<Control>,
}

impl Checked {
    fn granted(&mut self, engine: String, spec: &SandboxSpec) {
        self.engine = Some(engine);
        self.required = spec.required().iter().copied().collect();
        self.waived = spec.waived().keys().copied().collect();
    }

    fn text(&self) -> String {
        let words = |controls: &[Control]| {
            let words: Vec<&str> = controls.iter().map(|control| control.as_str()).collect();
            if words.is_empty() { "nothing".to_owned() } else { words.join(" ") }
        };
        let mut lines = vec![format!("policy {}, from {}: well-formed", self.policy, self.origin)];
        if let Some(ceiling) = &self.ceiling {
            lines.push(format!("tightened by {ceiling}"));
        }
        if let Some(engine) = &self.engine {
            let (required, waived) = (words(&self.required), words(&self.waived));
            lines.push(format!("granted by the engine at {engine}\nenforced: {required}\nwaived: {waived}"));
        }
        if let Some(why) = &self.unchecked_because {
            lines.push(format!("not checked against an engine: {}", crate::render::escaped(why)));
        }
        lines.join("\n")
    }
}
