//! What an orchestrator says to get a sandbox.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sandbox_policy::{
    Access, AgentUser, Branch, CloneSource, CredentialName, DEFAULT_WORKSPACE_PATH, Egress, EnvName, EnvValue,
    GuestPath, History, HostPath, ImageRef, Isolation, LimitsRequest, NetworkRequest, ParseError, Policy, RepoId,
    RootFilesystem, SandboxRequest, Scope, SudoRequest, Workspace, WorkspaceSource,
};

use crate::lifecycle::{self, Plan};
use crate::{
    Discard, Error, ErrorKind, EventSink, Gateway, Mirrors, Result, RunRoot, Runtime, Sandbox, SandboxId, TokenProvider,
};

/// Describes a sandbox, and starts it.
///
/// ```no_run
/// # async fn example(runtime: impl sandbox_core::Runtime) -> sandbox_core::Result<()> {
/// use sandbox_core::{Sandbox, policy::Policy};
///
/// let sandbox = Sandbox::builder()
///     .runtime(runtime)
///     .policy(Policy::standard())
///     .image("debian:12")
///     .workspace("/srv/checkouts/widget")
///     .start()
///     .await?;
/// let output = sandbox.command("cargo").args(["test"]).output().await?;
/// println!("{}", String::from_utf8_lossy(&output.stdout));
/// sandbox.destroy().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `start`"]
pub struct SandboxBuilder {
    runtime: Option<Arc<dyn Runtime>>,
    policy: Policy,
    image: Option<Result<ImageRef, ParseError>>,
    repository: Option<RepoId>,
    branch: Option<Branch>,
    workspace: Option<Asked>,
    workspace_path: Option<String>,
    agent: Option<AgentUser>,
    limits: LimitsRequest,
    root: Option<RootFilesystem>,
    isolation: Option<Isolation>,
    network: NetworkRequest,
    egress: Option<Egress>,
    credentials: BTreeSet<CredentialName>,
    sudo: SudoRequest,
    environment: Vec<(String, String)>,
    sink: Arc<dyn EventSink>,
    gateways: Vec<Arc<dyn Gateway>>,
    tokens: Option<Arc<dyn TokenProvider>>,
    mirrors: Option<Mirrors>,
    scopes: Option<BTreeSet<Scope>>,
    run_root: RunRoot,
    connect_within: Duration,
}

impl SandboxBuilder {
    pub(crate) fn new() -> Self {
        Self {
            runtime: None,
            policy: Policy::standard(),
            image: None,
            repository: None,
            branch: None,
            workspace: None,
            workspace_path: None,
            agent: None,
            limits: LimitsRequest::default(),
            root: None,
            isolation: None,
            network: NetworkRequest::None,
            egress: None,
            credentials: BTreeSet::new(),
            sudo: SudoRequest::Deny,
            environment: Vec::new(),
            sink: Arc::new(Discard),
            gateways: Vec::new(),
            tokens: None,
            mirrors: None,
            scopes: None,
            run_root: RunRoot::default(),
            connect_within: Duration::from_secs(30),
        }
    }

    /// Sets the engine.
    pub fn runtime(self, runtime: impl Runtime) -> Self {
        self.shared_runtime(Arc::new(runtime))
    }

    /// Sets the engine, which other sandboxes use as well.
    pub fn shared_runtime(mut self, runtime: Arc<dyn Runtime>) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Sets the policy; [`Policy::standard`] without it.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets the image, by name or by id.
    pub fn image(mut self, image: impl AsRef<str>) -> Self {
        self.image = Some(image.as_ref().parse());
        self
    }

    /// Sets the repository that the sandbox is for.
    pub fn repository(mut self, repository: RepoId) -> Self {
        self.repository = Some(repository);
        self
    }

    /// Sets the branch that the sandbox is for.
    pub fn branch(mut self, branch: Branch) -> Self {
        self.branch = Some(branch);
        self
    }

    /// Mounts a host directory as the workspace, for reading and writing.
    pub fn workspace(self, path: impl Into<PathBuf>) -> Self {
        self.workspace_with(path, Access::ReadWrite)
    }

