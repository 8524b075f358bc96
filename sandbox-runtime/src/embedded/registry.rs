//! Speaking to a registry (<https://github.com/opencontainers/distribution-spec/blob/main/spec.md>).
//!
//! Invariants: no answer is held that has not been bounded before it is read; a redirection takes no credential along and
//! leads to nothing in the clear; an account is told to its own registry, and to nobody whom that one names.

mod access;
mod challenge;

use std::time::Duration;

use oci_spec::distribution::Reference;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Certificate, Client, Response, StatusCode, Url};
use sandbox_core::{Error, ErrorKind, Result};
use serde::Deserialize;

pub(super) use access::Anonymous;
pub use access::{RegistryAccess, RegistryAccount};
use challenge::Challenge;

use super::archive::invalid;

/// A registry, as one pull speaks to it.
#[derive(Debug)]
pub(super) struct Registry<'a> {
    /// The one that the image's name means, with the authorities that are its own.
    own: Client,
    /// Whoever it names.
    others: Client,
    base: Url,
    host: String,
    /// The image, for people.
    image: String,
    repository: String,
    access: &'a dyn RegistryAccess,
    plain_http: &'a [String],
    authorization: Option<HeaderValue>,
}

impl<'a> Registry<'a> {
    /// Prepares to speak to the registry of an image.
    pub(super) async fn of(
        source: &Reference,
        access: &'a dyn RegistryAccess,
        plain_http: &'a [String],
    ) -> Result<Self> {
        let host = source.resolve_registry().to_owned();
        let scheme = if plain_http.contains(&host) { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{host}/v2/{}/", source.repository())).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, format!("registry {host:?} is no host")).with_source(error)
        })?;
        let authorities = access.authorities(&host).await?;
        let own = Certificate::from_pem_bundle(&authorities).and_then(client).map_err(|error| {
            let message = format!("the authorities for registry {host} are not certificates in PEM form");
            Error::new(ErrorKind::InvalidInput, message).with_source(error)
        })?;
        let others = client(Vec::new())
            .map_err(|error| Error::new(ErrorKind::Io, "cannot speak to registries").with_source(error))?;
        let (image, repository) = (source.whole(), source.repository().to_owned());
        Ok(Self { image, own, others, base, host, repository, access, plain_http, authorization: None })
    }

    /// Fetches a manifest or an index by its tag or digest.
    pub(super) async fn manifest(&mut self, reference: &str, kinds: &str, most: u64) -> Result<Vec<u8>> {
        let mut response = self.get(&format!("manifests/{reference}"), kinds).await?;
        bounded(&mut response, most)
            .await
            .map_err(|error| self.broken(error))?
            .ok_or_else(|| invalid(format!("its manifest is larger than {most} bytes")))
    }

    /// Begins to fetch a blob, whose length and content are the caller's to compare.
    pub(super) async fn blob(&mut self, digest: &str) -> Result<Response> {
        self.get(&format!("blobs/{digest}"), "*/*").await
    }

    async fn get(&mut self, path: &str, kinds: &str) -> Result<Response> {
        let url = self.base.join(path).map_err(|error| invalid(format!("{path:?} is no path: {error}")))?;
        let mut response = self.follow(url.clone(), kinds).await?;
        if response.status() == StatusCode::UNAUTHORIZED && self.authorization.is_none() {
            let challenge = Challenge::of(response.headers().get_all(WWW_AUTHENTICATE));
            self.authorization = Some(self.authorize(challenge).await?);
            response = self.follow(url, kinds).await?;
        }
        match response.status() {
            status if status.is_success() => Ok(response),
            status => Err(self.refused(&format!("answers with status {}", status.as_u16()))),
        }
    }

    /// Asks, and goes where the answer leads. Only the registry itself is told who asks.
    async fn follow(&self, mut url: Url, kinds: &str) -> Result<Response> {
        for _ in 0..=MAX_REDIRECTIONS {
            let is_own = url.origin() == self.base.origin();
            let mut request = if is_own { &self.own } else { &self.others }.get(url.clone()).header(ACCEPT, kinds);
            if let Some(authorization) = self.authorization.as_ref().filter(|_| is_own) {
                request = request.header(AUTHORIZATION, authorization);
            }
            let response = request.send().await.map_err(|error| self.broken(error))?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            url = next
                .filter(|next| self.may_be_asked(next))
                .ok_or_else(|| self.refused("leads to where nothing is fetched from: only https:// is"))?;
        }
        Err(self.refused(&format!("leads on more than {MAX_REDIRECTIONS} times")))
    }

    /// Whether anything is said to a server: over TLS, or where it was allowed without.
    fn may_be_asked(&self, url: &Url) -> bool {
        let authority = url.host_str().map(|host| match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        });
        url.scheme() == "https"
            || (url.scheme() == "http" && authority.is_some_and(|authority| self.plain_http.contains(&authority)))
    }

    /// Finds out how to ask, as the registry wants to be asked.
    async fn authorize(&self, challenge: Option<Challenge>) -> Result<HeaderValue> {
        let account = self.access.account(&self.host).await?;
        match (challenge, account) {
            (Some(Challenge::Basic), Some(account)) => account.basic(),
            (Some(Challenge::Bearer { realm, service }), account) => {
                let realm = Url::parse(&realm).ok().filter(|realm| self.may_be_asked(realm));
                let realm = realm.ok_or_else(|| self.refused("sends for a token to where nobody is asked"))?;
                self.token(realm, service, account).await
            }
            (Some(Challenge::Basic), None) => Err(self.refused("wants an account, and there is none for it")),
            (None, _) => Err(self.refused("refuses to answer, and does not say how to ask")),
        }
    }

    /// Fetches a token for this repository, to read from it and no more.
    async fn token(
        &self,
        mut realm: Url,
        service: Option<String>,
        account: Option<RegistryAccount>,
    ) -> Result<HeaderValue> {
        let is_own = realm.origin() == self.base.origin();
        if account.is_some() && !is_own && !is_its_issuer(&self.host, &realm) {
            let asked = realm.origin().ascii_serialization();
            let message = format!("registry {} wants its account to be told to {asked}, which is another's", self.host);
            return Err(Error::new(ErrorKind::Denied, message)
                .with_hint("pull without an account, or use a registry that gives out its own tokens"));
        }
        realm.query_pairs_mut().extend_pairs(service.map(|service| ("service", service)));
        realm.query_pairs_mut().append_pair("scope", &format!("repository:{}:pull", self.repository));
        let mut request = if is_own { &self.own } else { &self.others }.get(realm);
        if let Some(account) = account {
            request = request.header(AUTHORIZATION, account.basic()?);
        }
        let mut response = request.send().await.map_err(|error| self.broken(error))?;
        if !response.status().is_success() {
            let status = response.status().as_u16();
            return Err(self.refused(&format!("gives no token: status {status}")));
        }
        let answer = bounded(&mut response, MAX_TOKEN).await.map_err(|error| self.broken(error))?;
        let answer = answer.and_then(|answer| serde_json::from_slice::<Answer>(&answer).ok());
        let token = answer.and_then(|Answer { token, access_token }| token.or(access_token));
        let header = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
        let mut header = header.ok_or_else(|| self.refused("gives what is no token"))?;
        header.set_sensitive(true);
        Ok(header)
    }
}

