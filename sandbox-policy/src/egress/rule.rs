//! One line of an allowlist.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::net::IpAddr;

use crate::{ByteSize, Exception, HostPattern, Method, ParseError, PathPattern, check_public};

/// Allows some hosts, on some ports, and where it says so for some requests alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct EgressRule {
    pub(super) host: HostPattern,
    pub(super) ports: BTreeSet<u16>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) methods: BTreeSet<Method>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) paths: BTreeSet<PathPattern>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) addresses: BTreeSet<IpAddr>,
    #[serde(flatten)]
    pub(super) budget: Budget,
}

/// The most that one sandbox moves: to and from one host, where a rule has it, or in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Budget {
    /// Bytes in both directions together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<ByteSize>,
    /// New connections and requests a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
}

impl EgressRule {
    /// Allows hosts on port 443, for any request, at their public addresses, without a budget.
    pub fn new(host: HostPattern) -> Self {
        Self {
            host,
            ports: BTreeSet::from([443]),
            methods: BTreeSet::new(),
            paths: BTreeSet::new(),
            addresses: BTreeSet::new(),
            budget: Budget::default(),
        }
    }

    /// Sets the ports, in place of 443; there is no port 0.
    #[must_use]
    pub fn with_ports(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.ports = ports.into_iter().filter(|port| *port != 0).collect();
        self
    }

    /// Allows these methods alone, which takes a gateway that sees each request.
    #[must_use]
    pub fn with_methods(mut self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.methods = methods.into_iter().collect();
        self
    }

    /// Allows these paths alone, which takes a gateway that sees each request.
    #[must_use]
    pub fn with_paths(mut self, paths: impl IntoIterator<Item = PathPattern>) -> Self {
        self.paths = paths.into_iter().collect();
        self
    }

    /// Names addresses that are not public and at which the host may be all the same.
    ///
    /// # Errors
    /// For an address of the host's own, of a link or of a cloud's metadata, which no rule may name, and for a wildcard.
    pub fn with_addresses(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Result<Self, ParseError> {
        self.addresses = addresses.into_iter().collect();
        if self.host.host().is_none() && !self.addresses.is_empty() {
            let given = self.host.to_string();
            return Err(ParseError::new("the one host that addresses are named for", &given, "write it in full"));
        }
        for address in &self.addresses {
            if let Err(error) = check_public(*address)
                && error.exception() == Exception::Never
            {
                let allowed = format!("it is {}, which no rule may name", error.what());
                return Err(ParseError::new("an address for a rule", &address.to_string(), allowed));
            }
        }
        Ok(self)
    }

    /// Sets how much may be moved.
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Returns which hosts are meant.
    pub fn host(&self) -> &HostPattern {
        &self.host
    }

    /// Returns the addresses beside public ones.
    pub fn addresses(&self) -> &BTreeSet<IpAddr> {
        &self.addresses
    }

    /// Tells whether each request must be seen for the rule to be kept.
    pub fn is_about_requests(&self) -> bool {
        !self.methods.is_empty() || !self.paths.is_empty()
    }

    /// Writes the lines of its document form.
    pub(crate) fn document(&self) -> String {
        let Self { host, ports, methods, paths, addresses, budget } = self;
        let ports: Vec<String> = ports.iter().map(ToString::to_string).collect();
        let words = |key: &str, words: Vec<String>| match words.as_slice() {
            [] => String::new(),
            words => format!("{key} = [\"{}\"]\n", words.join("\", \"")),
        };
        let texts = |words: &mut dyn Iterator<Item = &dyn ToString>| words.map(ToString::to_string).collect();
        let mut text = format!("host = \"{host}\"\nports = [{}]\n", ports.join(", "));
        text.push_str(&words("methods", texts(&mut methods.iter().map(|it| it as &dyn ToString))));
        text.push_str(&words("paths", texts(&mut paths.iter().map(|it| it as &dyn ToString))));
        text.push_str(&words("addresses", texts(&mut addresses.iter().map(|it| it as &dyn ToString))));
        text.push_str(&budget.document());
        text
    }

    /// Tells whether it allows nothing that the other does not. The rules are taken apart in full, so that a new part does
    /// not compile until it is compared.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        let Self { host, ports, methods, paths, addresses, budget } = self;
        host.is_within(&other.host)
            && ports.is_subset(&other.ports)
            && (other.methods.is_empty() || (!methods.is_empty() && methods.is_subset(&other.methods)))
            && (other.paths.is_empty()
                || (!paths.is_empty()
                    && paths.iter().all(|path| other.paths.iter().any(|wider| path.is_within(wider)))))
            && addresses.is_subset(&other.addresses)
            && budget.is_within(other.budget)
    }
}

impl fmt::Display for EgressRule {
    /// Writes it in one word, for people: `git.example.org:443(10.0.0.5)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports: Vec<String> = self.ports.iter().map(ToString::to_string).collect();
        write!(f, "{}:{}", self.host, ports.join(","))?;
        if self.is_about_requests() {
            let methods = self.methods.iter().map(ToString::to_string);
            let words: Vec<String> = methods.chain(self.paths.iter().map(ToString::to_string)).collect();
            write!(f, "[{}]", words.join(","))?;
        }
        if !self.addresses.is_empty() {
            let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
            write!(f, "({})", addresses.join(","))?;
        }
        Ok(())
    }
}

impl Budget {
    /// Takes the smaller of each.
    #[must_use]
    pub fn meet(self, other: Self) -> Self {
        let Self { bytes, rate } = self;
        Self { bytes: smaller(bytes, other.bytes), rate: smaller(rate, other.rate) }
    }

    /// Writes the lines of its document form; none where nothing is set.
    pub(crate) fn document(self) -> String {
        let Self { bytes, rate } = self;
        let mut text = String::new();
        // Writing to a String cannot fail.
        if let Some(bytes) = bytes {
            let _ = writeln!(text, "bytes = \"{bytes}\"");
        }
        if let Some(rate) = rate {
            let _ = writeln!(text, "rate = {rate}");
        }
        text
    }

    /// Takes the larger of each; none is the largest.
    pub(super) fn join(self, other: Self) -> Self {
        let Self { bytes, rate } = self;
        Self {
            bytes: bytes.zip(other.bytes).map(|(own, others)| own.max(others)),
            rate: rate.zip(other.rate).map(|(own, others)| own.max(others)),
        }
    }

    /// Tells whether it allows no more than the other does.
    pub(crate) fn is_within(self, other: Self) -> bool {
        self.meet(other) == self
    }
}

fn smaller<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}
