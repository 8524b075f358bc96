//! Finding the containers that are ours.

use std::collections::HashMap;

use bollard::models::{ContainerSummary as Listed, ContainerSummaryStateEnum};
use bollard::query_parameters::ListContainersOptionsBuilder;
use sandbox_core::{ContainerId, ContainerStatus, ContainerSummary, LABEL_OWNER, LABEL_SANDBOX, Result, SandboxId};

use super::error::{Answer, one_line, within};
use super::{Engine, INSPECT, Product, podman};

impl Engine {
    /// Lists the containers that carry a sandbox's labels and its name.
    pub(crate) async fn list(&self) -> Result<Vec<ContainerSummary>> {
        let what = "list the containers";
        let listed = match self.product {
            Product::Docker => {
                let filters = HashMap::from([("label", vec![LABEL_SANDBOX])]);
                let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
                within(&self.endpoint, INSPECT, what, self.docker.list_containers(Some(options))).await
            }
            Product::Podman => podman::list(&self.endpoint, what).await,
        };
        Ok(listed.map_err(Answer::into_error)?.into_iter().filter_map(summary).collect())
    }
}

/// A container takes over its image's labels, so a stranger's may carry ours; it has another name.
fn summary(listed: Listed) -> Option<ContainerSummary> {
    let labels = listed.labels.unwrap_or_default();
    let sandbox: SandboxId = labels.get(LABEL_SANDBOX)?.parse().ok()?;
    let name = format!("/sandbox-{sandbox}");
    if !listed.names.unwrap_or_default().contains(&name) {
        return None;
    }
    Some(ContainerSummary {
        container: ContainerId::new(listed.id?),
        sandbox,
        owner: labels.get(LABEL_OWNER).and_then(|owner| owner.parse().ok()),
        image: one_line(&listed.image.unwrap_or_default()),
        status: match listed.state {
            Some(ContainerSummaryStateEnum::CREATED) => ContainerStatus::Created,
            Some(
                ContainerSummaryStateEnum::PAUSED
                | ContainerSummaryStateEnum::RESTARTING
                | ContainerSummaryStateEnum::RUNNING
                | ContainerSummaryStateEnum::STOPPING,
            ) => ContainerStatus::Running,
            _ => ContainerStatus::Exited,
        },
        created: listed.created.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, sandbox: &str, owner: &str) -> Listed {
        Listed {
            id: Some("0123".to_owned()),
            names: Some(vec![name.to_owned()]),
            labels: Some(HashMap::from([
                (LABEL_SANDBOX.to_owned(), sandbox.to_owned()),
                (LABEL_OWNER.to_owned(), owner.to_owned()),
            ])),
            state: Some(ContainerSummaryStateEnum::RUNNING),
            ..Default::default()
        }
    }

    #[test]
    fn takes_ours_and_leaves_what_only_looks_like_it() {
        let id = "0123456789abcdef0123456789abcdef";
        let ours = summary(listed(&format!("/sandbox-{id}"), id, "nonsense")).unwrap();
        assert_eq!((ours.sandbox.to_string().as_str(), ours.owner, ours.status), (id, None, ContainerStatus::Running));
        assert!(summary(listed("/hopeful_turing", id, "x")).is_none());
        assert!(summary(listed("/sandbox-x", "x", "x")).is_none());
        assert!(summary(Listed { labels: None, ..listed("/x", id, "x") }).is_none());
    }
}
