//! Image names: a reference in a registry's grammar, or the id of a local image.

use std::fmt;
use std::str::FromStr;

use crate::ParseError;
use crate::parse::string_form;

/// Names an image: `[registry[:port]/]path[:tag][@sha256:…]`, or `sha256:…` for a local image's id.
///
/// The grammar is that of
/// <https://pkg.go.dev/github.com/distribution/reference>, without its IPv6 registries and with
/// SHA-256 as the only digest. It prints as given: no registry and no tag is added.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef(Shape);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Shape {
    LocalId(String),
    Reference { registry: Option<String>, repository: String, tag: Option<String>, digest: Option<String> },
}

impl ImageRef {
    /// Returns the registry with its port, where one is given.
    pub fn registry(&self) -> Option<&str> {
        match &self.0 {
            Shape::LocalId(_) => None,
            Shape::Reference { registry, .. } => registry.as_deref(),
        }
    }

    /// Returns the path below the registry; none for a local id.
    pub fn repository(&self) -> Option<&str> {
        match &self.0 {
            Shape::LocalId(_) => None,
            Shape::Reference { repository, .. } => Some(repository),
        }
    }

    /// Returns the tag, where one is given.
    pub fn tag(&self) -> Option<&str> {
        match &self.0 {
            Shape::LocalId(_) => None,
            Shape::Reference { tag, .. } => tag.as_deref(),
        }
    }

    /// Returns the digest, `sha256:` and 64 hex digits, where one is given.
    pub fn digest(&self) -> Option<&str> {
        match &self.0 {
            Shape::LocalId(_) => None,
            Shape::Reference { digest, .. } => digest.as_deref(),
        }
    }

    /// Returns the id of a local image, `sha256:` and 64 hex digits; none for a reference.
    pub fn local_id(&self) -> Option<&str> {
        match &self.0 {
            Shape::LocalId(id) => Some(id),
            Shape::Reference { .. } => None,
        }
    }

    /// Tells whether the name can only ever mean one content: it has a digest or is a local id.
    pub fn is_pinned(&self) -> bool {
        self.local_id().or(self.digest()).is_some()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Shape::LocalId(id) => f.write_str(id),
            Shape::Reference { registry, repository, tag, digest } => {
                if let Some(registry) = registry {
                    write!(f, "{registry}/")?;
                }
                f.write_str(repository)?;
                if let Some(tag) = tag {
                    write!(f, ":{tag}")?;
                }
                digest.iter().try_for_each(|digest| write!(f, "@{digest}"))
            }
        }
    }
}

impl FromStr for ImageRef {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map(Self).map_err(|allowed| ParseError::new(KIND, text, allowed))
    }
}

string_form!(ImageRef);

fn parse(text: &str) -> Result<Shape, &'static str> {
    if is_digest(text) {
        return Ok(Shape::LocalId(text.to_owned()));
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) if is_digest(digest) => (rest, Some(digest)),
        Some(_) => return Err(DIGEST_FORM),
        None => (text, None),
    };
    let (registry, rest) = match rest.split_once('/') {
        Some((first, rest)) if is_registry_like(first) => (Some(first), rest),
        _ => (None, rest),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    if registry.is_some_and(|registry| !is_registry(registry)) {
        return Err("the registry is a host name, perhaps with :port");
    }
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err("the tag has 1 to 128 of A-Z a-z 0-9 _ . -, and starts with none of . -");
    }
    if !path.split('/').all(is_component) {
        return Err(PATH_FORM);
    }
    if registry.map_or(0, str::len) + 1 + path.len() > MAX_NAME {
        return Err("the registry and the path together have at most 255 characters");
    }
    if registry.is_none() && (path == "sha256" || is_hex(path)) {
        return Err("write the id of a local image as sha256: and 64 lower-case hex digits");
    }
    Ok(Shape::Reference {
        registry: registry.map(str::to_owned),
        repository: path.to_owned(),
        tag: tag.map(str::to_owned),
        digest: digest.map(str::to_owned),
    })
}

