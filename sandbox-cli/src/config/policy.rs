//! Which policy holds: the user's choice, within what the machine's owner allows.

use std::fmt;
use std::path::{Path, PathBuf};

use sandbox_core::ErrorKind;
use sandbox_policy::{Control, PRESETS, Policy};

use super::{Config, Environment, read};
use crate::failure::{Failure, Result};

/// A policy, and where it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    pub(crate) policy: Policy,
    pub(crate) origin: Origin,
    /// The file of the machine's owner that it was met with.
    pub(crate) ceiling: Option<PathBuf>,
}

/// Where a policy comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    File(PathBuf),
    Preset(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Preset(name) => write!(f, "the preset {name}"),
        }
    }
}

impl Config {
    /// Reads the policy that was chosen: a preset or a file, else the user's own file, else `standard`. Where the machine's
    /// owner has written a policy, it can only tighten the choice.
    pub(crate) fn policy(&self, choice: Option<&str>, waive: &[Control]) -> Result<Chosen> {
        self.environment.policy(choice, waive)
    }

    /// Remembers which policy was chosen.
    pub(super) fn standing(&self, chosen: &Chosen, waive: &[Control]) -> Result<Standing> {
        let choice = match &chosen.origin {
            Origin::Preset(name) => name.clone(),
            Origin::File(path) => {
                let path = std::path::absolute(path)
                    .map_err(|error| Failure::io(format!("cannot tell where {} is", path.display()), error))?;
                path.to_str().map(str::to_owned).ok_or_else(|| {
                    Failure::new(ErrorKind::InvalidInput, format!("the path {} is no text", path.display()))
                })?
            }
        };
        Ok(Standing { environment: self.environment.clone(), choice, waive: waive.to_vec() })
    }
}

/// A policy as it was chosen, to be read again later and from another directory.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    environment: Environment,
    choice: String,
    waive: Vec<Control>,
}

impl Standing {
    /// Reads the policy as it is by now. Which one that is was chosen for good.
    pub(crate) fn policy(&self) -> Result<Policy> {
        Ok(self.environment.policy(Some(&self.choice), &self.waive)?.policy)
    }
}

impl Chosen {
    /// Reads a policy as it stands, with no other.
    pub(crate) fn alone(choice: &str) -> Result<Self> {
        let (policy, origin) = named(choice)?;
        Ok(Self { policy, origin, ceiling: None })
    }
}

impl Environment {
    fn policy(&self, choice: Option<&str>, waive: &[Control]) -> Result<Chosen> {
        let (policy, origin) = match choice {
            Some(choice) => named(choice)?,
            None => self.own()?,
        };
        let policy = waive.iter().fold(policy, |policy, control| policy.with_waived(*control));
        let Some(ceiling) = from_file(&self.ceiling)? else { return Ok(Chosen { policy, origin, ceiling: None }) };
        let forbidden: Vec<&str> = waive
            .iter()
            .filter(|control| !ceiling.waived().contains(control))
            .map(|control| control.as_str())
            .collect();
        if !forbidden.is_empty() {
            let message = format!("--waive {} is not allowed on this machine", forbidden.join(" --waive "));
            return Err(Failure::new(ErrorKind::Policy, message)
                .with_hint(format!("{} says what may be waived here", self.ceiling.display())));
        }
        Ok(Chosen { policy: ceiling.meet(&policy), origin, ceiling: Some(self.ceiling.clone()) })
    }

    /// The user's own policy.
    fn own(&self) -> Result<(Policy, Origin)> {
        let home = || self.home.as_ref().map(|home| PathBuf::from(home).join(".config"));
        let directory = self.xdg_config_home.as_ref().map(PathBuf::from).or_else(home);
        if let Some(path) = directory.map(|directory| directory.join("sandbox/policy.toml"))
            && let Some(policy) = from_file(&path)?
        {
            return Ok((policy, Origin::File(path)));
        }
        Ok((Policy::standard(), Origin::Preset("standard".to_owned())))
    }
}

fn named(choice: &str) -> Result<(Policy, Origin)> {
    if let Some(policy) = Policy::preset(choice) {
        return Ok((policy, Origin::Preset(choice.to_owned())));
    }
    let path = Path::new(choice);
    match from_file(path)? {
        Some(policy) => Ok((policy, Origin::File(path.to_owned()))),
        None => Err(Failure::new(ErrorKind::NotFound, format!("policy {choice:?} is neither a preset nor a file"))
            .with_hint(format!("presets are {}", PRESETS.join(", ")))),
    }
}

fn from_file(path: &Path) -> Result<Option<Policy>> {
    let text = read(path).map_err(|error| Failure::io(format!("cannot read the policy {}", path.display()), error))?;
    let Some(text) = text else { return Ok(None) };
    let policy = Policy::from_toml(&text).map_err(|error| {
        Failure::new(ErrorKind::InvalidInput, format!("policy {} is not valid", path.display())).with_cause(error)
    })?;
    Ok(Some(policy))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use sandbox_policy::NetworkRule;

    use super::*;

    #[test]
    fn the_owner_of_the_machine_can_only_tighten() {
        let directory = tempfile::tempdir().unwrap();
        let ceiling = directory.path().join("ceiling.toml");
        let environment = Environment { ceiling: ceiling.clone(), ..Environment::default() };
        let free = environment.policy(Some("standard"), &[Control::Disk]).unwrap();
        assert_eq!((free.policy.network(), free.ceiling), (NetworkRule::Egress, None));

        fs::write(&ceiling, "version = 1\nname = [\"host\"]\nnetwork = \"none\"\nwaive = [\"disk\"]\n").unwrap();
        let met = environment.policy(Some("standard"), &[Control::Disk]).unwrap();
        assert_eq!(met.policy.network(), NetworkRule::None);
        assert_eq!(met.policy.name(), "host ∧ standard");
        assert!(met.policy.waived().contains(&Control::Disk));

        let refused = environment.policy(Some("standard"), &[Control::Seccomp]).unwrap_err();
        assert!(refused.message.contains("--waive seccomp"), "{refused:?}");

        fs::write(&ceiling, "nonsense").unwrap();
        assert!(environment.policy(None, &[]).unwrap_err().message.contains("ceiling.toml"));
    }

    #[test]
    fn the_users_own_policy_is_the_default() {
        let directory = tempfile::tempdir().unwrap();
        let environment = Environment {
            xdg_config_home: Some(directory.path().into()),
            ceiling: directory.path().join("none"),
            ..Environment::default()
        };
        assert_eq!(environment.policy(None, &[]).unwrap().origin, Origin::Preset("standard".into()));
        let own = directory.path().join("sandbox/policy.toml");
        fs::create_dir(directory.path().join("sandbox")).unwrap();
        fs::write(&own, "version = 1\nbase = \"maximum\"\nname = [\"mine\"]\n").unwrap();
        let chosen = environment.policy(None, &[]).unwrap();
        assert_eq!((chosen.policy.name().as_str(), chosen.origin), ("mine", Origin::File(own)));
        assert_eq!(environment.policy(Some("maximum"), &[]).unwrap().policy.name(), "maximum");
        assert!(environment.policy(Some("maximal"), &[]).unwrap_err().hint.as_ref().unwrap().contains("maximum"));
    }
}
