//! A personal token, read from the standard input: what GitHub says of it, and what a policy says to that.
//!
//! A sandbox does the same by `Sandbox::builder().repository(…).tokens(token)`. usage:
//! `cargo run -p sandbox-examples --bin personal_token https://github.com OWNER/NAME < token`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeSet;
use std::time::SystemTime;

use sandbox_core::policy::{Control, Policy, Scope, Support};
use sandbox_core::{RepoGrant, TokenProvider as _};
use sandbox_github::{Client, PersonalToken};
use secrecy::SecretString;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, repository] = arguments.as_slice() else {
        return Err("usage: personal_token URL OWNER/NAME < TOKEN".into());
    };
    let secret = SecretString::from(std::io::read_to_string(std::io::stdin())?.trim_end().to_owned());
    let provider = PersonalToken::checked(&Client::new(url.parse()?)?, repository.parse()?, secret).await?;
    let report = provider.report().ok_or("a checked token has a report")?;
    println!("{:?}, reach {:?}, user's role {}", report.kind, report.reach, report.role.join(" "));
    for unknown in &report.unknown {
        println!("nobody can tell {unknown}");
    }

    let facts = report.facts(SystemTime::now());
    for violation in facts.violations(Policy::standard().token()) {
        println!("refused: {violation}");
    }
    let scopes = BTreeSet::from([Scope::Repo]);
    for control in [Control::ShortLivedToken, Control::TokenScope] {
        match facts.capabilities(&scopes).get(control) {
            Some(Support::Enforced { by }) => println!("{control}: enforced by {by}"),
            Some(Support::Unsupported { why, hint }) => println!("{control}: {why}; {hint}"),
            _ => println!("{control}: nothing is known"),
        }
    }

    let token = provider.token(&RepoGrant { repository: repository.parse()?, scopes }).await?;
    println!("its default branch: {:?}", provider.default_branch(&token).await?);
    // It is its user's, and stays good: nothing is revoked unless that was asked for.
    provider.revoke(token).await?;
    Ok(())
}
