//! What is wanted: a sandbox as somebody asks for it, before any policy has looked.

use std::collections::{BTreeMap, BTreeSet};

use crate::parse::words;
use crate::{
    AgentUser, Branch, CredentialName, Egress, EnvName, EnvValue, ImageRef, Isolation, LimitsRequest, RepoId, Scope,
    TokenFacts, Workspace,
};

/// Describes a sandbox that is asked for.
///
/// All that is left out takes what the policy grants, and where that is a matter of reach (network,
/// credentials, sudo, token) it takes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SandboxRequest {
    /// The image that the sandbox starts from.
    pub image: ImageRef,
    /// The repository that the sandbox is for.
    pub repository: Option<RepoId>,
    /// The branch that the sandbox is for.
    pub branch: Option<Branch>,
    /// What the agent works on.
    pub workspace: Option<Workspace>,
    /// Whom the agent runs as; the image's own user if nothing is said, or 1000:1000 where that is root.
    pub agent: Option<AgentUser>,
    /// How much the sandbox may use.
    pub limits: LimitsRequest,
    /// What the root file system is; by default writable where the policy allows it.
    pub root: Option<RootFilesystem>,
    /// What stands between the sandbox and the host's kernel; by default what the policy requires.
    pub isolation: Option<Isolation>,
    /// How far the sandbox reaches.
    pub network: NetworkRequest,
    /// Which destinations it reaches, where it reaches any; all that the policy allows if nothing is said.
    pub egress: Option<Egress>,
    /// Which of the policy's credentials are used, through the egress gateway.
    pub credentials: BTreeSet<CredentialName>,
    /// Whether the agent may ask for root inside.
    pub sudo: SudoRequest,
    /// What the repository's token is used for; with none, there is no token.
    pub scopes: BTreeSet<Scope>,
    /// What is known of that token beforehand, where it is not minted for the sandbox.
    pub token: Option<TokenFacts>,
    /// Environment variables of what runs inside, at most 1 MiB in all.
    pub environment: BTreeMap<EnvName, EnvValue>,
}

impl SandboxRequest {
    /// Asks for a sandbox of an image, with no repository, workspace, network, credential, sudo, token or environment.
    pub fn new(image: ImageRef) -> Self {
        Self {
            image,
            repository: None,
            branch: None,
            workspace: None,
            agent: None,
            limits: LimitsRequest::default(),
            root: None,
            isolation: None,
            network: NetworkRequest::None,
            egress: None,
            credentials: BTreeSet::new(),
            sudo: SudoRequest::Deny,
            scopes: BTreeSet::new(),
            token: None,
            environment: BTreeMap::new(),
        }
    }
}

words! {
    /// Tells what the root file system is.
    RootFilesystem is "a root file system" {
        /// It cannot be written; a few sized memory file systems can.
        ReadOnly = "read-only",
        /// It can be written, up to the disk limit.
        Writable = "writable",
    }
}

words! {
    /// Tells how far a sandbox reaches.
    NetworkRequest is "a network" {
        /// Nowhere.
        None = "none",
        /// Allowed destinations, through the egress gateway.
        Egress = "egress",
    }
}

words! {
    /// Tells whether the agent may ask for root inside the container.
    SudoRequest is "a sudo request" {
        /// It may not.
        Deny = "deny",
        /// It may, and the host decides and records each time.
        Allow = "allow",
    }
}
