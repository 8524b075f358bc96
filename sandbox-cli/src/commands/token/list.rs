//! `token list`: what is kept here, without asking anybody.

use std::time::SystemTime;

use super::Shown;
use crate::config::Config;
use crate::failure::Result;
use crate::render::table;

pub(super) fn run(config: &Config) -> Result<u8> {
    let store = config.token_stores()?;
    let now = SystemTime::now();
    let mut shown = Vec::new();
    for repository in store.list()? {
        match store.find(&repository) {
            Ok(Some((_, kept))) => shown.push(Shown::new(&kept.token, kept.expires, now)),
            // Gone since it was listed.
            Ok(None) => {}
            Err(error) => config.screen.warn(&format!("the token for {repository} is passed over: {}", error.message)),
        }
    }
    for warning in shown.iter().filter_map(Shown::warning) {
        config.screen.warn(&warning);
    }
    let rows: Vec<[String; 4]> = shown
        .iter()
        .map(|shown| [shown.repository.clone(), shown.kind.to_owned(), shown.expiry(), shown.sha256.clone()])
        .collect();
    config.screen.answer(&shown, || table(["repository", "kind", "expires", "sha-256"], &rows))?;
    Ok(0)
}
