//! The head of a request, as it must be to pass, and as it is passed on.

use http::header::{
    ALT_SVC, CONNECTION, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::{Authority as UriAuthority, PathAndQuery, Scheme};
use http::{Uri, Version};
use sandbox_policy::Host;

use crate::egress::answer::{Refusal, RefusalKind};

/// Checks that a request says everywhere that it is for the host that the connection is for.
pub(super) fn agrees(parts: &Parts, host: &Host, port: u16) -> Result<(), Refusal> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let named = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::malformed("the host is named twice"));
    }
    if parts.uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTPS) {
        return Err(misdirected("the request is for another scheme than https"));
    }
    let authority = parts.uri.authority().map(UriAuthority::as_str);
    let named = named.map(|value| value.to_str().unwrap_or(""));
    let is_missing = if parts.version == Version::HTTP_2 { authority.is_none() } else { named.is_none() };
    if is_missing {
        return Err(Refusal::malformed("the request names no host"));
    }
    for text in [authority, named].into_iter().flatten() {
        match parse(text) {
            None => return Err(Refusal::malformed("the host is named in a form that is none")),
            Some((given, at)) if given == *host && at == port => {}
            Some(_) => {
                return Err(misdirected(&format!(
                    "the connection is for {host} port {port}, and the request for another"
                )));
            }
        }
    }
    Ok(())
}

/// The method's target, as a policy is asked about it.
pub(super) fn path(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", PathAndQuery::as_str)
}

/// Removes what is one connection's own (RFC 9110, section 7.6.1), and what would lead around the gateway.
pub(super) fn clean(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    let is_about_trailers = headers.get_all(TE).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    for name in [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE, EXPECT, ALT_SVC] {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "http2-settings"] {
        headers.remove(name);
    }
    if is_about_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Writes the head as the other side's protocol has it.
pub(super) fn address(parts: &mut Parts, host: &Host, port: u16, version: Version) -> Result<(), Refusal> {
    let wrong = |_| Refusal::malformed("the target is none");
    let named = if port == 443 { host.to_string() } else { format!("{host}:{port}") };
    let path = path(&parts.uri).to_owned();
    parts.headers.remove(HOST);
    parts.version = version;
    if version == Version::HTTP_2 {
        let target = Uri::builder().scheme(Scheme::HTTPS).authority(named).path_and_query(path);
        parts.uri = target.build().map_err(wrong)?;
        return Ok(());
    }
    parts.uri = path.parse().map_err(|_| Refusal::malformed("the target is none"))?;
    parts.headers.insert(HOST, HeaderValue::from_str(&named).map_err(|_| Refusal::malformed("the host is none"))?);
    join_cookies(&mut parts.headers);
    Ok(())
}

/// HTTP/2 may part cookies, and HTTP/1.1 may not (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

/// Whether a request asks for a `WebSocket` (RFC 6455, section 4.1).
pub(super) fn asks_for_websocket(parts: &Parts) -> bool {
    let lists = |name: HeaderName, word: &str| {
        let values = parts.headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|given| given.trim().eq_ignore_ascii_case(word))
    };
    parts.version == Version::HTTP_11
        && parts.method == http::Method::GET
        && lists(CONNECTION, "upgrade")
        && lists(UPGRADE, "websocket")
}

fn parse(text: &str) -> Option<(Host, u16)> {
    if text.contains('@') {
        return None;
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let is_number = (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
            (host, port.parse::<u16>().ok().filter(|_| is_number)?)
        }
        _ => (text, 443),
    };
    Some((host.parse().ok()?, port))
}

fn misdirected(reason: &str) -> Refusal {
    let hint = "open a connection to the host that the request is for";
    Refusal::new(RefusalKind::Misdirected, "one host for each connection", reason, hint)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn parts(version: Version, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let builder = Request::builder().version(version).uri(uri);
        let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).unwrap().into_parts().0
    }

    fn said(version: Version, uri: &str, hosts: &[&str]) -> Option<RefusalKind> {
        let hosts: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
        let host = "api.example.org".parse().unwrap();
        agrees(&parts(version, uri, &hosts), &host, 443).err().map(|refusal| refusal.kind)
    }

    #[test]
    fn every_place_names_the_one_host() {
        use RefusalKind::{Malformed, Misdirected};
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        for (version, uri, hosts, expected) in [
            (one, "/", &["api.example.org"][..], None),
            (one, "/", &["API.example.org.:443"], None),
            (one, "https://api.example.org/", &["api.example.org"], None),
            (one, "/", &[], Some(Malformed)),
            (one, "/", &["api.example.org", "api.example.org"], Some(Malformed)),
            (one, "/", &["user@api.example.org"], Some(Malformed)),
            (one, "/", &["api.example.org:0x1bb"], Some(Malformed)),
            (one, "/", &["api.example.org, evil.example"], Some(Malformed)),
            (one, "/", &["evil.example"], Some(Misdirected)),
            (one, "/", &["api.example.org:444"], Some(Misdirected)),
            (one, "https://evil.example/", &["api.example.org"], Some(Misdirected)),
            (one, "http://api.example.org/", &["api.example.org"], Some(Misdirected)),
            (two, "https://api.example.org/", &[], None),
            (two, "https://api.example.org/", &["api.example.org"], None),
            (two, "https://api.example.org/", &["evil.example"], Some(Misdirected)),
            (two, "https://evil.example/", &["api.example.org"], Some(Misdirected)),
            (two, "/", &["api.example.org"], Some(Malformed)),
        ] {
            assert_eq!(said(version, uri, hosts), expected, "{version:?} {uri} {hosts:?}");
        }
    }

    #[test]
    fn what_is_one_connections_own_stays_there() {
        let own = [
            ("connection", "close, X-Own"),
            ("x-own", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("proxy-authorization", "Basic x"),
            ("expect", "100-continue"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("accept", "*/*"),
        ];
        let mut parts = parts(Version::HTTP_2, "https://api.example.org/v1?q", &own);
        clean(&mut parts.headers);
        address(&mut parts, &"api.example.org".parse().unwrap(), 443, Version::HTTP_11).unwrap();
        let mut left: Vec<_> =
            parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(left, ["accept: */*", "cookie: a=1; b=2", "host: api.example.org", "te: trailers"]);
        assert_eq!(parts.uri, "/v1?q");
        address(&mut parts, &"api.example.org".parse().unwrap(), 8443, Version::HTTP_2).unwrap();
        assert_eq!(parts.uri, "https://api.example.org:8443/v1?q");
    }
}
