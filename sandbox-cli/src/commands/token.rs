//! `token`: tokens for repositories, made, looked at, exchanged and ended.

mod audit;
mod list;
mod revoke;
mod setup;

use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use sandbox_core::{ErrorKind, Token};
use sandbox_github::{Expiry, PatReport, Reach, TokenKind};
use sandbox_policy::{Policy, RepoId, Violation};
use serde::Serialize;

use crate::args::TokenVerb;
use crate::config::Config;
use crate::failure::{Failure, Result};

pub(super) async fn run(config: &Config, verb: TokenVerb) -> Result<u8> {
    match verb {
        TokenVerb::Audit(arguments) => audit::run(config, arguments).await,
        TokenVerb::List => list::run(config),
        TokenVerb::Revoke(arguments) => revoke::run(config, arguments).await,
        TokenVerb::Rotate(arguments) => setup::rotate(config, arguments).await,
        TokenVerb::Setup(arguments) => setup::setup(config, arguments).await,
    }
}

/// A token as it is shown: what it is, and not what it says.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Shown {
    repository: String,
    kind: &'static str,
    /// RFC 3339, in UTC.
    expires: Option<String>,
    days_left: Option<i64>,
    sha256: String,
}

impl Shown {
    fn new(token: &Token, expires: Option<SystemTime>, now: SystemTime) -> Self {
        Self {
            repository: token.repository().to_string(),
            kind: TokenKind::of(token.secret()).map_or("unknown", kind),
            expires: expires.map(moment),
            days_left: expires.map(|at| days_until(at, now)),
            sha256: token.sha256(),
        }
    }

    fn expiry(&self) -> String {
        match self.days_left {
            None => "unknown".to_owned(),
            Some(..0) => "expired".to_owned(),
            Some(0) => "today".to_owned(),
            Some(1) => "in 1 day".to_owned(),
            Some(days) => format!("in {days} days"),
        }
    }

    /// What somebody should do about it, if anything.
    fn warning(&self) -> Option<String> {
        let Self { repository, days_left, .. } = self;
        let what = match days_left {
            Some(..0) => "has expired",
            Some(0..=SOON) => "ends soon",
            _ => return None,
        };
        Some(format!("the token for {repository} {what}: `sandbox token rotate --repo {repository}`"))
    }
}

/// What GitHub says of a token, for people and programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Checked {
    #[serde(flatten)]
    shown: Shown,
    reach: &'static str,
    /// What the token's user may do in the repository.
    role: Vec<String>,
    /// The scopes of a classic token.
    scopes: Option<Vec<String>>,
    unknown: Vec<String>,
    violations: Vec<Violation>,
}

impl Checked {
    fn new(token: &Token, report: &PatReport, policy: &Policy, now: SystemTime) -> Self {
        Self {
            shown: Shown::new(token, ends(report), now),
            reach: match report.reach {
                Reach::LikelySingle => "likely this repository alone",
                Reach::Many => "other repositories, too",
                Reach::Verified => "this repository alone",
                _ => "unknown",
            },
            role: report.role.clone(),
            scopes: report.scopes.clone(),
            unknown: report.unknown.clone(),
            violations: report.facts(now).violations(policy.token()),
        }
    }

    fn text(&self) -> String {
        let Self { shown, reach, role, scopes, unknown, violations: _ } = self;
        let mut lines = vec![
            format!("kind:       {}", shown.kind),
            format!("expires:    {}", shown.expires.as_ref().map_or("never", String::as_str)),
            format!("reaches:    {reach}"),
            format!(
                "your role:  {}",
                if role.is_empty() { "none that GitHub tells".to_owned() } else { role.join(" ") }
            ),
        ];
        lines.extend(scopes.as_ref().map(|scopes| format!("scopes:     {}", scopes.join(" "))));
        lines.extend(unknown.iter().map(|unknown| format!("not known:  {unknown}")));
        lines.join("\n") + "\n"
    }

    /// The refusal, where the policy refuses the token.
    fn refusal(&self, policy: &Policy) -> Result<()> {
        if self.violations.is_empty() {
            return Ok(());
        }
        let message = format!("policy {} refuses the token for {}", policy.name(), self.shown.repository);
        let mut failure = Failure::new(ErrorKind::Policy, message);
        failure.violations.clone_from(&self.violations);
        Err(failure.with_hint("make a fine-grained token for the one repository that ends within the time allowed"))
    }
}

/// What to say where there is no token.
pub(super) fn nothing_kept(repository: &RepoId) -> Failure {
    Failure::new(ErrorKind::NotFound, format!("no token is kept for {repository}"))
        .with_hint(format!("`sandbox token setup --repo {repository}` makes one"))
}

/// When GitHub says that a token ends.
fn ends(report: &PatReport) -> Option<SystemTime> {
    match report.expiry {
        Expiry::At(at) => Some(at),
        _ => None,
    }
}

fn kind(kind: TokenKind) -> &'static str {
    match kind {
        TokenKind::Classic => "classic",
        TokenKind::FineGrained => "fine-grained",
        TokenKind::Installation => "installation",
        TokenKind::OAuth => "oauth",
        TokenKind::User => "user",
        _ => "unknown",
    }
}

/// A moment in UTC, to the second.
pub(super) fn moment(at: SystemTime) -> String {
    DateTime::<Utc>::from(at).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// Whole days that are left; less than none once it is over.
fn days_until(at: SystemTime, now: SystemTime) -> i64 {
    let days = |time: Duration| i64::try_from(time.as_secs() / A_DAY).unwrap_or(i64::MAX);
    match at.duration_since(now) {
        Ok(left) => days(left),
        Err(over) => -1 - days(over.duration()),
    }
}

/// Seconds.
const A_DAY: u64 = 24 * 60 * 60;
/// Days before its end from which on a token is warned about.
const SOON: i64 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_to_the_end_and_beyond() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100 * A_DAY);
        let day = Duration::from_secs(A_DAY);
        for (at, days, expiry) in [
            (now + day * 30, 30, "in 30 days"),
            (now + day + Duration::from_secs(1), 1, "in 1 day"),
            (now + Duration::from_secs(1), 0, "today"),
            (now - Duration::from_secs(1), -1, "expired"),
            (now - day * 3, -4, "expired"),
        ] {
            let token = Token::new("a/b".parse().unwrap(), "github_pat_MADE0UP0FOR0TESTS0".to_owned().into());
            let shown = Shown::new(&token, Some(at), now);
            assert_eq!((shown.days_left, shown.expiry().as_str()), (Some(days), expiry));
            assert_eq!(shown.warning().is_some(), days <= 7);
        }
    }
}
