//! What root inside may do to the kernel's mind.

use std::collections::BTreeSet;

use crate::parse::words;
use crate::{SandboxSpec, SudoRule};

words! {
    /// Names a capability of the kernel's (capabilities(7)) that root inside may have.
    LinuxCapability is "a capability of root inside" {
        /// Give files to others.
        Chown = "CHOWN",
        /// Read and write what permission bits forbid.
        DacOverride = "DAC_OVERRIDE",
        /// Change what others' files are.
        Fowner = "FOWNER",
        /// Signal what others run.
        Kill = "KILL",
        /// Be of any group.
        Setgid = "SETGID",
        /// Give up capabilities for good.
        Setpcap = "SETPCAP",
        /// Be any user.
        Setuid = "SETUID",
    }
}

impl LinuxCapability {
    /// Returns its number, which is its bit in each set.
    pub const fn number(self) -> u32 {
        match self {
            Self::Chown => 0,
            Self::DacOverride => 1,
            Self::Fowner => 3,
            Self::Kill => 5,
            Self::Setgid => 6,
            Self::Setuid => 7,
            Self::Setpcap => 8,
        }
    }
}

/// The capabilities of what runs as root because the agent asked for it: without any one of them, apt fails to install or does
/// so with warnings. `CHOWN`, `DAC_OVERRIDE` and `FOWNER` let dpkg write and give away what packages hold; `SETGID` and
/// `SETUID` let apt become the user that fetches.
pub const SUDO_CAPABILITIES: [LinuxCapability; 5] = [
    LinuxCapability::Chown,
    LinuxCapability::DacOverride,
    LinuxCapability::Fowner,
    LinuxCapability::Setgid,
    LinuxCapability::Setuid,
];

/// What the guest needs to become the agent and to end it.
const GUEST_CAPABILITIES: [LinuxCapability; 4] =
    [LinuxCapability::Kill, LinuxCapability::Setgid, LinuxCapability::Setpcap, LinuxCapability::Setuid];

impl SandboxSpec {
    /// Returns the capabilities that the guest, and nothing else, has: those by which it becomes the agent and ends it, and
    /// those of sudo where the agent may ask for it.
    pub fn capabilities(&self) -> BTreeSet<LinuxCapability> {
        let sudo = SUDO_CAPABILITIES.into_iter().filter(|_| self.sudo() != SudoRule::Deny);
        GUEST_CAPABILITIES.into_iter().chain(sudo).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        let bits =
            |list: &[LinuxCapability]| list.iter().fold(0_u64, |bits, capability| bits | 1 << capability.number());
        assert_eq!(bits(&SUDO_CAPABILITIES), 0xcb);
        assert_eq!(bits(&GUEST_CAPABILITIES), 0x1e0);
        assert_eq!(bits(LinuxCapability::ALL).count_ones(), 7);
    }
}
