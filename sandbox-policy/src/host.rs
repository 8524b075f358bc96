//! The host of a destination, in the one form that is compared, resolved and dialled.
//!
//! Invariant: two hosts are equal exactly if a resolver would take them for the same one, and no text that some parser
//! reads as an address is held as a name.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::ParseError;
use crate::parse::string_form;

/// Names a host: a DNS name in lower case without its final dot, or an address.
///
/// A name that is not ASCII is written in its `xn--` form, as programs send it, so that no look-alike letter can hide in a
/// policy. An address is written in its usual form alone: what `inet_aton` makes of `0x7f.1`, `127.1` or `2130706433` is
/// refused (<https://url.spec.whatwg.org/#ends-in-a-number-checker>), and so are zones (RFC 6874) and underscores.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(Form);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Form {
    Address(IpAddr),
    Name(String),
}

impl Host {
    /// Returns the address, where the host is one.
    pub fn address(&self) -> Option<IpAddr> {
        match self.0 {
            Form::Address(address) => Some(address),
            Form::Name(_) => None,
        }
    }

    /// Returns the name, where the host has one.
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Form::Address(_) => None,
            Form::Name(name) => Some(name),
        }
    }
}

impl fmt::Display for Host {
    /// Writes it as a URL has it: an IPv6 address is in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Form::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Form::Name(name) => f.write_str(name),
        }
    }
}

impl FromStr for Host {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |allowed: &str| Err(ParseError::new(KIND, text, allowed));
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return match inner.parse::<Ipv6Addr>() {
                Ok(address) => Ok(address.into()),
                Err(_) => refuse("write an IPv6 address without a zone between the brackets"),
            };
        }
        if text.len() > MAX_NAME_BYTES + 1 {
            return refuse("write at most 253 characters");
        }
        if !text.is_ascii() {
            return refuse("write an international name in its xn-- form");
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.len() > MAX_NAME_BYTES {
            return refuse("write at most 253 characters");
        }
        let last = name.rsplit('.').next().unwrap_or("");
        if is_number(last) {
            return match name.parse::<Ipv4Addr>() {
                Ok(address) if name.len() == text.len() => Ok(address.into()),
                _ => refuse("write an IPv4 address as four decimal numbers, as in 192.0.2.1"),
            };
        }
        if name.split('.').all(is_label) { Ok(Self(Form::Name(name))) } else { refuse(FORM) }
    }
}

impl From<Ipv4Addr> for Host {
    fn from(address: Ipv4Addr) -> Self {
        Self(Form::Address(address.into()))
    }
}

impl From<Ipv6Addr> for Host {
    fn from(address: Ipv6Addr) -> Self {
        Self(Form::Address(address.into()))
    }
}

string_form!(Host);

/// Tells whether a last label makes a parser of URLs take the whole for an IPv4 address.
fn is_number(label: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let hexadecimal = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (!label.is_empty() && digits(label)) || label.strip_prefix("0x").is_some_and(hexadecimal)
}

/// Tells whether a label is one of letters, digits and inner hyphens (RFC 1123, section 2.1).
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

const KIND: &str = "a host";
const FORM: &str = "write a DNS name of letters, digits, inner hyphens and dots, or an address";
const MAX_NAME_BYTES: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<String> {
        text.parse::<Host>().ok().map(|host| host.to_string())
    }

    #[test]
    fn one_form_for_each_host() {
        for (given, form) in [
            ("Example.ORG", "example.org"),
            ("example.org.", "example.org"),
            ("xn--BCHER-kva.example", "xn--bcher-kva.example"),
            ("a-b.c0", "a-b.c0"),
            ("localhost", "localhost"),
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:DB8:0:0::1]", "[2001:db8::1]"),
            ("[::FFFF:10.0.0.1]", "[::ffff:10.0.0.1]"),
        ] {
            assert_eq!(shown(given).as_deref(), Some(form), "{given}");
        }
    }

    #[test]
    fn refuses_what_two_parsers_could_read_in_two_ways() {
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a.b..",
            "-a.b",
            "a-.b",
            "a_b.c",
            "a b",
            "a\0.b",
            "a%00.b",
            "a\r\n.b",
            "a/b",
            "a@b",
            "a:80",
            "a\\b",
            "bücher.example",
            "ⓔxample.org",
            "example。org",
            "0x7f.1",
            "127.1",
            "2130706433",
            "017700000001",
            "0177.0.0.1",
            "1.2.3.4.",
            "1.2.3.4.5",
            "1.2.3.256",
            "1.2.3.08",
            "a.0x",
            "a.0X1f",
            "a.1",
            "::1",
            "[::1",
            "::1]",
            "[]",
            "[fe80::1%eth0]",
            "[::ffff:1.2.3.4%x.allowed.com]",
            "[v1.a]",
            "*",
            "*.com",
        ] {
            assert_eq!(shown(text), None, "{text:?}");
        }
        assert!(shown(&format!("{}.b", "a".repeat(63))).is_some());
        assert!(shown(&format!("{}.b", "a".repeat(64))).is_none());
        let long = ["a".repeat(62), "b".repeat(63), "c".repeat(63), "d".repeat(62)].join(".");
        assert_eq!(
            (long.len(), shown(&long), shown(&format!("{long}."))),
            (253, Some(long.clone()), Some(long.clone()))
        );
        assert!(shown(&format!("a{long}")).is_none());
    }
}
