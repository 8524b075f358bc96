//! Absolute, normalised paths, on the host and inside a sandbox.
//!
//! Invariant: no `.`, no `..`, no empty component, no NUL; so one place has one spelling. These are
//! words, not places: nothing here follows a symbolic link.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::ParseError;
use crate::parse::string_form;

/// Holds an absolute, normalised path on the host.
///
/// It need not be UTF-8 if made from a [`PathBuf`]; it prints, and becomes JSON, with `\u{fffd}` in
/// place of what is not. Whoever makes one from user input follows symbolic links first, since a
/// policy judges the words alone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPath(PathBuf);

/// Holds an absolute, normalised path inside a sandbox, in UTF-8 and without control characters.
///
/// It is not at or under `/proc`, `/sys`, `/dev` or `/.sandbox`, which the kernel and the guest own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestPath(String);

impl HostPath {
    /// Returns the path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl GuestPath {
    /// Returns the root of the sandbox's file system.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Makes a path that is known to be valid.
    pub(crate) fn known(path: &'static str) -> Self {
        Self(path.to_owned())
    }

    /// Returns the path.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// Returns the path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string_lossy())
    }
}

impl fmt::Display for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<PathBuf> for HostPath {
    type Error = ParseError;

    fn try_from(path: PathBuf) -> Result<Self, Self::Error> {
        match rule_broken_by(path.as_os_str().as_bytes()) {
            None => Ok(Self(path)),
            Some(rule) => Err(ParseError::new(HOST_KIND, &path.to_string_lossy(), rule)),
        }
    }
}

impl FromStr for HostPath {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        PathBuf::from(text).try_into()
    }
}

impl FromStr for GuestPath {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |allowed| Err(ParseError::new(GUEST_KIND, text, allowed));
        if let Some(rule) = rule_broken_by(text.as_bytes()) {
            return error(rule);
        }
        if text.chars().any(char::is_control) {
            return error("it must not contain a control character");
        }
        if OWNED.iter().any(|owned| Path::new(text).starts_with(owned)) {
            return error("it must not be at or under /proc, /sys, /dev or /.sandbox");
        }
        Ok(Self(text.to_owned()))
    }
}

impl AsRef<Path> for HostPath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

impl AsRef<Path> for GuestPath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

string_form!(HostPath);
string_form!(GuestPath);

fn rule_broken_by(path: &[u8]) -> Option<&'static str> {
    if path.len() > MAX_BYTES {
        return Some("write at most 4096 bytes");
    }
    if path.contains(&0) {
        return Some("it must not contain a NUL byte");
    }
    let Some(rest) = path.strip_prefix(b"/") else {
        return Some("write an absolute path, starting with /");
    };
    let is_normal = |part: &[u8]| !matches!(part, b"" | b"." | b"..");
    if !rest.is_empty() && !rest.split(|byte| *byte == b'/').all(is_normal) {
        return Some("write it without ., .., // and without / at its end");
    }
    None
}

const HOST_KIND: &str = "a path on the host";
const GUEST_KIND: &str = "a path inside a sandbox";
/// The kernel's `PATH_MAX` (<https://man7.org/linux/man-pages/man7/path_resolution.7.html>).
const MAX_BYTES: usize = 4_096;
const OWNED: [&str; 4] = ["/proc", "/sys", "/dev", "/.sandbox"];

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn accepts_normal_paths() {
        for text in ["/", "/a", "/a/b c/…", "/procs", "/a/proc", "/...", "/.sandboxes"] {
            assert_eq!(text.parse::<HostPath>().unwrap().to_string(), text);
            assert_eq!(text.parse::<GuestPath>().unwrap().as_str(), text);
        }
        assert_eq!(GuestPath::root(), "/".parse().unwrap());
        let raw = PathBuf::from(OsStr::from_bytes(b"/a/\xff"));
        assert_eq!(HostPath::try_from(raw.clone()).unwrap().as_path(), raw);
    }

    #[test]
    fn refuses_relative_and_unnormalised_paths() {
        for text in ["", "a", "./a", "/a/", "//a", "/a//b", "/.", "/a/..", "/../a", "/a/./b", "/a\0", "~/a"] {
            assert!(text.parse::<HostPath>().is_err(), "{text:?}");
            assert!(text.parse::<GuestPath>().is_err(), "{text:?}");
        }
        assert!(format!("/{}", "a".repeat(4_096)).parse::<HostPath>().is_err());
    }

    #[test]
    fn refuses_what_the_kernel_and_the_guest_own() {
        for text in ["/proc", "/proc/self", "/sys/fs", "/dev/shm", "/.sandbox", "/.sandbox/x", "/a\n"] {
            assert!(text.parse::<GuestPath>().is_err(), "{text:?}");
            assert!(text.parse::<HostPath>().is_ok(), "{text:?}");
        }
    }
}
