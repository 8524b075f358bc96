//! `repo`: what keeps a repository from harm, and what was done in it.

use std::time::SystemTime;

use sandbox_core::{ErrorKind, Token};
use sandbox_github::{Audit, Client, Protection, Ruleset, TokenKind};
use sandbox_policy::RepoId;
use serde::Serialize;
use serde_json::Value;

use super::token::moment;
use crate::args::{ActivityArgs, ProtectArgs, RepoArgs, RepoVerb};
use crate::config::Config;
use crate::exit;
use crate::failure::{Failure, Result};
use crate::render::table;
use crate::secret;

pub(super) async fn run(config: &Config, verb: RepoVerb) -> Result<u8> {
    match verb {
        RepoVerb::Activity(arguments) => activity(config, arguments).await,
        RepoVerb::Protect(arguments) => protect(config, arguments).await,
        RepoVerb::Show(arguments) => show(config, arguments).await,
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Protected {
    repository: String,
    default_branch: String,
    protection: &'static str,
    rules: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

async fn show(config: &Config, RepoArgs { repo }: RepoArgs) -> Result<u8> {
    let (client, token) = asking(config, &repo)?;
    let found = look(&client, &token).await?;
    config.screen.answer(&found, || {
        let Protected { repository, default_branch, protection, rules, why } = &found;
        let by = if rules.is_empty() { String::new() } else { format!(", by {}", rules.join(" ")) };
        let why = why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        format!("{repository}: the default branch {default_branch} is {protection}{by}{why}\n")
    })?;
    Ok(if found.protection == PROTECTED { 0 } else { exit::FAILED })
}

async fn look(client: &Client, token: &Token) -> Result<Protected> {
    let repository = token.repository();
    let asked = async {
        let branch = client.default_branch(token.secret(), repository).await?;
        let protection = client.protection(token.secret(), repository, &branch).await?;
        Ok::<_, sandbox_github::Error>((branch, protection))
    };
    let (branch, protection) = asked.await.map_err(sandbox_core::Error::from)?;
    let (protection, rules, why) = match protection {
        Protection::Protected(rules) => (PROTECTED, rules, None),
        Protection::Unprotected => ("not protected", Vec::new(), None),
        Protection::Unknown(why) => ("perhaps protected", Vec::new(), Some(why)),
        _ => ("perhaps protected", Vec::new(), None),
    };
    let default_branch = branch.to_string();
    Ok(Protected { repository: repository.to_string(), default_branch, protection, rules, why })
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Proposed {
    repository: String,
    rulesets: Vec<Value>,
    /// The rulesets' numbers at GitHub, where they were made.
    made: Vec<u64>,
}

async fn protect(config: &Config, ProtectArgs { repo, workflows, apply }: ProtectArgs) -> Result<u8> {
    let rulesets = [Some(Ruleset::default_branch()), workflows.then(Ruleset::workflow_files)];
    let rulesets: Vec<Ruleset> = rulesets.into_iter().flatten().collect();
    let mut proposed = Proposed {
        repository: repo.to_string(),
        rulesets: rulesets.iter().map(|ruleset| ruleset.document().clone()).collect(),
        made: Vec::new(),
    };
    if !apply {
        config.screen.answer(&proposed, || {
            let text = serde_json::to_string_pretty(&proposed.rulesets).unwrap_or_default();
            format!("{text}\n")
        })?;
        if !config.screen.is_json() {
            config.screen.warn("nothing was made; --apply makes these rulesets");
        }
        return Ok(0);
    }
    let client = config.github_client()?;
    let secret = secret::ask("A token with administration: write for the repository").await?;
    if TokenKind::of(&secret).is_none() {
        return Err(Failure::new(ErrorKind::InvalidInput, "this is no token of GitHub's"));
    }
    for (made, ruleset) in rulesets.iter().enumerate() {
        let number = client.protect(&secret, &repo, ruleset).await.map_err(|error| {
            let failure = Failure::from(sandbox_core::Error::from(error));
            if made == 0 { failure } else { failure.with_cause("the ruleset for the default branch was made before") }
        })?;
        proposed.made.push(number);
    }
    config.screen.answer(&proposed, || {
        let numbers: Vec<String> = proposed.made.iter().map(ToString::to_string).collect();
        format!("{repo}: made rulesets {}\n", numbers.join(" "))
    })?;
    Ok(0)
}

/// What was done, whatever kind of thing it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Done {
    /// None where GitHub does not say.
    time: Option<String>,
    /// GitHub's word for a change of a reference, else `pull_request`, `workflow_file` or `workflow_run`.
    kind: String,
    actor: Option<String>,
    /// The reference, the pull request, or the workflow.
    subject: String,
    commit: Option<String>,
}

#[derive(Debug, Serialize)]
struct Activity {
    done: Vec<Done>,
    /// What could not be read, or not in full.
    missing: Vec<String>,
}

impl From<Audit> for Activity {
    fn from(audit: Audit) -> Self {
        let changes = audit.changes.into_iter().map(|it| Done {
            time: Some(moment(it.time)),
            kind: it.kind,
            actor: it.actor,
            subject: it.reference,
            commit: Some(it.after),
        });
        let pulls = audit.pull_requests.into_iter().map(|it| Done {
            time: Some(moment(it.updated)),
            kind: "pull_request".to_owned(),
            actor: it.actor,
            subject: format!("#{} {} -> {} {}: {}", it.number, it.head, it.base, it.state, it.title),
            commit: None,
        });
        let files = audit.workflow_commits.into_iter().map(|it| Done {
            time: it.time.map(moment),
            kind: "workflow_file".to_owned(),
            actor: it.actor,
            subject: ".github/workflows".to_owned(),
            commit: Some(it.sha),
        });
        let runs = audit.workflow_runs.into_iter().map(|it| Done {
            time: Some(moment(it.time)),
            kind: "workflow_run".to_owned(),
            actor: it.actor,
            subject: [it.name, Some(it.event), it.branch, it.conclusion]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join(" "),
            commit: Some(it.sha),
        });
        let mut done: Vec<Done> = changes.chain(pulls).chain(files).chain(runs).collect();
        // In this form, times are in the order of their letters.
        done.sort_by(|a, b| b.time.cmp(&a.time));
        Self { done, missing: audit.missing }
    }
}

async fn activity(config: &Config, ActivityArgs { repo, since }: ActivityArgs) -> Result<u8> {
    let (client, token) = asking(config, &repo)?;
    let since = SystemTime::now().checked_sub(since.as_duration()).unwrap_or(SystemTime::UNIX_EPOCH);
    let audit = client.audit(token.secret(), &repo, since).await.map_err(sandbox_core::Error::from)?;
    let activity = Activity::from(audit);
    for missing in &activity.missing {
        config.screen.warn(&format!("not told: {missing}"));
    }
    let rows: Vec<[String; 5]> = activity
        .done
        .iter()
        .map(|Done { time, kind, actor, subject, commit }| {
            let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            let commit = or_dash(commit).chars().take(12).collect();
            [or_dash(time), kind.clone(), or_dash(actor), commit, subject.clone()]
        })
        .collect();
    config.screen.answer(&activity, || table(["time", "what", "who", "commit", "where"], &rows))?;
    Ok(0)
}

/// Whom to ask, and in whose name: the token that is kept for the repository.
fn asking(config: &Config, repository: &RepoId) -> Result<(Client, Token)> {
    let stores = config.token_stores()?;
    let (_, kept) = stores.find(repository)?.ok_or_else(|| super::token::nothing_kept(repository))?;
    Ok((config.github_client()?, kept.token))
}

const PROTECTED: &str = "protected";
