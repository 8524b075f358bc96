//! A repository that is cloned.

use std::ffi::OsStr;
use std::path::Path;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Args, Command};
use sandbox_policy::{CloneDepth, CloneSource, History, ParseError};
use serde::{Deserialize, Serialize};

/// What is cloned, and how much of it.
#[derive(Clone, Debug, Default, Args, Serialize, Deserialize)]
pub(crate) struct CloneArgs {
    /// Clone a repository (`owner/name`, `https://HOST/owner/name` or a directory) to /workspace, and check --branch out, which
    /// starts at the default branch if it is new; the host fetches, where the policy's egress allows it, and no tags, submodules or LFS files
    #[arg(long, value_name = "REPOSITORY", value_parser = Repository, conflicts_with_all = ["workspace", "copy"])]
    pub(crate) clone: Option<CloneSource>,
    /// Clone the last so many commits alone
    #[arg(long, value_name = "COMMITS", requires = "clone")]
    clone_depth: Option<CloneDepth>,
}

impl CloneArgs {
    /// How much of the history is wanted.
    pub(crate) fn history(&self) -> History {
        self.clone_depth.map_or(History::Full, History::Depth)
    }
}

/// Reads what is cloned. What is refused is not shown where it may hold a password.
#[derive(Clone, Copy, Debug)]
struct Repository;

impl TypedValueParser for Repository {
    type Value = CloneSource;

    fn parse_ref(&self, command: &Command, _: Option<&Arg>, value: &OsStr) -> Result<CloneSource, clap::Error> {
        let text = value.to_str().unwrap_or_default();
        source(text).map_err(|error| {
            let message = match text.rsplit_once('@') {
                Some(_) => "a repository to clone has no user and no password: keep a token for it, and write the rest"
                    .to_owned(),
                None => error.to_string(),
            };
            clap::Error::raw(ErrorKind::ValueValidation, format!("--clone: {message}\n")).with_cmd(command)
        })
    }
}

/// A path may be relative, if it begins with a dot.
fn source(text: &str) -> Result<CloneSource, ParseError> {
    if !matches!(text.split('/').next(), Some("." | "..")) {
        return text.parse();
    }
    // What cannot be followed is told by the parser, which takes no relative path.
    let path = Path::new(text).canonicalize().ok().and_then(|path| path.into_os_string().into_string().ok());
    path.as_deref().unwrap_or(text).parse()
}
