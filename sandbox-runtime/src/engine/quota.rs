//! Whether an engine's storage can bound what a container writes.
//!
//! An engine says which storage it has, not whether that takes a size: XFS may be mounted without project quotas. So
//! where the driver might, this makes one container with a size, which never runs, and removes it.

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig, SystemInfo};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptions,
};
use futures_util::TryStreamExt as _;
use sandbox_core::Result;
use sandbox_policy::Support;

use super::error::{Answer, within};
use super::{CREATE, Endpoint, REMOVE};

/// Finds out whether a size is taken.
pub(crate) async fn probe(docker: &Docker, endpoint: &Endpoint, info: &SystemInfo) -> Result<Support> {
    let storage = Storage::of(info);
    if !storage.may_take_a_size() {
        return Ok(unsupported(&storage.why()));
    }
    // An archive that holds nothing: two blocks of zeros
    // (<https://www.gnu.org/software/tar/manual/html_node/Standard.html>).
    let options = CreateImageOptionsBuilder::new().from_src("-").build();
    let import = docker.create_image(Some(options), Some(bollard::body_full(vec![0; 1_024].into())), None);
    let answers = within(endpoint, CREATE, "try a disk limit", import.try_collect::<Vec<_>>()).await;
    let image = answers.map_err(Answer::into_error)?.into_iter().rev().find_map(|answer| answer.status);
    let Some(image) = image else {
        return Ok(unsupported("the engine made no image to try a size on"));
    };
    let tried = try_size(docker, endpoint, &image).await;
    let removed = docker.remove_image(&image, None::<RemoveImageOptions>, None);
    within(endpoint, REMOVE, "remove the image of a trial", removed).await.map_err(Answer::into_error)?;
    Ok(match tried? {
        None => Support::Enforced { by: format!("{} storage with quotas", storage.name()) },
        Some(why) => unsupported(&why),
    })
}

/// Makes a container with a size and removes it; returns why the engine would not.
async fn try_size(docker: &Docker, endpoint: &Endpoint, image: &str) -> Result<Option<String>> {
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(vec!["/never".to_owned()]),
        host_config: Some(HostConfig {
            storage_opt: Some([("size".to_owned(), "1073741824".to_owned())].into()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let made = docker.create_container(None::<CreateContainerOptions>, body);
    match within(endpoint, CREATE, "try a disk limit", made).await {
        Ok(made) => {
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            let removed = docker.remove_container(&made.id, Some(options));
            within(endpoint, REMOVE, "remove the container of a trial", removed).await.map_err(Answer::into_error)?;
            Ok(None)
        }
        Err(answer) if answer.status().is_some() => Ok(Some(answer.message().to_owned())),
        Err(answer) => Err(answer.into_error()),
    }
}

/// An engine's storage driver and the file system below it.
#[derive(Debug)]
struct Storage {
    driver: String,
    below: Option<String>,
}

impl Storage {
    fn of(info: &SystemInfo) -> Self {
        let below = info.driver_status.iter().flatten().find_map(|pair| match pair.as_slice() {
            [name, value] if name == "Backing Filesystem" => Some(value.clone()),
            _ => None,
        });
        Self { driver: info.driver.clone().unwrap_or_default(), below }
    }

    /// The drivers with quotas are those of
    /// <https://docs.docker.com/reference/cli/docker/container/run/#storage-opt>, but for btrfs.
    fn may_take_a_size(&self) -> bool {
        match self.driver.as_str() {
            "zfs" => true,
            "overlay2" | "vfs" => self.below.as_deref() == Some("xfs"),
            _ => false,
        }
    }

    fn name(&self) -> String {
        match &self.below {
            Some(below) => format!("{} over {below}", self.driver),
            None => self.driver.clone(),
        }
    }

    /// Docker 20.10 over btrfs of Linux 6.18 takes a size and holds to it, until the removal of some other container leaves the
    /// numbers of a group inconsistent, as the kernel's log says: from then on nothing is limited, and nobody is told.
    fn why(&self) -> String {
        if self.driver == "btrfs" {
            return "btrfs stops to limit anything when its counts become inconsistent, as they do when containers are removed".to_owned();
        }
        format!("{} has no project quota that the engine could set", self.name())
    }
}

fn unsupported(why: &str) -> Support {
    Support::Unsupported {
        why: why.to_owned(),
        hint: "put the engine's data on XFS mounted with pquota, or take a read-only root, beside which all is memory"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(driver: &str, below: &str) -> Storage {
        Storage::of(&SystemInfo {
            driver: Some(driver.to_owned()),
            driver_status: Some(vec![vec!["x".to_owned()], vec!["Backing Filesystem".to_owned(), below.to_owned()]]),
            ..Default::default()
        })
    }

    #[test]
    fn only_storage_with_quotas_is_tried() {
        for (driver, below, may) in [
            ("overlay2", "extfs", false),
            ("overlay2", "tmpfs", false),
            ("overlay2", "xfs", true),
            ("overlayfs", "xfs", false), // containerd's, which drops a size without a word
            ("fuse-overlayfs", "xfs", false),
            ("vfs", "extfs", false),
            ("btrfs", "", false), // which forgets it
        ] {
            assert_eq!(storage(driver, below).may_take_a_size(), may, "{driver} {below}");
        }
    }

    #[test]
    fn a_refusal_names_the_storage_and_the_way_out() {
        let storage = storage("overlay2", "extfs");
        let Support::Unsupported { why, hint } = unsupported(&storage.why()) else { panic!("it has no quota") };
        assert!(why.contains("overlay2 over extfs") && hint.contains("pquota"), "{why}; {hint}");
    }
}
