//! Whether one connection or request may pass, and why not.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{AddressRule, Allowlist, Budget, Bundle, Egress, EgressRule};
use crate::parse::clip;
use crate::{Host, NetworkRule, Policy, RemoteRepo, SandboxSpec, check_public};

/// Says where somebody wants to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "whoever asks must say all of it")]
pub struct Destination<'a> {
    /// The host.
    pub host: &'a Host,
    /// The port.
    pub port: u16,
    /// The method and the path, where the request can be seen; none for a tunnel.
    pub request: Option<(&'a str, &'a str)>,
}

/// Tells whether somebody may go there.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "decision", rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "there is nothing between them")]
pub enum Decision {
    /// It may.
    Allow {
        /// Which rules allow it: `bundle pypi`.
        rule: String,
        /// Addresses, beside public ones, at which the host may be.
        addresses: BTreeSet<IpAddr>,
        /// How much may be moved.
        budget: Budget,
    },
    /// It may not.
    Deny {
        /// Which rule comes closest, or what denies it: `egress none`.
        rule: String,
        /// Why, in words for whoever asked; what was asked is in it clipped and escaped.
        reason: String,
        /// What the policy would have to say.
        hint: String,
    },
}

impl Decision {
    /// Tells whether it may pass.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    /// Tells whether an address that the host was resolved to may be dialled.
    ///
    /// # Errors
    /// The reason, in words for whoever asked.
    pub fn check_address(&self, address: IpAddr) -> Result<(), String> {
        match self {
            Self::Deny { reason, .. } => Err(reason.clone()),
            Self::Allow { addresses, .. } if addresses.contains(&address) => Ok(()),
            Self::Allow { .. } => check_public(address).map_err(|error| error.to_string()),
        }
    }
}

impl Policy {
    /// Decides whether a sandbox under this policy may go somewhere.
    pub fn decide_egress(&self, destination: &Destination<'_>) -> Decision {
        self.egress.decide(destination)
    }
}

impl Policy {
    /// Decides whether the host may fetch a repository for a sandbox under this policy: both requests that git makes of a
    /// server (gitprotocol-http(5)) must be allowed.
    pub fn decide_clone(&self, remote: &RemoteRepo) -> Decision {
        if self.network == NetworkRule::None {
            return Decision::Deny {
                rule: "network none".to_owned(),
                reason: "the policy allows no network".to_owned(),
                hint: "network = \"egress\"".to_owned(),
            };
        }
        let decide = |method, service| {
            let path = format!("/{}.git/{service}", remote.repository());
            self.egress.decide(&Destination {
                host: remote.host(),
                port: remote.port(),
                request: Some((method, &path)),
            })
        };
        both(decide("GET", "info/refs"), decide("POST", "git-upload-pack"))
    }
}

impl SandboxSpec {
    /// Decides whether this sandbox may go somewhere.
    pub fn decide_egress(&self, destination: &Destination<'_>) -> Decision {
        self.egress.decide(destination)
    }
}

impl Egress {
    /// Decides whether somebody may go somewhere.
    pub fn decide(&self, destination: &Destination<'_>) -> Decision {
        let Destination { host, port, .. } = *destination;
        if let Some(address) = host.address() {
            // An address needs no resolver, so it is judged at once where no rule names it.
            if let Err(error) = check_public(address)
                && !self.names(host, address)
            {
                let reason = error.to_string();
                let hint = "only a rule that names the host and the address allows it".to_owned();
                return Decision::Deny { rule: "addresses that are not public".to_owned(), reason, hint };
            }
        }
        match self {
            Self::None => Decision::Deny {
                rule: "egress none".to_owned(),
                reason: "the policy allows no destination".to_owned(),
                hint: format!("egress.reach = \"allowlist\" with a rule for {host} port {port}"),
            },
            Self::Open => Decision::Allow {
                rule: "egress open".to_owned(),
                addresses: BTreeSet::new(),
                budget: Budget::default(),
            },
            Self::Allowlist { lists, addresses } => {
                let decisions = lists.iter().map(|list| list.decide(destination));
                let decision = decisions.reduce(both).unwrap_or_else(|| Allowlist::default().decide(destination));
                match (addresses, decision) {
                    (AddressRule::Public, Decision::Allow { rule, budget, addresses: _ }) => {
                        Decision::Allow { rule, budget, addresses: BTreeSet::new() }
                    }
                    (_, decision) => decision,
                }
            }
        }
    }

