//! Which repository is cloned: parsed once, so that git is never handed a text of a user's making.
//!
//! Invariant: a remote is `https`, one host, one owner and one name, and nothing else. No other scheme (`ext::`, `file://`,
//! `ssh://`), no credential, no option and no way around a part of a path can be said.

use std::fmt;
use std::str::FromStr;

use crate::parse::string_form;
use crate::{CloneDepth, Host, HostPath, ParseError, RepoId};

/// Names a repository that is cloned: at GitHub, at another server of the same form, or on this machine.
///
/// It is written `owner/name`, `https://HOST[:PORT]/owner/name`, with or without `.git` at its end, or `/an/absolute/path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_enums, reason = "a new source must be thought of wherever sources are told apart")]
pub enum CloneSource {
    /// A repository of this machine, with symbolic links already followed.
    Local(HostPath),
    /// A repository of a server.
    Remote(RemoteRepo),
}

/// Names a repository of a server, reached by HTTPS.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteRepo {
    host: Host,
    port: u16,
    repository: RepoId,
}

impl RemoteRepo {
    /// Returns the server.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the server's port, 443 where none is written.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the repository at the server.
    pub fn repository(&self) -> &RepoId {
        &self.repository
    }
}

impl fmt::Display for RemoteRepo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, repository } = self;
        write!(f, "https://{host}")?;
        if *port != HTTPS {
            write!(f, ":{port}")?;
        }
        write!(f, "/{repository}")
    }
}

impl fmt::Display for CloneSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.fmt(f),
            Self::Remote(remote) => remote.fmt(f),
        }
    }
}

impl FromStr for CloneSource {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with('/') {
            return text.parse().map(Self::Local);
        }
        let error = || ParseError::new(KIND, text, FORM);
        let Some((scheme, rest)) = text.split_once("://") else {
            let repository = without_suffix(text).parse().map_err(|_| error())?;
            return Ok(Self::Remote(RemoteRepo {
                host: Host::from_str(GITHUB).map_err(|_| error())?,
                port: HTTPS,
                repository,
            }));
        };
        if !scheme.eq_ignore_ascii_case("https") {
            return Err(error());
        }
        let (authority, path) = rest.split_once('/').ok_or_else(error)?;
        let (host, port) = match authority.rsplit_once(':') {
            // A colon inside brackets is part of an address.
            Some((host, port)) if !port.ends_with(']') => {
                let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
                (host, port.parse().ok().filter(|number| is_number && *number != 0).ok_or_else(error)?)
            }
            _ => (authority, HTTPS),
        };
        let host = Host::from_str(host).map_err(|_| error())?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let repository = without_suffix(path).parse().map_err(|_| error())?;
        Ok(Self::Remote(RemoteRepo { host, port, repository }))
    }
}

string_form!(CloneSource);

/// Says how much of a repository's history comes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(clippy::exhaustive_enums, reason = "whoever fetches must know each of them")]
pub enum History {
    /// Every commit and every tree, and of the files those of the commit that is checked out.
    Blobless,
    /// So many commits.
    Depth(CloneDepth),
    /// All of it.
    Full,
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blobless => f.write_str("blobless"),
            Self::Depth(depth) => write!(f, "depth {depth}"),
            Self::Full => f.write_str("full"),
        }
    }
}

impl serde::Serialize for History {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn without_suffix(path: &str) -> &str {
    path.strip_suffix(".git").unwrap_or(path)
}

const KIND: &str = "a repository to clone";
const FORM: &str = "write owner/name, https://HOST/owner/name without a user or a password, or an absolute path";
const GITHUB: &str = "github.com";
const HTTPS: u16 = 443;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_has_one_spelling() {
        for (text, shown) in [
            ("o/n", "https://github.com/o/n"),
            ("o/n.git", "https://github.com/o/n"),
            ("https://github.com/o/n.git", "https://github.com/o/n"),
            ("HTTPS://GitHub.com/o/n/", "https://github.com/o/n"),
            ("https://ghe.example.org:8443/o/n", "https://ghe.example.org:8443/o/n"),
            ("https://192.0.2.7/o/n", "https://192.0.2.7/o/n"),
            ("https://[2001:db8::7]:444/o/n", "https://[2001:db8::7]:444/o/n"),
            ("/srv/git/x.git", "/srv/git/x.git"),
        ] {
            assert_eq!(text.parse::<CloneSource>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn nothing_else_is_a_repository() {
        for text in [
            "",
            "o",
            "-o/n",
            "--upload-pack=x/n",
            "o/n/m",
            "o/..",
            "../n",
            "./n",
            "ext::sh -c id",
            "EXT::sh",
            "file:///etc",
            "File:///x/y",
            "ssh://git@github.com/o/n",
            "git@github.com:o/n",
            "git://github.com/o/n",
            "http://github.com/o/n",
            "https://user@github.com/o/n",
            "https://user:pass@github.com/o/n",
            "https://github.com",
            "https://github.com/o",
            "https://github.com/o/n/m",
            "https://github.com/o/../n",
            "https://github.com/o/%2e%2e",
            "https://github.com//o/n",
            "https://github.com/o/n?x",
            "https://github.com/o/n#x",
            "https://github.com:0/o/n",
            "https://github.com:/o/n",
            "https://github.com:+1/o/n",
            "https://github.com:99999/o/n",
            "https://github.com\n/o/n",
            "https://gith\u{fb00}ub .com/o/n",
            "https:///o/n",
            "https://-x/o/n",
            "/srv/../x",
            "/srv//x",
            "ext::https://github.com/o/n",
            "o/n\n",
        ] {
            assert!(text.parse::<CloneSource>().is_err(), "{text:?}");
        }
    }
}
