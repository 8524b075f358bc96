//! The decision: whether a request may have its sandbox.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use crate::parse::clip;
use crate::{
    Access, ByteSize, Capabilities, CloneSource, Control, CoverPath, CredentialName, Credentials, Decision, DigestRule,
    Egress, GuestPath, Isolation, Limits, NetworkRequest, NetworkRule, Permission, Policy, PolicyError, RepoId,
    RootFilesystem, RootRule, SandboxRequest, SandboxSpec, Scope, SudoRequest, SudoRule, Support, Tmpfs,
    UserNamespaceRule, Violation, Workspace, WorkspaceSource, bounds, mount,
};

impl Policy {
    /// Weighs a request against the policy and against what the set-up can enforce.
    ///
    /// # Errors
    /// Every violation at once. Where the policy denies all sandboxes, that alone, since nothing
    /// else could be mended.
    pub fn check(&self, request: &SandboxRequest, capabilities: &Capabilities) -> Result<SandboxSpec, PolicyError> {
        let SandboxRequest {
            image,
            repository,
            branch,
            workspace,
            agent,
            limits,
            root,
            isolation,
            network,
            egress,
            credentials,
            sudo,
            scopes,
            token,
            environment,
        } = request;
        if self.sandboxes == Permission::Deny {
            let violation = denied("sandboxes", "a sandbox", "none");
            return Err(PolicyError::new(self.name(), violation, Vec::new()));
        }

        let mut violations = Vec::new();
        if self.image.require_digest == DigestRule::Required && !image.is_pinned() {
            let allowed = "an image named by its digest (name@sha256:…) or by its local id";
            violations.push(denied("image", &image.to_string(), allowed));
        }
        if let Some(workspace) = workspace {
            mount::weigh(self.workspace, &self.workspace_kinds, workspace, &mut violations);
        }
        let clone = workspace.as_ref().and_then(|workspace| self.weigh_clone(workspace, &mut violations));
        let limits = bounds::grant(&self.limits, limits, &mut violations);
        let root = self.grant_root(*root, &mut violations);
        let isolation = self.grant_isolation(*isolation, &mut violations);
        if (self.network, *network) == (NetworkRule::None, NetworkRequest::Egress) {
            violations.push(denied("network", network.as_str(), "none"));
        }
        let egress = self.grant_egress(*network, egress.as_ref(), &mut violations);
        let credentials = self.grant_credentials(*network, credentials, &mut violations);
        if (self.sudo, *sudo) == (SudoRule::Deny, SudoRequest::Allow) {
            violations.push(denied("sudo", sudo.as_str(), "deny"));
        }
        let sudo = match sudo {
            SudoRequest::Deny => SudoRule::Deny,
            SudoRequest::Allow => self.sudo,
        };
        self.weigh_scopes(repository.as_ref(), scopes, &mut violations);
        let mut capabilities = Cow::Borrowed(capabilities);
        if let (Some(token), false) = (token, scopes.is_empty()) {
            violations.extend(token.violations(&self.token));
            capabilities = Cow::Owned(capabilities.join(&token.capabilities(scopes)));
        }
        let environment_bytes: usize =
            environment.iter().map(|(name, value)| name.as_str().len() + value.as_str().len() + 2).sum();
        if environment_bytes > MAX_ENVIRONMENT_BYTES {
            let requested = format!("{environment_bytes}B");
            violations.push(denied("environment", &requested, "at most 1MiB in all"));
        }

        violations.extend(sudo_on_the_host(sudo, workspace.as_ref(), &capabilities));
        let needed = needed(root, isolation, *network, sudo, scopes, self.user_namespace);
        let memory_alone = writes_memory_alone(root, &limits, &capabilities);
        let Enforcement { required, waived, disk_in_memory } =
            self.enforce(needed, &capabilities, memory_alone, &mut violations);

        // What nobody enforces is not said to be there.
        let isolation = if waived.contains_key(&Control::Isolation) { Isolation::Standard } else { isolation };
        // Who goes without whoever decides goes without sudo.
        let sudo = if waived.contains_key(&Control::Sudo) { SudoRule::Deny } else { sudo };

        let mut violations = violations.into_iter();
        if let Some(first) = violations.next() {
            return Err(PolicyError::new(self.name(), first, violations.collect()));
        }
        Ok(SandboxSpec {
            policy_name: self.name(),
            repository: repository.clone(),
            branch: branch.clone(),
            image: image.clone(),
            pull: self.image.pull,
            workspace: workspace.clone(),
            clone,
            workspace_protected: self.protected_in(workspace.as_ref()),
            workspace_covered: self.covered_in(workspace.as_ref()),
            agent: *agent,
            limits,
            root,
            disk_in_memory,
            tmpfs: tmpfs(root, &limits, workspace.as_ref()),
            network: *network,
            egress,
            egress_budget: self.egress_budget,
            credentials,
            sudo,
            scopes: scopes.clone(),
            require_protected_default_branch: self.token.protection_for(scopes),
            user_namespace: self.user_namespace,
            isolation,
            environment: environment.clone(),
            required,
            waived,
        })
    }

