//! The crate's one error.

use std::time::Duration;

use sandbox_core::ErrorKind;

/// The result of whatever is asked of GitHub.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says what was asked of GitHub and why it was not had. It holds no token, and of GitHub's own words only what cannot be
/// one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The whole call, with all its waits, took too long.
    #[error("{what}: no answer within {within:?}")]
    Deadline {
        /// What was asked.
        what: String,
        /// How long it was waited for.
        within: Duration,
    },
    /// GitHub knows who asks, and refuses (403).
    #[error("{what}: GitHub forbids it: {said}")]
    Forbidden {
        /// What was asked.
        what: String,
        /// GitHub's words.
        said: String,
    },
    /// An argument makes no sense.
    #[error("{field}: {given}, allowed is {allowed}")]
    Input {
        /// The argument.
        field: &'static str,
        /// What was given; a secret is described, not shown.
        given: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// GitHub understood, and refuses the content (422).
    #[error("{what}: GitHub refuses the request: {said}")]
    Invalid {
        /// What was asked.
        what: String,
        /// GitHub's words.
        said: String,
    },
    /// The key of an app cannot be used.
    #[error(transparent)]
    Key(#[from] crate::KeyError),
    /// The answer sends the caller elsewhere. It is not followed: a credential goes to no address but the configured one.
    #[error("{what}: GitHub says that it has moved")]
    Moved {
        /// What was asked.
        what: String,
    },
    /// It does not exist, or the credential may not see it (404): GitHub does not say which.
    #[error("{what}: not found, or not to be seen with this credential")]
    NotFound {
        /// What was asked.
        what: String,
    },
    /// The app is not installed where the repository is, or was not given it (404).
    #[error("the app has no installation for {repository}")]
    NotInstalled {
        /// The repository.
        repository: String,
    },
    /// GitHub does not accept what the app signed (401).
    #[error("{what}: GitHub does not take the signature for the app's")]
    NotTheApp {
        /// What was asked.
        what: String,
    },
    /// GitHub made a token that may do more than was asked for. Nobody got it.
    #[error("{what}: GitHub gave another token than was asked for, {why}; {}", ended(revoked.as_deref()))]
    Overreaching {
        /// What was asked.
        what: String,
        /// What is wrong with the token.
        why: String,
        /// Why it may still be good; `None` if it was revoked and seen to be dead.
        revoked: Option<String>,
    },
    /// GitHub asks to wait for longer than the caller would.
    #[error("{what}: GitHub asks to wait for {wait:?}")]
    RateLimited {
        /// What was asked.
        what: String,
        /// How long GitHub asks to wait.
        wait: Duration,
    },
    /// What was to be revoked may still be good.
    #[error("{what}: the token may still be good: {why}")]
    StillGood {
        /// What was asked.
        what: String,
        /// How it is known, or why it is not.
        why: String,
    },
    /// The app's installation is suspended, or the app is blocked (403).
    #[error("the app may make no token for {repository}: its installation is suspended or blocked")]
    Suspended {
        /// The repository.
        repository: String,
    },
    /// The installation does not have what was asked for (422).
    #[error("the app's installation for {repository} does not have {missing}")]
    Ungranted {
        /// The repository.
        repository: String,
        /// The permissions.
        missing: String,
    },
    /// The address did not answer.
    #[error("{what}: cannot reach {origin}: {why}")]
    Unreachable {
        /// What was asked.
        what: String,
        /// Scheme, host and port.
        origin: String,
        /// The cause.
        why: String,
    },
    /// The answer is not what GitHub's description says.
    #[error("{what}: the answer cannot be read: {why}")]
    Unreadable {
        /// What was asked.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The credential is not valid: wrong, expired or revoked (401).
    #[error("{what}: GitHub does not accept the credential")]
    Unauthorized {
        /// What was asked.
        what: String,
    },
    /// GitHub answered with a status that the request does not provide for.
    #[error("{what}: GitHub answers with status {status}: {said}")]
    Unexpected {
        /// What was asked.
        what: String,
        /// The status.
        status: u16,
        /// GitHub's words.
        said: String,
    },
}

impl Error {
    /// What the reader can do about it.
    pub const fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Deadline { .. } | Self::Unreachable { .. } => {
                "is GitHub reachable from here, under the configured address?"
            }
            Self::Forbidden { .. } => {
                "give the credential the permission that the call needs, or ask the organisation to approve it"
            }
            Self::Input { .. } | Self::Unreadable { .. } => return None,
            Self::Invalid { .. } => {
                "does the repository's plan allow it, and is the content as GitHub's documentation says?"
            }
            Self::Key(_) => "make a new private key in the app's settings, and give it as GitHub gives it out",
            Self::Moved { .. } => "the repository was renamed or given away: check who owns it, and use its new name",
            Self::NotFound { .. } => "check the name, and whether the credential was given access to the repository",
            Self::NotInstalled { .. } => {
                "install the app for the repository's owner and give it the repository: the app's page at GitHub, Install App"
            }
            Self::NotTheApp { .. } => {
                "check that the client id and the private key are the same app's, and that the key was not deleted there"
            }
            Self::Overreaching { .. } => "look at the app's installation at GitHub, and tell GitHub if it is in order",
            Self::RateLimited { .. } => "try again later; more requests now would prolong the wait",
            Self::StillGood { .. } => "revoke it by hand in GitHub's settings, and check there that it is gone",
            Self::Suspended { .. } => "lift the suspension in the owner's settings at GitHub, Installed GitHub Apps",
            Self::Ungranted { .. } => {
                "give the app these permissions in its settings, accept them for the installation, and give it the repository"
            }
            Self::Unauthorized { .. } => "the credential is wrong, expired or revoked: make a new one",
            Self::Unexpected { .. } => "see https://www.githubstatus.com",
        })
    }
}

fn ended(revoked: Option<&str>) -> String {
    match revoked {
        Some(why) => format!("it may still be good: {why}"),
        None => "it was revoked at once".to_owned(),
    }
}

impl From<Error> for sandbox_core::Error {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<&Error> for sandbox_core::Error {
    fn from(error: &Error) -> Self {
        let kind = match error {
            Error::Deadline { .. } => ErrorKind::DeadlineExceeded,
            Error::Input { .. } | Error::Key(_) => ErrorKind::InvalidInput,
            _ => ErrorKind::Token,
        };
        let made = Self::new(kind, error.to_string());
        match error.hint() {
            Some(hint) => made.with_hint(hint),
            None => made,
        }
    }
}
