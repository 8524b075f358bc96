//! A policy in words, for people.

use crate::{
    AddressRule, Allowlist, Budget, ClassicRule, CoverPath, DigestRule, Egress, ImageRule, Isolation, Limits,
    NetworkRule, Permission, Policy, ProtectionRule, PullRule, RootRule, SudoRule, TokenRule, UserNamespaceRule,
    WorkspaceRule,
};

/// Says what one part of a policy is set to and what that means.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Explanation {
    /// The key, as it stands in a document: `limits.memory`.
    pub field: &'static str,
    /// What it is set to: `4GiB`.
    pub value: String,
    /// What that means for a sandbox.
    pub meaning: &'static str,
}

impl Policy {
    /// Explains every part of the policy, in the order of its document.
    ///
    /// The policy is taken apart in full, so a new part does not compile until it is explained.
    pub fn explain(&self) -> Vec<Explanation> {
        let Self {
            sources: _,
            sandboxes,
            limits: Limits { cpus, memory, disk, processes, open_files, lifetime },
            root,
            network,
            egress,
            egress_budget: Budget { bytes: egress_bytes, rate: egress_rate },
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
        let part = |field, value: &dyn ToString, meaning| Explanation { field, value: value.to_string(), meaning };
        vec![
            part("name", &self.name(), "how the policy is called in reports"),
            part("sandboxes", sandboxes, explain_sandboxes(*sandboxes)),
            part("root", root, explain_root(*root)),
            part("network", network, explain_network(*network)),
            part("egress.reach", &egress.reach(), explain_egress(egress)),
            part("egress.bundles", &bundles(egress), "registries that may be reached, by one word each"),
            part(
                "egress.rules",
                &rules(egress),
                "hosts that may be reached, with their ports, and addresses that are not public",
            ),
            part(
                "egress.addresses",
                &addresses(egress),
                "whether an address that is not public and that a rule names counts",
            ),
            part(
                "egress.bytes",
                &at_most(*egress_bytes),
                "the most that the sandbox moves in both directions, to every host together",
            ),
            part(
                "egress.rate",
                &at_most(*egress_rate),
                "the most new connections and requests a minute, to every host together",
            ),
            part(
                "credentials",
                &listed(
                    credentials.iter().map(|(name, bound)| format!("{name}:{}({})", bound.host(), bound.placement())),
                ),
                "secrets that a gateway adds on the way to one host, and that nothing inside holds",
            ),
            part("sudo", sudo, explain_sudo(*sudo)),
            part("user-namespace", user_namespace, explain_user_namespace(*user_namespace)),
            part("isolation", isolation, explain_isolation(*isolation)),
            part("workspace", workspace, explain_workspace(*workspace)),
            part(
                "workspace-kinds",
                &listed(workspace_kinds.iter().map(|kind| kind.as_str())),
                "what a workspace may be: a mounted directory, a copy of one, a clone, or a kept volume",
            ),
            part(
                "workspace-protected",
                &listed(workspace_protected.iter().map(CoverPath::as_str)),
                "in a mounted workspace these are neither changed nor made",
            ),
            part(
                "workspace-covered",
                &listed(workspace_covered.iter().map(CoverPath::as_str)),
                "in place of these a mounted workspace has the sandbox's own, and the host's are not seen",
            ),
            part(
                "waive",
                &listed(waived.iter().map(|control| control.as_str())),
                "controls that a sandbox may be without where they cannot be enforced",
            ),
            part("limits.cpus", cpus, "the most processor time at once, in CPUs"),
            part("limits.memory", memory, "the most memory, with no swap beside it"),
            part("limits.disk", disk, "the most that is written to the sandbox's own file system"),
            part("limits.processes", processes, "the most processes and threads at once"),
            part("limits.open-files", open_files, "the most open files of each process"),
            part("limits.lifetime", lifetime, "the time after which the sandbox is ended"),
            part("image.digest", require_digest, explain_digest(*require_digest)),
            part("image.pull", pull, explain_pull(*pull)),
            part(
                "token.scopes",
                &listed(scopes.iter().map(|scope| scope.as_str())),
                "what the repository's token may at most be used for",
            ),
            part("token.classic", classic, explain_classic(*classic)),
            part("token.lifetime", token_lifetime, "how long a token may at most still live, give or take a day"),
            part(
                "token.protected-default-branch",
                require_protected_default_branch,
                explain_protection(*require_protected_default_branch),
            ),
        ]
    }
}

fn explain_sandboxes(rule: Permission) -> &'static str {
    match rule {
        Permission::Allow => "a request is weighed against the rest of the policy",
        Permission::Deny => "every request is refused",
    }
}

fn explain_root(rule: RootRule) -> &'static str {
    match rule {
        RootRule::ReadOnly => "the root file system cannot be written; a few places in memory can",
        RootRule::Writable => "the root file system may be written, up to the disk limit",
    }
}

fn explain_network(rule: NetworkRule) -> &'static str {
    match rule {
        NetworkRule::Egress => "allowed destinations may be reached through the egress gateway",
        NetworkRule::None => "nothing outside the sandbox can be reached",
    }
}

