//! The policies that have a name of their own.

use std::collections::BTreeSet;

use crate::cover::{COVERED, PROTECTED};
use crate::{
    Budget, ByteSize, ClassicRule, CoverPath, CpuCount, Credentials, DigestRule, Egress, ImageRule, Isolation, Limits,
    NetworkRule, OpenFiles, Permission, Policy, PolicyName, ProcessCount, ProtectionRule, PullRule, RootRule, Scope,
    Span, SudoRule, TokenRule, UserNamespaceRule, WorkspaceKind, WorkspaceRule,
};

/// Lists the names of the presets.
pub const PRESETS: [&str; 4] = [OPEN, STANDARD, MAXIMUM, DENY_ALL];

impl Policy {
    /// Returns the policy for everyday work.
    ///
    /// 2 CPUs, 4 GiB of memory, 32 GiB of disk, 512 processes, 1,024 open files a process, 8 hours.
    /// The root file system may be written; egress to the registries of every
    /// [bundle](crate::Bundle), and sudo for installing packages, may be asked for; root inside must be
    /// nobody on the host; a workspace may be written; images may be pulled by tag;
    /// a token serves the everyday work with its repository ([`Scope::Repo`]), is no classic one and lives for thirty days
    /// at most. The default branch need not be protected, since GitHub protects none in private repositories of free plans.
    pub fn standard() -> Self {
        Self {
            sources: BTreeSet::from([PolicyName::known(STANDARD)]),
            sandboxes: Permission::Allow,
            limits: Limits {
                cpus: CpuCount::two(),
                memory: ByteSize::gib(4),
                disk: ByteSize::gib(32),
                processes: ProcessCount::above(511),
                open_files: OpenFiles::above(1_023),
                lifetime: Span::hours(8),
            },
            root: RootRule::Writable,
            network: NetworkRule::Egress,
            egress: Egress::bundles(),
            egress_budget: Budget::default(),
            credentials: Credentials::new(),
            sudo: SudoRule::Packages,
            user_namespace: UserNamespaceRule::Required,
            isolation: Isolation::Standard,
            image: ImageRule { require_digest: DigestRule::Optional, pull: PullRule::IfMissing },
            workspace: WorkspaceRule::ReadWrite,
            workspace_kinds: WorkspaceKind::ALL.iter().copied().collect(),
            workspace_protected: PROTECTED.map(CoverPath::known).into(),
            workspace_covered: COVERED.map(CoverPath::known).into(),
            token: TokenRule {
                scopes: BTreeSet::from([Scope::Repo]),
                classic: ClassicRule::Deny,
                lifetime: Span::hours(30 * 24),
                require_protected_default_branch: ProtectionRule::Optional,
            },
            waived: BTreeSet::new(),
        }
    }

    /// Returns the policy of who accepts that what the agent sees may leave: as [`Policy::standard`], with egress to every
    /// public host and anything as root inside. What is not public stays out of reach.
    pub fn open() -> Self {
        Self::standard().with_name(PolicyName::known(OPEN)).with_egress(Egress::Open).with_sudo(SudoRule::Any)
    }

    /// Returns the strictest policy that still lets work be done: as [`Policy::standard`], with a
    /// read-only root file system, no network, no sudo, no token and no volume, which would carry what one sandbox left to the
    /// next.
    ///
    /// A token would be a way out: what is pushed with it has left. Who wants pushes all the same adds the scope by name,
    /// and then the default branch must be protected.
    pub fn maximum() -> Self {
        let standard = Self::standard();
        let token = TokenRule {
            scopes: BTreeSet::new(),
            require_protected_default_branch: ProtectionRule::Required,
            ..standard.token.clone()
        };
        standard
            .with_token(token)
            .with_name(PolicyName::known(MAXIMUM))
            .with_root(RootRule::ReadOnly)
            .with_network(NetworkRule::None)
            .with_egress(Egress::None)
            .with_sudo(SudoRule::Deny)
            .with_workspace_kinds([WorkspaceKind::Bind, WorkspaceKind::Clone, WorkspaceKind::Copy])
    }

    /// Returns the policy that refuses every request.
    pub fn deny_all() -> Self {
        Self::maximum()
            .with_name(PolicyName::known(DENY_ALL))
            .with_sandboxes(Permission::Deny)
            .with_image(ImageRule { require_digest: DigestRule::Required, pull: PullRule::Never })
            .with_workspace(WorkspaceRule::None)
            .with_workspace_kinds([])
    }

    /// Returns the preset of a name, one of [`PRESETS`].
    pub fn preset(name: &str) -> Option<Self> {
        match name {
            OPEN => Some(Self::open()),
            STANDARD => Some(Self::standard()),
            MAXIMUM => Some(Self::maximum()),
            DENY_ALL => Some(Self::deny_all()),
            _ => None,
        }
    }
}

const OPEN: &str = "open";
const STANDARD: &str = "standard";
const MAXIMUM: &str = "maximum";
const DENY_ALL: &str = "deny-all";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_grants_what_is_promised() {
        let policy = Policy::standard();
        let Limits { cpus, memory, disk, processes, open_files, lifetime } = policy.limits;
        assert_eq!(
            [
                cpus.to_string(),
                memory.to_string(),
                disk.to_string(),
                processes.to_string(),
                open_files.to_string(),
                lifetime.to_string(),
            ],
            ["2", "4GiB", "32GiB", "512", "1024", "8h"]
        );
        assert!(policy.waived.is_empty());
    }

    #[test]
    fn each_preset_is_stricter_than_the_one_before() {
        let presets: Vec<Policy> = PRESETS.iter().map(|name| Policy::preset(name).unwrap()).collect();
        for (pair, name) in presets.windows(2).zip(&PRESETS[1..]) {
            assert!(pair[1].is_at_least_as_strict_as(&pair[0]), "{name}");
            assert!(!pair[0].is_at_least_as_strict_as(&pair[1]), "{name}");
            assert_eq!(pair[1].name(), *name);
        }
        assert_eq!(Policy::preset("Standard"), None);
    }
}
