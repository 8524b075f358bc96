//! Whether a gateway must see each request to a destination, or may pass bytes that it cannot read.

use super::{Destination, Egress};
use crate::parse::words;
use crate::{Host, SandboxSpec};

words! {
    /// Tells what a gateway must see of what goes to a destination.
    Sight is "a sight" {
        /// Nothing: a tunnel is decided on as a whole.
        Opaque = "opaque",
        /// Each request, so that each is decided on.
        Requests = "requests",
    }
}

impl SandboxSpec {
    /// Tells what must be seen of what goes to a destination: each request, where the policy's rules for it are about
    /// requests or a credential is bound to it.
    pub fn sight(&self, host: &Host, port: u16) -> Sight {
        if self.credentials.values().any(|credential| credential.is_for(host, port)) {
            return Sight::Requests;
        }
        self.egress.sight(host, port)
    }

    /// Lists the names of the hosts that [`sight`](Self::sight) may be [`Sight::Requests`] for, `*.example.org` among them.
    pub fn seen_hosts(&self) -> Vec<String> {
        let bound = self.credentials.values().map(|credential| credential.host().to_string());
        let mut hosts: Vec<String> = bound.collect();
        if let Egress::Allowlist { lists, .. } = &self.egress {
            let rules = lists.iter().flat_map(|list| &list.rules).filter(|rule| rule.is_about_requests());
            hosts.extend(rules.map(|rule| rule.host().to_string()));
        }
        hosts.sort();
        hosts.dedup();
        hosts
    }
}

impl Egress {
    /// Tells what must be seen of what goes to a destination: each request, where no tunnel is allowed to it and some
    /// request may be.
    pub fn sight(&self, host: &Host, port: u16) -> Sight {
        let Self::Allowlist { lists, .. } = self else { return Sight::Opaque };
        if self.decide(&Destination { host, port, request: None }).is_allowed() {
            return Sight::Opaque;
        }
        let mut rules = lists.iter().flat_map(|list| &list.rules);
        let seen = rules.any(|rule| rule.is_about_requests() && rule.host.matches(host) && rule.ports.contains(&port));
        if seen { Sight::Requests } else { Sight::Opaque }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Policy;

    #[test]
    fn requests_are_seen_where_rules_are_about_them() {
        let egress = |text: &str| Policy::from_toml(&format!("version = 1\n{text}")).unwrap().egress().clone();
        let narrow = egress("[[egress.rules]]\nhost = \"*.example.org\"\nmethods = [\"GET\"]\n");
        let host: Host = "api.example.org".parse().unwrap();
        assert_eq!(narrow.sight(&host, 443), Sight::Requests);
        assert_eq!(narrow.sight(&host, 80), Sight::Opaque);
        assert_eq!(narrow.sight(&"pypi.org".parse().unwrap(), 443), Sight::Opaque);
        let both = egress(
            "[[egress.rules]]\nhost = \"*.example.org\"\nmethods = [\"GET\"]\n[[egress.rules]]\nhost = \"api.example.org\"\n",
        );
        assert_eq!(both.sight(&host, 443), Sight::Opaque);
        assert_eq!(both.meet(&narrow).sight(&host, 443), Sight::Requests);
        assert_eq!((Egress::Open.sight(&host, 443), Egress::None.sight(&host, 443)), (Sight::Opaque, Sight::Opaque));
    }
}