fn explain_egress(egress: &Egress) -> &'static str {
    match egress {
        Egress::None => "no destination is allowed",
        Egress::Allowlist { .. } => {
            "a destination must be listed, and what is not public must be named with its address"
        }
        Egress::Open => "every public host is allowed, so what the agent sees may leave",
    }
}

/// The bundles of each list; where policies were joined, a destination must be on every list.
fn bundles(egress: &Egress) -> String {
    in_each(egress, |list| list.bundles.iter().map(ToString::to_string).collect())
}

fn rules(egress: &Egress) -> String {
    in_each(egress, |list| list.rules.iter().map(ToString::to_string).collect())
}

fn addresses(egress: &Egress) -> AddressRule {
    match egress {
        Egress::None | Egress::Open => AddressRule::Public,
        Egress::Allowlist { addresses, .. } => *addresses,
    }
}

fn at_most(limit: Option<impl ToString>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

fn in_each(egress: &Egress, words: impl Fn(&Allowlist) -> Vec<String>) -> String {
    let Egress::Allowlist { lists, .. } = egress else { return NOTHING.to_owned() };
    let of_list = |list| match words(list) {
        words if words.is_empty() => NOTHING.to_owned(),
        words => words.join(" "),
    };
    let lists: Vec<String> = lists.iter().map(of_list).collect();
    if lists.is_empty() { NOTHING.to_owned() } else { lists.join(" ∧ ") }
}

fn explain_sudo(rule: SudoRule) -> &'static str {
    match rule {
        SudoRule::Any => "the agent may run anything as root inside, and the host decides and records",
        SudoRule::Deny => "the agent never has root, not even inside",
        SudoRule::Packages => "the agent may install packages as root inside, and the host decides and records",
    }
}

fn explain_user_namespace(rule: UserNamespaceRule) -> &'static str {
    match rule {
        UserNamespaceRule::Optional => "root inside may be root of the host to the kernel",
        UserNamespaceRule::Required => "root inside must be nobody on the host",
    }
}

fn explain_isolation(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Gvisor => "system calls must be answered by gVisor, a kernel of the sandbox's own",
        Isolation::Standard => "system calls may be answered by the host's kernel, behind a filter",
    }
}

fn explain_workspace(rule: WorkspaceRule) -> &'static str {
    match rule {
        WorkspaceRule::None => "no directory of the host may be mounted",
        WorkspaceRule::ReadOnly => "a directory of the host may be mounted for reading",
        WorkspaceRule::ReadWrite => "a directory of the host may be mounted and written",
    }
}

fn explain_digest(rule: DigestRule) -> &'static str {
    match rule {
        DigestRule::Optional => "an image may be named by a tag, whose content may change",
        DigestRule::Required => "an image must be named by its digest or its local id",
    }
}

fn explain_pull(rule: PullRule) -> &'static str {
    match rule {
        PullRule::IfMissing => "an image that the engine lacks is fetched from its registry",
        PullRule::Never => "an image is never fetched: the engine must have it",
    }
}

fn explain_classic(rule: ClassicRule) -> &'static str {
    match rule {
        ClassicRule::Allow => "a token that is good for all repositories of its user will do",
        ClassicRule::Deny => "a token that is good for all repositories of its user is refused",
    }
}

fn explain_protection(rule: ProtectionRule) -> &'static str {
    match rule {
        ProtectionRule::Optional => "the default branch need not be protected",
        ProtectionRule::Required => "there is no token unless the default branch is known to be protected",
    }
}

fn listed<T: Into<String>>(words: impl Iterator<Item = T>) -> String {
    let words: Vec<String> = words.map(Into::into).collect();
    if words.is_empty() { NOTHING.to_owned() } else { words.join(" ") }
}

const NOTHING: &str = "nothing";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Control;

    fn value_of(policy: &Policy, field: &str) -> String {
        let mut parts = policy.explain().into_iter();
        parts.find(|part| part.field == field).unwrap().value
    }

    #[test]
    fn explains_what_is_set() {
        let policy = Policy::maximum();
        assert_eq!(value_of(&policy, "root"), "read-only");
        assert_eq!(value_of(&policy, "limits.memory"), "4GiB");
        assert_eq!(value_of(&policy, "waive"), "nothing");
        let policy = policy.with_waived(Control::Disk).with_waived(Control::Cpu);
        assert_eq!(value_of(&policy, "waive"), "cpu disk");
    }

    #[test]
    fn every_key_of_a_document_is_explained() {
        let fields: Vec<&str> = Policy::standard().explain().iter().map(|part| part.field).collect();
        let mut section = String::new();
        for line in Policy::standard().to_toml().lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = format!("{}.", name.trim_end_matches(']'));
            } else if let Some((key, _)) = line.split_once(" = ")
                && key != "version"
            {
                assert!(fields.contains(&format!("{section}{key}").as_str()), "{section}{key}");
            }
        }
    }
}
