//! Decisions, by table.

use std::collections::BTreeSet;

use sandbox_policy::{
    Access, ByteSize, Capabilities, Control, Decision, DigestRule, GuestPath, History, ImageRule, Isolation,
    NetworkRequest, NetworkRule, Policy, PullRule, RootFilesystem, SandboxRequest, SandboxSpec, Scope, SudoRequest,
    SudoRule, Support, TokenRule, UserNamespaceRule, Violation, Workspace, WorkspaceKind, WorkspaceRule,
    WorkspaceSource,
};

#[cfg(test)]
mod make {
    use super::*;

    pub(super) fn request() -> SandboxRequest {
        SandboxRequest::new("debian:12".parse().unwrap())
    }

    pub(super) fn workspace(host: &str, guest: &str, access: Access) -> Workspace {
        Workspace::bind(host.parse().unwrap(), guest.parse().unwrap(), access)
    }

    pub(super) fn everything_enforced() -> Capabilities {
        Control::ALL
            .iter()
            .fold(Capabilities::new(), |all, control| all.with(*control, Support::Enforced { by: "a test".to_owned() }))
    }

    pub(super) fn without(control: Control) -> Capabilities {
        let support = Support::Unsupported { why: "it is old".to_owned(), hint: "renew it".to_owned() };
        everything_enforced().with(control, support)
    }

    pub(super) fn accepted(policy: &Policy, request: &SandboxRequest) -> SandboxSpec {
        policy.check(request, &everything_enforced()).unwrap()
    }

    pub(super) fn refused(policy: &Policy, request: &SandboxRequest) -> Vec<String> {
        let error = policy.check(request, &everything_enforced()).unwrap_err();
        error.violations().iter().map(ToString::to_string).collect()
    }
}

use make::{accepted, everything_enforced, refused, request, without, workspace};

#[test]
fn every_default_is_filled_in() {
    let policy = Policy::standard();
    let spec = accepted(&policy, &request());
    assert_eq!(spec.policy_name(), "standard");
    assert_eq!(spec.limits(), policy.limits());
    assert_eq!(spec.pull(), PullRule::IfMissing);
    assert_eq!(spec.agent(), None);
    assert_eq!(spec.root(), RootFilesystem::Writable);
    assert_eq!(spec.network(), NetworkRequest::None);
    assert_eq!(spec.sudo(), SudoRule::Deny);
    assert_eq!(spec.user_namespace(), UserNamespaceRule::Required);
    assert!(spec.tmpfs().is_empty() && spec.environment().is_empty() && spec.waived().is_empty());
    assert_eq!((spec.repository(), spec.branch(), spec.workspace()), (None, None, None));
}

#[test]
fn each_wish_needs_its_controls() {
    let always = BTreeSet::from([
        Control::AgentUser,
        Control::CapabilityDrop,
        Control::Cpu,
        Control::Disk,
        Control::HostFilesystem,
        Control::Memory,
        Control::NoNetwork,
        Control::NoNewPrivileges,
        Control::OpenFiles,
        Control::Pids,
        Control::Seccomp,
        Control::WallClock,
    ]);
    let policy = Policy::standard().with_user_namespace(UserNamespaceRule::Optional);
    assert_eq!(*accepted(&policy, &request()).required(), always);

    let more = |policy: &Policy, request: &SandboxRequest| -> Vec<Control> {
        accepted(policy, request).required().difference(&always).copied().collect()
    };
    let mut egress = request();
    egress.network = NetworkRequest::Egress;
    assert_eq!(more(&policy, &egress), [Control::EgressAllowlist]);
    let mut sudo = request();
    sudo.sudo = SudoRequest::Allow;
    assert_eq!(more(&policy, &sudo), [Control::Sudo]);
    let mut read_only = request();
    read_only.root = Some(RootFilesystem::ReadOnly);
    assert_eq!(more(&policy, &read_only), [Control::ReadonlyRootfs]);
    let mut token = request();
    token.repository = Some("owner/name".parse().unwrap());
    assert_eq!(more(&policy, &token), []);
    token.scopes = BTreeSet::from([Scope::Repo]);
    assert_eq!(more(&policy, &token), [Control::ShortLivedToken, Control::TokenScope]);
    assert_eq!(more(&Policy::standard(), &request()), [Control::UserNamespace]);
}

