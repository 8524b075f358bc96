//! A policy: what a sandbox may at most be.

use std::collections::BTreeSet;

use crate::{
    Budget, Control, CoverPath, Credential, CredentialName, Credentials, Egress, ImageRule, Isolation, Limits,
    NetworkRule, Permission, PolicyName, RootRule, SudoRule, TokenRule, UserNamespaceRule, WorkspaceKind,
    WorkspaceRule,
};

/// Says what a sandbox may at most be.
///
/// Start from a preset ([`Policy::standard`], [`Policy::maximum`], [`Policy::deny_all`]) or from a
/// document ([`Policy::from_toml`]), change it by the `with_*` methods, and join it with others by
/// [`Policy::meet`]. A policy that differs from its preset deserves its own
/// [name](Policy::with_name), since the name is what reports show.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Policy {
    #[serde(rename = "name")]
    pub(crate) sources: BTreeSet<PolicyName>,
    pub(crate) sandboxes: Permission,
    pub(crate) limits: Limits,
    pub(crate) root: RootRule,
    pub(crate) network: NetworkRule,
    pub(crate) egress: Egress,
    pub(crate) egress_budget: Budget,
    pub(crate) credentials: Credentials,
    pub(crate) sudo: SudoRule,
    pub(crate) user_namespace: UserNamespaceRule,
    pub(crate) isolation: Isolation,
    pub(crate) image: ImageRule,
    pub(crate) workspace: WorkspaceRule,
    pub(crate) workspace_kinds: BTreeSet<WorkspaceKind>,
    pub(crate) workspace_protected: BTreeSet<CoverPath>,
    pub(crate) workspace_covered: BTreeSet<CoverPath>,
    pub(crate) token: TokenRule,
    #[serde(rename = "waive")]
    pub(crate) waived: BTreeSet<Control>,
}

impl Policy {
    /// Returns the name: that of each source, joined by ` ∧ `.
    pub fn name(&self) -> String {
        let names: Vec<&str> = self.sources.iter().map(PolicyName::as_str).collect();
        names.join(" ∧ ")
    }

    /// Returns the names of the policies that this one was joined from.
    pub fn sources(&self) -> &BTreeSet<PolicyName> {
        &self.sources
    }

    /// Tells whether any sandbox may be made.
    pub fn sandboxes(&self) -> Permission {
        self.sandboxes
    }

    /// Returns the limits: the most that may be asked for, and what is granted where nothing is.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns the rule for the root file system.
    pub fn root(&self) -> RootRule {
        self.root
    }

    /// Returns the rule for the network.
    pub fn network(&self) -> NetworkRule {
        self.network
    }

    /// Returns the destinations that may be reached where the network may.
    pub fn egress(&self) -> &Egress {
        &self.egress
    }

    /// Returns how much a sandbox may move in all, to every host together.
    pub fn egress_budget(&self) -> Budget {
        self.egress_budget
    }

    /// Returns the credentials that a sandbox may use without holding them.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Returns the rule for sudo.
    pub fn sudo(&self) -> SudoRule {
        self.sudo
    }

    /// Returns the rule for user namespaces.
    pub fn user_namespace(&self) -> UserNamespaceRule {
        self.user_namespace
    }

    /// Returns the least that must stand between a sandbox and the host's kernel.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Returns the rule for images.
    pub fn image(&self) -> ImageRule {
        self.image
    }

    /// Returns the rule for a workspace that is mounted.
    pub fn workspace(&self) -> WorkspaceRule {
        self.workspace
    }

    /// Returns the kinds of workspace that may be asked for.
    pub fn workspace_kinds(&self) -> &BTreeSet<WorkspaceKind> {
        &self.workspace_kinds
    }

    /// Returns the parts of a mounted workspace that nothing inside changes or makes.
    pub fn workspace_protected(&self) -> &BTreeSet<CoverPath> {
        &self.workspace_protected
    }

