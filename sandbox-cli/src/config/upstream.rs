//! The proxy beyond the gateway, where an organisation has one.
//!
//! Its password is read from where it lies when the sandbox is started. It stands in no URL: what is typed is seen by every
//! user of the machine, and an environment by every program.

use sandbox_core::{ErrorKind, MirrorProxy};
use sandbox_policy::Host;
use sandbox_runtime::Upstream;
use secrecy::SecretString;

use super::Config;
use super::source::Source;
use crate::args::{BeyondArgs, CredentialSource};
use crate::failure::{Failure, Result};

impl Config {
    /// The proxy that was named, with its password.
    pub(super) async fn beyond(&self, arguments: &BeyondArgs) -> Result<Option<Beyond>> {
        let BeyondArgs { egress_upstream, egress_password: password } = arguments;
        let named = self.environment.egress_upstream.as_ref().map(|url| url.to_string_lossy().into_owned());
        let (url, found_by) = match (egress_upstream, named) {
            (Some(url), _) => (url.clone(), "--egress-upstream"),
            (None, Some(url)) => (url, "SANDBOX_EGRESS_UPSTREAM"),
            (None, None) if password.is_some() => {
                let message = "--egress-password is given, and no proxy is";
                return Err(Failure::new(ErrorKind::InvalidInput, message).with_hint("add --egress-upstream"));
            }
            (None, None) => return Ok(None),
        };
        let Address { host, port, user } = Address::read(&url).map_err(|why| {
            Failure::new(ErrorKind::InvalidInput, format!("the proxy in {found_by} {why}"))
                .with_hint("write it as http://HOST:PORT or http://USER@HOST:PORT")
        })?;
        let Some(user) = user else {
            return match password {
                None => Ok(Some(Beyond { host, port, login: None })),
                Some(_) => Err(Failure::new(ErrorKind::InvalidInput, format!("the proxy in {found_by} names no user"))
                    .with_hint("write it as http://USER@HOST:PORT where it asks for a password")),
            };
        };
        let source = match password {
            None => CredentialSource::Env(PASSWORD.to_owned()),
            Some(text) => CredentialSource::read(text).ok_or_else(|| {
                let message = "--egress-password says not where the password lies";
                Failure::new(ErrorKind::InvalidInput, message)
                    .with_hint("write env:VARIABLE, file:PATH or command:PROGRAM ARGUMENTS")
            })?,
        };
        let password = Source::named(&source, "the password of the proxy")?.secret("the password of the proxy").await?;
        Ok(Some(Beyond { host, port, login: Some((user, password)) }))
    }
}

/// A proxy, and how it is entered.
#[derive(Clone, Debug)]
pub(super) struct Beyond {
    host: Host,
    port: u16,
    login: Option<(String, SecretString)>,
}

impl Beyond {
    /// For the gateway.
    pub(super) fn upstream(self) -> Upstream {
        let upstream = Upstream::new(self.host, self.port);
        self.login.into_iter().fold(upstream, |upstream, (user, password)| upstream.with_login(user, password))
    }

    /// For git on the host.
    pub(super) fn for_mirrors(self) -> MirrorProxy {
        let proxy = MirrorProxy::new(self.host, self.port);
        self.login.into_iter().fold(proxy, |proxy, (user, password)| proxy.with_login(user, password))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Address {
    host: Host,
    port: u16,
    user: Option<String>,
}

impl Address {
    /// Reads `http://[USER@]HOST:PORT`. No error says what stood there, which may be a password.
    fn read(url: &str) -> std::result::Result<Self, &'static str> {
        let rest = url.strip_prefix("http://").ok_or("is no URL that begins with http://")?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err("holds a password, which belongs into --egress-password");
        }
        let is_user = |user: &str| (1..=255).contains(&user.len()) && user.bytes().all(|byte| byte.is_ascii_graphic());
        if !user.is_none_or(is_user) {
            return Err("names a user who cannot be one");
        }
        let (host, port) = place.rsplit_once(':').ok_or("names no port")?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or("names a port that is none")?;
        let host = host.parse().map_err(|_| "names a host that is none")?;
        Ok(Self { host, port, user: user.map(str::to_owned) })
    }
}

/// The variable that holds the password where nothing else is said.
const PASSWORD: &str = "SANDBOX_EGRESS_PASSWORD";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_a_host_and_a_port_and_perhaps_a_user() {
        let read = |url: &str| Address::read(url).map(|it| (it.host.to_string(), it.port, it.user));
        assert_eq!(read("http://proxy.example:3128"), Ok(("proxy.example".into(), 3128, None)));
        assert_eq!(read("http://me@proxy.example:3128/"), Ok(("proxy.example".into(), 3128, Some("me".into()))));
        assert_eq!(read("http://[2001:db8::1]:8080"), Ok(("[2001:db8::1]".into(), 8080, None)));
        for (url, why) in [
            ("https://proxy.example:1", "http://"),
            ("proxy.example:3128", "http://"),
            ("http://me:not-a-real-secret@proxy.example:3128", "password"),
            ("http://@proxy.example:3128", "user"),
            ("http://proxy.example", "no port"),
            ("http://proxy.example:0", "port"),
            ("http://proxy.example:3128/path", "port"),
            ("http://a b:3128", "host"),
        ] {
            let said = Address::read(url).unwrap_err();
            assert!(said.contains(why) && !said.contains("secret"), "{url}: {said}");
        }
    }
}