#[test]
fn a_scope_is_granted_by_its_name_alone_and_for_a_repository() {
    let mut asked = request();
    asked.scopes = Scope::ALL.iter().copied().collect();
    assert_eq!(
        refused(&Policy::standard(), &asked),
        [
            "scopes: asked for secrets workflow, allowed is repo",
            "scopes: asked for repo secrets workflow, allowed is none without a repository",
        ]
    );
    asked.repository = Some("owner/name".parse().unwrap());
    let all =
        Policy::standard().with_token(TokenRule { scopes: asked.scopes.clone(), ..Policy::standard().token().clone() });
    assert_eq!(accepted(&all, &asked).scopes(), &asked.scopes);
    let none =
        Policy::standard().with_token(TokenRule { scopes: BTreeSet::new(), ..Policy::standard().token().clone() });
    assert_eq!(refused(&none, &asked), ["scopes: asked for repo secrets workflow, allowed is none"]);
}

#[test]
fn every_needed_control_is_missed_when_it_is_not_enforced() {
    let mut all = request();
    all.network = NetworkRequest::Egress;
    all.sudo = SudoRequest::Allow;
    all.root = Some(RootFilesystem::ReadOnly);
    all.repository = Some("owner/name".parse().unwrap());
    all.scopes = BTreeSet::from([Scope::Repo]);
    let policy = Policy::standard();
    let needed = accepted(&policy, &all).required().clone();
    assert_eq!(needed.len(), 18);
    let mut needed_of_a_disk = all.clone();
    needed_of_a_disk.root = Some(RootFilesystem::Writable);
    for control in needed {
        let all = if control == Control::Disk { &needed_of_a_disk } else { &all };
        let error = policy.check(all, &without(control)).unwrap_err();
        let expected = Violation::Unenforceable { control, why: "it is old".to_owned(), hint: "renew it".to_owned() };
        assert_eq!(error.violations(), [expected]);

        let spec = policy.clone().with_waived(control).check(all, &without(control)).unwrap();
        assert_eq!(spec.waived().get(&control).map(String::as_str), Some("it is old"));
        assert!(!spec.required().contains(&control));
    }
    assert!(policy.check(&all, &without(Control::GitBroker)).is_ok());
}

#[test]
fn what_nobody_reports_is_not_enforced() {
    let error = Policy::standard().check(&request(), &Capabilities::new()).unwrap_err();
    assert_eq!(error.violations().len(), 13);
    assert_eq!(
        error.violations()[0].to_string(),
        "agent-user: cannot be enforced, because no part of this set-up reports it; add a part that enforces it, or \
         waive agent-user in the policy"
    );
}

#[test]
fn a_waiver_of_what_is_enforced_changes_nothing() {
    let spec = accepted(&Policy::standard().with_waived(Control::Disk), &request());
    assert!(spec.required().contains(&Control::Disk) && spec.waived().is_empty());
}

#[test]
fn all_violations_come_at_once() {
    let mut wish = request();
    wish.limits.memory = Some(ByteSize::gib(8));
    wish.limits.disk = Some(ByteSize::kib(1));
    wish.root = Some(RootFilesystem::Writable);
    wish.network = NetworkRequest::Egress;
    wish.sudo = SudoRequest::Allow;
    wish.workspace = Some(workspace("/etc", "/usr", Access::ReadWrite));
    let policy = Policy::maximum()
        .with_image(ImageRule { require_digest: DigestRule::Required, pull: PullRule::Never })
        .with_workspace(WorkspaceRule::ReadOnly);
    let error = policy.check(&wish, &without(Control::Pids)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "policy maximum refuses the sandbox\n\
         image: asked for debian:12, allowed is an image named by its digest (name@sha256:…) or by its local id\n\
         workspace.access: asked for read-write, allowed is read-only\n\
         workspace.host: asked for /etc, allowed is a directory that neither lies in nor holds one of the system\n\
         workspace.guest: asked for /usr, allowed is a directory that hides nothing of the system, such as /workspace\n\
         limits.memory: asked for 8GiB, allowed is at most 4GiB\n\
         limits.disk: asked for 1KiB, allowed is at least 1MiB\n\
         root: asked for writable, allowed is read-only\n\
         network: asked for egress, allowed is none\n\
         sudo: asked for allow, allowed is deny\n\
         pids: cannot be enforced, because it is old; renew it"
    );
}

#[test]
fn deny_all_says_only_that() {
    let error = Policy::deny_all().check(&request(), &Capabilities::new()).unwrap_err();
    assert_eq!(error.policy_name(), "deny-all");
    assert_eq!(
        error.to_string(),
        "policy deny-all refuses the sandbox\nsandboxes: asked for a sandbox, allowed is none"
    );
}