    /// Grants the root file system that is asked for, or the loosest that the policy allows.
    fn grant_root(&self, asked: Option<RootFilesystem>, violations: &mut Vec<Violation>) -> RootFilesystem {
        match (self.root, asked) {
            (RootRule::Writable, asked) => asked.unwrap_or(RootFilesystem::Writable),
            (RootRule::ReadOnly, None | Some(RootFilesystem::ReadOnly)) => RootFilesystem::ReadOnly,
            (RootRule::ReadOnly, Some(asked @ RootFilesystem::Writable)) => {
                violations.push(denied("root", asked.as_str(), "read-only"));
                RootFilesystem::ReadOnly
            }
        }
    }

    /// Grants the isolation that is asked for, or the policy's own where none is.
    fn grant_isolation(&self, asked: Option<Isolation>, violations: &mut Vec<Violation>) -> Isolation {
        let asked = asked.unwrap_or(self.isolation);
        if asked > self.isolation {
            violations.push(denied("isolation", asked.as_str(), self.isolation.as_str()));
        }
        asked
    }

    /// Decides on the server that a workspace is cloned from, if there is one.
    fn weigh_clone(&self, workspace: &Workspace, violations: &mut Vec<Violation>) -> Option<Decision> {
        let WorkspaceSource::Clone { source: CloneSource::Remote(remote), .. } = &workspace.source else { return None };
        let decision = self.decide_clone(remote);
        if let Decision::Deny { reason, .. } = &decision {
            let allowed = format!("a server that the policy's egress allows: {reason}");
            violations.push(denied("workspace.source", &remote.to_string(), &allowed));
        }
        Some(decision)
    }

    /// What is protected of a workspace: nothing where nothing of it can be written.
    fn protected_in(&self, workspace: Option<&Workspace>) -> BTreeSet<CoverPath> {
        match workspace.and_then(Workspace::mounted) {
            Some((_, Access::ReadWrite)) => self.workspace_protected.clone(),
            Some((_, Access::ReadOnly)) | None => BTreeSet::new(),
        }
    }

    /// What is covered of a workspace, whether it is written or read.
    fn covered_in(&self, workspace: Option<&Workspace>) -> BTreeSet<CoverPath> {
        match workspace.and_then(Workspace::mounted) {
            Some(_) => self.workspace_covered.clone(),
            None => BTreeSet::new(),
        }
    }

    /// Grants the destinations that are asked for, or the policy's own where none are.
    fn grant_egress(&self, network: NetworkRequest, asked: Option<&Egress>, violations: &mut Vec<Violation>) -> Egress {
        if network == NetworkRequest::None {
            return Egress::None;
        }
        let Some(asked) = asked else { return self.egress.clone() };
        if !asked.is_within(&self.egress) {
            let allowed = format!("at most what the policy's egress \"{}\" allows", self.egress.reach());
            violations.push(denied("egress", asked.reach().as_str(), &allowed));
        }
        asked.clone()
    }

    /// Grants the credentials that are asked for, each of which the policy must bind.
    fn grant_credentials(
        &self,
        network: NetworkRequest,
        asked: &BTreeSet<CredentialName>,
        violations: &mut Vec<Violation>,
    ) -> Credentials {
        if let Some(name) = asked.first()
            && network == NetworkRequest::None
        {
            violations.push(denied("credentials", name.as_str(), "none without the network \"egress\""));
        }
        let mut granted = Credentials::new();
        for name in asked {
            if let Some(binding) = self.credentials.get(name) {
                granted.insert(name.clone(), binding.clone());
            } else {
                let bound: Vec<&str> = self.credentials.keys().map(CredentialName::as_str).collect();
                let allowed = if bound.is_empty() { "none".to_owned() } else { bound.join(" ") };
                violations.push(denied("credentials", name.as_str(), &allowed));
            }
        }
        granted
    }

    fn weigh_scopes(&self, repository: Option<&RepoId>, asked: &BTreeSet<Scope>, violations: &mut Vec<Violation>) {
        let beyond: Vec<&str> = asked.difference(&self.token.scopes).map(|scope| scope.as_str()).collect();
        if !beyond.is_empty() {
            violations.push(denied("scopes", &beyond.join(" "), &scope_words(&self.token.scopes)));
        }
        if repository.is_none() && !asked.is_empty() {
            violations.push(denied("scopes", &scope_words(asked), "none without a repository"));
        }
    }

    /// Sorts the needed controls into those that are enforced and those that are waived, and notes
    /// those that are neither.
    fn enforce(
        &self,
        needed: BTreeSet<Control>,
        capabilities: &Capabilities,
        memory_alone: bool,
        violations: &mut Vec<Violation>,
    ) -> Enforcement {
        let mut enforcement = Enforcement::default();
        for control in needed {
            if control == Control::Disk && memory_alone && !capabilities.is_enforced(control) {
                enforcement.required.insert(control);
                enforcement.disk_in_memory = true;
                continue;
            }
            let (why, hint) = match capabilities.get(control) {
                Some(Support::Enforced { .. }) => {
                    enforcement.required.insert(control);
                    continue;
                }
                Some(Support::Unsupported { why, hint }) => (why.clone(), hint.clone()),
                None => (
                    "no part of this set-up reports it".to_owned(),
                    format!("add a part that enforces it, or waive {control} in the policy"),
                ),
            };
            if self.waived.contains(&control) {
                enforcement.waived.insert(control, why);
            } else {
                violations.push(Violation::Unenforceable { control, why, hint });
            }
        }
        enforcement
    }
}

