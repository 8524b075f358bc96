//! What nobody can guess, from the kernel (getrandom(2)).

use rustix::rand::{GetRandomFlags, getrandom};
use sandbox_core::{Error, Result};

/// Returns random bytes.
pub(super) fn bytes<const COUNT: usize>() -> Result<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    let mut filled = 0;
    while filled < COUNT {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())
            .map_err(|error| Error::io("the kernel gives out no random bytes", error.into()))?;
    }
    Ok(bytes)
}

/// Returns random letters and digits, each as likely as the others.
pub(super) fn text(length: usize) -> Result<String> {
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let usable =
            bytes::<64>()?.into_iter().filter(|byte| usize::from(*byte) < 256 / ALPHABET.len() * ALPHABET.len());
        let letters = usable.map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
        text.extend(letters.take(length - text.len()));
    }
    Ok(text)
}

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_long_as_asked_and_never_twice_the_same() {
        for length in [0, 1, 40, 200] {
            assert_eq!(text(length).unwrap().len(), length);
        }
        assert_ne!(text(40).unwrap(), text(40).unwrap());
    }
}