#[test]
fn a_read_only_root_has_a_few_places_in_memory() {
    let policy = Policy::maximum();
    let paths = |spec: &SandboxSpec| -> Vec<String> {
        spec.tmpfs().iter().map(|tmpfs| format!("{} {}", tmpfs.path, tmpfs.size)).collect()
    };
    let spec = accepted(&policy, &request());
    assert_eq!(spec.root(), RootFilesystem::ReadOnly);
    assert_eq!(paths(&spec), ["/tmp 1GiB", "/var/tmp 1GiB", "/run 1GiB", "/home/agent 1GiB"]);

    let mut small = request();
    small.limits.memory = Some(ByteSize::mib(100));
    small.workspace = Some(workspace("/work/x", "/home", Access::ReadOnly));
    let spec = accepted(&policy, &small);
    assert_eq!(paths(&spec), ["/tmp 25MiB", "/var/tmp 25MiB", "/run 25MiB"]);

    // They take the disk's place, so together they hold no more than that may, and none is without a limit.
    let mut small = request();
    small.limits.disk = Some(ByteSize::mib(64));
    let spec = accepted(&policy, &small);
    assert_eq!(paths(&spec), ["/tmp", "/var/tmp", "/run", "/home/agent"].map(|path| format!("{path} 16MiB")));
}

#[test]
fn workspaces_are_what_the_policy_allows() {
    let mut wish = request();
    for (rule, access, field) in [
        (WorkspaceRule::None, Access::ReadOnly, Some("workspace:")),
        (WorkspaceRule::None, Access::ReadWrite, Some("workspace:")),
        (WorkspaceRule::ReadOnly, Access::ReadOnly, None),
        (WorkspaceRule::ReadOnly, Access::ReadWrite, Some("workspace.access:")),
        (WorkspaceRule::ReadWrite, Access::ReadOnly, None),
        (WorkspaceRule::ReadWrite, Access::ReadWrite, None),
    ] {
        wish.workspace = Some(workspace("/work/x", "/workspace", access));
        let policy = Policy::standard().with_workspace(rule);
        match field {
            None => assert_eq!(accepted(&policy, &wish).workspace(), wish.workspace.as_ref()),
            Some(field) => {
                let lines = refused(&policy, &wish);
                assert!(lines.len() == 1 && lines[0].starts_with(field), "{lines:?}");
            }
        }
    }
}

#[test]
fn kinds_of_workspace_are_what_the_policy_allows() {
    let guest: GuestPath = "/workspace".parse().unwrap();
    let sources = [
        WorkspaceSource::Bind { host: "/work/x".parse().unwrap(), access: Access::ReadOnly },
        WorkspaceSource::Clone { source: "o/n".parse().unwrap(), history: History::Full },
        WorkspaceSource::Copy { host: "/work/x".parse().unwrap() },
        WorkspaceSource::Volume { name: "v".parse().unwrap() },
    ];
    let mut wish = request();
    for source in sources {
        let kind = source.kind();
        wish.workspace = Some(Workspace { source, guest: guest.clone() });
        assert_eq!(accepted(&Policy::standard(), &wish).workspace(), wish.workspace.as_ref());
        let others = WorkspaceKind::ALL.iter().copied().filter(|other| *other != kind);
        let line = &refused(&Policy::standard().with_workspace_kinds(others), &wish)[0];
        assert!(line.starts_with(&format!("workspace.kind: asked for {kind}, allowed is ")), "{line}");
    }
    for source in [
        WorkspaceSource::Copy { host: "/etc/x".parse().unwrap() },
        WorkspaceSource::Clone { source: "/root/.ssh/x".parse().unwrap(), history: History::Full },
    ] {
        wish.workspace = Some(Workspace { source, guest: guest.clone() });
        assert!(refused(&Policy::standard(), &wish)[0].starts_with("workspace.host: "));
    }
}

