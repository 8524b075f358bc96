//! Starts that fail, hang or are refused, on a runtime whose guest is no program: nothing may be left of any of them.

use std::sync::{Arc, Mutex};

use sandbox_policy::{
    BranchProtection, Capabilities, Control, NetworkRequest, Policy, ProtectionRule, SandboxRequest, Span, Support,
    TokenCarries, TokenFacts, TokenForm, TokenLife, TokenReach, Workspace, WorkspaceKind, WorkspaceSource,
};
use secrecy::SecretString;

use super::{Plan, start};
use crate::event::MockEventSink;
use crate::gateway::{MockGateway, MockOpenGateway};
use crate::testkit::{FakeRuntime, Fault, Recorder, Verb};
use crate::token::MockTokenProvider;
use crate::{Cause, Error, ErrorKind, Event, RunRoot, Sandbox, SandboxBuilder, SandboxId, Token};

fn policy(runtime: &FakeRuntime) -> Policy {
    use crate::Runtime as _;
    let lacking = runtime.capabilities().iter().filter(|(_, support)| matches!(support, Support::Unsupported { .. }));
    lacking.fold(Policy::standard(), |policy, (control, _)| policy.with_waived(control))
}

struct Trial {
    runtime: Arc<FakeRuntime>,
    root: RunRoot,
    recorder: Recorder,
    _directory: tempfile::TempDir,
}

impl Trial {
    fn new(runtime: FakeRuntime) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = RunRoot::new(directory.path().join("run"));
        Self { runtime: Arc::new(runtime), root, recorder: Recorder::default(), _directory: directory }
    }

    fn builder(&self) -> SandboxBuilder {
        let runtime: Arc<dyn crate::Runtime> = self.runtime.clone();
        Sandbox::builder()
            .shared_runtime(runtime)
            .policy(policy(&self.runtime))
            .image(FakeRuntime::IMAGE)
            .run_root(self.root.clone())
            .events(self.recorder.clone())
    }

    fn assert_nothing_left(&self) {
        assert!(self.runtime.is_empty());
        assert_eq!(self.root.sandboxes().unwrap(), []);
    }
}

fn no_program() -> FakeRuntime {
    FakeRuntime::new("this is no program")
}

#[tokio::test]
async fn a_failure_at_each_step_leaves_nothing() {
    for (fault, kind) in [
        (Fault::Fail(Verb::Resolve), ErrorKind::Engine),
        (Fault::Fail(Verb::Create), ErrorKind::Engine),
        (Fault::FailAfterwards(Verb::Create), ErrorKind::Engine),
        (Fault::Fail(Verb::Start), ErrorKind::Engine),
    ] {
        let trial = Trial::new(no_program().with_fault(fault));
        let error = trial.builder().start().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{fault:?}: {error:?}");
        assert!(error.residue().is_empty(), "{fault:?}: {error:?}");
        trial.assert_nothing_left();
        let events = trial.recorder.events();
        assert!(events.contains(&Event::Destroying { cause: Cause::Failed }), "{fault:?}: {events:?}");
        assert_eq!(events.last(), Some(&Event::Destroyed { residue: Vec::new() }), "{fault:?}");
    }
}

#[tokio::test]
async fn a_guest_that_is_no_program_is_an_error() {
    let trial = Trial::new(no_program());
    let error = trial.builder().start().await.unwrap_err();
    assert!(error.to_string().contains("guest"), "{error:?}");
    trial.assert_nothing_left();
}

