//! Which variables reach what runs as root.
//!
//! Root starts with an environment of its own. What is kept or set beside it must not be able to choose what a program
//! loads, reads or runs: so names are listed, and values are words.

use super::{Keep, SudoCall, Variable};
use crate::SudoRule;
use crate::parse::clip;

/// Returns the variables that a call is given; of two of one name, the later one counts.
///
/// # Errors
/// The reason, where one that was named may not be given.
pub(super) fn granted(rule: SudoRule, call: &SudoCall, environment: &[Variable]) -> Result<Vec<Variable>, String> {
    let mut granted = Vec::new();
    for variable in environment {
        let wanted = match &call.keep {
            _ if is_listed(&FEW, &variable.0) => true,
            Keep::All => true,
            Keep::Few => false,
            Keep::Named(names) => names.contains(&variable.0),
        };
        let named = matches!(&call.keep, Keep::Named(names) if names.contains(&variable.0));
        match weigh(rule, variable) {
            Ok(()) if wanted => granted.push(variable.clone()),
            Err(reason) if named => return Err(reason),
            // As sudo does where all are asked for, what may not be kept is left behind.
            Ok(()) | Err(_) => {}
        }
    }
    for variable in &call.assignments {
        weigh(rule, variable)?;
        granted.push(variable.clone());
    }
    Ok(granted)
}

/// Tells why a variable may not be given.
fn weigh(rule: SudoRule, (name, value): &Variable) -> Result<(), String> {
    let shown = clip(&String::from_utf8_lossy(name));
    if is_listed(&ROOTS_OWN, name) {
        return Err(format!("variable \"{shown}\" is root's own"));
    }
    if rule == SudoRule::Any {
        return Ok(());
    }
    if !is_listed(&FEW, name) && !is_listed(&HARMLESS, name) {
        return Err(format!("variable \"{shown}\" is not known to be harmless"));
    }
    if value.len() > MAX_VALUE || !value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_.-@:,=".contains(byte)) {
        return Err(format!("variable \"{shown}\" may be a word of A-Z a-z 0-9 _ . - @ : , = alone"));
    }
    Ok(())
}

/// A name with `*` at its end stands for all that begin like it.
fn is_listed(list: &[&str], name: &[u8]) -> bool {
    list.iter().any(|listed| match listed.strip_suffix('*') {
        Some(start) => name.starts_with(start.as_bytes()),
        None => listed.as_bytes() == name,
    })
}

/// What is always kept: how to speak to a terminal, and in which language.
const FEW: [&str; 6] = ["COLORTERM", "LANG", "LANGUAGE", "LC_*", "NO_COLOR", "TERM"];

/// What may be kept or set where it is asked for: how installers ask and report.
const HARMLESS: [&str; 12] = [
    "APT_LISTCHANGES_FRONTEND",
    "CI",
    "DEBCONF_NONINTERACTIVE_SEEN",
    "DEBIAN_FRONTEND",
    "DEBIAN_PRIORITY",
    "NEEDRESTART_MODE",
    "NEEDRESTART_SUSPEND",
    "PIP_BREAK_SYSTEM_PACKAGES",
    "PIP_DISABLE_PIP_VERSION_CHECK",
    "PIP_NO_CACHE_DIR",
    "PIP_ROOT_USER_ACTION",
    "SOURCE_DATE_EPOCH",
];

/// What says who root is and where root finds programs, and what the loader obeys.
const ROOTS_OWN: [&str; 14] = [
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "HOME",
    "LD_*",
    "LOGNAME",
    "MAIL",
    "PATH",
    "PWD",
    "SHELL",
    "SUDO_COMMAND",
    "SUDO_GID",
    "SUDO_UID",
    "SUDO_USER",
    "USER",
];

/// The longest value, in bytes.
const MAX_VALUE: usize = 128;
