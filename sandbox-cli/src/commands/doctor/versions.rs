//! Which versions there are of what sandboxes stand on, and what is known against them.

use std::process::Stdio;
use std::time::Duration;

use sandbox_runtime::advisories;
use serde::Serialize;

use crate::render::escaped;

/// A program, its version, and the flaws that this version has.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Installed {
    program: String,
    version: String,
    /// Where it was found.
    at: String,
    /// `None` where the version says nothing.
    advisories: Option<Vec<Known>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Known {
    cve: &'static str,
    /// The first release without it, of each line.
    fixed: Vec<String>,
    source: &'static str,
}

impl Installed {
    pub(super) fn new(program: &str, version: &str, at: &str) -> Self {
        let known = advisories(program, version).map(|all| {
            let known = all.into_iter().map(|advisory| {
                let fixed = advisory.fixed.iter().map(|[major, minor, patch]| format!("{major}.{minor}.{patch}"));
                Known { cve: advisory.cve, fixed: fixed.collect(), source: advisory.source }
            });
            known.collect()
        });
        Self { program: program.to_owned(), version: version.to_owned(), at: at.to_owned(), advisories: known }
    }

    pub(super) fn text(&self) -> String {
        let (program, version, at) = (&self.program, escaped(&self.version), escaped(&self.at));
        let head = format!("{program} {version} ({at})");
        match &self.advisories {
            None => format!("{head}: nothing can be told by this version\n"),
            Some(known) if known.is_empty() => format!("{head}: nothing known against it\n"),
            Some(known) => {
                let lines = known.iter().map(|Known { cve, fixed, source }| {
                    format!("{head}: {cve}, fixed in {}; see {source}, or your distribution\n", fixed.join(", "))
                });
                lines.collect()
            }
        }
    }
}

/// Asks the programs on the path.
pub(super) async fn installed() -> Vec<Installed> {
    let mut found = Vec::new();
    for program in ["containerd", "crun", "git", "runc"] {
        let mut command = tokio::process::Command::new(program);
        command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let Ok(Ok(output)) = tokio::time::timeout(PATIENCE, command.output()).await else { continue };
        let text = String::from_utf8_lossy(&output.stdout);
        found.push(Installed::new(program, version(&text), "on the path"));
    }
    found
}

/// The version in a program's first line: `git version NUMBER` and the like, or containerd's own `containerd WHERE vNUMBER REVISION`.
fn version(text: &str) -> &str {
    let word = text.lines().next().and_then(|line| line.split_whitespace().nth(2)).unwrap_or_default();
    word.strip_prefix('v').unwrap_or(word)
}

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_says_its_version_in_its_own_words() {
        for (text, found) in [
            ("git version 2.39.5\n", "2.39.5"),
            ("runc version 1.1.5+ds1\ncommit: x\n", "1.1.5+ds1"),
            ("crun version 1.8.1\ncommit: x\n", "1.8.1"),
            ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1\n", "1.6.20~ds1"),
            ("containerd github.com/containerd/containerd v1.7.13 7c3aca7a\n", "1.7.13"),
            ("", ""),
        ] {
            assert_eq!(version(text), found);
        }
    }
}
