//! Versions with known ways out, in one place.
//!
//! Only releases of the makers are known here: a distribution may have mended an older one, and says so in its own advisories.

/// A flaw, and the first releases without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Advisory {
    /// The program: `containerd`, `crun`, `docker`, `git`, `podman` or `runc`.
    pub program: &'static str,
    /// The flaw's number.
    pub cve: &'static str,
    /// The first release without it, of each line that got one; the last also stands for all lines after it.
    pub fixed: &'static [[u32; 3]],
    /// Who says so.
    pub source: &'static str,
}

/// The advisories that a version of a program falls under; none where the version cannot be read, which is `None`.
pub fn advisories(program: &str, version: &str) -> Option<Vec<&'static Advisory>> {
    let version = parse(version)?;
    Some(ADVISORIES.iter().filter(|advisory| advisory.program == program && advisory.covers(version)).collect())
}

impl Advisory {
    fn covers(&self, version: [u32; 3]) -> bool {
        let line = self.fixed.iter().find(|fixed| fixed[..2] == version[..2]);
        line.or(self.fixed.last()).is_some_and(|fixed| version < *fixed)
    }
}

/// The first three numbers of a version, whatever follows them.
fn parse(version: &str) -> Option<[u32; 3]> {
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    let mut numbers = version[..end].split('.').filter(|number| !number.is_empty()).map(str::parse);
    let mut next = || numbers.next().unwrap_or(Ok(0)).ok();
    version.starts_with(|c: char| c.is_ascii_digit()).then(|| Some([next()?, next()?, next()?]))?
}

const ADVISORIES: [Advisory; 12] = [
    Advisory {
        program: "containerd",
        cve: "CVE-2024-40635",
        fixed: &[[1, 6, 38], [1, 7, 27], [2, 0, 4]],
        source: "https://github.com/containerd/containerd/security/advisories/GHSA-265r-hfxg-fhmg",
    },
    Advisory {
        program: "containerd",
        cve: "CVE-2024-25621",
        fixed: &[[1, 7, 29], [2, 0, 7], [2, 1, 5], [2, 2, 0]],
        source: "https://github.com/containerd/containerd/security/advisories/GHSA-pwhc-rpq9-4c8w",
    },
    Advisory {
        program: "crun",
        cve: "CVE-2022-27650",
        fixed: &[[1, 4, 4]],
        source: "https://github.com/containers/crun/blob/main/NEWS",
    },
    Advisory {
        program: "crun",
        cve: "CVE-2025-24965",
        fixed: &[[1, 20, 0]],
        source: "https://github.com/containers/crun/blob/main/NEWS",
    },
    Advisory {
        program: "crun",
        cve: "CVE-2026-30892",
        fixed: &[[1, 27, 0]],
        source: "https://github.com/containers/crun/blob/main/NEWS",
    },
    Advisory {
        program: "crun",
        cve: "CVE-2026-47766",
        fixed: &[[1, 28, 0]],
        source: "https://github.com/containers/crun/blob/main/NEWS",
    },
    Advisory {
        program: "runc",
        cve: "CVE-2024-21626",
        fixed: &[[1, 1, 12]],
        source: "https://github.com/opencontainers/runc/security/advisories/GHSA-xr7r-f8xq-vfvv",
    },
    Advisory {
        program: "runc",
        cve: "CVE-2025-31133",
        fixed: &[[1, 2, 8], [1, 3, 3], [1, 4, 0]],
        source: "https://github.com/opencontainers/runc/security/advisories/GHSA-9493-h29p-rfm2",
    },
    Advisory {
        program: "docker",
        cve: "CVE-2024-29018",
        fixed: &[[23, 0, 11], [25, 0, 5], [26, 0, 0]],
        source: "https://github.com/moby/moby/security/advisories/GHSA-mq39-4gv4-mvpx",
    },
    Advisory {
        program: "docker",
        cve: "CVE-2024-41110",
        fixed: &[[23, 0, 15], [25, 0, 6], [26, 1, 5], [27, 1, 1]],
        source: "https://github.com/moby/moby/security/advisories/GHSA-v23v-6jw2-98fq",
    },
    Advisory {
        program: "podman",
        cve: "CVE-2024-1753",
        fixed: &[[4, 9, 4], [5, 0, 1]],
        source: "https://github.com/containers/podman/security/advisories/GHSA-874v-pj72-92f3",
    },
    Advisory {
        program: "git",
        cve: "CVE-2025-48384",
        fixed: &[[2, 43, 7], [2, 44, 4], [2, 45, 4], [2, 46, 4], [2, 47, 3], [2, 48, 2], [2, 49, 1], [2, 50, 1]],
        source: "https://github.com/git/git/security/advisories/GHSA-vwqx-4fm8-6qc9",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn found(program: &str, version: &str) -> Vec<&'static str> {
        advisories(program, version).unwrap().iter().map(|advisory| advisory.cve).collect()
    }

    #[test]
    fn each_line_has_its_own_first_good_release() {
        assert_eq!(found("runc", "1.1.11"), ["CVE-2024-21626", "CVE-2025-31133"]);
        assert_eq!(found("runc", "1.1.12"), ["CVE-2025-31133"]);
        for (good, bad) in [("1.2.8", "1.2.7"), ("1.3.3", "1.3.2")] {
            assert_eq!((found("runc", good).len(), found("runc", bad).len()), (0, 1), "{good}");
        }
        assert_eq!(found("docker", "20.10.24+dfsg1").len(), 2);
        assert!(found("docker", "28.2.2").is_empty() && found("git", "2.47.3").is_empty());
        assert_eq!(found("git", "2.39.5"), ["CVE-2025-48384"]);
    }

    #[test]
    fn what_engines_stand_on_is_known_as_well() {
        let crun = ["CVE-2022-27650", "CVE-2025-24965", "CVE-2026-30892", "CVE-2026-47766"];
        for (version, first) in
            [("1.4.3", 0), ("1.4.4", 1), ("1.19.1", 1), ("1.20", 2), ("1.26", 2), ("1.27.1", 3), ("1.28", 4)]
        {
            assert_eq!(found("crun", version), crun[first..], "{version}");
        }
        assert_eq!(found("containerd", "1.6.20~ds1"), ["CVE-2024-40635", "CVE-2024-25621"]);
        for (version, known) in
            [("1.6.38", 1), ("1.7.26", 2), ("1.7.28", 1), ("1.7.29", 0), ("2.0.7", 0), ("2.1.4", 1), ("2.2.0", 0)]
        {
            assert_eq!(found("containerd", version).len(), known, "{version}");
        }
    }

    #[test]
    fn a_flaw_is_named_once_and_its_releases_in_order() {
        for (index, advisory) in ADVISORIES.iter().enumerate() {
            assert!(advisory.fixed.is_sorted() && !advisory.fixed.is_empty(), "{advisory:?}");
            assert!(advisory.source.starts_with("https://"), "{advisory:?}");
            let again =
                ADVISORIES[..index].iter().any(|other| (other.cve, other.program) == (advisory.cve, advisory.program));
            assert!(!again, "{advisory:?}");
        }
    }

    #[test]
    fn what_is_no_version_is_not_taken_for_a_good_one() {
        for text in ["", "dev", "v", "99999999999.1"] {
            assert_eq!(advisories("git", text), None, "{text:?}");
        }
        assert_eq!(parse("5.3"), Some([5, 3, 0]));
        assert_eq!(parse("2.50.1.windows.1"), Some([2, 50, 1]));
    }
}
