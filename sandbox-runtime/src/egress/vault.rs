//! Credentials that are added on the way out: inside there is a placeholder, which is worth nothing anywhere.
//!
//! Invariant: a secret is put into a request that goes to its one host, in its one place, and nowhere else. It is asked for
//! when it is needed and kept nowhere, so that a change or a withdrawal holds for the next request.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use sandbox_core::{CredentialProvider, Result};
use sandbox_policy::{Credential, CredentialName, Credentials, Host, Placement};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::runtime::Handle;

use super::answer::{Refusal, RefusalKind};
use super::chance;
use super::stray::{Found, Needles, Search};
use super::thread::AtHome;

/// Exchanges placeholders for secrets, for one sandbox.
pub(crate) struct Vault {
    provider: Option<Arc<dyn CredentialProvider>>,
    entries: Vec<Entry>,
    /// None where there is no credential.
    needles: Option<Arc<Needles>>,
}

struct Entry {
    name: CredentialName,
    binding: Credential,
    placeholder: String,
}

/// A request, as far as credentials are concerned.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bearer<'a> {
    pub(crate) host: &'a Host,
    pub(crate) port: u16,
    pub(crate) method: &'a str,
    /// The path and the query.
    pub(crate) path: &'a str,
}

/// A place in a request where a secret goes.
#[derive(Debug)]
pub(crate) struct Slot {
    name: CredentialName,
    entry: usize,
    header: HeaderName,
    /// What stands before the secret: `Bearer `, or nothing.
    before: String,
}

impl Slot {
    /// Whose secret it is.
    pub(crate) fn name(&self) -> &CredentialName {
        &self.name
    }
}

impl Vault {
    /// Makes a placeholder for each credential.
    ///
    /// # Errors
    /// `Io` where the kernel gives out no random bytes.
    pub(crate) fn new(credentials: &Credentials, provider: Option<Arc<dyn CredentialProvider>>) -> Result<Self> {
        let entry = |(name, binding): (&CredentialName, &Credential)| {
            let shape = binding.shape();
            let random = usize::from(shape.length()).saturating_sub(shape.prefix().len());
            let placeholder = format!("{}{}", shape.prefix(), chance::text(random)?);
            Ok(Entry { name: name.clone(), binding: binding.clone(), placeholder })
        };
        let entries: Vec<Entry> = credentials.iter().map(entry).collect::<Result<_>>()?;
        let placeholders: Vec<&str> = entries.iter().map(|entry| entry.placeholder.as_str()).collect();
        let needles = if entries.is_empty() { None } else { Some(Arc::new(Needles::new(&placeholders)?)) };
        Ok(Self { provider, entries, needles })
    }

