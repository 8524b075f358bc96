//! What a credential is bound to: the secret itself is known to nobody here.
//!
//! Invariant: a binding is one host by its exact name, and one place in a request; joining policies keeps a binding only if
//! both of them say the same of it.

mod name;
mod placement;
mod shape;

use std::collections::{BTreeMap, BTreeSet};

pub use name::CredentialName;
pub use placement::{BasicUser, HeaderField, Placement};
pub use shape::PlaceholderShape;

use crate::{EnvName, Host, Method, PathPattern};

/// Binds a credential: programs inside hold a placeholder, which a gateway exchanges for the secret on its way to one
/// host, in one place of a request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Credential {
    host: Host,
    placement: Placement,
    variable: EnvName,
    shape: PlaceholderShape,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    methods: BTreeSet<Method>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    paths: BTreeSet<PathPattern>,
}

/// Holds bindings, each under the name that its secret is known by.
pub type Credentials = BTreeMap<CredentialName, Credential>;

impl Credential {
    /// Binds a credential to a host on port 443 and to a place in every request to it. The placeholder is in the variable,
    /// inside.
    pub fn new(host: Host, placement: Placement, variable: EnvName) -> Self {
        Self {
            host,
            placement,
            variable,
            shape: PlaceholderShape::default(),
            methods: BTreeSet::new(),
            paths: BTreeSet::new(),
        }
    }

    /// Sets what the placeholder looks like.
    #[must_use]
    pub fn with_shape(mut self, shape: PlaceholderShape) -> Self {
        self.shape = shape;
        self
    }

    /// Binds it to requests of these methods alone.
    #[must_use]
    pub fn with_methods(mut self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.methods = methods.into_iter().collect();
        self
    }

    /// Binds it to requests for these paths alone.
    #[must_use]
    pub fn with_paths(mut self, paths: impl IntoIterator<Item = PathPattern>) -> Self {
        self.paths = paths.into_iter().collect();
        self
    }

    /// Returns the host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the place in a request.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Returns the variable that holds the placeholder inside.
    pub fn variable(&self) -> &EnvName {
        &self.variable
    }

    /// Returns what the placeholder looks like.
    pub fn shape(&self) -> &PlaceholderShape {
        &self.shape
    }

    /// Tells whether a destination is the one that the credential is for.
    pub fn is_for(&self, host: &Host, port: u16) -> bool {
        *host == self.host && port == PORT
    }

    /// Tells whether a request to its host may carry the secret.
    pub fn covers(&self, method: &str, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|allowed| allowed.as_str() == method))
            && (self.paths.is_empty() || self.paths.iter().any(|allowed| allowed.matches(path)))
    }

    /// Writes the lines of its document form.
    pub(crate) fn document(&self, name: &CredentialName) -> String {
        let Self { host, placement, variable, shape, methods, paths } = self;
        let place = match placement {
            Placement::Basic { user } => format!("basic = \"{user}\""),
            Placement::Header { name } => format!("header = \"{name}\""),
        };
        let words = |key: &str, words: Vec<String>| match words.as_slice() {
            [] => String::new(),
            words => format!("{key} = [\"{}\"]\n", words.join("\", \"")),
        };
        let (prefix, length) = (shape.prefix(), shape.length());
        format!(
            "name = \"{name}\"\nhost = \"{host}\"\n{place}\nvariable = \"{variable}\"\nprefix = \"{prefix}\"\nlength = {length}\n{}{}",
            words("methods", methods.iter().map(ToString::to_string).collect()),
            words("paths", paths.iter().map(ToString::to_string).collect()),
        )
    }
}

/// Keeps the bindings that both say the same of.
pub(crate) fn meet(one: &Credentials, other: &Credentials) -> Credentials {
    let same = |(name, binding): &(&CredentialName, &Credential)| other.get(*name) == Some(*binding);
    one.iter().filter(same).map(|(name, binding)| (name.clone(), binding.clone())).collect()
}

/// Tells whether every binding is one of the other's.
pub(crate) fn is_within(one: &Credentials, other: &Credentials) -> bool {
    one.iter().all(|(name, binding)| other.get(name) == Some(binding))
}

/// A secret travels in TLS alone.
const PORT: u16 = 443;

#[cfg(test)]
mod tests {
    use super::*;

    fn credential() -> Credential {
        let header = Placement::Header { name: "x-api-key".parse().unwrap() };
        Credential::new("api.example.org".parse().unwrap(), header, "MODEL_KEY".parse().unwrap())
    }

    #[test]
    fn a_binding_covers_its_host_and_its_requests() {
        let bound = credential().with_methods(["POST".parse().unwrap()]).with_paths(["/v1/*".parse().unwrap()]);
        assert!(bound.is_for(&"api.example.org".parse().unwrap(), 443));
        assert!(!bound.is_for(&"api.example.org".parse().unwrap(), 80));
        assert!(!bound.is_for(&"a.api.example.org".parse().unwrap(), 443));
        assert!(bound.covers("POST", "/v1/messages?beta=true"));
        assert!(
            !bound.covers("GET", "/v1/messages") && !bound.covers("POST", "/v2") && !bound.covers("POST", "/v1/../x")
        );
        assert!(credential().covers("PUT", "/anything"));
    }

    #[test]
    fn only_what_both_say_stays() {
        let name = |text: &str| text.parse::<CredentialName>().unwrap();
        let one = Credentials::from([(name("model"), credential()), (name("only"), credential())]);
        let wider = Credentials::from([(name("model"), credential()), (name("other"), credential())]);
        let different = Credentials::from([(name("model"), credential().with_methods(["GET".parse().unwrap()]))]);
        assert_eq!(meet(&one, &wider).keys().map(ToString::to_string).collect::<Vec<_>>(), ["model"]);
        assert!(meet(&one, &different).is_empty() && !is_within(&one, &different));
        assert!(is_within(&meet(&one, &wider), &one) && is_within(&meet(&one, &wider), &wider));
    }
}
