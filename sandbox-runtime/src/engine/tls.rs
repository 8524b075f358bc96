//! What TLS with an engine stands on: the authority that its certificate must come from, and a certificate of our own
//! (<https://docs.docker.com/engine/security/protect-access/>).
//!
//! Invariant: the key is held as a secret until the library that uses it has it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use sandbox_core::{Error, ErrorKind, Result};
use secrecy::{ExposeSecret as _, SecretSlice};

/// Reads the settings from a directory with `ca.pem` and, where the engine asks who we are, `cert.pem` and `key.pem`.
pub(super) fn settings(directory: &Path) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let file = directory.join(AUTHORITY);
    let bytes = read(&file)?.ok_or_else(|| unusable(&file, "does not exist"))?;
    for certificate in certificates(&file, &bytes)? {
        roots.add(certificate).map_err(|error| unusable(&file, "holds no authority").with_source(error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder
        .map_err(|error| unusable(directory, "cannot be used").with_source(error))?
        .with_root_certificates(roots);

    let (ours, key) = (directory.join(CERTIFICATE), directory.join(KEY));
    match (read(&ours)?, read(&key)?) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(_), None) => Err(unusable(&key, "does not exist, beside a certificate")),
        (None, Some(_)) => Err(unusable(&ours, "does not exist, beside a key")),
        (Some(certificate), Some(secret)) => {
            let chain = certificates(&ours, &certificate)?;
            let secret = PrivateKeyDer::from_pem_slice(secret.expose_secret())
                .map_err(|_| unusable(&key, "holds no key in the form PEM"))?;
            builder
                .with_client_auth_cert(chain, secret)
                .map_err(|error| unusable(&ours, "does not go with its key").with_source(error))
        }
    }
}

fn certificates(file: &Path, bytes: &SecretSlice<u8>) -> Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes.expose_secret()).collect();
    let found = found.map_err(|error| unusable(file, "is no certificate in the form PEM").with_source(error))?;
    if found.is_empty() { Err(unusable(file, "holds no certificate")) } else { Ok(found) }
}

/// Reads a file, if it is there; the key is one of them, so all are taken for secret.
fn read(path: &Path) -> Result<Option<SecretSlice<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| Error::io(format!("cannot read {}", path.display()), error))?,
    };
    let mut bytes = Vec::new();
    let read = file.take(MOST + 1).read_to_end(&mut bytes);
    let bytes: SecretSlice<u8> = bytes.into();
    match read {
        Ok(length) if length as u64 > MOST => Err(unusable(path, "has more than 1 MiB")),
        Ok(_) => Ok(Some(bytes)),
        Err(error) => Err(Error::io(format!("cannot read {}", path.display()), error)),
    }
}

fn unusable(path: &Path, why: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("{} {why}", path.display()))
        .with_hint("an engine with TLS needs ca.pem, cert.pem and key.pem in one directory")
}

const AUTHORITY: &str = "ca.pem";
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";
/// The most bytes of a file.
const MOST: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_no_certificate_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let refused = |word: &str| {
            let error = settings(directory.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains(word) && error.hint().is_some(), "{error}");
        };
        refused("ca.pem does not exist");
        std::fs::write(directory.path().join("ca.pem"), "hello").unwrap();
        refused("ca.pem holds no certificate");
        let nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(directory.path().join("ca.pem"), nonsense).unwrap();
        refused("ca.pem holds no authority");
        std::fs::write(directory.path().join("ca.pem"), vec![b'x'; (1 << 20) + 1]).unwrap();
        refused("more than 1 MiB");
    }
}
