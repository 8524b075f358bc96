//! Which addresses the internet is made of.
//!
//! Invariant: an address that is not named here as public is not dialled, unless a rule names it in full; and those that
//! belong to the host itself, or to the cloud below it, not even then.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Tells why an address is not dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{address} is {what}")]
pub struct NotPublic {
    address: IpAddr,
    what: &'static str,
    exception: Exception,
}

/// Tells whether a rule may name an address that is not public.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "there is nothing between them")]
pub enum Exception {
    /// A rule may name it.
    ByRule,
    /// No rule may name it.
    Never,
}

impl NotPublic {
    /// Returns what the address is: `a private address`.
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// Tells whether a rule may name it.
    pub fn exception(&self) -> Exception {
        self.exception
    }
}

/// Tells whether an address is one of the public internet.
///
/// # Errors
/// What it is instead, by the registries of special addresses
/// (<https://www.iana.org/assignments/iana-ipv4-special-registry>,
/// <https://www.iana.org/assignments/iana-ipv6-special-registry>) and what clouds are known to use.
pub fn check_public(address: IpAddr) -> Result<(), NotPublic> {
    let special = match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    };
    special.map_or(Ok(()), |(what, exception)| Err(NotPublic { address, what, exception }))
}

type Special = Option<(&'static str, Exception)>;

fn special_v4(address: Ipv4Addr) -> Special {
    use Exception::{ByRule, Never};
    let within = |network: [u8; 4], length: u32| {
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        address.to_bits() & mask == Ipv4Addr::from(network).to_bits() & mask
    };
    // Azure's and Alibaba's metadata (168.63.129.16, 100.100.100.200) lie where nothing else marks them.
    if within([168, 63, 129, 16], 32) || within([100, 100, 100, 200], 32) || within([192, 0, 0, 192], 32) {
        return Some(("an address of the cloud's own", Never));
    }
    let (what, exception) = if within([0, 0, 0, 0], 8) {
        ("an address of this host (0.0.0.0/8)", Never)
    } else if within([127, 0, 0, 0], 8) {
        ("a loopback address", Never)
    } else if within([169, 254, 0, 0], 16) {
        ("a link-local address", Never)
    } else if within([224, 0, 0, 0], 4) {
        ("a multicast address", Never)
    } else if within([255, 255, 255, 255], 32) {
        ("the broadcast address", Never)
    } else if within([10, 0, 0, 0], 8) || within([172, 16, 0, 0], 12) || within([192, 168, 0, 0], 16) {
        ("a private address", ByRule)
    } else if within([100, 64, 0, 0], 10) {
        ("a carrier's internal address (100.64.0.0/10)", ByRule)
    } else if within([192, 88, 99, 0], 24) {
        ("an address of 6to4 relays", ByRule)
    } else if within([192, 0, 2, 0], 24) || within([198, 51, 100, 0], 24) || within([203, 0, 113, 0], 24) {
        ("an address for documentation", ByRule)
    } else if within([192, 0, 0, 0], 24) || within([198, 18, 0, 0], 15) || within([240, 0, 0, 0], 4) {
        ("a reserved address", ByRule)
    } else {
        return None;
    };
    Some((what, exception))
}

fn special_v6(address: Ipv6Addr) -> Special {
    use Exception::{ByRule, Never};
    let within = |network: u128, length: u32| {
        let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
        address.to_bits() & mask == network & mask
    };
    let (what, exception) = if within(0, 127) {
        ("an address of this host (:: or ::1)", Never)
    } else if within(0, 96) || within(0xffff_0000_0000, 96) || within(0xffff_0000_0000_0000, 96) {
        ("an IPv4 address in another form", Never)
    } else if within(0x0064_ff9b << 96, 32) {
        ("an IPv4 address behind NAT64", Never)
    } else if within(0x2002 << 112, 16) || within(0x2001_0000 << 96, 32) {
        ("an IPv4 address in a tunnel (6to4, Teredo)", Never)
    } else if within(0xfe80 << 112, 10) {
        ("a link-local address", Never)
    } else if within(0xff00 << 112, 8) {
        ("a multicast address", Never)
    } else if within(0xfd00_0ec2_0000_0000_0000_0000_0000_0254, 128) {
        ("an address of the cloud's own", Never)
    } else if within(0xfc00 << 112, 7) || within(0xfec0 << 112, 10) {
        ("a private address", ByRule)
    } else if within(0x2001_0db8 << 96, 32) || within(0x3fff << 112, 20) {
        ("an address for documentation", ByRule)
    } else if within(0x2001 << 112, 23) || !within(0x2000 << 112, 3) {
        ("a reserved address", ByRule)
    } else {
        return None;
    };
    Some((what, exception))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(text: &str) -> Option<Exception> {
        check_public(text.parse().unwrap()).err().map(|error| error.exception())
    }

    #[test]
    fn the_internet_is_public() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "11.0.0.0",
            "9.255.255.255",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.0.1.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00::1",
            "2001:200::1",
            "2003::1",
            "3ffe::1",
        ] {
            assert_eq!(verdict(text), None, "{text}");
        }
    }

    #[test]
    fn a_rule_may_name_what_is_somebodys_own() {
        for text in [
            "10.0.0.1",
            "10.255.255.255",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "192.88.99.1",
            "240.0.0.1",
            "255.255.255.254",
            "fc00::1",
            "fdff::1",
            "fec0::1",
            "2001:db8::1",
            "3fff::1",
            "2001:10::1",
            "100::1",
            "5f00::1",
            "4000::",
        ] {
            assert_eq!(verdict(text), Some(Exception::ByRule), "{text}");
        }
    }

    #[test]
    fn no_rule_may_name_the_host_or_its_cloud() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.169.254",
            "169.254.170.2",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "::",
            "::1",
            "::10.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:0:8.8.8.8",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:a00:1::",
            "2001::1",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
        ] {
            assert_eq!(verdict(text), Some(Exception::Never), "{text}");
        }
    }
}
