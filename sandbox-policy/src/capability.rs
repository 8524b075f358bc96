//! What the machine at hand can enforce, control by control.
//!
//! Invariant: there is no half-way. A control is enforced, by something that is named, or it is
//! unsupported, for a reason that is given.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::parse::words;

words! {
    /// Names one thing that a sandbox keeps true about what runs inside it.
    #[non_exhaustive]
    Control is "a control" {
        /// The agent runs as an ordinary user.
        AgentUser = "agent-user",
        /// No more kernel capabilities than the specification needs.
        CapabilityDrop = "capability-drop",
        /// A ceiling on processor time.
        Cpu = "cpu",
        /// A ceiling on what is written to the sandbox's own file system.
        Disk = "disk",
        /// Only allowed destinations are reached, through the egress gateway.
        EgressAllowlist = "egress-allowlist",
        /// Git reaches only the sandbox's repository, through the git gateway.
        GitBroker = "git-broker",
        /// Nothing of the host's file system but the workspace is mounted.
        HostFilesystem = "host-filesystem",
        /// A kernel of the sandbox's own answers system calls, in place of the host's.
        Isolation = "isolation",
        /// A ceiling on memory, with no swap beside it.
        Memory = "memory",
        /// No network interface but loopback.
        NoNetwork = "no-network",
        /// No program gains privilege by being executed.
        NoNewPrivileges = "no-new-privileges",
        /// A ceiling on the open files of each process.
        OpenFiles = "open-files",
        /// A ceiling on processes and threads.
        Pids = "pids",
        /// The root file system cannot be written.
        ReadonlyRootfs = "readonly-rootfs",
        /// System calls are filtered.
        Seccomp = "seccomp",
        /// Credentials expire soon and serve one repository.
        ShortLivedToken = "short-lived-token",
        /// Root inside the container is had by asking the host, which decides and records.
        Sudo = "sudo",
        /// Credentials can do no more than the policy grants.
        TokenScope = "token-scope",
        /// Root inside the container is nobody on the host.
        UserNamespace = "user-namespace",
        /// The sandbox is ended when its lifetime is over.
        WallClock = "wall-clock",
    }
}

impl Control {
    /// Describes in one line what the control keeps true.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::AgentUser => "the agent runs as an ordinary user",
            Self::CapabilityDrop => "no more kernel capabilities than the specification needs",
            Self::Cpu => "a ceiling on processor time",
            Self::Disk => "a ceiling on what is written to the sandbox's own file system",
            Self::EgressAllowlist => "only allowed destinations are reached, through a gateway",
            Self::GitBroker => "git reaches only the sandbox's repository, through a gateway",
            Self::HostFilesystem => "nothing of the host's file system but the workspace is mounted",
            Self::Isolation => "a kernel of the sandbox's own answers system calls, in place of the host's",
            Self::Memory => "a ceiling on memory, with no swap beside it",
            Self::NoNetwork => "no network interface but loopback",
            Self::NoNewPrivileges => "no program gains privilege by being executed",
            Self::OpenFiles => "a ceiling on the open files of each process",
            Self::Pids => "a ceiling on processes and threads",
            Self::ReadonlyRootfs => "the root file system cannot be written",
            Self::Seccomp => "system calls are filtered",
            Self::ShortLivedToken => "credentials expire soon and serve one repository",
            Self::Sudo => "root inside is had by asking the host, which decides and records",
            Self::TokenScope => "credentials can do no more than the policy grants",
            Self::UserNamespace => "root inside the container is nobody on the host",
            Self::WallClock => "the sandbox is ended when its lifetime is over",
        }
    }
}

/// Tells whether one control is enforced.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(tag = "support", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Support {
    /// The control holds for everything inside, always.
    Enforced {
        /// What enforces it: `Docker 27.3, cgroup v2`.
        by: String,
    },
    /// The control cannot be relied on.
    Unsupported {
        /// Why not: `the daemon has no cgroup delegation`.
        why: String,
        /// What to do about it.
        hint: String,
    },
}

/// Holds what a set-up reports about each control.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Capabilities(BTreeMap<Control, Support>);

impl Capabilities {
    /// Makes a report that says nothing about any control.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Adds what is known about one control, in place of what was.
    #[must_use]
    pub fn with(mut self, control: Control, support: Support) -> Self {
        self.0.insert(control, support);
        self
    }

    /// Returns what is known about a control.
    pub fn get(&self, control: Control) -> Option<&Support> {
        self.0.get(&control)
    }

    /// Tells whether a control is reported as enforced.
    pub fn is_enforced(&self, control: Control) -> bool {
        matches!(self.get(control), Some(Support::Enforced { .. }))
    }

    /// Lists what is known, by control.
    pub fn iter(&self) -> impl Iterator<Item = (Control, &Support)> {
        self.0.iter().map(|(control, support)| (*control, support))
    }

    /// Puts two reports together: about a control in both, `Unsupported` wins.
    ///
    /// Where both say the same, this report's words stay.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        let mut joined = self.clone();
        for (control, support) in &other.0 {
            match joined.0.entry(*control) {
                Entry::Vacant(entry) => {
                    entry.insert(support.clone());
                }
                Entry::Occupied(mut entry) => {
                    if matches!((entry.get(), support), (Support::Enforced { .. }, Support::Unsupported { .. })) {
                        entry.insert(support.clone());
                    }
                }
            }
        }
        joined
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enforced(by: &str) -> Support {
        Support::Enforced { by: by.to_owned() }
    }

    fn unsupported(why: &str) -> Support {
        Support::Unsupported { why: why.to_owned(), hint: "none".to_owned() }
    }

    #[test]
    fn every_control_has_its_word_and_line() {
        for control in Control::ALL {
            assert_eq!(control.as_str().parse::<Control>(), Ok(*control));
            assert!(!control.describe().is_empty());
        }
        assert_eq!(Control::ReadonlyRootfs.to_string(), "readonly-rootfs");
        assert!("Memory".parse::<Control>().is_err());
    }

    #[test]
    fn the_weaker_report_wins() {
        let a = Capabilities::new()
            .with(Control::Cpu, enforced("a"))
            .with(Control::Disk, enforced("a"))
            .with(Control::Pids, unsupported("a"));
        let b = Capabilities::new()
            .with(Control::Cpu, unsupported("b"))
            .with(Control::Memory, enforced("b"))
            .with(Control::Pids, enforced("b"));
        for joined in [a.join(&b), b.join(&a)] {
            assert_eq!(joined.get(Control::Cpu), Some(&unsupported("b")));
            assert_eq!(joined.get(Control::Pids), Some(&unsupported("a")));
            assert!(joined.is_enforced(Control::Disk) && joined.is_enforced(Control::Memory));
            assert_eq!(joined.iter().count(), 4);
        }
        assert!(!a.is_enforced(Control::Sudo));
    }

    #[test]
    fn is_json_with_words() {
        let json = serde_json::to_string(&Capabilities::new().with(Control::Cpu, enforced("x")));
        assert_eq!(json.unwrap(), r#"{"cpu":{"support":"enforced","by":"x"}}"#);
    }
}
