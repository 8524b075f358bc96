//! Which sandbox is wanted, with every default filled in.

use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use sandbox_core::{ErrorKind, EventSink, Runtime, Sandbox, SandboxBuilder, SudoGateway};
use sandbox_policy::{
    Access, AgentUser, CloneSource, CredentialName, Egress, Isolation, LimitsRequest, NetworkRequest, NetworkRule,
    Policy, RootFilesystem, SudoRequest,
};
use sandbox_runtime::EgressProxy;

use super::credential::Credentials;
use super::upstream::Beyond;
use super::{Config, Tokens};
use crate::args::{SandboxArgs, WorkspaceDirectory};
use crate::audit::Audit;
use crate::failure::{Failure, Result};
use crate::outward::Outward;

/// A sandbox that is wanted.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) policy: Policy,
    pub(crate) audit: Option<Audit>,
    /// The way out, if the policy has one and it is wanted.
    pub(crate) egress: Option<Outward>,
    /// The proxy beyond, if there is one.
    beyond: Option<Beyond>,
    credentials: Vec<CredentialName>,
    image: String,
    /// Whom the agent runs as, where it is said.
    agent: Option<AgentUser>,
    workspace: Option<WorkspaceDirectory>,
    arguments: SandboxArgs,
    tokens: Tokens,
}

impl Config {
    /// Says what a sandbox's arguments mean here.
    pub(crate) async fn wanted(&self, arguments: &SandboxArgs) -> Result<Wanted> {
        let chosen = self.policy(arguments.policy.as_deref(), &arguments.waive)?;
        let of_machine = self.engine()?.is_embedded().then(|| sandbox_runtime::HOST_IMAGE.to_owned());
        let fallback = || {
            let named = self.environment.sandbox_image.as_ref().map(|image| image.to_string_lossy().into_owned());
            named.or(of_machine)
        };
        let image = arguments.image.clone().or_else(fallback).ok_or_else(|| {
            Failure::new(ErrorKind::InvalidInput, "no image is named")
                .with_hint("name one, as in --image debian:12, or set SANDBOX_IMAGE")
        })?;
        let workspace = arguments.workspace.clone();
        let agent = arguments.user;
        let audit = arguments.audit.as_deref().map(Audit::open).transpose()?;
        let credentials = Credentials::named(&arguments.credential)?;
        let asked = credentials.names().cloned().collect();
        let reaches = network(&chosen.policy, arguments) == NetworkRequest::Egress;
        let fetches = matches!(arguments.clone.clone, Some(CloneSource::Remote(_)));
        let beyond = if reaches || fetches { self.beyond(&arguments.beyond).await? } else { None };
        let egress = if reaches {
            let proxy = EgressProxy::new().with_credentials(credentials);
            let proxy = match beyond.clone() {
                Some(beyond) => proxy.with_upstream(beyond.upstream()),
                None => proxy,
            };
            Some(Outward { proxy, policy: self.standing(&chosen, &arguments.waive)? })
        } else {
            None
        };
        Ok(Wanted {
            policy: chosen.policy,
            audit,
            egress,
            beyond,
            credentials: asked,
            image,
            agent,
            workspace,
            arguments: arguments.clone(),
            tokens: Tokens::Missing,
        })
    }
}

impl Wanted {
    /// Takes the audit out, for the sink that writes it.
    pub(crate) fn take_audit(&mut self) -> Option<Audit> {
        self.audit.take()
    }

    /// Finds the token of the sandbox's repository, and asks GitHub about it. Returns a warning where there is none.
    pub(crate) async fn find_tokens(&mut self, config: &Config) -> Result<Option<String>> {
        let is_named = self.arguments.repo.is_some();
        if let (None, Some(CloneSource::Remote(remote))) = (&self.arguments.repo, &self.arguments.clone.clone)
            && config.github()?.server().as_ref() == Some(&(remote.host().clone(), remote.port()))
        {
            self.arguments.repo = Some(remote.repository().clone());
        }
        let Some(repository) = self.arguments.repo.as_ref().filter(|_| !self.arguments.no_token) else {
            return Ok(None);
        };
        self.tokens = config.tokens_for(&self.policy, repository).await?;
        Ok(match self.tokens {
            // What is public needs none to be cloned.
            Tokens::Missing if !is_named => None,
            Tokens::Missing => Some(format!(
                "no token is kept for {repository}, and the sandbox has none: `sandbox token setup --repo {repository}`"
            )),
            Tokens::App(_) | Tokens::NotGranted | Tokens::Personal(_) => None,
        })
    }