#[test]
fn a_server_is_cloned_from_only_where_the_egress_allows_it() {
    let mut wish = request();
    let mut ask = |policy: &Policy, source: &str| {
        let source = WorkspaceSource::Clone { source: source.parse().unwrap(), history: History::Full };
        wish.workspace = Some(Workspace { source, guest: "/workspace".parse().unwrap() });
        match policy.check(&wish, &everything_enforced()) {
            Ok(spec) => spec.clone_decision().map(Decision::is_allowed).ok_or_else(|| "local".to_owned()),
            Err(error) => Err(error.violations()[0].to_string()),
        }
    };
    let written = |text: &str| Policy::from_toml(&format!("version = 1\n{text}")).unwrap();
    let standard = Policy::standard();
    assert_eq!(ask(&standard, "o/n"), Ok(true));
    assert_eq!(ask(&standard, "/work/x"), Err("local".to_owned()));
    for (policy, source) in [
        (&standard, "https://github.com:444/o/n"),
        (&standard, "https://ghe.example.org/o/n"),
        (&standard, "https://192.0.2.7/o/n"),
        (&Policy::maximum(), "o/n"),
        (&standard.clone().with_network(NetworkRule::None), "o/n"),
        (&written("[egress]\nreach = \"open\""), "https://127.0.0.1/o/n"),
    ] {
        let refused = ask(policy, source).unwrap_err();
        assert!(refused.starts_with("workspace.source: asked for https://"), "{refused}");
    }
    let rule = |rest: &str| {
        written(&format!(
            "[egress]\nreach = \"allowlist\"\nbundles = []\n[[egress.rules]]\nhost = \"ghe.example.org\"\n{rest}"
        ))
    };
    let source = "https://ghe.example.org/o/n";
    assert_eq!(ask(&rule(""), source), Ok(true));
    assert_eq!(ask(&rule("paths = [\"/o/n.git/*\"]"), source), Ok(true));
    assert!(ask(&rule("paths = [\"/o/other.git/*\"]"), source).is_err());
    assert!(ask(&rule("methods = [\"GET\"]"), source).is_err());
}

#[test]
fn a_copy_on_a_read_only_root_lies_in_memory() {
    let mut wish = request();
    let source = WorkspaceSource::Copy { host: "/work/x".parse().unwrap() };
    wish.workspace = Some(Workspace { source, guest: "/workspace".parse().unwrap() });
    let spec = accepted(&Policy::maximum(), &wish);
    assert!(spec.tmpfs().iter().any(|tmpfs| tmpfs.path.as_str() == "/workspace"));
    assert!(accepted(&Policy::standard(), &wish).tmpfs().is_empty());
}

#[test]
fn isolation_is_the_policys_or_stronger() {
    let mut wish = request();
    let strict = Policy::standard().with_isolation(Isolation::Gvisor);
    for (policy, asked, expected) in [
        (Policy::standard(), None, Isolation::Standard),
        (Policy::standard(), Some(Isolation::Gvisor), Isolation::Gvisor),
        (strict.clone(), None, Isolation::Gvisor),
        (strict.clone(), Some(Isolation::Gvisor), Isolation::Gvisor),
    ] {
        wish.isolation = asked;
        let spec = accepted(&policy, &wish);
        let is_required = spec.required().contains(&Control::Isolation);
        assert_eq!((spec.isolation(), is_required), (expected, expected == Isolation::Gvisor));
    }
    wish.isolation = Some(Isolation::Standard);
    assert_eq!(refused(&strict, &wish), ["isolation: asked for standard, allowed is gvisor"]);

    // Where nobody enforces it, it is refused; where that is waived, nobody says that it is there.
    wish.isolation = None;
    let capabilities = without(Control::Isolation);
    let error = strict.check(&wish, &capabilities).unwrap_err();
    assert_eq!(error.violations()[0].to_string(), "isolation: cannot be enforced, because it is old; renew it");
    let spec = strict.clone().with_waived(Control::Isolation).check(&wish, &capabilities).unwrap();
    assert_eq!(spec.isolation(), Isolation::Standard);
    assert_eq!(strict.meet(&Policy::standard()).isolation(), Isolation::Gvisor);
}

#[test]
fn sudo_is_what_the_policy_says_and_never_makes_files_of_the_hosts_root() {
    let mut wish = request();
    wish.sudo = SudoRequest::Allow;
    for rule in [SudoRule::Packages, SudoRule::Any] {
        assert_eq!(accepted(&Policy::standard().with_sudo(rule), &wish).sudo(), rule);
    }
    assert_eq!(refused(&Policy::maximum(), &wish), ["sudo: asked for allow, allowed is deny"]);

    let policy = Policy::standard().with_user_namespace(UserNamespaceRule::Optional);
    let capabilities = without(Control::UserNamespace);
    assert!(policy.check(&wish, &capabilities).is_ok());
    wish.workspace = Some(workspace("/work/x", "/workspace", Access::ReadOnly));
    assert!(policy.check(&wish, &capabilities).is_ok());
    wish.workspace = Some(workspace("/work/x", "/workspace", Access::ReadWrite));
    assert!(policy.check(&wish, &everything_enforced()).is_ok());
    let error = policy.with_waived(Control::UserNamespace).check(&wish, &capabilities).unwrap_err();
    assert_eq!(
        error.violations()[0].to_string(),
        "sudo: asked for sudo with a writable workspace, allowed is sudo where root inside is nobody on the host, or a \
         read-only workspace"
    );
}

