//! The authority of one sandbox: it vouches, to programs inside, for the gateway that stands before a host.
//!
//! Invariant: the key lies in this process's memory alone and prints as nothing; the authority is good for the hosts that
//! are intercepted and for no other, as long as the sandbox lives.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm,
};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use sandbox_core::{Error, ErrorKind, Result};
use sandbox_policy::Host;
use secrecy::zeroize::Zeroize as _;
use time::OffsetDateTime;

use super::chance;

/// Makes certificates for the hosts that are intercepted.
pub(crate) struct Authority {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
    leaf_key: Arc<dyn SigningKey>,
    leaf_public: Public,
    provider: Arc<CryptoProvider>,
    leaves: Mutex<HashMap<Host, Leaf>>,
}

/// The public half of the key that every certificate is for.
struct Public {
    raw: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl PublicKeyData for Public {
    fn der_bytes(&self) -> &[u8] {
        &self.raw
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

struct Leaf {
    made: Instant,
    config: Arc<ServerConfig>,
}

impl Authority {
    /// Makes an authority for some hosts, `*.example.org` among them, that is good for this long.
    ///
    /// # Errors
    /// `Io` where no key can be made.
    pub(crate) fn new(hosts: &[String], lifetime: Duration) -> Result<Self> {
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, "Sandbox egress gateway");
        params.distinguished_name = name;
        (params.not_before, params.not_after) = validity(lifetime);
        params.serial_number = Some(serial()?);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.name_constraints = Some(constraints(hosts));
        let key = KeyPair::generate().map_err(unusable)?;
        let pem = params.self_signed(&key).map_err(unusable)?.pem();

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut leaf = KeyPair::generate().map_err(unusable)?;
        let leaf_key = provider
            .key_provider
            .load_private_key(PrivatePkcs8KeyDer::from(leaf.serialize_der()).into())
            .map_err(unusable)?;
        let leaf_public = Public { raw: leaf.public_key_raw().to_vec(), algorithm: leaf.algorithm() };
        leaf.zeroize();
        Ok(Self { params, key, pem, leaf_key, leaf_public, provider, leaves: Mutex::default() })
    }

    /// Its certificate, which programs inside are to trust.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// How the gateway speaks TLS in the place of a host.
    ///
    /// # Errors
    /// `Io` where no certificate can be made.
    pub(crate) fn stand_in(&self, host: &Host) -> Result<Arc<ServerConfig>> {
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = leaves.get(host).filter(|leaf| leaf.made.elapsed() < RENEWED_AFTER) {
            return Ok(Arc::clone(&leaf.config));
        }
        let config = Arc::new(self.issue(host)?);
        if leaves.len() >= MAX_LEAVES {
            let oldest = leaves.iter().min_by_key(|(_, leaf)| leaf.made).map(|(host, _)| host.clone());
            oldest.and_then(|oldest| leaves.remove(&oldest));
        }
        leaves.insert(host.clone(), Leaf { made: Instant::now(), config: Arc::clone(&config) });
        Ok(config)
    }

    fn issue(&self, host: &Host) -> Result<ServerConfig> {
        let mut params = CertificateParams::default();
        // The name stands where it is read (RFC 9525, section 2), and a subject is optional then.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![match (host.address(), host.name()) {
            (Some(address), _) => SanType::IpAddress(address),
            (None, name) => SanType::DnsName(name.unwrap_or_default().try_into().map_err(unusable)?),
        }];
        (params.not_before, params.not_after) = validity(LEAF_LIFETIME);
        params.serial_number = Some(serial()?);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&self.leaf_public, &issuer).map_err(unusable)?;
        let certified = CertifiedKey::new(vec![certificate.der().clone()], Arc::clone(&self.leaf_key));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// What the authority is good for (RFC 5280, section 4.2.1.10): these hosts, and no address but those among them.
fn constraints(hosts: &[String]) -> NameConstraints {
    let mut permitted = Vec::new();
    let mut addresses = Vec::new();
    for host in hosts {
        let name = host.strip_prefix("*.").unwrap_or(host);
        match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) => addresses.push(address),
            Err(_) => permitted.push(GeneralSubtree::DnsName(name.to_owned())),
        }
    }
    if permitted.is_empty() {
        // A name that nobody has, since a kind without an entry is not constrained.
        permitted.push(GeneralSubtree::DnsName("sandbox.invalid".to_owned()));
    }
    let mut excluded = Vec::new();
    for (everything, is_one) in [
        (CidrSubnet::V4([0; 4], [0; 4]), IpAddr::is_ipv4 as fn(&IpAddr) -> bool),
        (CidrSubnet::V6([0; 16], [0; 16]), IpAddr::is_ipv6),
    ] {
        if !addresses.iter().any(is_one) {
            excluded.push(GeneralSubtree::IpAddress(everything));
        }
    }
    permitted.extend(addresses.into_iter().map(|address| {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address, prefix))
    }));
    NameConstraints { permitted_subtrees: permitted, excluded_subtrees: excluded }
}