impl Registry<'_> {
    fn refused(&self, what: &str) -> Error {
        let message = format!("image {} cannot be pulled: its registry {} {what}", self.image, self.host);
        Error::new(ErrorKind::ImageMissing, message).with_hint(HINT)
    }

    /// A registry that does not answer, or no further. Where it was asked is not told: the path may hold what is signed.
    pub(super) fn broken(&self, error: reqwest::Error) -> Error {
        self.refused("cannot be reached, or breaks off").with_source(error.without_url())
    }
}

/// What a registry's issuer answers (<https://distribution.github.io/distribution/spec/auth/token/>).
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// Whether somebody else gives out the tokens of a registry by its own documents.
fn is_its_issuer(registry: &str, realm: &Url) -> bool {
    realm.scheme() == "https"
        && realm.port().is_none()
        && ISSUERS.iter().any(|(of, issuer)| *of == registry && Some(*issuer) == realm.host_str())
}

/// Reads all of an answer; `None` if there is more than that.
async fn bounded(response: &mut Response, most: u64) -> reqwest::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        if (content.len() + chunk.len()) as u64 > most {
            return Ok(None);
        }
        content.extend_from_slice(&chunk);
    }
    Ok(Some(content))
}

/// A client that goes nowhere by itself.
fn client(authorities: Vec<Certificate>) -> reqwest::Result<Client> {
    // Whoever embeds this may have chosen another provider; then that one is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT)
        .read_timeout(STALL)
        .user_agent(concat!("sandbox/", env!("CARGO_PKG_VERSION")));
    if authorities.is_empty() { client.build() } else { client.tls_certs_merge(authorities).build() }
}

/// Registries whose tokens another host gives out: Docker Hub's and GitLab's
/// (<https://docs.docker.com/reference/api/registry/auth/>, <https://docs.gitlab.com/administration/packages/container_registry/>).
const ISSUERS: [(&str, &str); 2] = [("index.docker.io", "auth.docker.io"), ("registry.gitlab.com", "gitlab.com")];

const HINT: &str =
    "is the name right, and do you have access? `docker login` keeps an account; `sandbox image import` takes a file";

/// How often one request may be led on.
const MAX_REDIRECTIONS: u32 = 5;
/// The largest answer that holds a token, in bytes.
const MAX_TOKEN: u64 = 64 << 10;
/// How long a registry may take until it answers, and how long it may send nothing.
const CONNECT: Duration = Duration::from_secs(20);
const STALL: Duration = Duration::from_mins(1);
