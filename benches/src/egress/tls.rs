//! Who is trusted by the client, and the certificate of the server.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::origin::HOST;
use crate::Result;

/// How a client speaks TLS to the server, or to whoever stands in its place.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Trusts the authorities of a file.
    pub(super) fn file(path: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(path)? {
            // Those of the machine, which stand beside, need not all be of use.
            roots.add_parsable_certificates([certificate?]);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(Self(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
    }

    /// Begins a connection to the server.
    pub(super) fn connection(&self) -> Result<ClientConnection> {
        Ok(ClientConnection::new(Arc::clone(&self.0), ServerName::try_from(HOST)?)?)
    }
}

/// Makes an authority and the certificate of a server, each in a file.
pub(crate) fn certify(directory: &Path, name: &str) -> Result<()> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // OpenSSL takes a certificate for its own issuer where both have one name.
    params.distinguished_name.push(DnType::CommonName, "bench authority");
    let key = KeyPair::generate()?;
    std::fs::write(directory.join(AUTHORITY), params.self_signed(&key)?.pem())?;
    let issuer = Issuer::from_params(&params, &key);
    let own = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![name.to_owned()])?.signed_by(&own, &issuer)?;
    std::fs::write(directory.join(CERTIFICATE), certificate.pem())?;
    std::fs::write(directory.join(KEY), own.serialize_pem())?;
    Ok(())
}

/// The authority's file.
pub(crate) const AUTHORITY: &str = "authority.pem";
/// The server's certificate.
pub(crate) const CERTIFICATE: &str = "certificate.pem";
/// The server's key.
pub(crate) const KEY: &str = "key.pem";
