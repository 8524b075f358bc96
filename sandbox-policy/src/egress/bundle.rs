//! The registries that most work needs, under one word each.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::EgressRule;
use crate::parse::words;
use crate::{Host, HostPattern};

words! {
    /// Names the hosts of one registry.
    Bundle is "a bundle" {
        /// Rust's crates.
        Crates = "crates",
        /// Debian's packages, by HTTP and HTTPS.
        Debian = "debian",
        /// GitHub: its site, its API, and what they refer to for content. Whoever may speak to it may publish there.
        GitHub = "github",
        /// Go's module proxy and its checksums.
        Go = "go",
        /// JavaScript's packages.
        Npm = "npm",
        /// Python's packages.
        Pypi = "pypi",
    }
}

impl Bundle {
    /// Returns the rules that the word stands for.
    pub fn rules(self) -> &'static [EgressRule] {
        // They are asked for with each decision, and what they say never changes.
        static RULES: LazyLock<BTreeMap<Bundle, Vec<EgressRule>>> =
            LazyLock::new(|| Bundle::ALL.iter().map(|bundle| (*bundle, bundle.written())).collect());
        RULES.get(&self).map_or(&[], Vec::as_slice)
    }

    fn written(self) -> Vec<EgressRule> {
        let (hosts, ports): (&[&str], &[u16]) = match self {
            Self::Crates => (&["crates.io", "index.crates.io", "static.crates.io"], &[443]),
            Self::Debian => (&["deb.debian.org", "security.debian.org", "snapshot.debian.org"], &[80, 443]),
            Self::GitHub => {
                (&["github.com", "api.github.com", "codeload.github.com", "*.githubusercontent.com"], &[443])
            }
            Self::Go => (&["proxy.golang.org", "sum.golang.org"], &[443]),
            Self::Npm => (&["registry.npmjs.org"], &[443]),
            Self::Pypi => (&["pypi.org", "files.pythonhosted.org"], &[443]),
        };
        let patterns = hosts.iter().filter_map(|host| host.parse::<HostPattern>().ok());
        patterns.map(|pattern| EgressRule::new(pattern).with_ports(ports.iter().copied())).collect()
    }

    /// Tells whether a host is one of the bundle's.
    pub fn contains(self, host: &Host) -> bool {
        self.rules().iter().any(|rule| rule.host().matches(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_of_a_bundle_is_one() {
        let counts: Vec<usize> = Bundle::ALL.iter().map(|bundle| bundle.rules().len()).collect();
        assert_eq!(counts, [3, 3, 4, 2, 1, 2]);
        assert!(Bundle::GitHub.contains(&"raw.githubusercontent.com".parse().unwrap()));
        assert!(!Bundle::GitHub.contains(&"gist.github.com".parse().unwrap()));
    }
}
