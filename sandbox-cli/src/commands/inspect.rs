//! `inspect`: what was asked of a sandbox and what is in force.

use crate::args::InspectArgs;
use crate::client;
use crate::config::Config;
use crate::failure::Result;

pub(super) async fn run(config: &Config, arguments: InspectArgs) -> Result<u8> {
    let id = client::matching(&config.run_root.sandboxes()?, &arguments.id)?;
    let inspection = client::inspect(&config.run_root, id).await?;
    config.screen.answer(&inspection, || inspection.text())?;
    Ok(0)
}
