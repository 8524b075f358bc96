//! `pull`, `diff`, `patch`.

use std::path::PathBuf;

use clap::Args;
use sandbox_policy::ByteSize;

/// Work inside, and the repository that it is for.
#[derive(Debug, Args)]
pub(crate) struct WorkArgs {
    /// The sandbox's id, or at least four digits of its beginning
    pub(crate) id: String,
    /// A branch, a tag or a commit inside
    #[arg(default_value = "HEAD", value_name = "REF")]
    pub(crate) revision: String,
    /// The repository inside [default: the workspace]
    #[arg(long, value_name = "DIR")]
    pub(crate) from: Option<PathBuf>,
    /// The repository of this machine that the work is for
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) into: PathBuf,
    /// The most that may come, such as 200MiB
    #[arg(long, value_name = "SIZE", default_value = "1GiB")]
    pub(crate) most: ByteSize,
}

pub(super) const PULL_HELP: &str = "\
The commits come into the repository as refs/sandbox/ID/BRANCH. No branch, no index and no file of yours
is touched, and nothing of them is run: every object is checked in a quarantine first. From there they are
yours to look at, to merge or to push.

Examples:
  sandbox pull 3f9c                            what is checked out in the workspace inside
  sandbox pull 3f9c topic --from /home/agent/widget --into ~/src/widget
  git merge $(sandbox pull --quiet 3f9c)";

pub(super) const DIFF_HELP: &str = "\
Shows what the commits change, against what they have in common with your HEAD. What is not committed inside
is not shown. Nothing stays in your repository.

Examples:
  sandbox diff 3f9c
  sandbox diff 3f9c topic --from /home/agent/widget";

pub(super) const PATCH_HELP: &str = "\
Writes one mail for each commit that your HEAD does not have; merges are left out. Nothing stays in your
repository.

Examples:
  sandbox patch 3f9c | git am";
