//! A GitHub App's token for one repository: minted, looked at, renewed where that is needed, and seen to be dead at the end.
//!
//! A sandbox does the same by `Sandbox::builder().repository(…).tokens(app)`. usage:
//! `cargo run -p sandbox-examples --bin github_app https://github.com CLIENT_ID KEY.pem OWNER/NAME`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use sandbox_core::policy::Scope;
use sandbox_core::{RepoGrant, TokenProvider as _};
use sandbox_github::{AppTokens, Client, PrivateKey};
use secrecy::SecretString;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, issuer, key, repository] = arguments.as_slice() else {
        return Err("usage: github_app URL CLIENT_ID KEY_FILE OWNER/NAME".into());
    };
    let pem = SecretString::from(std::fs::read_to_string(key)?);
    let app = AppTokens::new(Client::new(url.parse()?)?, issuer.parse()?, PrivateKey::from_pem(&pem)?)?;

    // What a policy grants is what is asked for; GitHub's answer is compared with it.
    let grant = RepoGrant { repository: repository.parse()?, scopes: [Scope::Repo].into() };
    let made = app.mint(&grant).await?;
    println!("{:?} may {}", made.token, made.permissions);

    // Whoever uses a token for long asks before each use, and gets the same one as long as that will do.
    let token = app.renew(&made.token).await?;
    println!("its default branch: {:?}", app.default_branch(&token).await?);

    app.revoke(token).await?;
    println!("revoked, and refused by GitHub; tokens held: {}", app.held().len());
    Ok(())
}
