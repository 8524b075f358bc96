//! `token` and `repo`.

use clap::{Args, Subcommand};
use sandbox_policy::{RepoId, Span};

/// `token`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenVerb {
    /// Make a token for one repository, have it checked, and keep it
    #[command(after_help = SETUP_HELP)]
    Setup(SetupArgs),
    /// List the tokens that are kept, without asking GitHub
    #[command(after_help = LIST_HELP)]
    List,
    /// Ask GitHub what each token is good for, and hold that against the policy
    #[command(after_help = AUDIT_HELP)]
    Audit(AuditArgs),
    /// Put a new token in the place of one, and revoke the old one
    #[command(after_help = ROTATE_HELP)]
    Rotate(TokenArgs),
    /// Revoke a token at GitHub, and forget it
    #[command(after_help = REVOKE_HELP)]
    Revoke(RevokeArgs),
}

/// `token setup`.
#[derive(Debug, Args)]
pub(crate) struct SetupArgs {
    #[command(flatten)]
    pub(crate) token: TokenArgs,
    /// Keep the token in the session's keyring, not in a file
    #[arg(long)]
    pub(crate) keyring: bool,
}

/// `token setup` and `token rotate`.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// The repository that the token is for
    #[arg(long, value_name = "OWNER/NAME")]
    pub(crate) repo: RepoId,
    /// The policy that the token is for [default: your policy.toml, else standard]
    #[arg(short, long, value_name = "FILE|PRESET")]
    pub(crate) policy: Option<String>,
}

/// `token audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// This repository's token alone
    #[arg(long, value_name = "OWNER/NAME")]
    pub(crate) repo: Option<RepoId>,
    /// The policy that the tokens are for [default: your policy.toml, else standard]
    #[arg(short, long, value_name = "FILE|PRESET")]
    pub(crate) policy: Option<String>,
}

/// `token revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// The repository whose token is revoked
    #[arg(long, value_name = "OWNER/NAME", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) repo: Option<RepoId>,
    /// Every token that is kept
    #[arg(long)]
    pub(crate) all: bool,
}

/// `repo`.
#[derive(Debug, Subcommand)]
pub(crate) enum RepoVerb {
    /// Tell whether the default branch is protected
    #[command(after_help = SHOW_HELP)]
    Show(RepoArgs),
    /// Propose rules that keep sandboxes from harming the repository, and make them where that is asked for
    #[command(after_help = PROTECT_HELP)]
    Protect(ProtectArgs),
    /// List what was done in the repository
    #[command(after_help = ACTIVITY_HELP)]
    Activity(ActivityArgs),
}

/// `repo show`.
#[derive(Debug, Args)]
pub(crate) struct RepoArgs {
    /// The repository
    #[arg(long, value_name = "OWNER/NAME")]
    pub(crate) repo: RepoId,
}

/// `repo protect`.
#[derive(Debug, Args)]
pub(crate) struct ProtectArgs {
    /// The repository
    #[arg(long, value_name = "OWNER/NAME")]
    pub(crate) repo: RepoId,
    /// Keep workflow files from being pushed, too; GitHub does so for private repositories of paid plans
    #[arg(long)]
    pub(crate) workflows: bool,
    /// Make the rules at GitHub
    #[arg(long)]
    pub(crate) apply: bool,
}

/// `repo activity`.
#[derive(Debug, Args)]
pub(crate) struct ActivityArgs {
    /// The repository
    #[arg(long, value_name = "OWNER/NAME")]
    pub(crate) repo: RepoId,
    /// How far back, such as 90m or 7d
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub(crate) since: Span,
}

pub(super) const TOKEN_HELP: &str = "\
Tokens are kept one for each repository, in files named .env.OWNER.NAME that only you can read, in
$SANDBOX_TOKENS [default: ~/.config/sandbox/tokens], or in the keyring of your session where you say so. A file
goes before the keyring. No token is ever printed.";

const SETUP_HELP: &str = "\
A link to the page at GitHub is shown, filled in where GitHub still takes that, and beside it what to choose
by hand. The token is then asked for without being shown, or read from standard input where that is no terminal.

Examples:
  sandbox token setup --repo acme/widget
  sandbox token setup --repo acme/widget --keyring
  pass github/widget | sandbox token setup --repo acme/widget";

const LIST_HELP: &str = "\
The digest is the one under which GitHub's audit log files what a token did.

Examples:
  sandbox token list
  sandbox token list --json";

const AUDIT_HELP: &str = "\
Exit code 1 means that a token would be refused, or that GitHub does not take it any more.

Examples:
  sandbox token audit
  sandbox token audit --repo acme/widget --policy maximum";

const ROTATE_HELP: &str = "\
The new token is checked and kept before the old one is revoked, so that there is always one that works.

Examples:
  sandbox token rotate --repo acme/widget";

const REVOKE_HELP: &str = "\
A token is forgotten only when GitHub has been seen to refuse it.

Examples:
  sandbox token revoke --repo acme/widget
  sandbox token revoke --all                   in an incident";

const SHOW_HELP: &str = "\
Exit code 1 means that the default branch is not known to be protected.

Examples:
  sandbox repo show --repo acme/widget";

const PROTECT_HELP: &str = "\
Without --apply, what would be made is printed and nothing is asked of GitHub. To make it takes a token with
`administration: write`, which is asked for, used once, and not kept: the sandboxes' own must not have it.

Examples:
  sandbox repo protect --repo acme/widget
  sandbox repo protect --repo acme/widget --workflows --apply";

const ACTIVITY_HELP: &str = "\
Pushes, forced pushes, branches made and removed, pull requests, commits to workflow files, and workflow runs.
What the token may not see is named.

Examples:
  sandbox repo activity --repo acme/widget --since 7d
  sandbox repo activity --repo acme/widget --json";
