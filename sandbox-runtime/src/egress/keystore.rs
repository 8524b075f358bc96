//! A key store as Java reads it, with authorities in it and nothing else.
//!
//! The form is Java's own (JKS), which every version reads without being told, also where it expects another
//! (<https://docs.oracle.com/en/java/javase/21/docs/specs/security/standard-names.html>, types of key stores; its layout is that of
//! `sun.security.provider.JavaKeyStore`). The password is the usual one and protects nothing: there is no key in it.

use rustls::pki_types::CertificateDer;
use sha1::{Digest as _, Sha1};

/// Writes a key store of these authorities.
pub(super) fn written(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    let mut store = Vec::new();
    store.extend(MAGIC.to_be_bytes());
    store.extend(VERSION.to_be_bytes());
    store.extend(counted(certificates.len()).to_be_bytes());
    for (number, certificate) in certificates.iter().enumerate() {
        store.extend(TRUSTED.to_be_bytes());
        text(&format!("authority {number}"), &mut store);
        // When it was taken in, which nobody asks.
        store.extend(0_u64.to_be_bytes());
        text("X.509", &mut store);
        store.extend(counted(certificate.len()).to_be_bytes());
        store.extend_from_slice(certificate);
    }
    let password: Vec<u8> = PASSWORD.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let digest = Sha1::new().chain_update(password).chain_update(WHITENER).chain_update(&store).finalize();
    store.extend_from_slice(&digest);
    store
}

/// A text with its length before it. None here is long.
fn text(text: &str, store: &mut Vec<u8>) {
    store.extend(u16::try_from(text.len()).unwrap_or_default().to_be_bytes());
    store.extend(text.bytes());
}

/// A count as the form has it; bundles are read no further than a few megabytes.
fn counted(count: usize) -> u32 {
    u32::try_from(count).unwrap_or_default()
}

const MAGIC: u32 = 0xFEED_FEED;
const VERSION: u32 = 2;
const TRUSTED: u32 = 2;
const PASSWORD: &str = "changeit";
const WHITENER: &str = "Mighty Aphrodite";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_form_that_java_has() {
        let store = written(&[CertificateDer::from(vec![1, 2, 3]), CertificateDer::from(vec![4])]);
        let head = [0xFE, 0xED, 0xFE, 0xED, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 11];
        assert_eq!(&store[..18], head);
        let entry = [&b"authority 0"[..], &[0; 8], &[0, 5], b"X.509", &[0, 0, 0, 3, 1, 2, 3]].concat();
        assert_eq!(&store[18..18 + entry.len()], entry);
        // The digest ends it, and hangs on everything before it.
        assert_eq!(store.len(), 12 + (entry.len() + 6) * 2 - 2 + 20);
        assert_ne!(store[store.len() - 20..], written(&[CertificateDer::from(vec![1, 2, 3])])[..20]);
    }
}
