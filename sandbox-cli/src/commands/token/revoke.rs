//! `token revoke`: the end of a token, seen at GitHub before it is forgotten here.

use sandbox_core::ErrorKind;
use sandbox_github::{Client, Revoked};
use sandbox_policy::RepoId;
use serde::Serialize;

use crate::args::RevokeArgs;
use crate::config::{Config, TokenStores};
use crate::failure::{Failure, Result};

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Ended {
    repository: String,
    /// Whether GitHub had stopped taking it before.
    already: bool,
}

pub(super) async fn run(config: &Config, RevokeArgs { repo, all: _ }: RevokeArgs) -> Result<u8> {
    let store = config.token_stores()?;
    let client = config.github_client()?;
    let repositories = match repo {
        Some(repository) => vec![repository],
        None => store.list()?,
    };
    let (mut ended, mut failures) = (Vec::new(), Vec::new());
    for repository in repositories {
        match end(&client, &store, &repository).await {
            Ok(one) => ended.push(one),
            Err(failure) => failures.push(failure),
        }
    }
    config.screen.answer(&ended, || {
        let line = |Ended { repository, already }: &Ended| match already {
            true => format!("{repository}: GitHub did not take it any more; forgotten\n"),
            false => format!("{repository}: revoked and forgotten\n"),
        };
        ended.iter().map(line).collect()
    })?;
    match failures.len() {
        0 => Ok(0),
        1 => Err(failures.remove(0)),
        count => {
            let message = format!("{count} tokens may still be good, and are kept");
            let causes = failures.iter().map(|failure| failure.message.clone());
            let failure = causes.fold(Failure::new(ErrorKind::Token, message), Failure::with_cause);
            Err(failure.with_hint("revoke them by hand in GitHub's settings, then remove their files"))
        }
    }
}

async fn end(client: &Client, stores: &TokenStores, repository: &RepoId) -> Result<Ended> {
    let (store, kept) = stores.find(repository)?.ok_or_else(|| super::nothing_kept(repository))?;
    let revoked = client.revoke(kept.token.secret()).await.map_err(sandbox_core::Error::from)?;
    store.remove(repository)?;
    Ok(Ended { repository: repository.to_string(), already: revoked == Revoked::Already })
}
