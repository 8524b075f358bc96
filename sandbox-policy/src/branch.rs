//! Branch names: git's rules, and stricter where a name could be taken for something else.

use std::fmt;
use std::str::FromStr;

use crate::ParseError;
use crate::parse::string_form;

/// Names a branch, without `refs/heads/`.
///
/// Everything accepted here is accepted by `git check-ref-format --branch`
/// (<https://git-scm.com/docs/git-check-ref-format>). Beyond git's rules it has at most 200 bytes,
/// no `%`, `#` or `?` (they would need escaping in a URL), no invisible character, and it cannot
/// be read as an option, a full reference, `HEAD` or an object id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Branch(String);

impl Branch {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the full reference: `refs/heads/` and the name.
    pub fn reference(&self) -> String {
        format!("refs/heads/{}", self.0)
    }
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Branch {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match rule_broken_by(text) {
            None => Ok(Self(text.to_owned())),
            Some(rule) => Err(ParseError::new(KIND, text, rule)),
        }
    }
}

string_form!(Branch);

fn rule_broken_by(text: &str) -> Option<&'static str> {
    if text.is_empty() || text.len() > MAX_BYTES {
        return Some("write 1 to 200 bytes");
    }
    if text.starts_with('-') {
        return Some("it must not start with -");
    }
    if text.starts_with("refs/") {
        return Some("write the name alone, without refs/heads/");
    }
    if matches!(text, "HEAD" | "@") || is_object_id(text) {
        return Some("write a name, not HEAD, @ or an object id");
    }
    if !text.chars().all(is_allowed) {
        return Some("use letters, digits and visible signs, but no space ~ ^ : ? * [ \\ % #");
    }
    if text.contains("..") || text.contains("@{") || text.ends_with('.') {
        return Some("it must not contain .. or @{, nor end in a dot");
    }
    let is_part =
        |part: &str| !part.is_empty() && !part.starts_with('.') && !part.to_ascii_lowercase().ends_with(".lock");
    if !text.split('/').all(is_part) {
        return Some("each part between slashes has a character, no leading dot and no .lock at its end");
    }
    None
}

fn is_allowed(character: char) -> bool {
    if character.is_ascii() {
        character.is_ascii_graphic() && !"~^:?*[\\%#".contains(character)
    } else {
        character.is_alphanumeric() && !INVISIBLE_LETTERS.contains(&character)
    }
}

/// A SHA-1 or SHA-256 object id in full: git would resolve it before it looks for a branch.
fn is_object_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

const KIND: &str = "a branch name";
const MAX_BYTES: usize = 200;
/// The Hangul fillers, which Unicode counts as letters and draws as nothing
/// (<https://www.unicode.org/reports/tr36/>).
const INVISIBLE_LETTERS: [char; 4] = ['\u{115f}', '\u{1160}', '\u{3164}', '\u{ffa0}'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_ordinary_names() {
        for text in [
            "main",
            "agent/42-fix",
            "dependabot/npm/@types/node",
            "release-1.2",
            "größe",
            "分支",
            "a@b",
            "foo/HEAD",
            "refs",
            "(x)",
        ] {
            let branch: Branch = text.parse().unwrap();
            assert_eq!(branch.to_string(), text);
        }
        assert_eq!("main".parse::<Branch>().unwrap().reference(), "refs/heads/main");
        assert!("b".repeat(200).parse::<Branch>().is_ok());
    }

    #[test]
    fn refuses_what_git_or_a_url_would_misread() {
        for text in [
            "",
            "-x",
            "HEAD",
            "@",
            "refs/heads/main",
            "a..b",
            "a//b",
            "/a",
            "a/",
            ".a",
            "a/.b",
            "a.lock",
            "a.lock/b",
            "a.",
            "a b",
            "a~b",
            "a^b",
            "a:b",
            "a?b",
            "a*b",
            "a[b",
            "a\\b",
            "a@{b",
            "a%b",
            "a#b",
            "a\u{7f}b",
            "a\nb",
            "a\0b",
            "a\u{202e}b",
            "a\u{200b}b",
            "a\u{feff}b",
            "a\u{3164}b",
            "a\u{a0}b",
        ] {
            assert!(text.parse::<Branch>().is_err(), "{text:?}");
        }
        assert!("b".repeat(201).parse::<Branch>().is_err());
        assert!("0123456789abcdefABCD0123456789abcdefABCD".parse::<Branch>().is_err());
    }
}
