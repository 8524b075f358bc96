//! The way out of one sandbox: its gateway, and the policy to which it is held.

use sandbox_core::SandboxId;
use sandbox_runtime::{EgressProxy, LedgerEntry};
use serde::{Deserialize, Serialize};

use crate::config::Standing;
use crate::failure::Result;

/// A sandbox's gateway, and where its policy stands.
#[derive(Clone, Debug)]
pub(crate) struct Outward {
    pub(crate) proxy: EgressProxy,
    pub(crate) policy: Standing,
}

/// What holds after the policy was read anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reloaded {
    /// The policy's name.
    pub(crate) policy: String,
    /// How far it reaches.
    pub(crate) reach: String,
}

impl Outward {
    /// Where the sandbox went.
    pub(crate) fn ledger(&self, sandbox: SandboxId) -> Option<Vec<LedgerEntry>> {
        self.proxy.ledger(sandbox)
    }

    /// Holds the sandbox to what its policy says by now. Nobody who asks for it has a say in what that is.
    pub(crate) fn reload(&self) -> Result<Reloaded> {
        let policy = self.policy.policy()?;
        self.proxy.reload(&policy);
        Ok(Reloaded { policy: policy.name(), reach: policy.egress().reach().to_string() })
    }
}
