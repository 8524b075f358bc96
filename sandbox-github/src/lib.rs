//! GitHub credentials for sandboxes.
//!
//! A credential implements [`TokenProvider`](sandbox_core::TokenProvider): it speaks for one repository, stays on the
//! host, and prints as nothing. There are two: [`AppTokens`], which mints one for each sandbox and ends it with the sandbox, and
//! [`PersonalToken`], a token that its user made and keeps.
//! What is asked of GitHub goes through a [`Client`], and what is kept between sandboxes lies in a [`TokenStore`].

mod activity;
mod app;
mod audit;
mod client;
mod error;
mod expiry;
mod kind;
mod pat;
mod personal;
mod protection;
mod redact;
mod revoke;
mod store;

pub use activity::{Activities, Activity, Change, token_sha256};
pub use app::{AppIssuer, AppTokens, InstallationToken, KeyError, PrivateKey};
pub use audit::{Audit, PullRequest, WorkflowCommit, WorkflowRun};
pub use client::{Client, GitHubUrl, Patience};
pub use error::{Error, Result};
pub use kind::TokenKind;
pub use pat::{Expiry, PatReport, Reach};
pub use personal::PersonalToken;
pub use protection::{Protection, Ruleset};
pub use revoke::{OAuthApp, Revoked};
pub use store::{EnvFiles, KeptToken, Keyring, Removed, TokenStore};
