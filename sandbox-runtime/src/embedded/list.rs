//! Finding the containers that are ours.

use std::fs;

use sandbox_core::{ContainerId, ContainerStatus, ContainerSummary, Result};

use super::Machine;
use super::record::Record;
use super::state::status;
use super::store::unusable;

impl Machine {
    /// Lists the containers in the state directory, also those of whose record nothing can be made.
    pub(super) fn list(&self) -> Result<Vec<ContainerSummary>> {
        let containers = self.store.containers();
        let mut found = Vec::new();
        for entry in fs::read_dir(&containers).map_err(|error| unusable(&containers, error))? {
            let entry = entry.map_err(|error| unusable(&containers, error))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let container = ContainerId::new(name);
            let Ok((sandbox, directory)) = self.store.container(&container) else { continue };
            found.push(match Record::read(&directory) {
                Ok(Some(record)) => ContainerSummary {
                    container,
                    sandbox,
                    owner: record.owner.parse().ok(),
                    status: status(&record)?,
                    image: record.image,
                    created: record.created,
                },
                // It went while the list was made.
                Ok(None) if !directory.exists() => continue,
                _ => ContainerSummary {
                    container,
                    sandbox,
                    owner: None,
                    image: String::new(),
                    status: ContainerStatus::Exited,
                    created: 0,
                },
            });
        }
        Ok(found)
    }
}
