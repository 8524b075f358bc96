//! Which authorities are trusted: on the way out those of the host, inside those and the sandbox's own.

use std::io::{self, Read as _};
use std::path::Path;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sandbox_core::{Error, ErrorKind, Result};

use super::keystore;

/// Authorities whose certificates servers are checked against.
#[derive(Debug, Clone)]
pub struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    pem: String,
}

impl Roots {
    /// Reads the host's own authorities, from the first bundle that there is.
    ///
    /// # Errors
    /// `Io` where the host has none in any of the usual places.
    pub fn system() -> Result<Self> {
        for path in BUNDLES {
            match read(Path::new(path)) {
                Ok(text) => return Self::from_pem(&text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io(format!("cannot read the authorities in {path}"), error)),
            }
        }
        let text = format!("the host trusts no authority: none of {} is there", BUNDLES.join(", "));
        Err(Error::new(ErrorKind::Io, text).with_hint("install the package ca-certificates"))
    }

    /// Takes authorities from PEM; what else stands in the text is left out.
    ///
    /// # Errors
    /// `InvalidInput` where there is no certificate in it, or one that cannot be read.
    pub fn from_pem(text: &str) -> Result<Self> {
        let invalid = |what: &str| Error::new(ErrorKind::InvalidInput, format!("the bundle of authorities {what}"));
        let mut pem = String::new();
        let mut rest = text;
        while let Some(start) = rest.find(BEGIN) {
            let Some(length) = rest[start..].find(END) else { return Err(invalid("breaks off")) };
            let end = start + length + END.len();
            pem.push_str(&rest[start..end]);
            pem.push('\n');
            rest = &rest[end..];
        }
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| invalid("holds something that is no certificate"))?;
        if certificates.is_empty() {
            return Err(invalid("holds no certificate"));
        }
        Ok(Self { certificates, pem })
    }

    /// Trusts others beside these.
    #[must_use]
    pub fn and(mut self, others: &Self) -> Self {
        self.certificates.extend(others.certificates.iter().cloned());
        self.pem.push_str(&others.pem);
        self
    }

    /// What servers are checked against. A certificate that is of no use as an authority is left out, as every browser does.
    pub(super) fn store(&self) -> RootCertStore {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(self.certificates.iter().cloned());
        store
    }

    /// The bundle that programs inside trust: these, and the sandbox's own authority.
    pub(super) fn bundle(&self, authority: &str) -> String {
        format!("{}{authority}", self.pem)
    }

    /// What is placed inside, and where: the bundle, the same as a key store for Java, and the settings of wget, which
    /// has no variable for it.
    pub(super) fn files(&self, authority: &str, bundle: &str) -> Vec<(String, Vec<u8>)> {
        let own = CertificateDer::pem_slice_iter(authority.as_bytes()).flatten();
        let certificates: Vec<_> = self.certificates.iter().cloned().chain(own).collect();
        vec![
            (bundle.to_owned(), self.bundle(authority).into_bytes()),
            (key_store(bundle), keystore::written(&certificates)),
            (wget_settings(bundle), format!("ca_certificate = {bundle}\n").into_bytes()),
        ]
    }
}

/// The variables by which programs inside find what is placed there. Most are one program's or one library's.
pub(super) fn variables(bundle: &str) -> impl Iterator<Item = (String, String)> {
    let wget = ("SYSTEM_WGETRC".to_owned(), wget_settings(bundle));
    VARIABLES.iter().map(|name| ((*name).to_owned(), bundle.to_owned())).chain([wget])
}

/// What Java is told beside its proxy.
pub(super) fn java_options(bundle: &str) -> String {
    format!(" -Djavax.net.ssl.trustStore={}", key_store(bundle))
}

fn key_store(bundle: &str) -> String {
    format!("{bundle}.jks")
}

fn wget_settings(bundle: &str) -> String {
    format!("{bundle}.wgetrc")
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_BUNDLE).read_to_string(&mut text)?;
    Ok(text)
}

/// Where the bundle lies inside: in a directory that only container root may write.
pub(super) const BUNDLE_PATH: &str = "/run/sandbox/authorities.pem";

/// OpenSSL (and with it Python and Ruby), curl, git, requests, pip, Node.js (which adds them to its own), cargo, npm,
/// yarn, the AWS tools, Deno, Bun, uv, Nix, `gRPC`, `httplib2` and the Google tools. Go reads the first, too.
const VARIABLES: [&str; 14] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO",
    "NPM_CONFIG_CAFILE",
    "YARN_HTTPS_CA_FILE_PATH",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
    "NIX_SSL_CERT_FILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
];

/// Debian and Alpine; Fedora and RHEL; openSUSE; older RHEL; BSD and others.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
const MAX_BUNDLE: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_taken_for_its_certificates_alone() {
        let certificate = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let (pem, key) = (certificate.cert.pem(), certificate.signing_key.serialize_pem());
        let roots = Roots::from_pem(&format!("# a comment\n{key}{pem}# another\n{pem}")).unwrap();
        assert_eq!(roots.certificates.len(), 2);
        assert!(!roots.bundle("").contains("PRIVATE") && !roots.bundle("").contains('#'));
        assert_eq!(Roots::from_pem(&roots.bundle(&pem)).unwrap().certificates.len(), 3);
        assert_eq!(roots.clone().and(&roots).store().len(), 4);
        let broken = "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n";
        for text in ["", "text", &key, &pem[..100], broken] {
            assert_eq!(Roots::from_pem(text).unwrap_err().kind(), ErrorKind::InvalidInput, "{text}");
        }
    }
}
