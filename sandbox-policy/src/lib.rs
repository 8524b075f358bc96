//! What a sandbox may do, in words, and the decision whether a request may have it.
//!
//! A [`Policy`] says what is allowed, a [`SandboxRequest`] what is wanted, and [`Capabilities`] what
//! the machine at hand can enforce. [`Policy::check`] weighs the three and returns either a
//! [`SandboxSpec`], which nothing else can make, or every [`Violation`] at once.
//!
//! Invariant: this crate performs no I/O, awaits nothing and reads no clock.
//!
//! ```
//! use sandbox_policy::{Capabilities, Control, Policy, SandboxRequest, Support};
//!
//! let request = SandboxRequest::new("debian:12".parse()?);
//! let capabilities = Control::ALL.iter().fold(Capabilities::new(), |all, control| {
//!     all.with(*control, Support::Enforced { by: "an example".to_owned() })
//! });
//! let spec = Policy::standard().check(&request, &capabilities)?;
//! assert_eq!(spec.limits().memory.to_string(), "4GiB");
//!
//! let refused = Policy::deny_all().check(&request, &capabilities);
//! assert!(refused.is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod address;
mod agent;
mod bounds;
mod branch;
mod capability;
mod check;
mod clone_source;
mod count;
mod cover;
mod cpu;
mod credential;
mod document;
mod egress;
mod env;
mod explain;
mod host;
mod image;
mod limits;
mod meet;
mod mount;
mod name;
mod parse;
mod path;
mod policy;
mod preset;
mod privilege;
mod repo;
mod request;
mod rule;
mod scope;
mod size;
mod span;
mod spec;
mod sudo;
mod token;
mod violation;
mod workspace;

pub use address::{Exception, NotPublic, check_public};
pub use agent::AgentUser;
pub use branch::Branch;
pub use capability::{Capabilities, Control, Support};
pub use clone_source::{CloneSource, History, RemoteRepo};
pub use count::{CloneDepth, OpenFiles, ProcessCount};
pub use cover::CoverPath;
pub use cpu::CpuCount;
pub use credential::{BasicUser, Credential, CredentialName, Credentials, HeaderField, PlaceholderShape, Placement};
pub use document::{DocumentError, MAX_DOCUMENT_BYTES};
pub use egress::{
    AddressRule, Allowlist, Budget, Bundle, Decision, Destination, Egress, EgressRule, HostPattern, Method,
    PathPattern, Reach, Sight,
};
pub use env::{EnvName, EnvValue};
pub use explain::Explanation;
pub use host::Host;
pub use image::ImageRef;
pub use limits::{Limits, LimitsRequest};
pub use name::PolicyName;
pub use parse::ParseError;
pub use path::{GuestPath, HostPath};
pub use policy::Policy;
pub use preset::PRESETS;
pub use privilege::{LinuxCapability, SUDO_CAPABILITIES};
pub use repo::RepoId;
pub use request::{NetworkRequest, RootFilesystem, SandboxRequest, SudoRequest};
pub use rule::{
    DigestRule, ImageRule, Isolation, NetworkRule, Permission, PullRule, RootRule, SudoRule, TokenRule,
    UserNamespaceRule, WorkspaceRule,
};
pub use scope::{Scope, TokenLevel, TokenPermission, TokenPermissions};
pub use size::ByteSize;
pub use span::Span;
pub use spec::{SandboxSpec, Tmpfs};
pub use sudo::{Keep, Login, SudoAction, SudoCall, SudoDecision, Variable};
pub use token::{
    BranchProtection, ClassicRule, ProtectionRule, TokenCarries, TokenFacts, TokenForm, TokenLife, TokenReach,
};
pub use violation::{PolicyError, Violation};
pub use workspace::{Access, DEFAULT_WORKSPACE_PATH, VolumeName, Workspace, WorkspaceKind, WorkspaceSource};
