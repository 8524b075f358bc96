//! `token audit`: what GitHub says of each token that is kept, held against the policy.

use std::time::SystemTime;

use serde::Serialize;

use super::Checked;
use crate::args::AuditArgs;
use crate::config::Config;
use crate::exit;
use crate::failure::Result;
use crate::render::table;

/// What was found of one token.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Finding {
    repository: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    checked: Option<Checked>,
    /// Why it would not do.
    problems: Vec<String>,
}

pub(super) async fn run(config: &Config, arguments: AuditArgs) -> Result<u8> {
    let AuditArgs { repo, policy } = arguments;
    let policy = config.policy(policy.as_deref(), &[])?.policy;
    let store = config.token_stores()?;
    let client = config.github_client()?;
    let repositories = match repo {
        Some(repository) => vec![repository],
        None => store.list()?,
    };
    let mut findings = Vec::new();
    for repository in repositories {
        let mut finding = Finding { repository: repository.to_string(), checked: None, problems: Vec::new() };
        match store.find(&repository) {
            Ok(None) => finding.problems.push("no token is kept".to_owned()),
            Err(failure) => finding.problems.push(failure.message.clone()),
            Ok(Some((_, kept))) => match client.check_pat(kept.token.secret(), &repository).await {
                Err(error) => finding.problems.push(error.to_string()),
                Ok(report) => {
                    let checked = Checked::new(&kept.token, &report, &policy, SystemTime::now());
                    finding.problems.extend(checked.violations.iter().map(ToString::to_string));
                    finding.checked = Some(checked);
                }
            },
        }
        findings.push(finding);
    }
    for warning in findings.iter().filter_map(|finding| finding.checked.as_ref()?.shown.warning()) {
        config.screen.warn(&warning);
    }
    let rows: Vec<[String; 5]> = findings
        .iter()
        .map(|Finding { repository, checked, problems }| {
            let of = |tell: fn(&Checked) -> String| checked.as_ref().map_or_else(|| "-".to_owned(), tell);
            let verdict = if problems.is_empty() { "fine".to_owned() } else { problems.join("; ") };
            let kind = of(|checked| checked.shown.kind.to_owned());
            [repository.clone(), kind, of(|it| it.shown.expiry()), of(|it| it.reach.to_owned()), verdict]
        })
        .collect();
    config.screen.answer(&findings, || table(["repository", "kind", "expires", "reaches", "verdict"], &rows))?;
    Ok(if findings.iter().all(|finding| finding.problems.is_empty()) { 0 } else { exit::FAILED })
}
