//! Where a request is to go, read from the words of HTTP.

use sandbox_policy::Host;

use super::head::{Malformed, RequestHead};

/// A destination as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: Host,
    pub(crate) port: u16,
    /// The path and the query, as an origin is asked for them; empty for a tunnel.
    pub(crate) path: String,
}

impl Target {
    /// Reads the target of a CONNECT: `host:port`, which a Host field must repeat.
    pub(crate) fn of_tunnel(head: &RequestHead) -> Result<Self, Malformed> {
        let (host, port) = authority(&head.target, None)?;
        if head.fields.all("content-length").chain(head.fields.all("transfer-encoding")).next().is_some() {
            return Err(Malformed("a CONNECT has a body"));
        }
        let target = Self { host, port, path: String::new() };
        // Some clients leave the port out there, and mean the one that they connect to.
        target.agrees_with(head, port)?;
        Ok(target)
    }

    /// Reads the target of a request to a proxy: `http://host/path`, whose host a Host field must repeat.
    pub(crate) fn of_request(head: &RequestHead) -> Result<Self, Malformed> {
        let scheme = head.target.get(..SCHEME.len()).filter(|scheme| scheme.eq_ignore_ascii_case(SCHEME));
        let Some(rest) = scheme.and_then(|scheme| head.target.get(scheme.len()..)) else {
            return Err(Malformed("the target is no http:// URL: this is a proxy, and for https it takes CONNECT"));
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority_text, path) = rest.split_at(end);
        let (host, port) = authority(authority_text, Some(HTTP))?;
        if path.contains('#') {
            return Err(Malformed("the target has a fragment, which no server is asked for"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let target = Self { host, port, path };
        target.agrees_with(head, HTTP)?;
        Ok(target)
    }

    /// The Host field of HTTP/1.1 must be there once, and name the same.
    fn agrees_with(&self, head: &RequestHead, default: u16) -> Result<(), Malformed> {
        let Some(value) = head.fields.one("host", Malformed("Host is given twice"))? else {
            let needed = head.version == super::head::Version::Http11;
            return if needed { Err(Malformed("Host is missing")) } else { Ok(()) };
        };
        let text = str::from_utf8(value).map_err(|_| DISAGREES)?;
        let (host, port) = authority(text, Some(default)).map_err(|_| DISAGREES)?;
        if (&host, port) == (&self.host, self.port) { Ok(()) } else { Err(DISAGREES) }
    }

    /// The value of the Host field as it is sent on.
    pub(crate) fn host_field(&self) -> String {
        if self.port == HTTP { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }
}

/// Reads `host:port`, or a host alone where there is a default.
pub(crate) fn authority(text: &str, default: Option<u16>) -> Result<(Host, u16), Malformed> {
    let colon = text.rfind(':').filter(|at| !text[*at..].contains(']'));
    let (host, port) = match (colon, default) {
        (Some(at), _) => (&text[..at], port(&text[at + 1..])?),
        (None, Some(default)) => (text, default),
        (None, None) => return Err(Malformed("the target has no port")),
    };
    let host = host.parse().map_err(|_| Malformed("the target's host is none that can be looked up"))?;
    Ok((host, port))
}

fn port(text: &str) -> Result<u16, Malformed> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port != 0);
    port.ok_or(Malformed("the target's port is no number from 1 to 65535"))
}

const DISAGREES: Malformed = Malformed("Host names another host or port than the target");
const SCHEME: &str = "http://";
const HTTP: u16 = 80;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(target: &str, host: &str) -> Result<Target, Malformed> {
        Target::of_request(&RequestHead::parse(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?)
    }

    fn tunnel(target: &str, host: &str) -> Result<Target, Malformed> {
        Target::of_tunnel(&RequestHead::parse(format!("CONNECT {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?)
    }

    #[test]
    fn host_and_target_must_name_the_same() {
        let target = request("http://Example.org/a?b", "example.ORG.").unwrap();
        assert_eq!((target.host.to_string().as_str(), target.port, target.path.as_str()), ("example.org", 80, "/a?b"));
        assert_eq!(request("http://e.example:8080?x", "e.example:8080").unwrap().path, "/?x");
        assert_eq!(request("HTTP://[2001:DB8::1]:81/", "[2001:db8:0::1]:81").unwrap().host_field(), "[2001:db8::1]:81");
        assert!(tunnel("e.example:443", "e.example:443").is_ok() && tunnel("e.example:443", "e.example").is_ok());
        for (target, host) in [
            ("http://a.example/", "b.example"),
            ("http://a.example/", "a.example:81"),
            ("http://a.example/", ""),
            ("http://a.example/", "a.example, b.example"),
            ("http://a.example:81/", "a.example"),
            ("http://u@a.example/", "a.example"),
            ("http://a.example#b/", "a.example"),
            ("http://a.example/#b", "a.example"),
            ("https://a.example/", "a.example"),
            ("/", "a.example"),
            ("*", "a.example"),
            ("http:///", "a.example"),
            ("http://a.example:0/", "a.example:0"),
            ("http://a.example:+80/", "a.example"),
            ("http://a.example:65536/", "a.example:65536"),
            ("http://a.example:/", "a.example"),
            ("http://a.example\\@b.example/", "b.example"),
            ("http://127.1/", "127.1"),
            ("http://[::ffff:1.2.3.4%25x]/", "[::ffff:1.2.3.4%25x]"),
        ] {
            assert!(request(target, host).is_err(), "{target} {host}");
        }
        for (target, host) in [
            ("a.example", "a.example"),
            ("a.example:443", "b.example"),
            ("a.example:443", "a.example:80"),
            (":443", ""),
        ] {
            assert!(tunnel(target, host).is_err(), "{target} {host}");
        }
    }

    #[test]
    fn a_missing_or_double_host_is_refused() {
        let read = |text: &str| Target::of_request(&RequestHead::parse(text.as_bytes()).unwrap());
        assert!(read("GET http://a.example/ HTTP/1.1\r\n\r\n").is_err());
        assert!(read("GET http://a.example/ HTTP/1.0\r\n\r\n").is_ok());
        assert!(read("GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n").is_err());
    }

    proptest! {
        /// What is taken for a host here is the same host to a parser of URLs.
        #[test]
        fn a_url_parser_reads_the_same_host_and_port(text in "(http://)?[a-zA-Z0-9.:@/?#%_\\[\\]\\\\-]{0,40}") {
            let url = format!("http://{}", text.strip_prefix("http://").unwrap_or(&text));
            let Some(rest) = url.strip_prefix("http://") else { return Ok(()) };
            let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
            if let Ok(target) = request(&url, host) {
                let parsed = url::Url::parse(&url).map_err(|error| TestCaseError::fail(format!("{url}: {error}")))?;
                let theirs = parsed.host_str().unwrap_or_default().trim_end_matches('.').to_owned();
                prop_assert_eq!(target.host.to_string(), theirs, "{}", url);
                prop_assert_eq!(Some(target.port), parsed.port_or_known_default());
            }
        }
    }
}