    /// What the sandbox is to be isolated by.
    pub(crate) fn isolation(&self) -> Isolation {
        isolation(&self.policy, &self.arguments)
    }

    /// Describes the sandbox to the library.
    pub(crate) fn builder(self, config: &Config, runtime: Arc<dyn Runtime>, sink: impl EventSink) -> SandboxBuilder {
        let Self { policy, audit: _, egress, beyond, credentials, image, agent, workspace, arguments, tokens } = self;
        let limits = limits(&arguments);
        let mut builder = Sandbox::builder()
            .shared_runtime(runtime)
            .run_root(config.run_root.clone())
            .policy(policy)
            .image(image)
            .limits(limits)
            .events(sink);
        if let Some(agent) = agent {
            builder = builder.agent(agent);
        }
        if let Some(WorkspaceDirectory { path, access }) = workspace {
            builder = builder.workspace_with(path, access);
        }
        if let Some(path) = &arguments.copy {
            builder = builder.workspace_copy(path);
        }
        if let Some(source) = &arguments.clone.clone {
            builder = builder.workspace_clone(source.clone(), arguments.clone.history());
            let mirrors = config.mirrors().map(|mirrors| match beyond {
                Some(beyond) => mirrors.with_proxy(beyond.for_mirrors()),
                None => mirrors,
            });
            if let Some(mirrors) = mirrors {
                builder = builder.mirrors(mirrors);
            }
        }
        if let Some(Outward { proxy, policy: _ }) = egress {
            builder = builder.network(NetworkRequest::Egress).gateway(proxy);
        }
        if arguments.sudo {
            builder = builder.sudo(SudoRequest::Allow).gateway(SudoGateway::new());
        }
        builder = credentials.into_iter().fold(builder, SandboxBuilder::credential);
        if arguments.read_only {
            builder = builder.root(RootFilesystem::ReadOnly);
        }
        if let Some(isolation) = arguments.isolation {
            builder = builder.isolation(isolation);
        }
        if let Some(repository) = arguments.repo {
            builder = builder.repository(repository);
        }
        builder = match tokens {
            Tokens::App(app) => builder.tokens(app),
            Tokens::Personal(personal) => builder.tokens(*personal),
            Tokens::Missing | Tokens::NotGranted => builder,
        };
        if let Some(branch) = arguments.branch {
            builder = builder.branch(branch);
        }
        arguments.environment.into_iter().fold(builder, |builder, variable| builder.env(variable.name, variable.value))
    }

    /// Says so where a user who is named can only look at a workspace that was to be written. Root inside being somebody else
    /// outside, as with a user namespace, the ids on the host say nothing.
    pub(crate) fn warning(&self, runtime: &dyn Runtime) -> Option<String> {
        let WorkspaceDirectory { path, access } = self.workspace.as_ref()?;
        if *access == Access::ReadOnly || runtime.info().root_uid != 0 {
            return None;
        }
        let (agent, data) = (self.agent?, std::fs::metadata(path).ok()?);
        let bit = if agent.uid() == data.uid() {
            0o200
        } else if agent.gid() == data.gid() {
            0o020
        } else {
            0o002
        };
        (data.mode() & bit == 0).then(|| {
            let (path, uid, gid) = (path.display(), data.uid(), data.gid());
            format!("the agent {agent} cannot write the workspace {path}, which belongs to {uid}:{gid}; see --user")
        })
    }
}

/// Whether there is a way out: where the policy has one, unless it is not wanted.
pub(crate) fn network(policy: &Policy, arguments: &SandboxArgs) -> NetworkRequest {
    let none = arguments.no_network || policy.network() == NetworkRule::None || *policy.egress() == Egress::None;
    if none { NetworkRequest::None } else { NetworkRequest::Egress }
}

/// The stronger of what the policy requires and what is asked for.
pub(crate) fn isolation(policy: &Policy, arguments: &SandboxArgs) -> Isolation {
    arguments.isolation.map_or(policy.isolation(), |asked| asked.min(policy.isolation()))
}

/// What was asked of each limit.
pub(crate) fn limits(arguments: &SandboxArgs) -> LimitsRequest {
    let SandboxArgs { cpus, memory, disk, processes, open_files, lifetime, .. } = *arguments;
    LimitsRequest { cpus, memory, disk, processes, open_files, lifetime }
}
