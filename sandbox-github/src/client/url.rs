//! Where a GitHub is: its API and its pages.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::Uri;
use sandbox_policy::Host;

use crate::Error;

/// The address of github.com, of a GitHub Enterprise Server, or of a tenant of ghe.com.
///
/// Parsed from what a user would type: `https://github.com`, `https://github.example.org`, `https://acme.ghe.com`. Plain
/// `http` is good for a loopback address only. One without a path speaks like github.com there, one with `/api/v3` like
/// an Enterprise Server (<https://docs.github.com/en/enterprise-server@latest/rest/using-the-rest-api>).
#[derive(Clone, PartialEq, Eq)]
pub struct GitHubUrl {
    /// Scheme and authority of the API.
    origin: String,
    /// What stands before each path: empty or `/api/v3`.
    prefix: &'static str,
    /// Where people sign in.
    web: String,
}

impl GitHubUrl {
    /// github.com.
    pub fn github() -> Self {
        Self { origin: "https://api.github.com".to_owned(), prefix: "", web: "https://github.com".to_owned() }
    }

    /// Scheme, host and port of the API.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Where git finds its repositories, by host and port; nowhere without TLS.
    pub fn server(&self) -> Option<(Host, u16)> {
        let authority = self.web.strip_prefix("https://")?;
        let (host, port) = match authority.rsplit_once(':') {
            // A colon inside brackets is part of an address.
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (authority, 443),
        };
        Some((host.parse().ok()?, port))
    }

    /// The address of the pages that people see, without a slash at its end.
    pub fn web(&self) -> &str {
        &self.web
    }

    /// Whether it is an Enterprise Server, whose API lags behind github.com's.
    pub fn is_enterprise_server(&self) -> bool {
        !self.prefix.is_empty()
    }

    /// The API's address, without a slash at its end.
    pub fn api(&self) -> String {
        format!("{}{}", self.origin, self.prefix)
    }
}

impl Default for GitHubUrl {
    fn default() -> Self {
        Self::github()
    }
}

impl fmt::Display for GitHubUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.web)
    }
}

impl fmt::Debug for GitHubUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GitHubUrl({})", self.api())
    }
}

impl FromStr for GitHubUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // What is refused may hold a password before an `@`, so it is not repeated.
        let error = |given: &str| Error::Input { field: "GitHub's address", given: given.to_owned(), allowed: FORM };
        if text.contains(['@', '#', '?', '\\']) || !text.is_ascii() {
            return Err(error("an address with a user, a query or a fragment"));
        }
        let uri: Uri = text.parse().map_err(|_| error("not a URL"))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(error("not a URL with a host"));
        };
        let host = authority.host().to_ascii_lowercase();
        let enterprise = match uri.path().trim_end_matches('/') {
            "" => false,
            "/api/v3" => true,
            _ => return Err(error("an address with a path")),
        };
        let origin = format!("{scheme}://{}", authority.as_str().to_ascii_lowercase());
        match scheme {
            "http" if is_loopback(&host) => {}
            "http" => return Err(error("http")),
            "https" => {}
            _ => return Err(error("another scheme than https")),
        }
        let tenant = host.strip_prefix("api.").unwrap_or(&host);
        Ok(match (enterprise, tenant) {
            (true, "github.com") => return Err(error("github.com with a path")),
            (false, "github.com") if origin == format!("https://{host}") => Self::github(),
            (false, "github.com") => return Err(error("github.com with a port")),
            (false, tenant) if tenant.ends_with(".ghe.com") => {
                Self { origin: format!("https://api.{tenant}"), prefix: "", web: format!("https://{tenant}") }
            }
            (false, _) if scheme == "http" => Self { web: origin.clone(), origin, prefix: "" },
            _ => Self { web: origin.clone(), origin, prefix: "/api/v3" },
        })
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

const FORM: &str = "https://HOST, such as https://github.com (http for a loopback address alone)";

#[cfg(test)]
mod tests {
    use super::*;

    fn api(text: &str) -> String {
        text.parse::<GitHubUrl>().unwrap().api()
    }

    #[test]
    fn each_kind_of_github_has_its_api_where_it_is() {
        assert_eq!(api("https://github.com"), "https://api.github.com");
        assert_eq!(api("https://API.github.com/"), "https://api.github.com");
        assert_eq!(api("https://acme.ghe.com"), "https://api.acme.ghe.com");
        assert_eq!(api("https://api.acme.ghe.com"), "https://api.acme.ghe.com");
        assert_eq!(api("https://git.example.org:8443"), "https://git.example.org:8443/api/v3");
        assert_eq!(api("https://git.example.org/api/v3/"), "https://git.example.org/api/v3");
        assert_eq!(api("http://127.0.0.1:4000"), "http://127.0.0.1:4000");
        assert_eq!(api("http://[::1]:4000/api/v3"), "http://[::1]:4000/api/v3");
        assert!("https://git.example.org".parse::<GitHubUrl>().unwrap().is_enterprise_server());
    }

    #[test]
    fn git_is_where_the_pages_are_and_has_tls() {
        let server = |text: &str| {
            let server = text.parse::<GitHubUrl>().unwrap().server();
            server.map(|(host, port)| format!("{host} {port}"))
        };
        for (text, expected) in [
            ("https://github.com", "github.com 443"),
            ("https://api.acme.ghe.com", "acme.ghe.com 443"),
            ("https://git.example.org:8443/api/v3", "git.example.org 8443"),
            ("https://[2001:db8::7]:8443", "[2001:db8::7] 8443"),
        ] {
            assert_eq!(server(text).as_deref(), Some(expected));
        }
        assert_eq!(server("http://127.0.0.1:4000"), None);
    }

    #[test]
    fn what_could_carry_a_credential_elsewhere_is_refused() {
        for text in [
            "",
            "github.com",
            "http://github.com",
            "http://127.0.0.1.example.org",
            "http://10.0.0.1",
            "ftp://github.com",
            "https://user:MADEUP@github.com",
            "https://github.com@example.org",
            "https://github.com/owner/name",
            "https://github.com?x",
            "https://github.com#x",
            "https://github.com:444",
            "https://github.com/api/v3",
            "https://gıthub.com",
        ] {
            let error = text.parse::<GitHubUrl>().expect_err(text);
            assert!(!error.to_string().contains("MADEUP"), "{error}");
        }
    }
}
