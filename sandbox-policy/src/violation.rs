//! Why a request is refused.

use std::fmt;

use crate::Control;

/// Tells one reason why a policy refuses a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(tag = "violation", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Violation {
    /// The policy does not allow what was asked for.
    Denied {
        /// Which part of the request: `limits.memory`.
        field: String,
        /// What was asked for, clipped to 80 characters and escaped: `8GiB`.
        requested: String,
        /// What would be allowed: `at most 4GiB`.
        allowed: String,
    },
    /// The request is allowed, and nothing here can enforce what it takes.
    Unenforceable {
        /// What cannot be enforced.
        control: Control,
        /// Why not.
        why: String,
        /// What to do about it.
        hint: String,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied { field, requested, allowed } => {
                write!(f, "{field}: asked for {requested}, allowed is {allowed}")
            }
            Self::Unenforceable { control, why, hint } => {
                write!(f, "{control}: cannot be enforced, because {why}; {hint}")
            }
        }
    }
}

/// Tells every reason why a policy refuses a request; there is at least one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct PolicyError {
    policy: String,
    violations: Vec<Violation>,
}

impl PolicyError {
    pub(crate) fn new(policy: String, first: Violation, rest: Vec<Violation>) -> Self {
        let mut violations = vec![first];
        violations.extend(rest);
        Self { policy, violations }
    }

    /// Returns the name of the policy that refuses.
    pub fn policy_name(&self) -> &str {
        &self.policy
    }

    /// Returns every reason, in the order of the request's fields; never empty.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy {} refuses the sandbox", self.policy)?;
        self.violations.iter().try_for_each(|violation| write!(f, "\n{violation}"))
    }
}