#[derive(Default)]
struct Enforcement {
    required: BTreeSet<Control>,
    waived: BTreeMap<Control, String>,
    /// Whether memory's limit is what bounds the disk.
    disk_in_memory: bool,
}

/// Refuses root inside a workspace where it is the host's: what it makes there would be the host's root's own, set-id bits and all.
fn sudo_on_the_host(sudo: SudoRule, workspace: Option<&Workspace>, capabilities: &Capabilities) -> Option<Violation> {
    let is_written = workspace.and_then(Workspace::mounted).is_some_and(|(_, access)| access == Access::ReadWrite);
    let is_roots = sudo != SudoRule::Deny && is_written && !capabilities.is_enforced(Control::UserNamespace);
    let allowed = "sudo where root inside is nobody on the host, or a read-only workspace";
    is_roots.then(|| denied("sudo", "sudo with a writable workspace", allowed))
}

/// Lists the controls that a sandbox of this kind needs.
fn needed(
    root: RootFilesystem,
    isolation: Isolation,
    network: NetworkRequest,
    sudo: SudoRule,
    scopes: &BTreeSet<Scope>,
    user_namespace: UserNamespaceRule,
) -> BTreeSet<Control> {
    let mut needed = BTreeSet::from(ALWAYS_NEEDED);
    if root == RootFilesystem::ReadOnly {
        needed.insert(Control::ReadonlyRootfs);
    }
    if isolation == Isolation::Gvisor {
        needed.insert(Control::Isolation);
    }
    if network == NetworkRequest::Egress {
        needed.insert(Control::EgressAllowlist);
    }
    if sudo != SudoRule::Deny {
        needed.insert(Control::Sudo);
    }
    if !scopes.is_empty() {
        needed.extend([Control::ShortLivedToken, Control::TokenScope]);
    }
    if user_namespace == UserNamespaceRule::Required {
        needed.insert(Control::UserNamespace);
    }
    needed
}

/// Tells whether all that a sandbox writes of its own lies in memory and counts as such: then what bounds the one bounds the other.
fn writes_memory_alone(root: RootFilesystem, limits: &Limits, capabilities: &Capabilities) -> bool {
    root == RootFilesystem::ReadOnly
        && limits.memory <= limits.disk
        && [Control::ReadonlyRootfs, Control::Memory].iter().all(|control| capabilities.is_enforced(*control))
}

/// Lists what stays writable beside a read-only root, without what would hide or be hidden by the workspace; a workspace that
/// would lie in the container's own layer is one of them.
fn tmpfs(root: RootFilesystem, limits: &Limits, workspace: Option<&Workspace>) -> Vec<Tmpfs> {
    if root == RootFilesystem::Writable {
        return Vec::new();
    }
    let is_in_workspace =
        |path: &GuestPath| workspace.is_some_and(|workspace| path.as_path().starts_with(workspace.guest.as_path()));
    let own = workspace.filter(|workspace| workspace.is_in_layer()).map(|workspace| workspace.guest.clone());
    let known = TMPFS_PATHS.into_iter().map(GuestPath::known).filter(|path| !is_in_workspace(path));
    let paths: Vec<GuestPath> = known.chain(own).collect();
    // All of them together hold no more than the disk may, since it is they that take its place.
    let size = limits.memory.quarter().min(MAX_TMPFS).min(limits.disk.share(paths.len()));
    paths.into_iter().map(|path| Tmpfs { path, size }).collect()
}

fn scope_words(scopes: &BTreeSet<Scope>) -> String {
    let words: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(" ") }
}

pub(crate) fn denied(field: &str, requested: &str, allowed: &str) -> Violation {
    Violation::Denied { field: field.to_owned(), requested: clip(requested), allowed: allowed.to_owned() }
}

/// No network is needed even where egress is asked for: the container reaches out through a socket
/// that the host serves, and has no interface of its own.
const ALWAYS_NEEDED: [Control; 12] = [
    Control::AgentUser,
    Control::CapabilityDrop,
    Control::Cpu,
    Control::Disk,
    Control::HostFilesystem,
    Control::Memory,
    Control::NoNetwork,
    Control::NoNewPrivileges,
    Control::OpenFiles,
    Control::Pids,
    Control::Seccomp,
    Control::WallClock,
];
const TMPFS_PATHS: [&str; 4] = ["/tmp", "/var/tmp", "/run", "/home/agent"];
const MAX_TMPFS: ByteSize = ByteSize::gib(1);
const MAX_ENVIRONMENT_BYTES: usize = 1 << 20;
