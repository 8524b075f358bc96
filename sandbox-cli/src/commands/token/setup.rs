//! `token setup` and `token rotate`: a token that its user makes, checked before it is kept.

use std::fmt::Write as _;
use std::time::SystemTime;

use sandbox_core::{ErrorKind, Token};
use sandbox_github::{Client, GitHubUrl, KeptToken, TokenStore};
use sandbox_policy::{Policy, RepoId, TokenPermissions};
use secrecy::{ExposeSecret as _, SecretString};

use super::{Checked, ends, nothing_kept};
use crate::args::{SetupArgs, TokenArgs};
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::secret;

pub(super) async fn setup(config: &Config, SetupArgs { token, keyring }: SetupArgs) -> Result<u8> {
    let TokenArgs { repo, policy } = token;
    let policy = config.policy(policy.as_deref(), &[])?.policy;
    let stores = config.token_stores()?;
    if stores.find(&repo)?.is_some() {
        return Err(Failure::new(ErrorKind::InvalidInput, format!("a token for {repo} is kept already"))
            .with_hint(format!("`sandbox token rotate --repo {repo}` puts a new one in its place, and revokes it")));
    }
    let (store, place): (&dyn TokenStore, _) = if keyring {
        let keyring = stores.keyring()?;
        // One that does not answer is told of before a token is made.
        keyring.list()?;
        (keyring, "the keyring".to_owned())
    } else {
        (&stores.files, stores.files.path(&repo).display().to_string())
    };
    let (kept, checked) = made(config, &policy, repo).await?;
    store.save(&kept)?;
    config.screen.answer(&checked, || format!("{}kept in:    {place}\n", checked.text()))?;
    Ok(0)
}

pub(super) async fn rotate(config: &Config, TokenArgs { repo, policy }: TokenArgs) -> Result<u8> {
    let policy = config.policy(policy.as_deref(), &[])?.policy;
    let stores = config.token_stores()?;
    let (store, old) = stores.find(&repo)?.ok_or_else(|| nothing_kept(&repo))?;
    let (new, checked) = made(config, &policy, repo).await?;
    if new.token.secret().expose_secret() == old.token.secret().expose_secret() {
        let message = "this is the token that is kept already";
        return Err(Failure::new(ErrorKind::InvalidInput, message).with_hint("make a new one at GitHub"));
    }
    store.save(&new)?;
    // From here on, the new one is in place, whatever becomes of the old one.
    config.github_client()?.revoke(old.token.secret()).await.map_err(|error| {
        Failure::new(ErrorKind::Token, "the new token is kept; the old one may still be good")
            .with_cause(&error)
            .with_hint("revoke the old one by hand in GitHub's settings")
    })?;
    config.screen.answer(&checked, || format!("{}the old one: revoked\n", checked.text()))?;
    Ok(0)
}

/// Has a token made by its user, and checks it.
async fn made(config: &Config, policy: &Policy, repository: RepoId) -> Result<(KeptToken, Checked)> {
    let scopes = &policy.token().scopes;
    if scopes.is_empty() {
        let message = format!("policy {} grants no token", policy.name());
        return Err(Failure::new(ErrorKind::Policy, message)
            .with_hint("name another with --policy, or set `scopes` below `[token]` in it"));
    }
    let client = config.github_client()?;
    let guide = guide(client.url(), &repository, &TokenPermissions::of(scopes), policy);
    if !config.screen.is_json() {
        config.screen.aside(&(), || guide)?;
    }
    let secret = secret::ask("The token").await?;
    check(&client, policy, repository, secret).await
}

async fn check(
    client: &Client,
    policy: &Policy,
    repository: RepoId,
    secret: SecretString,
) -> Result<(KeptToken, Checked)> {
    let report = client.check_pat(&secret, &repository).await.map_err(sandbox_core::Error::from)?;
    let token = Token::new(repository, secret);
    let checked = Checked::new(&token, &report, policy, SystemTime::now());
    checked.refusal(policy)?;
    Ok((KeptToken { token, expires: ends(&report) }, checked))
}

/// What to do at GitHub: a link that fills the page in, and the same by hand, since the link may not do so
/// (<https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/managing-your-personal-access-tokens#pre-filling-fine-grained-personal-access-token-details-using-url-parameters>).
fn guide(github: &GitHubUrl, repository: &RepoId, permissions: &TokenPermissions, policy: &Policy) -> String {
    let days = policy.token().lifetime.as_seconds().div_euclid(24 * 60 * 60).clamp(1, 366);
    let page = format!("{}/settings/personal-access-tokens/new", github.web());
    let mut link = format!("{page}?name={}&target_name={}&expires_in={days}", name(repository), repository.owner());
    let mut list = String::new();
    for (permission, level) in permissions.iter() {
        // Writing to a String cannot fail.
        let _ = write!(link, "&{permission}={level}");
        let _ = writeln!(list, "       {permission}: {level}");
    }
    format!(
        "Make a fine-grained token for {repository}:\n\n  {link}\n\nIf the page is not filled in, choose there:\n\
         \x20    resource owner: {}\n     expiration: {days} days\n     repository access: only {repository}\n\
         \x20    repository permissions:\n{list}\n",
        repository.owner()
    )
}

/// At most 40 characters of letters, digits and hyphens, as GitHub takes a name in its link.
fn name(repository: &RepoId) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    format!("sandbox-{}", repository.name()).chars().map(plain).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_asks_for_what_the_policy_grants_and_no_more() {
        let repository: RepoId = "acme/wid.get_2".parse().unwrap();
        let policy = Policy::standard();
        let permissions = TokenPermissions::of(&policy.token().scopes);
        let guide = guide(&GitHubUrl::github(), &repository, &permissions, &policy);
        let link = guide.lines().find(|line| line.contains("https://")).unwrap().trim();
        assert!(
            link.starts_with(
                "https://github.com/settings/personal-access-tokens/new?name=sandbox-wid-get-2&target_name=acme&expires_in=30&"
            ),
            "{link}"
        );
        let named: Vec<&str> = link.split('&').skip(3).collect();
        assert_eq!(named.len(), permissions.iter().count());
        for (permission, level) in permissions.iter() {
            assert!(named.contains(&format!("{permission}={level}").as_str()), "{permission}: {link}");
            assert!(guide.contains(&format!("{permission}: {level}\n")));
        }
        assert!(!link.contains("secrets=") && !link.contains("workflows="), "{link}");
    }
}
