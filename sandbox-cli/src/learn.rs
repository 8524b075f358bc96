//! The least policy for where a program went, as a file to start from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use sandbox_policy::{Egress, Host};
use sandbox_runtime::{LedgerEntry, Outcome};
use serde::Serialize;

/// A policy that allows where a program went and, what was denied, where it would have gone.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Learned {
    rules: Vec<Rule>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Rule {
    host: String,
    ports: BTreeSet<u16>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    addresses: BTreeSet<IpAddr>,
    /// Why some of it was denied in this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    denied: Option<String>,
}

/// Makes the policy of what was noted under a policy with this egress.
pub(crate) fn policy(entries: &[LedgerEntry], egress: &Egress) -> Learned {
    let mut rules: BTreeMap<Host, Rule> = BTreeMap::new();
    for entry in entries {
        // What stands for the rest is no host.
        let Ok(host) = entry.host.parse::<Host>() else { continue };
        let addresses = named(egress, &host);
        let rule = rules.entry(host).or_insert_with(|| Rule {
            host: entry.host.clone(),
            ports: BTreeSet::new(),
            addresses,
            denied: None,
        });
        rule.ports.insert(entry.port);
        if entry.outcome == Outcome::Denied {
            rule.denied = entry.reason.clone().or(rule.denied.take());
        }
    }
    Learned { rules: rules.into_values().collect() }
}

/// Where the policy says that a host may be beside public addresses.
fn named(egress: &Egress, host: &Host) -> BTreeSet<IpAddr> {
    let Egress::Allowlist { lists, .. } = egress else { return BTreeSet::new() };
    let rules = lists.iter().flat_map(|list| &list.rules).filter(|rule| rule.host().host() == Some(host));
    rules.flat_map(|rule| rule.addresses().iter().copied()).collect()
}

impl fmt::Display for Learned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rules.is_empty() {
            return f
                .write_str("# This run needed no network.\nversion = 1\nbase = \"standard\"\nnetwork = \"none\"\n");
        }
        f.write_str(
            "# What this run needed of the network; the rest is `standard`.\nversion = 1\nbase = \"standard\"\n",
        )?;
        f.write_str("\n[egress]\nreach = \"allowlist\"\nbundles = []\n")?;
        for Rule { host, ports, addresses, denied } in &self.rules {
            f.write_str("\n")?;
            if let Some(denied) = denied {
                writeln!(f, "# Denied in this run: {}", crate::render::escaped(denied))?;
            }
            let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
            writeln!(f, "[[egress.rules]]\nhost = \"{host}\"\nports = [{}]", ports.join(", "))?;
            if !addresses.is_empty() {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                writeln!(f, "addresses = [\"{}\"]", addresses.join("\", \""))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sandbox_policy::{Destination, NetworkRule, Policy};
    use serde_json::json;

    use super::*;

    fn entry(host: &str, port: u16, outcome: &str, reason: Option<&str>) -> LedgerEntry {
        let entry = json!({"host": host, "port": port, "outcome": outcome, "rule": "r", "reason": reason,
            "count": 1, "sent": 1, "received": 1});
        serde_json::from_value(entry).unwrap()
    }

    #[test]
    fn what_was_learned_is_a_policy_that_allows_it_and_no_more() {
        let entries = [
            entry("a.example", 443, "allowed", None),
            entry("a.example", 80, "denied", Some("a.example may be reached on port 443, not on 80")),
            entry("b.example", 443, "denied", Some("not on the\nallowlist")),
            entry("…", 0, "denied", None),
        ];
        let before =
            Policy::from_toml("version = 1\n[[egress.rules]]\nhost = \"a.example\"\naddresses = [\"10.0.0.5\"]\n");
        let text = policy(&entries, before.unwrap().egress()).to_string();
        let learned = Policy::from_toml(&text).unwrap();
        let allows = |host: &str, port| {
            let host = host.parse().unwrap();
            learned.decide_egress(&Destination { host: &host, port, request: None })
        };
        for (host, port) in [("a.example", 443), ("a.example", 80), ("b.example", 443)] {
            assert!(allows(host, port).is_allowed(), "{host}:{port} {text}");
        }
        assert!(allows("a.example", 443).check_address("10.0.0.5".parse().unwrap()).is_ok());
        assert!(!allows("b.example", 80).is_allowed() && !allows("pypi.org", 443).is_allowed());
    }

    #[test]
    fn nothing_is_learned_of_nothing() {
        let text = policy(&[], &Egress::Open).to_string();
        assert_eq!(Policy::from_toml(&text).unwrap().network(), NetworkRule::None);
    }
}
