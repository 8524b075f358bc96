//! The name of a sandbox.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

/// Names one sandbox: 128 random bits, so that none can be guessed and none is used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SandboxId(u128);

impl SandboxId {
    /// Draws a new one.
    ///
    /// # Errors
    /// `Io` if the kernel has no randomness to give.
    pub fn random() -> Result<Self> {
        let mut bytes = [0_u8; 16];
        let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| Error::io("cannot draw a sandbox id", errno.into()))?;
        if got < bytes.len() {
            return Err(Error::new(ErrorKind::Io, "the kernel gave too little randomness for a sandbox id"));
        }
        Ok(Self(u128::from_le_bytes(bytes)))
    }

    /// The first twelve digits, enough for people to tell sandboxes apart.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Debug for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SandboxId({self})")
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for SandboxId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits =
            text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        match u128::from_str_radix(text, 16) {
            Ok(bits) if digits => Ok(Self(bits)),
            _ => Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "sandbox id {:?} is not 32 lowercase hexadecimal digits",
                    text.chars().take(64).collect::<String>()
                ),
            )),
        }
    }
}

impl From<SandboxId> for String {
    fn from(id: SandboxId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for SandboxId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_it_parses_and_refuses_the_rest() {
        let id = SandboxId::random().unwrap();
        assert_eq!(id.to_string().parse::<SandboxId>().unwrap(), id);
        assert_eq!(id.short().len(), 12);
        for bad in [
            "",
            "12",
            "+0000000000000000000000000000000",
            &"A".repeat(32),
            &"a".repeat(33),
            "../../../../../../../../etc/passwd",
        ] {
            assert_eq!(bad.parse::<SandboxId>().unwrap_err().kind(), ErrorKind::InvalidInput, "{bad}");
        }
    }
}
