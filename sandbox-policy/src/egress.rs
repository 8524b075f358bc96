//! How far a sandbox reaches, and the decision whether one connection or request may pass.
//!
//! Invariant: a destination is allowed only if every list that was joined allows it, so that joining policies can only
//! tighten; and what is decided on is a [`Host`], the same value that is then resolved and dialled.

mod bundle;
mod decision;
mod pattern;
mod rule;
mod sight;

use std::collections::BTreeSet;

pub use bundle::Bundle;
pub use decision::{Decision, Destination};
pub use pattern::{HostPattern, Method, PathPattern};
pub use rule::{Budget, EgressRule};
pub use sight::Sight;

use crate::parse::words;

/// Says which destinations may be reached.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "reach", rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "a gateway must know each of them")]
pub enum Egress {
    /// None.
    None,
    /// What every one of some lists allows.
    Allowlist {
        /// The lists; where there is none, nothing is allowed.
        lists: BTreeSet<Allowlist>,
        /// Whether the addresses that rules name count.
        addresses: AddressRule,
    },
    /// Every public host.
    Open,
}

words! {
    /// Tells the kind of an [`Egress`], the strictest first.
    Reach is "a reach" {
        /// Nothing.
        None = "none",
        /// What is listed.
        Allowlist = "allowlist",
        /// Every public host.
        Open = "open",
    }
}

words! {
    /// Tells at which addresses a host may be.
    AddressRule is "a rule for addresses" {
        /// At public ones, whatever a rule names: so it is where a policy was joined with one that is open.
        Public = "public",
        /// At public ones, and at those that its rule names.
        Named = "named",
    }
}

/// Lists destinations.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub struct Allowlist {
    /// Registries, by one word each.
    pub bundles: BTreeSet<Bundle>,
    /// Hosts.
    pub rules: BTreeSet<EgressRule>,
}

impl Egress {
    /// Makes the reach of one list.
    pub fn list(list: Allowlist) -> Self {
        Self::lists(BTreeSet::from([list]))
    }

    /// Makes the reach of what every one of some lists allows.
    pub fn lists(lists: BTreeSet<Allowlist>) -> Self {
        Self::Allowlist { lists, addresses: AddressRule::Named }
    }

    /// Makes the reach of every bundle.
    pub fn bundles() -> Self {
        Self::list(Allowlist { bundles: Bundle::ALL.iter().copied().collect(), rules: BTreeSet::new() })
    }

    /// Tells its kind.
    pub fn reach(&self) -> Reach {
        match self {
            Self::None => Reach::None,
            Self::Allowlist { .. } => Reach::Allowlist,
            Self::Open => Reach::Open,
        }
    }

    /// Joins two into what both allow.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::None, _) | (_, Self::None) => Self::None,
            (Self::Open, Self::Open) => Self::Open,
            (Self::Open, Self::Allowlist { lists, .. }) | (Self::Allowlist { lists, .. }, Self::Open) => {
                Self::Allowlist { lists: lists.clone(), addresses: AddressRule::Public }
            }
            (Self::Allowlist { lists, addresses }, Self::Allowlist { lists: others, addresses: also }) => {
                let nothing = lists.is_empty() || others.is_empty();
                let lists = if nothing { BTreeSet::new() } else { lists.union(others).cloned().collect() };
                Self::Allowlist { lists, addresses: *addresses.min(also) }
            }
        }
    }

    /// Tells whether it allows nothing that the other does not. A list is compared rule by rule.
    pub fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, _) | (Self::Open, Self::Open) => true,
            (_, Self::None) | (Self::Open, _) => false,
            (Self::Allowlist { .. }, Self::Open) => self.is_public(),
            (Self::Allowlist { lists, .. }, Self::Allowlist { lists: others, addresses }) => {
                let each = || others.iter().all(|wider| lists.iter().any(|list| list.is_within(wider)));
                let listed = lists.is_empty() || (!others.is_empty() && each());
                listed && (*addresses == AddressRule::Named || self.is_public())
            }
        }
    }
}

impl Egress {
    /// Tells whether public addresses alone can be reached: an address counts only if every list names it.
    fn is_public(&self) -> bool {
        match self {
            Self::None | Self::Open => true,
            Self::Allowlist { lists, addresses } => {
                let names_none = |list: &Allowlist| list.rules.iter().all(|rule| rule.addresses.is_empty());
                *addresses == AddressRule::Public || lists.is_empty() || lists.iter().any(names_none)
            }
        }
    }
}

impl Allowlist {
    /// Returns every rule, with the bundle that it is of.
    pub fn all_rules(&self) -> impl Iterator<Item = (Option<Bundle>, &EgressRule)> {
        let of_bundle = |bundle: &Bundle| {
            let bundle = *bundle;
            bundle.rules().iter().map(move |rule| (Some(bundle), rule))
        };
        self.bundles.iter().flat_map(of_bundle).chain(self.rules.iter().map(|rule| (None, rule)))
    }

    fn is_within(&self, wider: &Self) -> bool {
        self.all_rules().all(|(_, rule)| wider.all_rules().any(|(_, wide)| rule.is_within(wide)))
    }
}
