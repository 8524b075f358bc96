//! The words in which a policy rules.
//!
//! Invariant: each rule lists its variants with the strictest first, and its order is that of
//! strictness, so the smaller of two rules is the one that allows no more than either.

use std::collections::BTreeSet;

use crate::parse::words;
use crate::{ClassicRule, ProtectionRule, Scope, Span};

words! {
    /// Tells whether a policy lets any sandbox be made.
    Permission is "a permission" {
        /// Every request is refused.
        Deny = "deny",
        /// A request is weighed against the rest of the policy.
        Allow = "allow",
    }
}

words! {
    /// Tells what the root file system may be.
    RootRule is "a rule for the root file system" {
        /// It must be read-only.
        ReadOnly = "read-only",
        /// It may be writable.
        Writable = "writable",
    }
}

words! {
    /// Tells how far a sandbox may reach.
    NetworkRule is "a rule for the network" {
        /// Nowhere.
        None = "none",
        /// Allowed destinations, through the egress gateway.
        Egress = "egress",
    }
}

words! {
    /// Tells what the agent may ask of root inside the container, where the request asks for it.
    SudoRule is "a rule for sudo" {
        /// Nothing.
        Deny = "deny",
        /// The commands that install packages.
        Packages = "packages",
        /// Anything.
        Any = "any",
    }
}

words! {
    /// Tells what stands between a sandbox's programs and the host's kernel. A stronger one may be asked for than the policy
    /// requires.
    Isolation is "an isolation" {
        /// gVisor: a kernel of the sandbox's own, as an ordinary program of the host (<https://gvisor.dev/docs/>).
        Gvisor = "gvisor",
        /// What every container has: namespaces, control groups and a filter of system calls.
        Standard = "standard",
    }
}

words! {
    /// Tells whether root inside must be nobody on the host.
    UserNamespaceRule is "a rule for user namespaces" {
        /// The engine must put the sandbox into a user namespace.
        Required = "required",
        /// The engine may do without.
        Optional = "optional",
    }
}

words! {
    /// Tells whether an image must be named by its content.
    DigestRule is "a rule for digests" {
        /// Only a digest or a local id will do.
        Required = "required",
        /// A tag will do.
        Optional = "optional",
    }
}

words! {
    /// Tells when an image is fetched from its registry.
    PullRule is "a rule for pulling" {
        /// Never: the image must be there.
        Never = "never",
        /// When the engine does not have it.
        IfMissing = "if-missing",
    }
}

words! {
    /// Tells what a directory of the host that is mounted as the workspace may be to a sandbox.
    WorkspaceRule is "a rule for the workspace" {
        /// None may be mounted.
        None = "none",
        /// It may be mounted for reading.
        ReadOnly = "read-only",
        /// It may be mounted for reading and writing.
        ReadWrite = "read-write",
    }
}

/// Tells which images may be used, and whence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageRule {
    /// Whether the image must be named by its content.
    #[serde(rename = "digest")]
    pub require_digest: DigestRule,
    /// When the image is fetched.
    pub pull: PullRule,
}

/// Tells what the token of a sandbox's repository may be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TokenRule {
    /// What it may at most be used for; with none, no sandbox has a token.
    pub scopes: BTreeSet<Scope>,
    /// Whether a classic token will do.
    pub classic: ClassicRule,
    /// How long a token may at most still live, give or take a day.
    pub lifetime: Span,
    /// Whether the default branch must be protected.
    #[serde(rename = "protected-default-branch")]
    pub require_protected_default_branch: ProtectionRule,
}