    /// Mounts a host directory as the workspace.
    pub fn workspace_with(mut self, path: impl Into<PathBuf>, access: Access) -> Self {
        self.workspace = Some(Asked::Bind(path.into(), access));
        self
    }

    /// Copies what a host directory holds into a workspace of the sandbox's own, which ends with it.
    ///
    /// What git would leave out by name stays out: what a `.gitignore` there or above, up to the repository's root, or
    /// `.git/info/exclude` lists, whether git tracks it or not; also where there is no repository. So does `.git`, in whose
    /// place the workspace has a repository of its own with the commits of `HEAD`, where git is inside and the directory is
    /// a repository's root.
    pub fn workspace_copy(mut self, path: impl Into<PathBuf>) -> Self {
        self.workspace = Some(Asked::Copy(path.into()));
        self
    }

    /// Clones a repository into a workspace of the sandbox's own, which ends with it, and checks the sandbox's branch out; one
    /// that the repository does not have starts at its default branch. Without a [branch](Self::branch), it is the default one.
    ///
    /// The host fetches, into one of its [mirrors](Self::mirrors); a repository of this machine is read where it is. Git inside
    /// makes a repository of the agent's own of it, which holds no credential. Tags, submodules and what Git LFS keeps elsewhere
    /// are not fetched.
    pub fn workspace_clone(mut self, source: CloneSource, history: History) -> Self {
        self.workspace = Some(Asked::Clone(source, history));
        self
    }

    /// Sets where the host keeps what it fetches of repositories that are cloned; nothing is cloned from a server without it.
    pub fn mirrors(mut self, mirrors: Mirrors) -> Self {
        self.mirrors = Some(mirrors);
        self
    }

    /// Sets where the workspace lies inside; [`DEFAULT_WORKSPACE_PATH`] without it.
    pub fn workspace_at(mut self, path: impl Into<String>) -> Self {
        self.workspace_path = Some(path.into());
        self
    }

    /// Sets whom the agent runs as; without it the image's own user, or user and group 1000 where that is root.
    pub fn agent(mut self, agent: AgentUser) -> Self {
        self.agent = Some(agent);
        self
    }

    /// Asks for other limits than the policy's own.
    pub fn limits(mut self, limits: LimitsRequest) -> Self {
        self.limits = limits;
        self
    }

    /// Asks for a root file system of this kind.
    pub fn root(mut self, root: RootFilesystem) -> Self {
        self.root = Some(root);
        self
    }

