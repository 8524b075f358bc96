//! `egress`: where a sandbox went, and where it was not let.

use indicatif::HumanBytes;
use sandbox_runtime::{LedgerEntry, Outcome};

use crate::args::EgressArgs;
use crate::client;
use crate::config::Config;
use crate::failure::Result;
use crate::outward::Reloaded;
use crate::render::{escaped, table};

pub(super) async fn run(config: &Config, arguments: EgressArgs) -> Result<u8> {
    let id = client::matching(&config.run_root.sandboxes()?, &arguments.id)?;
    if arguments.reload {
        let reloaded = client::reload(&config.run_root, id).await?;
        let Reloaded { policy, reach } = &reloaded;
        let text =
            || format!("held to the policy {policy} as it is now: egress {reach}, and no more than at the start\n");
        config.screen.answer(&reloaded, text)?;
        return Ok(0);
    }
    let entries = client::egress(&config.run_root, id).await?;
    config.screen.answer(&entries, || text(&entries))?;
    Ok(0)
}

fn text(entries: &[LedgerEntry]) -> String {
    let word = |outcome| match outcome {
        Outcome::Allowed => "allowed",
        Outcome::Denied => "denied",
    };
    let row = |entry: &LedgerEntry| {
        [
            format!("{}:{}", entry.host, entry.port),
            word(entry.outcome).to_owned(),
            entry.count.to_string(),
            HumanBytes(entry.sent).to_string(),
            HumanBytes(entry.received).to_string(),
            entry.rule.clone(),
        ]
    };
    let rows: Vec<_> = entries.iter().map(row).collect();
    let mut lines = vec![table(["destination", "outcome", "count", "sent", "received", "rule"], &rows)];
    for LedgerEntry { host, port, reason, hint, .. } in entries {
        if let Some(reason) = reason {
            let hint = hint.as_ref().filter(|hint| !hint.is_empty()).map(|hint| format!("; {hint} would allow it"));
            lines.push(format!("denied: {host}:{port}: {}{}\n", escaped(reason), escaped(&hint.unwrap_or_default())));
        }
    }
    lines.concat()
}
