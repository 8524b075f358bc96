//! `egress`, and what `run` and `up` take for the way out.

use clap::Args;
use serde::{Deserialize, Serialize};

/// A proxy beyond the gateway.
#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
pub(crate) struct BeyondArgs {
    // Whatever is typed is taken as text, since an error of the parser's would show it, and with it a password.
    #[arg(
        long,
        value_name = "URL",
        help = "Go out by way of this proxy, as in http://[USER@]HOST:PORT [default: $SANDBOX_EGRESS_UPSTREAM]"
    )]
    pub(crate) egress_upstream: Option<String>,
    #[arg(
        long,
        value_name = "SOURCE",
        help = "Where the proxy's password lies: env:VARIABLE, file:PATH, command:PROGRAM ARGUMENTS [default: \
                $SANDBOX_EGRESS_PASSWORD]"
    )]
    pub(crate) egress_password: Option<String>,
}

/// `egress`.
#[derive(Debug, Args)]
pub(crate) struct EgressArgs {
    /// The sandbox's id, or at least four digits of its beginning
    pub(crate) id: String,
    /// Have the sandbox keep to what its policy says by now, as far as that is less than what it was started with
    #[arg(long)]
    pub(crate) reload: bool,
}

pub(super) const EGRESS_HELP: &str = "\
A sandbox has no network: programs inside find a proxy by the usual variables (HTTPS_PROXY and others), which asks
the policy. What is denied is answered with the rule, the reason and what would allow it.

With --reload, the policy is read anew from where it was read at the start. What it allows no more is
closed at once. What it allows beyond that is for sandboxes that are started from now on.

Examples:
  sandbox egress 3f9c
  sandbox egress 3f9c --json
  sandbox egress 3f9c --reload";
