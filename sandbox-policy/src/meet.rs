//! How policies are joined: only ever towards less.
//!
//! Invariant: what the meet of two policies accepts, each of the two accepts.

use crate::{ImageRule, Limits, Policy, TokenRule, credential};

impl Policy {
    /// Joins two policies into the loosest one that neither of them would find too loose.
    ///
    /// The smaller of each limit, the stricter of each rule, and only the waivers that both have.
    /// The order of joining does not matter, and joining a policy with itself changes nothing.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let Self {
            sources,
            sandboxes,
            limits,
            root,
            network,
            egress,
            egress_budget,
            credentials,
            sudo,
            user_namespace,
            isolation,
            image,
            workspace,
            workspace_kinds,
            workspace_protected,
            workspace_covered,
            token,
            waived,
        } = self;
        Self {
            sources: sources.union(&other.sources).cloned().collect(),
            sandboxes: *sandboxes.min(&other.sandboxes),
            limits: limits.meet(&other.limits),
            root: *root.min(&other.root),
            network: *network.min(&other.network),
            egress: egress.meet(&other.egress),
            egress_budget: egress_budget.meet(other.egress_budget),
            credentials: credential::meet(credentials, &other.credentials),
            sudo: *sudo.min(&other.sudo),
            user_namespace: *user_namespace.min(&other.user_namespace),
            isolation: *isolation.min(&other.isolation),
            image: image.meet(other.image),
            workspace: *workspace.min(&other.workspace),
            workspace_kinds: workspace_kinds.intersection(&other.workspace_kinds).copied().collect(),
            // More that is kept from a sandbox is less that it may.
            workspace_protected: workspace_protected.union(&other.workspace_protected).cloned().collect(),
            workspace_covered: workspace_covered.union(&other.workspace_covered).cloned().collect(),
            token: token.meet(&other.token),
            waived: waived.intersection(&other.waived).copied().collect(),
        }
    }

    /// Tells whether this policy allows nothing that the other does not.
    pub fn is_at_least_as_strict_as(&self, other: &Self) -> bool {
        let Self {
            sources: _,
            sandboxes,
            limits,
            root,
            network,
            egress,
            egress_budget,
            credentials,
            sudo,
            user_namespace,
            isolation,
            image,
            workspace,
            workspace_kinds,
            workspace_protected,
            workspace_covered,
            token,
            waived,
        } = self;
        *sandboxes <= other.sandboxes
            && limits.is_within(&other.limits)
            && *root <= other.root
            && *network <= other.network
            && egress.is_within(&other.egress)
            && egress_budget.is_within(other.egress_budget)
            && credential::is_within(credentials, &other.credentials)
            && *sudo <= other.sudo
            && *user_namespace <= other.user_namespace
            && *isolation <= other.isolation
            && image.is_within(other.image)
            && *workspace <= other.workspace
            && workspace_kinds.is_subset(&other.workspace_kinds)
            && workspace_protected.is_superset(&other.workspace_protected)
            && workspace_covered.is_superset(&other.workspace_covered)
            && token.is_within(&other.token)
            && waived.is_subset(&other.waived)
    }
}

impl Limits {
    /// Takes the smaller of each limit.
    fn meet(&self, other: &Self) -> Self {
        let Self { cpus, memory, disk, processes, open_files, lifetime } = *self;
        Self {
            cpus: cpus.min(other.cpus),
            memory: memory.min(other.memory),
            disk: disk.min(other.disk),
            processes: processes.min(other.processes),
            open_files: open_files.min(other.open_files),
            lifetime: lifetime.min(other.lifetime),
        }
    }

    fn is_within(&self, other: &Self) -> bool {
        let Self { cpus, memory, disk, processes, open_files, lifetime } = *self;
        cpus <= other.cpus
            && memory <= other.memory
            && disk <= other.disk
            && processes <= other.processes
            && open_files <= other.open_files
            && lifetime <= other.lifetime
    }
}

impl ImageRule {
    fn meet(self, other: Self) -> Self {
        let Self { require_digest, pull } = self;
        Self { require_digest: require_digest.min(other.require_digest), pull: pull.min(other.pull) }
    }

    fn is_within(self, other: Self) -> bool {
        let Self { require_digest, pull } = self;
        require_digest <= other.require_digest && pull <= other.pull
    }
}

impl TokenRule {
    fn meet(&self, other: &Self) -> Self {
        let Self { scopes, classic, lifetime, require_protected_default_branch } = self;
        Self {
            scopes: scopes.intersection(&other.scopes).copied().collect(),
            classic: *classic.min(&other.classic),
            lifetime: *lifetime.min(&other.lifetime),
            require_protected_default_branch: *require_protected_default_branch
                .min(&other.require_protected_default_branch),
        }
    }

    fn is_within(&self, other: &Self) -> bool {
        let Self { scopes, classic, lifetime, require_protected_default_branch } = self;
        scopes.is_subset(&other.scopes)
            && *classic <= other.classic
            && *lifetime <= other.lifetime
            && *require_protected_default_branch <= other.require_protected_default_branch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ByteSize, Control, Span};

    #[test]
    fn takes_the_stricter_of_each() {
        let a = Policy::standard().with_waived(Control::Disk).with_waived(Control::Cpu);
        let mut limits = *a.limits();
        limits.memory = ByteSize::gib(8);
        limits.lifetime = Span::hours(1);
        let b = Policy::maximum().with_limits(limits).with_waived(Control::Disk);
        let met = a.meet(&b);
        assert_eq!(met.limits().memory, ByteSize::gib(4));
        assert_eq!(met.limits().lifetime, Span::hours(1));
        assert_eq!(met.waived().iter().collect::<Vec<_>>(), [&Control::Disk]);
        assert_eq!(met.name(), "maximum ∧ standard");
        assert_eq!(met.root(), b.root());
    }
}