    /// Returns the parts of a mounted workspace in whose place is something of the sandbox's own.
    pub fn workspace_covered(&self) -> &BTreeSet<CoverPath> {
        &self.workspace_covered
    }

    /// Returns the rule for the repository's token.
    pub fn token(&self) -> &TokenRule {
        &self.token
    }

    /// Returns the controls that a sandbox may be without.
    pub fn waived(&self) -> &BTreeSet<Control> {
        &self.waived
    }

    /// Gives the policy a name of its own, in place of its sources'.
    #[must_use]
    pub fn with_name(mut self, name: PolicyName) -> Self {
        self.sources = BTreeSet::from([name]);
        self
    }

    /// Sets whether any sandbox may be made.
    #[must_use]
    pub fn with_sandboxes(mut self, permission: Permission) -> Self {
        self.sandboxes = permission;
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the rule for the root file system.
    #[must_use]
    pub fn with_root(mut self, rule: RootRule) -> Self {
        self.root = rule;
        self
    }

    /// Sets the rule for the network.
    #[must_use]
    pub fn with_network(mut self, rule: NetworkRule) -> Self {
        self.network = rule;
        self
    }

    /// Sets the destinations that may be reached where the network may.
    #[must_use]
    pub fn with_egress(mut self, egress: Egress) -> Self {
        self.egress = egress;
        self
    }

    /// Sets how much a sandbox may move in all, to every host together.
    #[must_use]
    pub fn with_egress_budget(mut self, budget: Budget) -> Self {
        self.egress_budget = budget;
        self
    }

    /// Binds a credential; one of the same name is replaced.
    #[must_use]
    pub fn with_credential(mut self, name: CredentialName, credential: Credential) -> Self {
        self.credentials.insert(name, credential);
        self
    }

    /// Sets the rule for sudo.
    #[must_use]
    pub fn with_sudo(mut self, rule: SudoRule) -> Self {
        self.sudo = rule;
        self
    }

    /// Sets the rule for user namespaces.
    #[must_use]
    pub fn with_user_namespace(mut self, rule: UserNamespaceRule) -> Self {
        self.user_namespace = rule;
        self
    }

    /// Sets the least that must stand between a sandbox and the host's kernel.
    #[must_use]
    pub fn with_isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// Sets the rule for images.
    #[must_use]
    pub fn with_image(mut self, rule: ImageRule) -> Self {
        self.image = rule;
        self
    }

    /// Sets the rule for a workspace that is mounted.
    #[must_use]
    pub fn with_workspace(mut self, rule: WorkspaceRule) -> Self {
        self.workspace = rule;
        self
    }

    /// Sets the kinds of workspace that may be asked for.
    #[must_use]
    pub fn with_workspace_kinds(mut self, kinds: impl IntoIterator<Item = WorkspaceKind>) -> Self {
        self.workspace_kinds = kinds.into_iter().collect();
        self
    }

    /// Sets the parts of a mounted workspace that nothing inside changes or makes.
    #[must_use]
    pub fn with_workspace_protected(mut self, paths: impl IntoIterator<Item = CoverPath>) -> Self {
        self.workspace_protected = paths.into_iter().collect();
        self
    }

    /// Sets the parts of a mounted workspace in whose place is something of the sandbox's own: the host's are neither read nor
    /// written.
    #[must_use]
    pub fn with_workspace_covered(mut self, paths: impl IntoIterator<Item = CoverPath>) -> Self {
        self.workspace_covered = paths.into_iter().collect();
        self
    }

    /// Sets the rule for the repository's token.
    #[must_use]
    pub fn with_token(mut self, rule: TokenRule) -> Self {
        self.token = rule;
        self
    }

    /// Lets sandboxes be without one control where it cannot be enforced.
    #[must_use]
    pub fn with_waived(mut self, control: Control) -> Self {
        self.waived.insert(control);
        self
    }
}
