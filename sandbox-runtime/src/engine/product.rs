//! Which product speaks Docker's API, where that makes a difference.

use bollard::models::SystemVersion;
use sandbox_core::Result;

use super::Endpoint;
use super::connect::unfit;
use super::error::one_line;

/// A product whose reports are understood here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Product {
    /// Docker, by whatever vendor.
    Docker,
    /// Podman, by its Docker-compatible service.
    Podman,
}

impl Product {
    /// Names the product that answers, if it is one that is wanted and new enough.
    pub(crate) fn of(endpoint: &Endpoint, version: &SystemVersion, wanted: Option<Self>) -> Result<Self> {
        let components = version.components.iter().flatten();
        let podman = components.map(|component| component.name.as_str()).any(|name| name.starts_with("Podman"));
        let product = if podman { Self::Podman } else { Self::Docker };
        if wanted.is_some_and(|wanted| wanted != product) {
            let what = format!("is {}", product.title());
            return Err(unfit(endpoint, &what, &format!("connect to it with {}Runtime", product.title())));
        }
        let (said, what, least, hint) = match product {
            Self::Docker => {
                let hint = "use Docker 20.10 or newer, which speaks 1.41";
                (version.api_version.as_deref(), "speaks version", LEAST_API, hint)
            }
            Self::Podman => (version.version.as_deref(), "is Podman", LEAST_PODMAN, "use Podman 4.3 or newer"),
        };
        let said = said.unwrap_or_default();
        let number = |part: Option<&str>| part.and_then(|part| part.parse::<u32>().ok());
        let mut parts = said.split('.');
        match (number(parts.next()), number(parts.next())) {
            (Some(major), Some(minor)) if (major, minor) >= least => Ok(product),
            _ => {
                let of = if product == Self::Docker { " of Docker's API" } else { "" };
                Err(unfit(endpoint, &format!("{what} {:?}{of}", one_line(said)), hint))
            }
        }
    }

    /// Returns its name, as its command is called.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// Returns its name, as people write it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Docker => "Docker",
            Self::Podman => "Podman",
        }
    }
}

/// Docker 20.10: the first with private control group namespaces and with error numbers in seccomp rules.
const LEAST_API: (u32, u32) = (1, 41);
/// The oldest Podman that the contract is kept on.
const LEAST_PODMAN: (u32, u32) = (4, 3);

#[cfg(test)]
mod tests {
    use bollard::models::SystemVersionComponents;
    use sandbox_core::ErrorKind;

    use super::*;

    fn version(api: &str, component: &str, version: &str) -> SystemVersion {
        SystemVersion {
            api_version: Some(api.to_owned()),
            version: Some(version.to_owned()),
            components: Some(vec![SystemVersionComponents { name: component.to_owned(), ..Default::default() }]),
            ..Default::default()
        }
    }

    fn of(version: &SystemVersion, wanted: Option<Product>) -> Result<Product> {
        Product::of(&Endpoint::Unix("/x".into()), version, wanted)
    }

    #[test]
    fn each_product_is_known_by_its_components() {
        for (api, component, number, product) in [
            ("1.41", "Engine", "20.10.24", Product::Docker),
            ("2.0", "Engine", "99.0", Product::Docker),
            ("1.41", "Podman Engine", "4.3.1", Product::Podman),
            ("1.41", "Podman Engine", "5.0.0-rc1", Product::Podman),
        ] {
            let version = version(api, component, number);
            assert_eq!(of(&version, None).unwrap(), product);
            assert_eq!(of(&version, Some(product)).unwrap(), product);
        }
    }

    #[test]
    fn the_other_product_is_refused_with_the_name_of_its_runtime() {
        let error = of(&version("1.41", "Podman Engine", "4.3.1"), Some(Product::Docker)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::EngineUnavailable);
        assert!(error.hint().unwrap().contains("PodmanRuntime"), "{error:?}");
        let error = of(&version("1.41", "Engine", "20.10.24"), Some(Product::Podman)).unwrap_err();
        assert!(error.hint().unwrap().contains("DockerRuntime"), "{error:?}");
    }

    #[test]
    fn what_is_too_old_is_refused() {
        for (api, component, number) in [
            ("1.40", "Engine", "19.03"),
            ("", "Engine", ""),
            ("x.y", "Engine", "1.0"),
            ("1.41", "Podman Engine", "4.2.9"),
            ("1.41", "Podman Engine", "x"),
        ] {
            let error = of(&version(api, component, number), None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::EngineUnavailable, "{error}");
            assert!(error.hint().is_some());
        }
    }
}