    fn names(&self, host: &Host, address: IpAddr) -> bool {
        let Self::Allowlist { lists, addresses: AddressRule::Named } = self else { return false };
        let named = |rule: &EgressRule| rule.host.host() == Some(host) && rule.addresses.contains(&address);
        lists.iter().all(|list| list.rules.iter().any(named))
    }
}

impl Allowlist {
    /// What matches is joined, so that the order of rules does not matter.
    fn decide(&self, destination: &Destination<'_>) -> Decision {
        let Destination { host, port, .. } = *destination;
        let mut allowed: Option<Decision> = None;
        let mut closest: Option<(u8, Decision)> = None;
        let name = |bundle: Option<Bundle>, rule: &EgressRule| {
            bundle.map_or_else(|| format!("rule {}", rule.host), |bundle| format!("bundle {bundle}"))
        };
        for (bundle, rule) in self.all_rules().filter(|(_, rule)| rule.host.matches(host)) {
            match rule.refuses(destination) {
                None => {
                    let addresses = rule.addresses.clone();
                    let next = Decision::Allow { rule: name(bundle, rule), addresses, budget: rule.budget };
                    allowed = Some(match allowed {
                        None => next,
                        Some(so_far) => either(so_far, next),
                    });
                }
                Some(Miss { near, reason, hint }) => {
                    if closest.as_ref().is_none_or(|(nearest, _)| near > *nearest) {
                        closest = Some((near, Decision::Deny { rule: name(bundle, rule), reason, hint }));
                    }
                }
            }
        }
        let unlisted = || Decision::Deny {
            rule: "no rule".to_owned(),
            reason: format!("{host} is not on the allowlist"),
            hint: format!("a rule with host = \"{host}\" and ports = [{port}]"),
        };
        allowed.or(closest.map(|(_, deny)| deny)).unwrap_or_else(unlisted)
    }
}

/// How a rule for the host misses the destination: the nearer, the larger.
struct Miss {
    near: u8,
    reason: String,
    hint: String,
}

impl EgressRule {
    /// Why the rule, which is one for the host, does not allow it; `None` if it does.
    fn refuses(&self, destination: &Destination<'_>) -> Option<Miss> {
        let Destination { host, port, request } = *destination;
        let listed = |words: Vec<String>| words.join(", ");
        if !self.ports.contains(&port) {
            let ports = listed(self.ports.iter().map(ToString::to_string).collect());
            let reason = format!("{host} may be reached on port {ports}, not on {port}");
            return Some(Miss { near: 1, reason, hint: format!("port {port} in the rule's ports") });
        }
        if !self.is_about_requests() {
            return None;
        }
        let Some((method, path)) = request else {
            let reason = format!("{host} may be reached for some requests alone, and a tunnel hides which");
            let hint = "a rule without methods and paths, or a gateway that sees each request".to_owned();
            return Some(Miss { near: 2, reason, hint });
        };
        if !self.methods.is_empty() && !self.methods.iter().any(|allowed| allowed.as_str() == method) {
            let methods = listed(self.methods.iter().map(ToString::to_string).collect());
            let reason = format!("{host} may be asked with {methods}, not with {}", clip(method));
            return Some(Miss { near: 3, reason, hint: "the method in the rule's methods".to_owned() });
        }
        if !self.paths.is_empty() && !self.paths.iter().any(|allowed| allowed.matches(path)) {
            let paths = listed(self.paths.iter().map(ToString::to_string).collect());
            let reason = format!("{host} may be asked for {paths}, not for {}", clip(path));
            return Some(Miss { near: 4, reason, hint: "the path in the rule's paths".to_owned() });
        }
        None
    }
}

/// What two lists say together: no more than each.
fn both(one: Decision, other: Decision) -> Decision {
    match (one, other) {
        (
            Decision::Allow { rule, addresses, budget },
            Decision::Allow { rule: others, addresses: also, budget: within },
        ) => Decision::Allow {
            rule: if rule == others { rule } else { format!("{rule} ∧ {others}") },
            addresses: addresses.intersection(&also).copied().collect(),
            budget: budget.meet(within),
        },
        (deny @ Decision::Deny { .. }, _) | (_, deny @ Decision::Deny { .. }) => deny,
    }
}

/// What two rules of one list say together: as much as either.
fn either(one: Decision, other: Decision) -> Decision {
    match (one, other) {
        (Decision::Allow { rule, addresses, budget }, Decision::Allow { addresses: also, budget: more, .. }) => {
            Decision::Allow { rule, addresses: addresses.union(&also).copied().collect(), budget: budget.join(more) }
        }
        (allow @ Decision::Allow { .. }, _) | (_, allow) => allow,
    }
}