#[test]
fn only_a_pinned_image_will_do_where_digests_are_required() {
    let rule = ImageRule { require_digest: DigestRule::Required, pull: PullRule::Never };
    let policy = Policy::standard().with_image(rule);
    assert_eq!(refused(&policy, &request()).len(), 1);
    let hex = "ab".repeat(32);
    for image in [format!("debian@sha256:{hex}"), format!("sha256:{hex}")] {
        let spec = accepted(&policy, &SandboxRequest::new(image.parse().unwrap()));
        assert_eq!((spec.image().to_string(), spec.pull()), (image, PullRule::Never));
    }
}

#[test]
fn an_environment_is_bounded_and_its_values_stay_unseen() {
    let mut wish = request();
    wish.environment.insert("TOKEN".parse().unwrap(), "hunter2".parse().unwrap());
    let spec = accepted(&Policy::standard(), &wish);
    let json = serde_json::to_string(&spec).unwrap();
    assert!(json.contains("\"environment\":[\"TOKEN\"]"), "{json}");
    assert!(!json.contains("hunter2") && !format!("{spec:?} {wish:?}").contains("hunter2"));

    for index in 0..9 {
        let value = "x".repeat(120_000);
        wish.environment.insert(format!("V{index}").parse().unwrap(), value.parse().unwrap());
    }
    assert_eq!(
        refused(&Policy::standard(), &wish),
        ["environment: asked for 1080050B, allowed is at most 1MiB in all"]
    );
}

#[test]
fn a_hostile_request_is_shown_clipped_and_escaped() {
    let mut wish = request();
    let path = format!("/etc/\u{1b}[31m{}", "x".repeat(3_000));
    wish.workspace = Some(workspace(&path, "/workspace", Access::ReadOnly));
    let error = Policy::standard().check(&wish, &everything_enforced()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("/etc/\\u{1b}[31mxxx") && message.len() < 300, "{message}");
}

#[test]
fn violations_are_json_for_programs() {
    let mut wish = request();
    wish.limits.memory = Some(ByteSize::gib(8));
    let error = Policy::standard().check(&wish, &without(Control::Cpu)).unwrap_err();
    assert_eq!(
        serde_json::to_string(error.violations()).unwrap(),
        r#"[{"violation":"denied","field":"limits.memory","requested":"8GiB","allowed":"at most 4GiB"},"#.to_owned()
            + r#"{"violation":"unenforceable","control":"cpu","why":"it is old","hint":"renew it"}]"#
    );
}

#[test]
fn beside_a_read_only_root_the_limit_of_memory_is_one_of_the_disk() {
    let mut asked = request();
    asked.root = Some(RootFilesystem::ReadOnly);
    let spec = Policy::standard().check(&asked, &without(Control::Disk)).unwrap();
    assert!(spec.is_disk_in_memory() && spec.required().contains(&Control::Disk));
    assert!(!accepted(&Policy::standard(), &asked).is_disk_in_memory());

    let lacking = |asked: &SandboxRequest, capabilities: &Capabilities| {
        let error = Policy::standard().check(asked, capabilities).unwrap_err();
        error.violations().iter().any(|it| matches!(it, Violation::Unenforceable { control: Control::Disk, .. }))
    };
    // More memory than disk, a root that can be written, and a memory that nothing limits.
    let mut small = asked.clone();
    small.limits.disk = Some(ByteSize::gib(1));
    assert!(lacking(&small, &without(Control::Disk)));
    assert!(lacking(&request(), &without(Control::Disk)));
    let unsupported = Support::Unsupported { why: "it is old".to_owned(), hint: "renew it".to_owned() };
    assert!(lacking(&asked, &without(Control::Disk).with(Control::Memory, unsupported.clone())));
    assert!(lacking(&asked, &without(Control::Disk).with(Control::ReadonlyRootfs, unsupported)));
}
