//! Which hosts and which paths a rule is about.

use std::fmt;
use std::str::FromStr;

use crate::parse::string_form;
use crate::{Host, ParseError};

/// Names one host, or every host below a name: `*.example.org`.
///
/// A wildcard needs two labels after it: `*` and `*.com` are refused. What is a registry's own suffix with more labels
/// (`*.co.uk`) is not known here and stays the writer's to leave out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPattern {
    host: Host,
    reach: Reach,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Reach {
    Below,
    Exact,
}

impl HostPattern {
    /// Makes the pattern of one host.
    pub fn exact(host: Host) -> Self {
        Self { host, reach: Reach::Exact }
    }

    /// Returns the host, where it is one.
    pub fn host(&self) -> Option<&Host> {
        (self.reach == Reach::Exact).then_some(&self.host)
    }

    /// Tells whether a host is meant. A wildcard does not mean the name that it is below.
    pub fn matches(&self, host: &Host) -> bool {
        match self.reach {
            Reach::Exact => *host == self.host,
            Reach::Below => match (host.name(), self.host.name()) {
                (Some(name), Some(base)) => {
                    name.strip_suffix(base).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
                }
                _ => false,
            },
        }
    }

    /// Tells whether every host that is meant is meant by the other, too.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        match self.reach {
            Reach::Exact => other.matches(&self.host),
            Reach::Below => other.reach == Reach::Below && (self.host == other.host || other.matches(&self.host)),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let star = if self.reach == Reach::Below { "*." } else { "" };
        write!(f, "{star}{}", self.host)
    }
}

impl FromStr for HostPattern {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |allowed: &str| ParseError::new(HOST_KIND, text, allowed);
        let Some(base) = text.strip_prefix("*.") else {
            if text.contains('*') {
                return Err(refuse(WILDCARD));
            }
            let host = text.parse::<Host>().map_err(|error| refuse(error.allowed()))?;
            return Ok(Self::exact(host));
        };
        let host = base.parse::<Host>().map_err(|_| refuse(WILDCARD))?;
        match host.name() {
            Some(name) if name.contains('.') => Ok(Self { host, reach: Reach::Below }),
            _ => Err(refuse(WILDCARD)),
        }
    }
}

string_form!(HostPattern);

/// Names one path of a URL, or with a `*` at its end all that begin with it: `/simple/*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPattern(String);

impl PathPattern {
    /// Tells whether a request's path is meant; its query does not count.
    ///
    /// A path that a server could resolve to another one (`..`, `//`, an encoded dot, slash or backslash) is never meant.
    pub fn matches(&self, path: &str) -> bool {
        let path = path.split(['?', '#']).next().unwrap_or("");
        if !is_plain(path) {
            return false;
        }
        match self.0.strip_suffix('*') {
            Some(start) => path.starts_with(start),
            None => path == self.0,
        }
    }

    pub(crate) fn is_within(&self, other: &Self) -> bool {
        match (self.0.strip_suffix('*'), other.0.strip_suffix('*')) {
            (Some(own), Some(others)) => own.starts_with(others),
            (None, Some(others)) => self.0.starts_with(others),
            (Some(_), None) => false,
            (None, None) => self.0 == other.0,
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PathPattern {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let start = text.strip_suffix('*').unwrap_or(text);
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-~!$&'()+,;=:@%".contains(&byte);
        if text.len() <= MAX_PATH_BYTES && start.bytes().all(is_allowed) && is_plain(start) {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseError::new(PATH_KIND, text, PATH_FORM))
    }
}

string_form!(PathPattern);

/// Tells whether a path is absolute and no step of it leads back or nowhere, however a server decodes it.
fn is_plain(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let hidden = ["%2e", "%2f", "%5c", "%00", "%25", "\\"];
    path.starts_with('/')
        && !path.contains("//")
        && !hidden.iter().any(|hidden| lower.contains(hidden))
        && !path.split('/').any(|step| matches!(step.split(';').next(), Some("." | "..")))
}

/// Names a method of HTTP: 1 to 20 capital letters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Method(String);

impl Method {
    /// Returns the method.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Method {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase()) && text != "CONNECT" {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseError::new("a method", text, "write 1 to 20 capital letters, as in GET; not CONNECT"))
    }
}

string_form!(Method);

const HOST_KIND: &str = "a host pattern";
const WILDCARD: &str = "a wildcard stands for hosts below a name of two labels or more, as in *.example.org";
const PATH_KIND: &str = "a path pattern";
const PATH_FORM: &str =
    "write an absolute path without . or .. steps and without encoded dots or slashes; a * may end it";
const MAX_PATH_BYTES: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, host: &str) -> bool {
        pattern.parse::<HostPattern>().unwrap().matches(&host.parse().unwrap())
    }

    #[test]
    fn a_name_stands_for_itself_and_a_wildcard_for_what_is_below() {
        assert!(matches("example.org", "EXAMPLE.org."));
        for other in ["a.example.org", "evilexample.org", "example.org.evil.com"] {
            assert!(!matches("example.org", other), "{other}");
        }
        assert!(matches("*.example.org", "a.example.org") && matches("*.example.org", "a.b.Example.org."));
        for other in ["example.org", "evilexample.org", "a.example.org.evil.com", "192.0.2.1"] {
            assert!(!matches("*.example.org", other), "{other}");
        }
        assert!(matches("[2001:DB8::1]", "[2001:db8:0::1]"));
    }

    #[test]
    fn a_wildcard_of_everything_is_refused() {
        for text in
            ["*", "*.", "*.com", "*.com.", "**.example.org", "a.*.org", "*.*.org", "*example.org", "*.1.2.3.4", ""]
        {
            assert!(text.parse::<HostPattern>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_path_that_could_mean_another_is_not_meant() {
        let pattern: PathPattern = "/o/r/*".parse().unwrap();
        assert!(pattern.matches("/o/r/x") && pattern.matches("/o/r/?a=/../b") && pattern.matches("/o/r/a..b"));
        for path in [
            "/o/r",
            "/o/r/../s",
            "/o/r/%2e%2e/s",
            "/o/r//s",
            "/o/r/.",
            "/o/r/..;a/s",
            "/o/r/\\..\\s",
            "o/r/x",
            "*",
            "/o/r/%252e",
        ] {
            assert!(!pattern.matches(path), "{path}");
        }
        for text in ["", "a", "/a/../b", "/a*b", "/**", "/a b", "/a?b", "/%2E"] {
            assert!(text.parse::<PathPattern>().is_err(), "{text:?}");
        }
    }
}