    /// The variables that hold the placeholders inside.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let variable = |entry: &Entry| (entry.binding.variable().to_string(), entry.placeholder.clone());
        self.entries.iter().map(variable).collect()
    }

    /// Finds where secrets go in a request. Nothing is changed yet.
    ///
    /// # Errors
    /// Where a placeholder stands anywhere but in its place in a request to its host, or where something else stands in a
    /// place that is a credential's.
    pub(crate) fn slots(&self, bearer: Bearer<'_>, headers: &HeaderMap) -> std::result::Result<Vec<Slot>, Refusal> {
        let mut slots = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            if self.holds(bearer.path.as_bytes(), index) {
                return Err(entry.misplaced("the URL"));
            }
            let is_bound = entry.binding.is_for(bearer.host, bearer.port);
            for (header, value) in headers {
                let in_place = is_bound && *header == entry.header();
                let before = if in_place { entry.find(value.as_bytes()) } else { None };
                match before {
                    Some(_) if !entry.binding.covers(bearer.method, bearer.path) => {
                        return Err(entry.uncovered(bearer));
                    }
                    Some(_) if headers.get_all(header).iter().nth(1).is_some() => {
                        return Err(entry.misplaced("a header that is given twice"));
                    }
                    Some(before) => {
                        slots.push(Slot { name: entry.name.clone(), entry: index, header: header.clone(), before });
                    }
                    None if self.holds(value.as_bytes(), index) => {
                        return Err(entry.misplaced(&format!("the header {header}")));
                    }
                    None => {}
                }
            }
        }
        self.check_others(bearer, headers, &slots)?;
        Ok(slots)
    }

    /// Refuses a placeholder in a request without TLS, which is no credential's.
    pub(crate) fn stray<'a>(
        &self,
        path: &str,
        mut fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> std::result::Result<(), Refusal> {
        if let Some(entry) = self.found(path.as_bytes()) {
            return Err(entry.misplaced("the URL"));
        }
        let stray = fields.find_map(|(name, value)| Some(self.found(value)?.misplaced(&format!("the header {name}"))));
        stray.map_or(Ok(()), Err)
    }

    /// Begins to look for placeholders in a body, where none has its place.
    pub(crate) fn search(&self) -> Search {
        Search::new(self.needles.clone())
    }

    /// Refuses a request whose body holds a placeholder.
    pub(crate) fn in_body(&self, Found(number): Found) -> Refusal {
        let refusal = self.entries.get(number).map(|entry| entry.misplaced("the body"));
        refusal.unwrap_or_else(|| Refusal::malformed("the body holds a placeholder"))
    }

    /// Whether a text holds the placeholder of one entry.
    fn holds(&self, text: &[u8], index: usize) -> bool {
        self.needles.as_ref().is_some_and(|needles| needles.within(text).contains(&index))
    }

    /// The entry whose placeholder a text holds.
    fn found(&self, text: &[u8]) -> Option<&Entry> {
        self.entries.get(self.needles.as_ref()?.within(text).first().copied()?)
    }

    /// What a host takes for a credential is the sandbox's own or none: with somebody else's key, what an agent sees could be
    /// carried to somebody else's account at a host that is allowed.
    fn check_others(
        &self,
        bearer: Bearer<'_>,
        headers: &HeaderMap,
        slots: &[Slot],
    ) -> std::result::Result<(), Refusal> {
        for entry in self.entries.iter().filter(|entry| entry.binding.is_for(bearer.host, bearer.port)) {
            let header = entry.header();
            if headers.contains_key(&header) && !slots.iter().any(|slot| slot.header == header) {
                let reason = format!("the header {header} of a request to {} holds another key", bearer.host);
                let hint = format!("send what the variable {} holds, or no such header", entry.binding.variable());
                return Err(Refusal::new(RefusalKind::Denied, &entry.rule(), reason, hint));
            }
        }
        Ok(())
    }

    /// Puts the secret in its place.
    ///
    /// # Errors
    /// Where there is no secret, or none any more.
    pub(crate) async fn fill(
        &self,
        slot: &Slot,
        headers: &mut HeaderMap,
        home: &Handle,
    ) -> std::result::Result<(), Refusal> {
        let Some(entry) = self.entries.get(slot.entry) else { return Ok(()) };
        let missing = |reason: &str| {
            let reason = format!("the credential {} {reason}", entry.name);
            Refusal::new(RefusalKind::Denied, &entry.rule(), reason, "whoever started the sandbox provides it")
        };
        let provider = self.provider.as_ref().ok_or_else(|| missing("has nobody who knows its secret"))?;
        // Why it cannot be had is the host's business, and may be said in words that nobody inside should read.
        let asking = AtHome::new(home, provider.secret(&entry.name));
        let secret: SecretString = match tokio::time::timeout(SECRET_WITHIN, asking).await {
            Ok(Ok(secret)) => secret,
            Ok(Err(_)) => return Err(missing("cannot be had")),
            Err(_) => return Err(missing("did not come in time")),
        };
        let value = Zeroizing::new(match entry.binding.placement() {
            Placement::Basic { user } => {
                let login = Zeroizing::new(format!("{user}:{}", secret.expose_secret()));
                format!("{}{}", slot.before, BASE64_STANDARD.encode(login.as_bytes()))
            }
            Placement::Header { .. } => format!("{}{}", slot.before, secret.expose_secret()),
        });
        let mut value = HeaderValue::from_str(&value).map_err(|_| missing("holds what no header may"))?;
        // Neither printed nor kept in the other side's table of headers (RFC 7541, section 7.1.3).
        value.set_sensitive(true);
        headers.insert(slot.header.clone(), value);
        Ok(())
    }
}

impl Entry {
    fn header(&self) -> HeaderName {
        match self.binding.placement() {
            Placement::Basic { .. } => AUTHORIZATION,
            Placement::Header { name } => HeaderName::from_bytes(name.as_str().as_bytes()).unwrap_or(AUTHORIZATION),
        }
    }

    /// What stands before the placeholder, where it stands as it ought to.
    fn find(&self, value: &[u8]) -> Option<String> {
        let text = str::from_utf8(value).ok()?;
        let (word, rest) = text.split_once(' ').map_or(("", text), |(word, rest)| (word, rest));
        let is_scheme = word.len() <= MAX_SCHEME && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
        match self.binding.placement() {
            Placement::Header { .. } => {
                (rest == self.placeholder && is_scheme).then(|| text[..text.len() - rest.len()].to_owned())
            }
            Placement::Basic { user } => {
                let login = BASE64_STANDARD.decode(rest).ok().filter(|_| word.eq_ignore_ascii_case("basic"))?;
                let is_ours = login == format!("{user}:{}", self.placeholder).into_bytes();
                is_ours.then(|| "Basic ".to_owned())
            }
        }
    }

    fn rule(&self) -> String {
        format!("credential {}", self.name)
    }

    fn misplaced(&self, place: &str) -> Refusal {
        let (host, placement) = (self.binding.host(), self.binding.placement());
        let reason = format!("{place} holds the placeholder of the credential {}, which is for {host}", self.name);
        let hint = format!("it belongs into one place of requests to {host}: {placement}");
        Refusal::new(RefusalKind::Denied, &self.rule(), reason, hint)
    }

    fn uncovered(&self, Bearer { method, .. }: Bearer<'_>) -> Refusal {
        let reason = format!("the credential {} is not for this request with {}", self.name, method.escape_debug());
        Refusal::new(RefusalKind::Denied, &self.rule(), reason, "the method and path in the credential's binding")
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.entries.iter().map(|entry| entry.name.as_str());
        f.debug_set().entries(names).finish()
    }
}

/// How long whoever knows a secret may take to give it out.
const SECRET_WITHIN: Duration = Duration::from_secs(30);
const MAX_SCHEME: usize = 20;

#[cfg(test)]
mod tests;
