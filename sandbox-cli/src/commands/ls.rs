//! `ls`: the sandboxes that engines hold, and those that left a run directory.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use sandbox_core::{ContainerStatus, ContainerSummary, Liveness, Owner, SandboxId};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::client;
use crate::config::Config;
use crate::failure::Result;
use crate::inspection::Inspection;
use crate::render::table;

pub(super) async fn run(config: &Config) -> Result<u8> {
    let mut containers = Vec::new();
    for runtime in config.connect_all().await? {
        containers.extend(runtime.list().await?);
    }
    let here = config.run_root.sandboxes()?;
    let reports = reports(config, &here).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut rows: Vec<Row> = containers.iter().map(|container| Row::of(container, now, &reports)).collect();
    let orphans = here.iter().filter(|id| containers.iter().all(|container| container.sandbox != **id));
    rows.extend(orphans.map(|id| Row::without_container(config, *id)));
    rows.sort_by_key(|row| (row.age_seconds, row.id));
    config.screen.answer(&rows, || text(&rows))?;
    Ok(0)
}

/// Asks every holder below the run root at once; one that does not answer has nothing to add.
async fn reports(config: &Config, here: &[SandboxId]) -> BTreeMap<SandboxId, Inspection> {
    let mut asked = JoinSet::new();
    for id in here.iter().copied() {
        let root = config.run_root.clone();
        asked.spawn(async move { client::inspect(&root, id).await.map(|report| (id, report)) });
    }
    asked.join_all().await.into_iter().filter_map(std::result::Result::ok).collect()
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Row {
    id: SandboxId,
    image: Option<String>,
    status: ContainerStatus,
    age_seconds: Option<u64>,
    owner: Liveness,
    workspace: Option<String>,
}

impl Row {
    fn of(container: &ContainerSummary, now: u64, reports: &BTreeMap<SandboxId, Inspection>) -> Self {
        let report = reports.get(&container.sandbox);
        let workspace = report.and_then(|report| report.spec_text(&["workspace", "host"]));
        Self {
            id: container.sandbox,
            image: Some(report.map_or(&container.image, |report| &report.image).clone()),
            status: container.status,
            age_seconds: u64::try_from(container.created).ok().map(|created| now.saturating_sub(created)),
            owner: container.owner.as_ref().map_or(Liveness::Unknown, Owner::liveness),
            workspace: workspace.map(str::to_owned),
        }
    }

    /// A run directory whose container is gone, or not there yet.
    fn without_container(config: &Config, id: SandboxId) -> Self {
        let owner = client::owner(&config.run_root, id).map_or(Liveness::Unknown, |owner| owner.liveness());
        Self { id, image: None, status: ContainerStatus::Gone, age_seconds: None, owner, workspace: None }
    }
}

fn text(rows: &[Row]) -> String {
    let none = || "-".to_owned();
    let cells: Vec<_> = rows
        .iter()
        .map(|row| {
            [
                row.id.short(),
                row.image.clone().unwrap_or_else(none),
                format!("{:?}", row.status).to_lowercase(),
                row.age_seconds.map_or_else(none, age),
                format!("{:?}", row.owner).to_lowercase(),
                row.workspace.clone().unwrap_or_else(none),
            ]
        })
        .collect();
    table(["id", "image", "status", "age", "owner", "workspace"], &cells)
}

/// Seconds in the largest unit that is at least one.
fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let shown: Vec<String> = [0, 59, 60, 3_599, 3_600, 86_400 * 3].map(age).into();
        assert_eq!(shown, ["0s", "59s", "1m", "59m", "1h", "3d"]);
    }
}
