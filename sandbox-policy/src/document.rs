//! The document form of a policy: TOML in which every key is known and every value is a word.
//!
//! Invariant: a document means the same as the policy it prints: reading what
//! [`Policy::to_toml`] wrote gives an equal policy. Nothing is skipped: a key that is not known is
//! an error, since a limit that is misspelt would be no limit.

mod credential;
mod egress;
mod error;
mod table;

use std::collections::BTreeSet;
use std::fmt::Write;

use table::Table;
use toml::de::DeTable;

use crate::{
    Control, CoverPath, CpuCount, ImageRule, Limits, OpenFiles, PRESETS, ParseError, Policy, PolicyName, ProcessCount,
    Scope, TokenRule, WorkspaceKind,
};

pub use error::DocumentError;

/// The most bytes that a document may have.
pub const MAX_DOCUMENT_BYTES: usize = 64 * 1024;

impl Policy {
    /// Reads a policy from its document form.
    ///
    /// `version = 1` is required; a key that is absent takes the value of the preset that `base`
    /// names, `standard` if it names none. A byte order mark at the start is skipped.
    ///
    /// ```
    /// use sandbox_policy::Policy;
    ///
    /// let policy = Policy::from_toml("version = 1\nbase = \"maximum\"\n[limits]\ncpus = 1.5\n")?;
    /// assert_eq!(policy.limits().cpus.to_string(), "1.5");
    ///
    /// let error = Policy::from_toml("version = 1\n[limits]\nmemory = \"1Gi\"\n").unwrap_err();
    /// assert_eq!((error.line(), error.key()), (3, Some("limits.memory")));
    /// # Ok::<(), sandbox_policy::DocumentError>(())
    /// ```
    ///
    /// # Errors
    /// The first thing that is wrong, with its line, its column, what was given and what is
    /// allowed.
    pub fn from_toml(text: &str) -> Result<Self, DocumentError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.len() > MAX_DOCUMENT_BYTES {
            let message = format!("{} bytes are too many: write at most 65536", text.len());
            return Err(DocumentError::new(text, 0, None, message));
        }
        let root = DeTable::parse(text).map_err(|error| DocumentError::syntax(text, &error))?;
        let root = Table::root(text, root.get_ref());
        check_version(&root)?;
        root.allow_only(&TOP_KEYS)?;

        let base = match root.string::<Preset>("base")? {
            Some(Preset(policy)) => policy,
            None => Self::standard(),
        };
        let names = match root.strings::<PolicyName>("name")? {
            Some(names) if names.is_empty() => {
                return Err(root.refuse("name", "[] has no name: write one"));
            }
            Some(names) => names,
            None => vec![PolicyName::known(UNNAMED)],
        };
        let (egress, egress_budget) = egress::read(&root, base.egress, base.egress_budget)?;
        Ok(Self {
            sources: names.into_iter().collect(),
            sandboxes: root.string("sandboxes")?.unwrap_or(base.sandboxes),
            root: root.string("root")?.unwrap_or(base.root),
            network: root.string("network")?.unwrap_or(base.network),
            egress,
            egress_budget,
            credentials: credential::read(&root, base.credentials)?,
            sudo: root.string("sudo")?.unwrap_or(base.sudo),
            user_namespace: root.string("user-namespace")?.unwrap_or(base.user_namespace),
            isolation: root.string("isolation")?.unwrap_or(base.isolation),
            workspace: root.string("workspace")?.unwrap_or(base.workspace),
            workspace_kinds: match root.strings::<WorkspaceKind>("workspace-kinds")? {
                Some(kinds) => kinds.into_iter().collect(),
                None => base.workspace_kinds,
            },
            workspace_protected: read_covers(&root, "workspace-protected", base.workspace_protected)?,
            workspace_covered: read_covers(&root, "workspace-covered", base.workspace_covered)?,
            waived: match root.strings::<Control>("waive")? {
                Some(controls) => controls.into_iter().collect(),
                None => base.waived,
            },
            limits: read_limits(&root, base.limits)?,
            image: read_image(&root, base.image)?,
            token: read_token(&root, base.token)?,
        })
    }

    /// Writes the policy in its document form, with every key, so that no preset matters to it.
    pub fn to_toml(&self) -> String {
        let Self {
            sources,
            sandboxes,
            limits: Limits { cpus, memory, disk, processes, open_files, lifetime },
            root,
            network,
            egress,
            egress_budget,
            credentials,
            sudo,
            user_namespace,
            isolation,
            image: ImageRule { require_digest, pull },
            workspace,
            workspace_kinds,
            workspace_protected,
            workspace_covered,
            token: TokenRule { scopes, classic, lifetime: token_lifetime, require_protected_default_branch },
            waived,
        } = self;
        let mut text = String::from("version = 1\n");
        let mut line = |line: std::fmt::Arguments<'_>| {
            // Writing to a String cannot fail.
            let _ = text.write_fmt(line);
            text.push('\n');
        };
        line(format_args!("name = [{}]", quoted(sources)));
        line(format_args!("sandboxes = \"{sandboxes}\""));
        line(format_args!("root = \"{root}\""));
        line(format_args!("network = \"{network}\""));
        line(format_args!("sudo = \"{sudo}\""));
        line(format_args!("user-namespace = \"{user_namespace}\""));
        line(format_args!("isolation = \"{isolation}\""));
        line(format_args!("workspace = \"{workspace}\""));
        line(format_args!("workspace-kinds = [{}]", quoted(workspace_kinds)));
        line(format_args!("workspace-protected = [{}]", quoted(workspace_protected)));
        line(format_args!("workspace-covered = [{}]", quoted(workspace_covered)));
        line(format_args!("waive = [{}]", quoted(waived)));
        if credentials.is_empty() {
            line(format_args!("credentials = []"));
        }
        line(format_args!("\n[limits]\ncpus = {cpus}"));
        line(format_args!("memory = \"{memory}\""));
        line(format_args!("disk = \"{disk}\""));
        line(format_args!("processes = {processes}"));
        line(format_args!("open-files = {open_files}"));
        line(format_args!("lifetime = \"{lifetime}\""));
        line(format_args!("\n[image]\ndigest = \"{require_digest}\""));
        line(format_args!("pull = \"{pull}\""));
        line(format_args!("\n[token]\nscopes = [{}]", quoted(scopes)));
        line(format_args!("classic = \"{classic}\""));
        line(format_args!("lifetime = \"{token_lifetime}\""));
        line(format_args!("protected-default-branch = \"{require_protected_default_branch}\""));
        egress::write(egress, *egress_budget, &mut text);
        credential::write(credentials, &mut text);
        text
    }
}

