//! `cleanup`: removes what killed sandboxes have left behind.

use sandbox_core::{Reaped, reap};

use crate::config::Config;
use crate::failure::Result;
use crate::render::escaped;

pub(super) async fn run(config: &Config) -> Result<u8> {
    let runtime = config.connect().await?;
    let reaped = reap(&*runtime, &config.run_root).await?;
    config.screen.answer(&reaped, || text(&reaped))?;
    Ok(0)
}

fn text(Reaped { removed, kept }: &Reaped) -> String {
    if removed.is_empty() && kept.is_empty() {
        return "nothing is left behind".to_owned();
    }
    let removed = removed.iter().map(|sandbox| format!("removed {sandbox}\n"));
    let kept = kept.iter().map(|kept| format!("kept {}: {}\n", kept.sandbox, escaped(&kept.why)));
    removed.chain(kept).collect()
}
