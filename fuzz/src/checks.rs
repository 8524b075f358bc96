//! What must hold of a parser, whatever it is given. Each check panics where it does not.
//!
//! The fuzz targets and the tests of sandbox-runtime include this file; `super` has the gateway's parsers.
#![allow(unreachable_pub, reason = "it is public in the fuzz targets' crate, and private to the tests that include it")]

use sandbox_policy::Host;

use super::head::RequestHead;
use super::hello::HelloReader;
use super::target::Target;

/// A text that is taken for a host is the same host to a parser of URLs, and in one form.
pub fn host(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Ok(host) = text.parse::<Host>() else { return };
    same_to_a_url_parser(&host, text);
    let shown = host.to_string();
    assert_eq!(shown.parse::<Host>().as_ref(), Ok(&host), "{text:?} is written in a form that is read in another way");
    if host.name().is_some() {
        assert!(shown.parse::<std::net::IpAddr>().is_err(), "{text:?} is an address that is held as a name");
    }
}

/// Holds a host against what the standard of URLs makes of the text that it was read from
/// (<https://url.spec.whatwg.org/#host-parsing>).
fn same_to_a_url_parser(host: &Host, text: &str) {
    let url = match url::Url::parse(&format!("http://{text}/")) {
        Ok(url) => url,
        // A name in its xn-- form may hold what nobody registers, and leads nowhere.
        Err(error) => {
            assert!(text.to_ascii_lowercase().contains("xn--"), "{text:?} is no host to a parser of URLs: {error}");
            return;
        }
    };
    match url.host() {
        Some(url::Host::Domain(name)) => assert_eq!(host.name(), Some(name.trim_end_matches('.')), "{text:?}"),
        Some(url::Host::Ipv4(address)) => assert_eq!(host.address(), Some(address.into()), "{text:?}"),
        Some(url::Host::Ipv6(address)) => assert_eq!(host.address(), Some(address.into()), "{text:?}"),
        None => panic!("{text:?} has no host to a parser of URLs"),
    }
    assert!(url.username().is_empty() && url.port().is_none() && url.path() == "/", "{text:?} is more than a host");
}

/// A `ClientHello` is read in the same way however the bytes arrive, and the name in it is a host.
pub fn hello(bytes: &[u8]) {
    let whole = HelloReader::default().read(bytes);
    let mut reader = HelloReader::default();
    let mut parts = Ok(None);
    for end in 0..=bytes.len() {
        parts = reader.read(&bytes[..end]);
        if parts != Ok(None) {
            break;
        }
    }
    assert_eq!(parts, whole, "a byte at a time it is something else: {}", bytes.escape_ascii());
    if let Ok(Some(hello)) = whole
        && let Some(name) = hello.name
    {
        host(name.to_string().as_bytes());
    }
}

/// The head of a request that is taken is the same to another parser of HTTP, and its target to one of URLs.
pub fn head(bytes: &[u8]) {
    let Ok(head) = RequestHead::parse(bytes) else { return };
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut theirs = httparse::Request::new(&mut fields);
    let read = theirs.parse(bytes);
    let shown = bytes.escape_ascii();
    assert_eq!(read, Ok(httparse::Status::Complete(bytes.len())), "{shown}");
    assert_eq!((theirs.method, theirs.path), (Some(head.method.as_str()), Some(head.target.as_str())), "{shown}");
    let fields: Vec<_> = theirs.headers.iter().map(|field| (field.name, field.value.trim_ascii())).collect();
    assert_eq!(head.fields.iter().collect::<Vec<_>>(), fields, "{shown}");
    let _ = head.framing();
    if let Ok(target) = Target::of_request(&head) {
        let url = url::Url::parse(&head.target);
        let url = match url {
            Ok(url) => url,
            Err(error) => {
                assert!(head.target.to_ascii_lowercase().contains("xn--"), "{shown}: {error}");
                return;
            }
        };
        let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default());
        assert_eq!(
            (target.host.to_string().as_str(), Some(target.port)),
            (host.trim_end_matches('.'), port),
            "{shown}"
        );
    }
    if let Ok(target) = Target::of_tunnel(&head) {
        host(target.host.to_string().as_bytes());
    }
}
