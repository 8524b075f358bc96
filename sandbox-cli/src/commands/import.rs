//! `image import`: makes an image of a file, for sandboxes without an engine.

use sandbox_core::{ErrorKind, Image};
use sandbox_policy::ImageRef;
use serde::Serialize;

use crate::args::ImportArgs;
use crate::config::Config;
use crate::failure::{Failure, Result};

pub(super) async fn run(config: &Config, arguments: ImportArgs) -> Result<u8> {
    let ImportArgs { file, name } = arguments;
    let name = match name {
        Some(name) => name,
        None => named_by(&file)?,
    };
    let image = config.connect_embedded("image import").await?.import(file, &name).await?;
    config.screen.answer(&Kept::from(&image), || image.reference.to_string())?;
    Ok(0)
}

/// The name that a file's own gives.
fn named_by(file: &std::path::Path) -> Result<ImageRef> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem = name.split('.').next().unwrap_or_default();
    stem.parse().map_err(|error: sandbox_policy::ParseError| {
        Failure::new(ErrorKind::InvalidInput, format!("{} gives no name to its image", file.display()))
            .with_cause(error)
            .with_hint("say which, as in `sandbox image import FILE NAME`")
    })
}

/// An image that is kept.
#[derive(Debug, Serialize)]
pub(super) struct Kept {
    image: String,
    id: String,
}

impl From<&Image> for Kept {
    fn from(image: &Image) -> Self {
        Self { image: image.reference.to_string(), id: image.id.clone() }
    }
}
