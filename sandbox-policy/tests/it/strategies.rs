//! Arbitrary policies, requests and capabilities, each part loose often enough to be accepted.

use std::collections::BTreeSet;

use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use sandbox_policy::{
    Access, Allowlist, Budget, Bundle, ByteSize, Capabilities, ClassicRule, Control, CoverPath, CpuCount, Credential,
    CredentialName, DigestRule, Egress, EgressRule, EnvName, EnvValue, GuestPath, History, HostPath, ImageRef,
    ImageRule, Isolation, Limits, LimitsRequest, Method, NetworkRequest, NetworkRule, OpenFiles, PathPattern,
    Permission, PlaceholderShape, Placement, Policy, PolicyName, ProcessCount, ProtectionRule, PullRule, RepoId,
    RootFilesystem, RootRule, SandboxRequest, Scope, Span, SudoRequest, SudoRule, Support, TokenCarries, TokenFacts,
    TokenForm, TokenLife, TokenPermissions, TokenReach, TokenRule, UserNamespaceRule, Workspace, WorkspaceKind,
    WorkspaceRule, WorkspaceSource,
};

/// Makes mostly the first of some words, and now and then any of them.
fn mostly<T>(word: T, all: &'static [T]) -> impl Strategy<Value = T>
where
    T: Copy + std::fmt::Debug + 'static,
{
    prop_oneof![3 => Just(word), 1 => select(all)]
}

/// Makes values of a parsed type from a list of texts that all parse.
fn parsed<T>(texts: &'static [&'static str]) -> impl Strategy<Value = T>
where
    T: std::str::FromStr + std::fmt::Debug,
{
    select(texts).prop_filter_map("a text that parses", |text| text.parse().ok())
}

fn cpus() -> impl Strategy<Value = CpuCount> {
    parsed(&["0.001", "0.01", "0.5", "1", "1.999", "2", "8", "4000000"])
}

fn size() -> impl Strategy<Value = ByteSize> {
    parsed(&["0B", "1048575B", "1MiB", "16MiB", "17825793B", "1GiB", "4GiB", "32GiB", "1TiB", "9223372036854775807B"])
}

fn processes() -> impl Strategy<Value = ProcessCount> {
    parsed(&["1", "7", "8", "100", "512", "4294967295"])
}

fn open_files() -> impl Strategy<Value = OpenFiles> {
    parsed(&["1", "63", "64", "1000", "1024", "4294967295"])
}

fn lifetime() -> impl Strategy<Value = Span> {
    parsed(&["0s", "1s", "61s", "8h", "30d", "4294967295s"])
}

pub(crate) fn limits() -> impl Strategy<Value = Limits> {
    (cpus(), size(), size(), processes(), open_files(), lifetime()).prop_map(
        |(cpus, memory, disk, processes, open_files, lifetime)| Limits {
            cpus,
            memory,
            disk,
            processes,
            open_files,
            lifetime,
        },
    )
}

fn limits_request() -> impl Strategy<Value = LimitsRequest> {
    let rarely = 0.03;
    (
        option::weighted(rarely, cpus()),
        option::weighted(rarely, size()),
        option::weighted(rarely, size()),
        option::weighted(rarely, processes()),
        option::weighted(rarely, open_files()),
        option::weighted(rarely, lifetime()),
    )
        .prop_map(|(cpus, memory, disk, processes, open_files, lifetime)| LimitsRequest {
            cpus,
            memory,
            disk,
            processes,
            open_files,
            lifetime,
        })
}

fn policy_limits() -> impl Strategy<Value = Limits> {
    let standard = *Policy::standard().limits();
    prop_oneof![1 => limits(), 4 => Just(standard)]
}

fn image_rule() -> impl Strategy<Value = ImageRule> {
    (mostly(DigestRule::Optional, DigestRule::ALL), select(PullRule::ALL))
        .prop_map(|(require_digest, pull)| ImageRule { require_digest, pull })
}

fn scopes() -> impl Strategy<Value = BTreeSet<Scope>> {
    let any = subsequence(Scope::ALL, 0..=Scope::ALL.len()).prop_map(|scopes| scopes.into_iter().collect());
    prop_oneof![3 => Just(BTreeSet::from([Scope::Repo])), 1 => any]
}

fn token_rule() -> impl Strategy<Value = TokenRule> {
    (scopes(), mostly(ClassicRule::Allow, ClassicRule::ALL), lifetime(), select(ProtectionRule::ALL)).prop_map(
        |(scopes, classic, lifetime, require_protected_default_branch)| TokenRule {
            scopes,
            classic,
            lifetime,
            require_protected_default_branch,
        },
    )
}

