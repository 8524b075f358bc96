//! `cleanup`: removes what killed sandboxes have left behind.

use sandbox_core::{Reaped, reap};

use crate::config::Config;
use crate::failure::Result;
use crate::render::escaped;

pub(super) async fn run(config: &Config) -> Result<u8> {
    let mut reaped = Reaped::default();
    for runtime in config.connect_all().await? {
        let Reaped { removed, kept } = reap(&*runtime, &config.run_root).await?;
        reaped.removed.extend(removed);
        reaped.kept.extend(kept);
    }
    reaped.removed.sort_unstable();
    reaped.removed.dedup();
    // A directory that one engine knew nothing of may have been another's.
    reaped.kept.retain(|kept| !reaped.removed.contains(&kept.sandbox));
    reaped.kept.sort_unstable_by_key(|kept| kept.sandbox);
    reaped.kept.dedup_by_key(|kept| kept.sandbox);
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