/// The first part is a registry if no path component could look like it.
fn is_registry_like(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (registry, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_port =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0);
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_component(component: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [component.bytes().next(), component.bytes().next_back()];
    ends.into_iter().all(|end| end.is_some_and(is_word))
        && component.bytes().all(|byte| is_word(byte) || b"._-".contains(&byte))
        && component
            .split(|character: char| character.is_ascii_alphanumeric())
            .all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_hex)
}

fn is_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

const KIND: &str = "an image";
const DIGEST_FORM: &str = "after @ comes sha256: and 64 lower-case hex digits";
const PATH_FORM: &str = "write [registry[:port]/]path[:tag][@sha256:…]; each part of the path has a-z 0-9, \
                         with . _ __ or hyphens only between";
const MAX_NAME: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;

    fn hex() -> String {
        "0123456789abcdef".repeat(4)
    }

    #[test]
    fn reads_the_parts() {
        let text = format!("ghcr.io:443/a/b__c:v1.2@sha256:{}", hex());
        let image: ImageRef = text.parse().unwrap();
        assert_eq!(image.registry(), Some("ghcr.io:443"));
        assert_eq!(image.repository(), Some("a/b__c"));
        assert_eq!(image.tag(), Some("v1.2"));
        assert_eq!(image.digest().map(str::len), Some(71));
        assert!(image.is_pinned());
        assert_eq!(image.to_string(), text);
    }

    #[test]
    fn reads_a_local_id() {
        let text = format!("sha256:{}", hex());
        let image: ImageRef = text.parse().unwrap();
        assert_eq!(image.local_id(), Some(text.as_str()));
        assert_eq!((image.repository(), image.registry(), image.tag()), (None, None, None));
        assert!(image.is_pinned());
    }

    #[test]
    fn tells_a_registry_from_a_path() {
        for (text, registry, repository) in [
            ("debian", None, "debian"),
            ("debian:12", None, "debian"),
            ("library/debian", None, "library/debian"),
            ("localhost/x", Some("localhost"), "x"),
            ("localhost:5000/x:1", Some("localhost:5000"), "x"),
            ("10.0.0.1/x", Some("10.0.0.1"), "x"),
            ("Host/x", Some("Host"), "x"),
        ] {
            let image: ImageRef = text.parse().unwrap();
            assert_eq!((image.registry(), image.repository()), (registry, Some(repository)), "{text}");
            assert!(!image.is_pinned());
            assert_eq!(image.to_string(), text);
        }
    }

    #[test]
    fn refuses_the_rest() {
        let hex = hex();
        let refused = [
            "",
            ":",
            "@",
            "/",
            "a/",
            "/a",
            "a//b",
            "Debian",
            "a:",
            "a:.x",
            "a:-x",
            "a b",
            "a@",
            "a@sha256:12",
            "a@md5:12",
            "-a",
            "a-",
            "a___b",
            "a..b",
            "a._b",
            "host.x:0/a",
            "host.x:99999/a",
            "host.x:/a",
            "-h.x/a",
            "h..x/a",
            "[::1]:5000/a",
            "sha256:1234",
            "sha256",
            "http://a/b",
            "--privileged",
            "a\nb",
            "é",
            "a:b:c",
        ];
        for text in refused {
            assert!(text.parse::<ImageRef>().is_err(), "{text}");
        }
        assert!(hex.parse::<ImageRef>().is_err());
        assert!(format!("sha256:{}", hex.to_uppercase()).parse::<ImageRef>().is_err());
        assert!(format!("a@sha256:{hex}@sha256:{hex}").parse::<ImageRef>().is_err());
        assert!("a".repeat(256).parse::<ImageRef>().is_err());
        assert!(format!("a:{}", "t".repeat(129)).parse::<ImageRef>().is_err());
    }
}