fn token_facts() -> impl Strategy<Value = TokenFacts> {
    let life = prop_oneof![
        9 => lifetime().prop_map(TokenLife::Ends),
        1 => Just(TokenLife::Never),
        1 => Just(TokenLife::Unreadable),
        1 => Just(TokenLife::Unasked),
    ];
    let carries = prop_oneof![
        2 => scopes().prop_map(|scopes| TokenCarries::Permissions(TokenPermissions::of(&scopes))),
        1 => Just(TokenCarries::Unknown),
        1 => Just(TokenCarries::Scopes(vec!["repo".to_owned()])),
    ];
    (select(TokenForm::ALL), life, select(TokenReach::ALL), carries)
        .prop_map(|(form, life, reach, carries)| TokenFacts { form, life, reach, carries })
}

fn budget() -> impl Strategy<Value = Budget> {
    (option::weighted(0.3, size()), option::weighted(0.3, 1..9_u32)).prop_map(|(bytes, rate)| Budget { bytes, rate })
}

fn egress_rule() -> impl Strategy<Value = EgressRule> {
    let host =
        select(&["a.example.org", "*.example.org", "*.b.example.org", "x.b.example.org", "192.0.2.7", "[2001:db8::7]"]);
    (
        host,
        subsequence(vec![22_u16, 80, 443], 1..=3),
        subsequence(vec!["GET", "POST"], 0..=2),
        subsequence(vec!["/a/*", "/a/b/*", "/a/b/c"], 0..=2),
        subsequence(vec!["10.0.0.5", "192.0.2.7"], 0..=2),
        budget(),
    )
        .prop_filter_map("a rule that can be made", |(host, ports, methods, paths, addresses, budget)| {
            let rule = EgressRule::new(host.parse().ok()?)
                .with_ports(ports)
                .with_methods(methods.into_iter().filter_map(|word| word.parse::<Method>().ok()))
                .with_paths(paths.into_iter().filter_map(|word| word.parse::<PathPattern>().ok()))
                .with_budget(budget);
            if host.starts_with('*') {
                return Some(rule);
            }
            rule.with_addresses(addresses.into_iter().filter_map(|address| address.parse().ok())).ok()
        })
}

pub(crate) fn egress() -> impl Strategy<Value = Egress> {
    let list = (subsequence(Bundle::ALL, 0..=2), proptest::collection::btree_set(egress_rule(), 0..4))
        .prop_map(|(bundles, rules)| Allowlist { bundles: bundles.into_iter().collect(), rules });
    prop_oneof![
        1 => Just(Egress::None),
        2 => Just(Egress::Open),
        2 => Just(Egress::bundles()),
        5 => proptest::collection::btree_set(list, 0..3).prop_map(Egress::lists),
    ]
}

fn credential() -> impl Strategy<Value = (CredentialName, Credential)> {
    (
        parsed::<CredentialName>(&["model", "registry"]),
        select(&["api.example.org", "192.0.2.7"]),
        option::of(Just("user")),
        option::weighted(0.3, Just("POST")),
        option::weighted(0.3, Just("/v1/*")),
        option::weighted(0.3, Just("sk-")),
    )
        .prop_filter_map("a binding that can be made", |(name, host, user, method, path, prefix)| {
            let placement = match user {
                Some(user) => Placement::Basic { user: user.parse().ok()? },
                None => Placement::Header { name: "x-api-key".parse().ok()? },
            };
            let bound = Credential::new(host.parse().ok()?, placement, "KEY".parse().ok()?)
                .with_shape(PlaceholderShape::new(prefix.unwrap_or(""), 50).ok()?)
                .with_methods(method.into_iter().filter_map(|word| word.parse().ok()))
                .with_paths(path.into_iter().filter_map(|word| word.parse().ok()));
            Some((name, bound))
        })
}