fn check_version(root: &Table<'_>) -> Result<(), DocumentError> {
    match root.number::<Version>("version")? {
        Some(Version) => Ok(()),
        None => Err(root.refuse("version", "is absent: write version = 1")),
    }
}

fn read_covers(root: &Table<'_>, key: &str, base: BTreeSet<CoverPath>) -> Result<BTreeSet<CoverPath>, DocumentError> {
    Ok(root.strings::<CoverPath>(key)?.map_or(base, |paths| paths.into_iter().collect()))
}

fn read_limits(root: &Table<'_>, base: Limits) -> Result<Limits, DocumentError> {
    let Some(limits) = root.section("limits")? else {
        return Ok(base);
    };
    limits.allow_only(&LIMIT_KEYS)?;
    Ok(Limits {
        cpus: limits.number::<CpuCount>("cpus")?.unwrap_or(base.cpus),
        memory: limits.string("memory")?.unwrap_or(base.memory),
        disk: limits.string("disk")?.unwrap_or(base.disk),
        processes: limits.number::<ProcessCount>("processes")?.unwrap_or(base.processes),
        open_files: limits.number::<OpenFiles>("open-files")?.unwrap_or(base.open_files),
        lifetime: limits.string("lifetime")?.unwrap_or(base.lifetime),
    })
}

fn read_image(root: &Table<'_>, base: ImageRule) -> Result<ImageRule, DocumentError> {
    let Some(image) = root.section("image")? else {
        return Ok(base);
    };
    image.allow_only(&IMAGE_KEYS)?;
    Ok(ImageRule {
        require_digest: image.string("digest")?.unwrap_or(base.require_digest),
        pull: image.string("pull")?.unwrap_or(base.pull),
    })
}

fn read_token(root: &Table<'_>, base: TokenRule) -> Result<TokenRule, DocumentError> {
    let Some(token) = root.section("token")? else {
        return Ok(base);
    };
    token.allow_only(&TOKEN_KEYS)?;
    Ok(TokenRule {
        scopes: match token.strings::<Scope>("scopes")? {
            Some(scopes) => scopes.into_iter().collect(),
            None => base.scopes,
        },
        classic: token.string("classic")?.unwrap_or(base.classic),
        lifetime: token.string("lifetime")?.unwrap_or(base.lifetime),
        require_protected_default_branch: token
            .string("protected-default-branch")?
            .unwrap_or(base.require_protected_default_branch),
    })
}

/// Lists words in quotes; none of them holds a quote or a backslash.
fn quoted<T: ToString>(words: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("\"{}\"", word.to_string())).collect();
    words.join(", ")
}

/// The only version of the form that there is.
struct Version;

impl std::str::FromStr for Version {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "1" => Ok(Self),
            _ => Err(ParseError::new("a version that is known here", text, "write 1")),
        }
    }
}

/// A preset, by its name.
struct Preset(Policy);

impl std::str::FromStr for Preset {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Policy::preset(text).map(Self).ok_or_else(|| {
            let allowed = format!("write one of {}", PRESETS.join(" "));
            ParseError::new("a preset", text, allowed)
        })
    }
}

const UNNAMED: &str = "unnamed";
const TOP_KEYS: [&str; 19] = [
    "version",
    "name",
    "base",
    "sandboxes",
    "root",
    "network",
    "sudo",
    "user-namespace",
    "isolation",
    "workspace",
    "workspace-kinds",
    "workspace-protected",
    "workspace-covered",
    "waive",
    "limits",
    "image",
    "token",
    "egress",
    "credentials",
];
const LIMIT_KEYS: [&str; 6] = ["cpus", "memory", "disk", "processes", "open-files", "lifetime"];
const IMAGE_KEYS: [&str; 2] = ["digest", "pull"];
const TOKEN_KEYS: [&str; 4] = ["scopes", "classic", "lifetime", "protected-default-branch"];

#[cfg(test)]
mod tests;