#[tokio::test(start_paused = true)]
async fn a_step_that_hangs_is_given_up_in_time() {
    for verb in [Verb::Create, Verb::Start] {
        let trial = Trial::new(no_program().with_fault(Fault::Hang(verb)));
        let error = trial.builder().start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeadlineExceeded, "{verb:?}: {error:?}");
        trial.assert_nothing_left();
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_removed_is_told_and_kept_for_the_reaper() {
    for fault in [Fault::Fail(Verb::Delete), Fault::Hang(Verb::Delete)] {
        let trial = Trial::new(no_program().with_fault(Fault::Fail(Verb::Start)).with_fault(fault));
        let error = trial.builder().start().await.unwrap_err();
        assert_eq!((error.kind(), error.residue().len()), (ErrorKind::Engine, 1), "{error:?}");
        assert_eq!(trial.runtime.len(), 1);
        let told = trial.recorder.events();
        assert!(matches!(told.last(), Some(Event::Destroyed { residue }) if residue.len() == 1), "{told:?}");
        // The run directory goes all the same: one failed step holds up no other.
        assert_eq!(trial.root.sandboxes().unwrap(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_container_that_may_still_run_keeps_what_covers_its_workspace() {
    for fault in [None, Some(Fault::Fail(Verb::Delete)), Some(Fault::Hang(Verb::Delete))] {
        let runtime = no_program().with_fault(Fault::Fail(Verb::Start));
        let trial = Trial::new(fault.into_iter().fold(runtime, FakeRuntime::with_fault));
        let workspace = tempfile::tempdir().unwrap();
        let path = workspace.path().canonicalize().unwrap();
        trial.builder().workspace(&path).start().await.unwrap_err();
        let stays = fault.is_some();
        assert_eq!(path.join(".vscode").exists(), stays, "{fault:?}");
        assert_eq!(trial.root.sandboxes().unwrap().len(), usize::from(stays), "{fault:?}");
    }
}

/// What a provider reports whose tokens may be used.
fn short_and_narrow() -> Capabilities {
    let enforced = || Support::Enforced { by: "a mock".to_owned() };
    Capabilities::new().with(Control::ShortLivedToken, enforced()).with(Control::TokenScope, enforced())
}

#[tokio::test]
async fn a_token_of_which_nothing_is_known_is_refused_before_it_is_asked_for() {
    let mut tokens = MockTokenProvider::new();
    tokens.expect_facts().returning(|| None);
    tokens.expect_capabilities().returning(Capabilities::new);
    tokens.expect_token().never();
    let trial = Trial::new(no_program());
    let error = trial.builder().repository("owner/name".parse().unwrap()).tokens(tokens).start().await.unwrap_err();
    let missing: Vec<String> = error.violations().iter().map(ToString::to_string).collect();
    assert!(
        missing.len() == 2 && missing[0].starts_with("short-lived-token") && missing[1].starts_with("token-scope"),
        "{missing:?}"
    );
    trial.assert_nothing_left();
}

#[tokio::test]
async fn tokens_are_revoked_and_gateways_closed_in_reverse_order() {
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |what: &'static str| {
        let order = Arc::clone(&order);
        move || order.lock().unwrap().push(what)
    };
    let repository: sandbox_policy::RepoId = "owner/name".parse().unwrap();
    let mut tokens = MockTokenProvider::new();
    tokens.expect_facts().returning(|| None);
    tokens.expect_capabilities().returning(short_and_narrow);
    let minted = note("minted");
    tokens.expect_server().returning(|| None);
    tokens.expect_token().times(1).returning(move |grant| {
        minted();
        assert_eq!(grant.scopes, Policy::standard().token().scopes);
        Ok(Token::new(grant.repository.clone(), SecretString::from("made-up")))
    });
    let revoked = note("revoked");
    tokens.expect_revoke().times(1).returning(move |_| {
        revoked();
        Ok(())
    });
    let mut gateway = MockGateway::new();
    gateway.expect_name().return_const("egress".to_owned());
    let enforced = Support::Enforced { by: "a mock".to_owned() };
    gateway
        .expect_capabilities()
        .returning(move || Capabilities::new().with(Control::EgressAllowlist, enforced.clone()));
    let (opened, closed) = (note("opened"), note("closed"));
    gateway.expect_open().times(1).returning(move |_, _, token| {
        assert!(token.is_some());
        opened();
        let closed = closed.clone();
        let mut open = MockOpenGateway::new();
        open.expect_environment().returning(Vec::new);
        open.expect_close().times(1).returning(move || {
            closed();
            Ok(())
        });
        Ok(Box::new(open))
    });
    let trial = Trial::new(no_program().with_fault(Fault::Fail(Verb::Create)));
    let builder = trial.builder().repository(repository).network(NetworkRequest::Egress);
    builder.tokens(tokens).gateway(gateway).start().await.unwrap_err();
    assert_eq!(*order.lock().unwrap(), ["minted", "opened", "closed", "revoked"]);
    trial.assert_nothing_left();
}

#[tokio::test]
async fn a_token_that_cannot_be_had_stops_the_start() {
    let mut tokens = MockTokenProvider::new();
    tokens.expect_facts().returning(|| None);
    tokens.expect_capabilities().returning(short_and_narrow);
    tokens.expect_token().returning(|_| Err(Error::new(ErrorKind::Token, "no installation")));
    tokens.expect_revoke().never();
    let trial = Trial::new(no_program());
    let builder = trial.builder().repository("owner/name".parse().unwrap());
    let error = builder.tokens(tokens).start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Token);
    assert!(!trial.recorder.events().iter().any(|event| matches!(event, Event::Creating { .. })));
    trial.assert_nothing_left();
}

/// A policy that wants the default branch to be protected, and a provider that says this of it.
fn looking_at(found: crate::Result<BranchProtection>, trial: &Trial) -> (Policy, MockTokenProvider) {
    let mut tokens = MockTokenProvider::new();
    tokens.expect_facts().returning(|| None);
    tokens.expect_capabilities().returning(short_and_narrow);
    tokens.expect_server().returning(|| None);
    tokens.expect_token().returning(|grant| Ok(Token::new(grant.repository.clone(), SecretString::from("made-up"))));
    tokens.expect_default_branch().times(1).return_once(|_| found);
    tokens.expect_revoke().times(1).returning(|_| Ok(()));
    let policy = policy(&trial.runtime);
    let mut rule = policy.token().clone();
    rule.require_protected_default_branch = ProtectionRule::Required;
    (policy.with_token(rule), tokens)
}

#[tokio::test]
async fn a_default_branch_that_is_not_known_to_be_protected_stops_the_start_and_the_token_is_revoked() {
    let unknown = || BranchProtection::Unknown { why: "it is hidden".to_owned() };
    let unreachable = || Err(Error::new(ErrorKind::Token, "no answer"));
    for (found, kind, words) in [
        (Ok(BranchProtection::Unprotected), ErrorKind::Policy, "an unprotected default branch"),
        (Ok(unknown()), ErrorKind::Policy, "it is hidden"),
        (unreachable(), ErrorKind::Token, "no answer"),
    ] {
        let trial = Trial::new(no_program());
        let (policy, tokens) = looking_at(found, &trial);
        let builder = trial.builder().policy(policy).repository("owner/name".parse().unwrap());
        let error = builder.tokens(tokens).start().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(format!("{error:?}").contains(words), "{error:?}");
        let events = trial.recorder.events();
        assert!(events.contains(&Event::ProtectionChecking { repository: "owner/name".to_owned() }), "{events:?}");
        assert!(!events.iter().any(|event| matches!(event, Event::Creating { .. })), "{events:?}");
        trial.assert_nothing_left();
    }
    let trial = Trial::new(no_program().with_fault(Fault::Fail(Verb::Create)));
    let (policy, tokens) = looking_at(Ok(BranchProtection::Protected), &trial);
    let builder = trial.builder().policy(policy).repository("owner/name".parse().unwrap());
    assert_eq!(builder.tokens(tokens).start().await.unwrap_err().kind(), ErrorKind::Engine);
}

#[tokio::test]
async fn a_token_is_weighed_before_it_is_asked_for_and_a_waiver_is_told() {
    let facts = |life| TokenFacts {
        form: TokenForm::FineGrained,
        life,
        reach: TokenReach::LikelySingle,
        carries: TokenCarries::Unknown,
    };
    let mut tokens = MockTokenProvider::new();
    tokens.expect_facts().returning(move || Some(facts(TokenLife::Never)));
    tokens.expect_capabilities().returning(short_and_narrow);
    tokens.expect_token().never();
    let trial = Trial::new(no_program());
    let waived = policy(&trial.runtime).with_waived(Control::TokenScope);
    let builder = trial.builder().policy(waived.clone()).repository("owner/name".parse().unwrap());
    let error = builder.tokens(tokens).start().await.unwrap_err();
    assert!(error.violations()[0].to_string().contains("never ends"), "{error:?}");

    let mut tokens = MockTokenProvider::new();
    tokens.expect_facts().returning(move || Some(facts(TokenLife::Ends(Span::hours(24)))));
    tokens.expect_capabilities().returning(short_and_narrow);
    tokens.expect_token().times(1).returning(|_| Err(Error::new(ErrorKind::Token, "that is enough")));
    let builder = trial.builder().policy(waived).repository("owner/name".parse().unwrap());
    assert_eq!(builder.tokens(tokens).start().await.unwrap_err().kind(), ErrorKind::Token);
    let events = trial.recorder.events();
    let told =
        |event: &Event| matches!(event, Event::Waived { control: Control::TokenScope, why } if why.contains("may do"));
    assert!(events.iter().any(told), "{events:?}");
}

#[tokio::test]
async fn a_refusal_is_the_only_event_and_nothing_is_asked_of_anybody() {
    let mut sink = MockEventSink::new();
    sink.expect_record()
        .times(1)
        .withf(|envelope| envelope.sequence == 0 && matches!(envelope.event, Event::Refused { .. }))
        .returning(|_| Ok(()));
    let mut tokens = MockTokenProvider::new();
    tokens.expect_facts().returning(|| None);
    tokens.expect_capabilities().returning(Capabilities::new);
    tokens.expect_token().never();
    let trial = Trial::new(no_program().with_fault(Fault::Hang(Verb::Resolve)));
    let builder = trial.builder().policy(Policy::standard()).events(sink).tokens(tokens);
    assert_eq!(builder.start().await.unwrap_err().kind(), ErrorKind::Policy);
    trial.assert_nothing_left();
}

#[tokio::test]
async fn a_kind_of_workspace_that_is_not_there_yet_is_refused() {
    for (kind, source) in [("volume", WorkspaceSource::Volume { name: "cache".parse().unwrap() })] {
        let trial = Trial::new(no_program().with_fault(Fault::Hang(Verb::Resolve)));
        let mut request = SandboxRequest::new(FakeRuntime::IMAGE.parse().unwrap());
        request.workspace = Some(Workspace { source, guest: "/workspace".parse().unwrap() });
        let plan = Plan {
            id: SandboxId::random().unwrap(),
            runtime: trial.runtime.clone(),
            policy: policy(&trial.runtime).with_workspace_kinds(WorkspaceKind::ALL.iter().copied()),
            request,
            sink: Arc::new(trial.recorder.clone()),
            gateways: Vec::new(),
            tokens: None,
            mirrors: None,
            run_root: trial.root.clone(),
            connect_within: std::time::Duration::from_secs(1),
        };
        let error = start(plan).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert!(error.to_string().starts_with(&format!("workspace kind {kind} is not there yet")), "{error}");
        assert!(matches!(trial.recorder.events().as_slice(), [Event::Refused { .. }]));
        trial.assert_nothing_left();
    }
}

#[tokio::test]
async fn what_is_missing_or_makes_no_sense_is_named() {
    let trial = Trial::new(no_program());
    let error = Sandbox::builder().image(FakeRuntime::IMAGE).start().await.unwrap_err();
    assert!(error.to_string().contains("runtime"), "{error}");
    let runtime: Arc<dyn crate::Runtime> = trial.runtime.clone();
    let error = Sandbox::builder().shared_runtime(runtime).start().await.unwrap_err();
    assert!(error.to_string().contains("image"), "{error}");
    for (name, value) in [("NOT A NAME", "x"), ("LD_PRELOAD", "/evil.so"), ("GOOD", "zero\0byte")] {
        let error = trial.builder().env(name, value).start().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}