    /// Asks for this to stand between the sandbox and the host's kernel, where the policy requires no more; the runtime must
    /// have been told of it too, as in `DockerRuntime::with_gvisor`.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = Some(isolation);
        self
    }

    /// Asks for a way out, through a gateway.
    pub fn network(mut self, network: NetworkRequest) -> Self {
        self.network = network;
        self
    }

    /// Asks for a way to fewer destinations than the policy allows.
    pub fn egress(mut self, egress: Egress) -> Self {
        self.egress = Some(egress);
        self
    }

    /// Asks for one of the policy's credentials: a gateway adds the secret on the way out, and nothing inside holds it.
    pub fn credential(mut self, name: CredentialName) -> Self {
        self.credentials.insert(name);
        self
    }

    /// Asks for root inside the container.
    pub fn sudo(mut self, sudo: SudoRequest) -> Self {
        self.sudo = sudo;
        self
    }

    /// Sets a variable for every program of [`Sandbox::command`].
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Sets where events go; nowhere without it.
    pub fn events(self, sink: impl EventSink) -> Self {
        self.shared_events(Arc::new(sink))
    }

    /// Sets where events go, together with those of other sandboxes.
    pub fn shared_events(mut self, sink: Arc<dyn EventSink>) -> Self {
        self.sink = sink;
        self
    }

    /// Adds a checkpoint that the sandbox talks through.
    pub fn gateway(mut self, gateway: impl Gateway) -> Self {
        self.gateways.push(Arc::new(gateway));
        self
    }

    /// Sets what the repository's token is used for; without it, all that the policy grants. With none, there is no token.
    pub fn scopes(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.scopes = Some(scopes.into_iter().collect());
        self
    }

    /// Sets who gives out tokens for the repository. Without a repository, none is asked for.
    pub fn tokens(mut self, provider: impl TokenProvider) -> Self {
        self.tokens = Some(Arc::new(provider));
        self
    }

    /// Sets the directory below which the sandbox keeps its socket.
    pub fn run_root(mut self, root: RunRoot) -> Self {
        self.run_root = root;
        self
    }

    /// Sets how long the guest may take from the container's start until it has connected; 30 s without it.
    pub fn connect_within(mut self, time: Duration) -> Self {
        self.connect_within = time;
        self
    }

    /// Starts the sandbox: when this returns, every control that was asked for has been read back from inside.
    ///
    /// Dropping the future gives the start up; what it had made is removed.
    ///
    /// # Errors
    /// `Policy` with every violation, and then nothing was touched; else what the engine, the guest or the read-back found,
    /// and what was made has been removed again.
    pub async fn start(self) -> Result<Sandbox> {
        let id = SandboxId::random()?;
        let runtime = self.runtime.ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "no runtime is set")
                .with_hint("give the builder an engine: `.runtime(DockerRuntime::connect(…).await?)`")
        })?;
        let image = self
            .image
            .ok_or_else(|| Error::new(ErrorKind::InvalidInput, "no image is set").with_hint("`.image(\"debian:12\")`"))?
            .map_err(invalid)?;
        let mut request = SandboxRequest::new(image);
        request.repository = self.repository;
        request.branch = self.branch;
        let path = self.workspace_path.as_deref().unwrap_or(DEFAULT_WORKSPACE_PATH);
        request.workspace = self.workspace.map(|asked| workspace(asked, path)).transpose()?;
        request.agent = self.agent;
        request.limits = self.limits;
        request.root = self.root;
        request.isolation = self.isolation;
        request.network = self.network;
        request.egress = self.egress;
        request.credentials = self.credentials;
        request.sudo = self.sudo;
        request.scopes = match self.scopes {
            Some(scopes) => scopes,
            None if self.tokens.is_some() && request.repository.is_some() => self.policy.token().scopes.clone(),
            None => BTreeSet::new(),
        };
        request.token = self.tokens.as_ref().and_then(|tokens| tokens.facts());
        for (name, value) in self.environment {
            let name: EnvName = name.parse().map_err(invalid)?;
            request.environment.insert(name, value.parse::<EnvValue>().map_err(invalid)?);
        }
        lifecycle::start(Plan {
            id,
            runtime,
            policy: self.policy,
            request,
            sink: self.sink,
            gateways: self.gateways,
            tokens: self.tokens,
            mirrors: self.mirrors,
            run_root: self.run_root,
            connect_within: self.connect_within,
        })
        .await
    }
}

fn invalid(error: ParseError) -> Error {
    Error::new(ErrorKind::InvalidInput, error.to_string()).with_source(error)
}

/// A workspace that is asked for.
#[derive(Debug)]
enum Asked {
    Bind(PathBuf, Access),
    Clone(CloneSource, History),
    Copy(PathBuf),
}

/// Follows every link first: the policy judges the directory that would be mounted or read, not one of its names.
fn workspace(asked: Asked, guest: &str) -> Result<Workspace> {
    let guest: GuestPath = guest.parse().map_err(invalid)?;
    let source = match asked {
        Asked::Bind(path, access) => WorkspaceSource::Bind { host: directory(&path)?, access },
        Asked::Clone(CloneSource::Local(path), history) => {
            WorkspaceSource::Clone { source: CloneSource::Local(directory(path.as_path())?), history }
        }
        Asked::Clone(source, history) => WorkspaceSource::Clone { source, history },
        Asked::Copy(path) => WorkspaceSource::Copy { host: directory(&path)? },
    };
    Ok(Workspace { source, guest })
}

fn directory(path: &Path) -> Result<HostPath> {
    let missing = |error: std::io::Error| {
        Error::new(ErrorKind::WorkspaceMissing, format!("workspace {} cannot be used", path.display()))
            .with_source(error)
            .with_hint("name an existing directory")
    };
    let real = path.canonicalize().map_err(missing)?;
    if !real.is_dir() {
        return Err(missing(std::io::Error::from(std::io::ErrorKind::NotADirectory)));
    }
    HostPath::try_from(real).map_err(invalid)
}
