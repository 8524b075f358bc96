//! Whether one request for root inside may pass, and why not.
//!
//! The rule [`SudoRule::Packages`] bounds by which commands root is asked for, and each is recorded; it is no wall between
//! the agent and root inside, since a package's own scripts run as root. The wall is the container's: root inside has the
//! few capabilities of [`SUDO_CAPABILITIES`](crate::SUDO_CAPABILITIES), the system call filter and `no_new_privs`, like everything else.
//!
//! Invariant: what is not known to be harmless is refused. Arguments are weighed as the list that they are; no shell is
//! ever involved.

mod call;
mod environment;
mod grammar;
mod packages;

pub use call::{Keep, Login, SudoAction, SudoCall};

use crate::parse::clip;
use crate::{Policy, SandboxSpec, SudoRule};

/// A variable of the environment: its name and its value.
pub type Variable = (Vec<u8>, Vec<u8>);

/// Tells what becomes of a request for root inside.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there is nothing between them")]
pub enum SudoDecision {
    /// It may run.
    Allow {
        /// Which rule allows it: `sudo packages: apt install`.
        rule: String,
        /// Variables that it is given of those that were asked for.
        environment: Vec<Variable>,
    },
    /// It may not.
    Deny {
        /// Which rule denies it.
        rule: String,
        /// Why, in words for whoever asked; what was asked is in it clipped and escaped.
        reason: String,
        /// What to do instead.
        hint: String,
    },
}

impl SudoDecision {
    /// Tells whether it may run.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }
}

impl Policy {
    /// Decides whether a sandbox under this policy may run something as root inside.
    ///
    /// `environment` is what the asking program has; of it, no more than the decision says reaches what runs.
    pub fn decide_sudo(&self, call: &SudoCall, environment: &[Variable]) -> SudoDecision {
        self.sudo.decide(call, environment)
    }
}

impl SandboxSpec {
    /// Decides whether this sandbox may run something as root inside.
    ///
    /// `environment` is what the asking program has; of it, no more than the decision says reaches what runs.
    pub fn decide_sudo(&self, call: &SudoCall, environment: &[Variable]) -> SudoDecision {
        self.sudo.decide(call, environment)
    }
}

impl SudoRule {
    /// Decides whether something may run as root inside.
    pub fn decide(self, call: &SudoCall, environment: &[Variable]) -> SudoDecision {
        let rule = format!("sudo {self}");
        let refuse =
            |reason: String, hint: &str| SudoDecision::Deny { rule: rule.clone(), reason, hint: hint.to_owned() };
        if self == Self::Deny {
            return refuse("the policy lets nobody be root inside".to_owned(), "sudo = \"packages\" in the policy");
        }
        for (kind, name) in [("user", &call.user), ("group", &call.group)] {
            if let Some(name) = name
                && !matches!(name.as_slice(), b"root" | b"#0")
            {
                let shown = clip(&String::from_utf8_lossy(name));
                return refuse(
                    format!("{kind} \"{shown}\" was asked for, and only root can be"),
                    "leave the option out",
                );
            }
        }
        let environment = match environment::granted(self, call, environment) {
            Ok(environment) => environment,
            Err(reason) => return refuse(reason, "leave the variable out, or set it inside a script of your own"),
        };
        let SudoAction::Run(arguments) = &call.action else {
            return match (self, &call.action) {
                (Self::Packages, SudoAction::Shell { .. }) => {
                    refuse("a shell can do more than install packages".to_owned(), ASK_FOR_ANY)
                }
                _ => SudoDecision::Allow { rule, environment },
            };
        };
        if self == Self::Any {
            return SudoDecision::Allow { rule, environment };
        }
        match packages::weigh(arguments) {
            Ok(form) => {
                let settings = packages::settings(&form).iter().map(|(name, value)| ((*name).into(), (*value).into()));
                let environment = environment.into_iter().chain(settings).collect();
                SudoDecision::Allow { rule: format!("{rule}: {form}"), environment }
            }
            Err(refusal) => SudoDecision::Deny {
                rule: refusal.grammar.map_or_else(|| rule.clone(), |grammar| format!("{rule}: {grammar}")),
                reason: refusal.reason,
                hint: refusal.hint,
            },
        }
    }
}

const ASK_FOR_ANY: &str = "sudo = \"any\" in the policy";

#[cfg(test)]
mod tests;