/// From a while ago, for clocks that differ, until so much later.
fn validity(lifetime: Duration) -> (OffsetDateTime, OffsetDateTime) {
    let now = SystemTime::now();
    let before = now.checked_sub(SKEW).unwrap_or(now);
    let after = now.checked_add(lifetime.min(MAX_LIFETIME) + SKEW).unwrap_or(now);
    (before.into(), after.into())
}

fn serial() -> Result<SerialNumber> {
    let mut bytes = chance::bytes::<16>()?;
    // Positive, and of its full length (RFC 5280, section 4.1.2.2).
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Io, "no certificate could be made for the gateway").with_source(error)
}

const SKEW: Duration = Duration::from_hours(1);
const LEAF_LIFETIME: Duration = Duration::from_hours(24);
const RENEWED_AFTER: Duration = Duration::from_hours(12);
const MAX_LIFETIME: Duration = Duration::from_hours(24 * 366);
const MAX_LEAVES: usize = 256;

#[cfg(test)]
mod tests {
    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    use super::*;

    /// Whether somebody who trusts the authority takes its certificate for a host.
    fn is_taken(authority: &Authority, host: &str) -> std::result::Result<(), rustls::Error> {
        let host: Host = host.parse().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match host.address() {
            Some(address) => SanType::IpAddress(address),
            None => SanType::DnsName(host.name().unwrap().try_into().unwrap()),
        }];
        (params.not_before, params.not_after) = validity(LEAF_LIFETIME);
        let issuer = Issuer::from_params(&authority.params, &authority.key);
        let leaf = params.signed_by(&authority.leaf_public, &issuer).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&authority.provider));
        let name = match host.address() {
            Some(address) => ServerName::IpAddress(address.into()),
            None => ServerName::try_from(host.to_string()).unwrap(),
        };
        let answer = verifier.build().unwrap().verify_server_cert(leaf.der(), &[], &name, &[], UnixTime::now());
        answer.map(|_| ())
    }

    fn authority(hosts: &[&str]) -> Authority {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        Authority::new(&hosts, Duration::from_mins(5)).unwrap()
    }

    #[test]
    fn it_is_good_for_its_hosts_and_for_no_other() {
        let named = authority(&["api.example.org", "*.b.example"]);
        for host in ["api.example.org", "x.b.example"] {
            assert!(is_taken(&named, host).is_ok(), "{host}");
        }
        for host in ["example.org", "evil.example", "xb.example", "192.0.2.1", "[2001:db8::1]"] {
            assert!(is_taken(&named, host).is_err(), "{host}");
        }
        let addressed = authority(&["192.0.2.1"]);
        assert!(is_taken(&addressed, "192.0.2.1").is_ok());
        for host in ["192.0.2.2", "[2001:db8::1]", "evil.example"] {
            assert!(is_taken(&addressed, host).is_err(), "{host}");
        }
    }

    #[test]
    fn leaves_are_kept_and_bounded() {
        let authority = authority(&["*.example.org"]);
        let host = |index: usize| format!("h{index}.example.org").parse::<Host>().unwrap();
        let first = authority.stand_in(&host(0)).unwrap();
        assert!(Arc::ptr_eq(&first, &authority.stand_in(&host(0)).unwrap()));
        for index in 0..MAX_LEAVES + 5 {
            authority.stand_in(&host(index)).unwrap();
        }
        assert_eq!(authority.leaves.lock().unwrap().len(), MAX_LEAVES);
        assert!(!Arc::ptr_eq(&first, &authority.stand_in(&host(0)).unwrap()));
    }

    #[test]
    fn it_prints_as_nothing() {
        let authority = authority(&["api.example.org"]);
        assert_eq!(format!("{authority:?}"), "Authority { .. }");
        assert!(!authority.pem().contains("PRIVATE"));
    }
}
