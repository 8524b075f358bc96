//! The private key of a GitHub App.

use std::fmt;
use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::rsa::KeyPair;
use ring::signature::RSA_PKCS1_SHA256;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};

/// Signs in an app's name. It prints as its size alone, and clones share it.
///
/// GitHub gives it out as a file of the form PKCS#1
/// (<https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/managing-private-keys-for-github-apps>);
/// key stores often keep it as PKCS#8. Either will do.
#[derive(Clone)]
pub struct PrivateKey(Arc<KeyPair>);

/// Says why a text is no key that an app could have. It repeats nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It is locked with a passphrase.
    #[error("the private key is encrypted, an open one in PEM form is needed")]
    Encrypted,
    /// There is no private key in it.
    #[error(
        "the private key is none in PEM form, allowed is one that begins with BEGIN RSA PRIVATE KEY or BEGIN PRIVATE KEY"
    )]
    NotPem,
    /// It is the key of another kind of signature.
    #[error("the private key is no RSA key, which is the only kind that GitHub accepts of an app")]
    NotRsa,
    /// It is too short, too long, or damaged.
    #[error("the private key cannot be used, allowed is a whole RSA key of 2048 to 4096 bits")]
    Unusable,
}

impl PrivateKey {
    /// Reads a key in PEM form, PKCS#1 or PKCS#8.
    ///
    /// # Errors
    /// What it is instead.
    pub fn from_pem(pem: &SecretString) -> Result<Self, KeyError> {
        let pem = pem.expose_secret();
        if pem.len() > MAX_PEM {
            return Err(KeyError::NotPem);
        }
        if pem.contains("ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let pair = match PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| KeyError::NotPem)? {
            PrivateKeyDer::Pkcs1(key) => KeyPair::from_der(key.secret_pkcs1_der()),
            PrivateKeyDer::Pkcs8(key) => KeyPair::from_pkcs8(key.secret_pkcs8_der()),
            _ => return Err(KeyError::NotRsa),
        };
        let pair = pair.map_err(|rejected| match rejected.to_string().as_str() {
            "WrongAlgorithm" => KeyError::NotRsa,
            _ => KeyError::Unusable,
        })?;
        Ok(Self(Arc::new(pair)))
    }

    /// Signs by RS256. It fails only if the system has no randomness to blind the key with.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut signature = vec![0; self.0.public().modulus_len()];
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| KeyError::Unusable)?;
        Ok(signature)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({} bits)", self.0.public().modulus_len() * 8)
    }
}

/// Bytes; a key of 4096 bits has some 3,300.
const MAX_PEM: usize = 64 * 1024;

#[cfg(test)]
pub(crate) mod tests {
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    const PKCS1: &str = include_str!("../../tests/keys/app.pkcs1.pem");
    const PKCS8: &str = include_str!("../../tests/keys/app.pkcs8.pem");

    pub(crate) fn key() -> PrivateKey {
        PrivateKey::from_pem(&SecretString::from(PKCS1)).unwrap()
    }

    /// Checks a signature of the key's.
    pub(crate) fn verify(message: &[u8], signature: &[u8]) -> bool {
        let key = key();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.0.public());
        public.verify(message, signature).is_ok()
    }

    #[test]
    fn both_forms_of_a_key_are_read_and_sign_alike() {
        for pem in [PKCS1, PKCS8, &format!("a comment\n{PKCS1}"), &PKCS8.replace('\n', "\r\n")] {
            let key = PrivateKey::from_pem(&SecretString::from(pem)).unwrap();
            assert!(verify(b"message", &key.sign(b"message").unwrap()));
            assert!(!verify(b"another", &key.sign(b"message").unwrap()));
            assert_eq!(format!("{key:?}"), "PrivateKey(2048 bits)");
        }
    }

    #[test]
    fn what_is_no_such_key_is_refused_by_its_kind_and_never_repeated() {
        let middle = &PKCS1[40..400];
        let damaged = PKCS1.replace(&PKCS1[200..220], &"A".repeat(20));
        for (pem, expected) in [
            (String::new(), KeyError::NotPem),
            (middle.to_owned(), KeyError::NotPem),
            (PKCS1.replace("PRIVATE KEY", "PUBLIC KEY"), KeyError::NotPem),
            (PKCS1.replace("RSA PRIVATE KEY", "ENCRYPTED PRIVATE KEY"), KeyError::Encrypted),
            (PKCS1.replace("-----\n", "-----\nProc-Type: 4,ENCRYPTED\n"), KeyError::Encrypted),
            (PKCS1.replace("RSA PRIVATE KEY", "EC PRIVATE KEY"), KeyError::NotRsa),
            (damaged, KeyError::Unusable),
            ("x".repeat(MAX_PEM + 1), KeyError::NotPem),
        ] {
            let error = PrivateKey::from_pem(&SecretString::from(pem)).unwrap_err();
            assert_eq!(error, expected);
            assert!(!format!("{error:?} {error}").contains(&middle[..8]), "{error}");
        }
    }
}