pub(crate) fn policy() -> impl Strategy<Value = Policy> {
    let names = parsed::<PolicyName>(&["host", "user", "ci/x 2", "a@b:c+d", "standard"]);
    let permission = mostly(Permission::Allow, Permission::ALL);
    let all = Just(WorkspaceKind::ALL.to_vec());
    let covers = || proptest::collection::vec(parsed::<CoverPath>(&[".vscode/", ".envrc", "a/b"]), 0..3);
    let kinds = prop_oneof![3 => all, 1 => subsequence(WorkspaceKind::ALL, 0..=WorkspaceKind::ALL.len())];
    (
        (names, permission, policy_limits(), image_rule()),
        mostly(RootRule::Writable, RootRule::ALL),
        mostly(NetworkRule::Egress, NetworkRule::ALL),
        mostly(SudoRule::Any, SudoRule::ALL),
        (select(UserNamespaceRule::ALL), mostly(Isolation::Standard, Isolation::ALL)),
        (mostly(WorkspaceRule::ReadWrite, WorkspaceRule::ALL), kinds, covers(), covers()),
        (
            subsequence(Control::ALL, 0..=Control::ALL.len()),
            token_rule(),
            (egress(), budget()),
            proptest::collection::vec(credential(), 0..3),
        ),
    )
        .prop_map(
            |(
                (name, permission, limits, image),
                root,
                network,
                sudo,
                (users, isolation),
                (workspace, kinds, protected, covered),
                (waived, token, (egress, budget), credentials),
            )| {
                let policy = Policy::standard()
                    .with_name(name)
                    .with_sandboxes(permission)
                    .with_limits(limits)
                    .with_root(root)
                    .with_network(network)
                    .with_egress(egress)
                    .with_egress_budget(budget)
                    .with_sudo(sudo)
                    .with_user_namespace(users)
                    .with_isolation(isolation)
                    .with_image(image)
                    .with_workspace(workspace)
                    .with_workspace_kinds(kinds)
                    .with_workspace_protected(protected)
                    .with_workspace_covered(covered)
                    .with_token(token);
                let policy =
                    credentials.into_iter().fold(policy, |policy, (name, bound)| policy.with_credential(name, bound));
                waived.into_iter().fold(policy, Policy::with_waived)
            },
        )
}

fn workspace() -> impl Strategy<Value = Workspace> {
    let host = || parsed::<HostPath>(&["/work/x", "/home/u/p", "/root/x", "/tmp/x", "/etc/x"]);
    let source = prop_oneof![
        (host(), select(Access::ALL)).prop_map(|(host, access)| WorkspaceSource::Bind { host, access }),
        host().prop_map(|host| WorkspaceSource::Copy { host }),
        parsed(&["o/n", "/work/x", "/etc/x"])
            .prop_map(|source| WorkspaceSource::Clone { source, history: History::Full }),
        parsed(&["a", "b"]).prop_map(|name| WorkspaceSource::Volume { name }),
    ];
    (source, parsed::<GuestPath>(&["/workspace", "/home/agent", "/tmp/x", "/opt/x", "/usr"]))
        .prop_map(|(source, guest)| Workspace { source, guest })
}

pub(crate) fn request() -> impl Strategy<Value = SandboxRequest> {
    let image = parsed::<ImageRef>(&[
        "debian:12",
        "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "a.b/c@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    ]);
    (
        image,
        option::of(parsed::<RepoId>(&["owner/name", "o/.github"])),
        option::weighted(0.2, workspace()),
        limits_request(),
        (option::weighted(0.2, select(RootFilesystem::ALL)), option::weighted(0.1, select(Isolation::ALL))),
        mostly(NetworkRequest::None, NetworkRequest::ALL),
        (
            mostly(SudoRequest::Deny, SudoRequest::ALL),
            (option::weighted(0.3, scopes()), option::weighted(0.2, token_facts())),
            option::weighted(0.03, egress()),
            option::weighted(0.02, parsed::<CredentialName>(&["model", "registry"])),
        ),
        option::of((parsed::<EnvName>(&["A", "PATH"]), "[a-z]{0,9}")),
    )
        .prop_map(
            |(
                image,
                repository,
                workspace,
                limits,
                (root, isolation),
                network,
                (sudo, (scopes, token), egress, credential),
                variable,
            )| {
                let mut request = SandboxRequest::new(image);
                request.repository = repository;
                request.workspace = workspace;
                request.limits = limits;
                request.root = root;
                request.isolation = isolation;
                request.network = network;
                request.sudo = sudo;
                request.scopes = scopes.filter(|_| request.repository.is_some()).unwrap_or_default();
                request.token = token;
                request.egress = egress;
                request.credentials =
                    credential.into_iter().filter(|_| request.network == NetworkRequest::Egress).collect();
                request.environment = variable
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, EnvValue::try_from(value).ok()?)))
                    .collect();
                request
            },
        )
}

/// Makes reports in which most controls are enforced, and some are not or are left out.
pub(crate) fn capabilities() -> impl Strategy<Value = Capabilities> {
    (subsequence(Control::ALL, 0..=2), subsequence(Control::ALL, 0..=2)).prop_map(|(unsupported, absent)| {
        let absent: BTreeSet<Control> = absent.into_iter().collect();
        Control::ALL.iter().filter(|control| !absent.contains(control)).fold(Capabilities::new(), |all, control| {
            let support = if unsupported.contains(control) {
                Support::Unsupported { why: "a test".to_owned(), hint: "none".to_owned() }
            } else {
                Support::Enforced { by: "a test".to_owned() }
            };
            all.with(*control, support)
        })
    })
}
