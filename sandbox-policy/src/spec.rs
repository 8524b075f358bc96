//! A sandbox that a policy has agreed to.
//!
//! Invariant: only [`Policy::check`](crate::Policy::check) makes one, and nothing changes it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serializer;

use crate::check::denied;
use crate::{
    AgentUser, Branch, BranchProtection, Budget, ByteSize, Control, CoverPath, Credentials, Decision, Egress, EnvName,
    EnvValue, GuestPath, ImageRef, Isolation, Limits, NetworkRequest, PolicyError, ProtectionRule, PullRule, RepoId,
    RootFilesystem, Scope, SudoRule, UserNamespaceRule, Workspace,
};

/// Describes a sandbox that a policy has agreed to, in full: every default is filled in, but for what only the image
/// can tell.
///
/// As JSON it lists the names of the environment's variables, never their values.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SandboxSpec {
    pub(crate) policy_name: String,
    pub(crate) repository: Option<RepoId>,
    pub(crate) branch: Option<Branch>,
    pub(crate) image: ImageRef,
    pub(crate) pull: PullRule,
    pub(crate) workspace: Option<Workspace>,
    #[serde(skip)]
    pub(crate) clone: Option<Decision>,
    pub(crate) workspace_protected: BTreeSet<CoverPath>,
    pub(crate) workspace_covered: BTreeSet<CoverPath>,
    pub(crate) agent: Option<AgentUser>,
    pub(crate) limits: Limits,
    pub(crate) root: RootFilesystem,
    #[serde(skip)]
    pub(crate) disk_in_memory: bool,
    pub(crate) tmpfs: Vec<Tmpfs>,
    pub(crate) network: NetworkRequest,
    pub(crate) egress: Egress,
    pub(crate) egress_budget: Budget,
    pub(crate) credentials: Credentials,
    pub(crate) sudo: SudoRule,
    pub(crate) scopes: BTreeSet<Scope>,
    #[serde(rename = "protected-default-branch")]
    pub(crate) require_protected_default_branch: ProtectionRule,
    pub(crate) user_namespace: UserNamespaceRule,
    pub(crate) isolation: Isolation,
    #[serde(serialize_with = "names_alone")]
    pub(crate) environment: BTreeMap<EnvName, EnvValue>,
    pub(crate) required: BTreeSet<Control>,
    pub(crate) waived: BTreeMap<Control, String>,
}

impl SandboxSpec {
    /// Returns the name of the policy that agreed.
    pub fn policy_name(&self) -> &str {
        &self.policy_name
    }

    /// Returns the repository that the sandbox is for.
    pub fn repository(&self) -> Option<&RepoId> {
        self.repository.as_ref()
    }

    /// Returns the branch that the sandbox is for.
    pub fn branch(&self) -> Option<&Branch> {
        self.branch.as_ref()
    }

    /// Returns the image that the sandbox starts from.
    pub fn image(&self) -> &ImageRef {
        &self.image
    }

    /// Tells when the image may be fetched.
    pub fn pull(&self) -> PullRule {
        self.pull
    }

    /// Returns what the agent works on.
    pub fn workspace(&self) -> Option<&Workspace> {
        self.workspace.as_ref()
    }

    /// Returns what allows the host to fetch the workspace from a server; none where it is not fetched.
    pub fn clone_decision(&self) -> Option<&Decision> {
        self.clone.as_ref()
    }

    /// Returns the parts of a mounted workspace that nothing inside changes or makes.
    pub fn workspace_protected(&self) -> &BTreeSet<CoverPath> {
        &self.workspace_protected
    }

    /// Returns the parts of a mounted workspace in whose place is something of the sandbox's own.
    pub fn workspace_covered(&self) -> &BTreeSet<CoverPath> {
        &self.workspace_covered
    }

    /// Returns whom the agent runs as; none where that is the image's own user.
    pub fn agent(&self) -> Option<AgentUser> {
        self.agent
    }

    /// Returns how much the sandbox may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns what the root file system is.
    pub fn root(&self) -> RootFilesystem {
        self.root
    }

    /// Tells whether it is memory's limit that bounds the disk: nothing else does, and all that can be written is memory.
    pub fn is_disk_in_memory(&self) -> bool {
        self.disk_in_memory
    }

    /// Returns the memory file systems to mount, before the workspace; none on a writable root.
    pub fn tmpfs(&self) -> &[Tmpfs] {
        &self.tmpfs
    }

    /// Tells how far the sandbox reaches.
    pub fn network(&self) -> NetworkRequest {
        self.network
    }

    /// Returns the destinations that the sandbox reaches; none where it has no network.
    pub fn egress(&self) -> &Egress {
        &self.egress
    }

    /// Returns how much the sandbox may move in all, to every host together.
    pub fn egress_budget(&self) -> Budget {
        self.egress_budget
    }

    /// Returns the credentials that a gateway adds on the way out.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Tells what the agent may ask of root inside.
    pub fn sudo(&self) -> SudoRule {
        self.sudo
    }

    /// Returns what the repository's token is used for; with none, there is no token.
    pub fn scopes(&self) -> &BTreeSet<Scope> {
        &self.scopes
    }

    /// Tells whether the repository's default branch must be protected; it need not where there is no token.
    pub fn require_protected_default_branch(&self) -> ProtectionRule {
        self.require_protected_default_branch
    }

    /// Weighs what was found out about the default branch, before anything is made.
    ///
    /// # Errors
    /// The violation, if the branch must be protected and is not, or nobody can tell.
    pub fn weigh_default_branch(&self, found: &BranchProtection) -> Result<(), PolicyError> {
        let found = match (self.require_protected_default_branch, found) {
            (ProtectionRule::Optional, _) | (_, BranchProtection::Protected) => return Ok(()),
            (ProtectionRule::Required, BranchProtection::Unprotected) => "an unprotected default branch".to_owned(),
            (ProtectionRule::Required, BranchProtection::Unknown { why }) => {
                format!("a default branch of which nobody can tell: {why}")
            }
        };
        let violation = denied("token.protected-default-branch", &found, "a protected one");
        Err(PolicyError::new(self.policy_name.clone(), violation, Vec::new()))
    }

    /// Tells whether root inside must be nobody on the host.
    pub fn user_namespace(&self) -> UserNamespaceRule {
        self.user_namespace
    }

    /// Tells what must stand between the sandbox and the host's kernel.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Returns the environment variables of what runs inside.
    pub fn environment(&self) -> &BTreeMap<EnvName, EnvValue> {
        &self.environment
    }

    /// Returns the controls that must hold, each of which is reported as enforced.
    pub fn required(&self) -> &BTreeSet<Control> {
        &self.required
    }

    /// Returns the controls that ought to hold and cannot be enforced, which the policy waives, each
    /// with the reason why it is not enforced.
    pub fn waived(&self) -> &BTreeMap<Control, String> {
        &self.waived
    }
}

/// Describes a file system in memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Tmpfs {
    /// Where it is mounted inside.
    pub path: GuestPath,
    /// The most it holds.
    pub size: ByteSize,
}

impl Tmpfs {
    /// Returns how many files and directories it holds at most: one for each 16 KiB, as on an ordinary ext4.
    pub fn inodes(&self) -> u64 {
        (self.size.bytes() / BYTES_PER_INODE).max(1)
    }
}

/// What `mke2fs` gives each inode (mke2fs.conf(5), `inode_ratio`).
const BYTES_PER_INODE: u64 = 16 << 10;

fn names_alone<S: Serializer>(environment: &BTreeMap<EnvName, EnvValue>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(environment.keys())
}
