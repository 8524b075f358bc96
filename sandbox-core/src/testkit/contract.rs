//! The contract of every runtime, as tests.
//!
//! A case that needs a control which the fixture's runtime reports as unsupported turns into its opposite: the request
//! for it must be refused. No case is passed over.

#![expect(missing_docs, reason = "a case is named as what it shows")]

mod disk;
mod exec;
mod files;
mod lifecycle;
mod limits;
mod listen;
mod names;
mod ownership;
mod refusals;
mod sudo;
mod terminal;
mod users;
mod workspaces;

use std::path::PathBuf;
use std::sync::Arc;

use sandbox_policy::{AgentUser, Control, Policy};

pub use disk::*;
pub use exec::*;
pub use files::*;
pub use lifecycle::*;
pub use limits::*;
pub use listen::*;
pub use names::*;
pub use ownership::*;
pub use refusals::*;
pub use sudo::*;
pub use terminal::*;
pub use users::*;
pub use workspaces::*;

use crate::{EventSink, RunRoot, Runtime, Sandbox, SandboxBuilder};

/// What the contract is tried on.
#[derive(Debug)]
pub struct Fixture {
    /// The engine.
    pub runtime: Arc<dyn Runtime>,
    /// An image with `sh` and the usual small programs.
    pub image: String,
    /// Whom the agent runs as.
    pub agent: AgentUser,
    /// A user and a group of the host whose directories an agent that is not named writes as theirs; none where it can be nobody's.
    pub owner: Option<(u32, u32)>,
    /// A directory inside that the agent may write to, and that exists.
    pub scratch: PathBuf,
    /// A run root of the test's own.
    pub run_root: RunRoot,
    /// Whatever must live as long as the fixture.
    pub keep: Vec<Box<dyn std::any::Any + Send + Sync>>,
}

impl Fixture {
    /// The standard policy, with a waiver for each control that the runtime does not enforce.
    pub fn policy(&self) -> Policy {
        self.policy_for(&[])
    }

    /// The same without a waiver for what is asked for, so that a runtime which lacks it must refuse.
    fn policy_for(&self, asked: &[Control]) -> Policy {
        Control::ALL
            .iter()
            .filter(|control| self.lacks(**control) && !asked.contains(control))
            .fold(Policy::standard(), |policy, control| policy.with_waived(*control))
    }

    /// Whether the runtime says that it does not enforce a control.
    pub fn lacks(&self, control: Control) -> bool {
        self.runtime.capabilities().get(control).is_some() && !self.runtime.capabilities().is_enforced(control)
    }

    /// Describes a sandbox on the runtime.
    pub fn builder(&self) -> SandboxBuilder {
        self.builder_without_agent().agent(self.agent)
    }

    /// The same without a word of who the agent is.
    fn builder_without_agent(&self) -> SandboxBuilder {
        Sandbox::builder()
            .shared_runtime(Arc::clone(&self.runtime))
            .policy(self.policy())
            .image(&self.image)
            .run_root(self.run_root.clone())
    }

    /// Starts a sandbox on the runtime.
    pub async fn start(&self) -> Sandbox {
        self.builder().start().await.unwrap()
    }

    /// Starts a sandbox whose events go to a sink.
    pub async fn start_with(&self, sink: impl EventSink) -> Sandbox {
        self.builder().events(sink).start().await.unwrap()
    }

    /// A path below the scratch directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// Asserts that nothing of this fixture is left: no container of a sandbox and no run directory.
    pub async fn assert_nothing_left(&self, sandbox: crate::SandboxId) {
        let containers = self.runtime.list().await.unwrap();
        assert!(containers.iter().all(|container| container.sandbox != sandbox), "a container is left: {containers:?}");
        assert_eq!(self.run_root.sandboxes().unwrap(), [], "a run directory is left");
    }
}

/// A new directory on the host, gone with its owner.
#[derive(Debug)]
pub(super) struct HostDirectory(PathBuf);

impl HostDirectory {
    /// Makes it, below the host's directory for such things; others may pass through it.
    pub(super) fn new(name: impl AsRef<std::ffi::OsStr>) -> Self {
        let mut name = name.as_ref().to_owned();
        name.push(format!(" {}", crate::SandboxId::random().unwrap()));
        let path = std::env::temp_dir().join(name);
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o755).create(&path).unwrap();
        Self(path)
    }
}

impl std::ops::Deref for HostDirectory {
    type Target = std::path::Path;

    fn deref(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for HostDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a shell script to its end.
pub(super) async fn sh(sandbox: &Sandbox, script: &str) -> crate::Output {
    sandbox.command("sh").args(["-c", script]).deadline(std::time::Duration::from_mins(1)).output().await.unwrap()
}

/// Runs a shell script and returns what it wrote, without the last newline.
pub(super) async fn text(sandbox: &Sandbox, script: &str) -> String {
    let output = sh(sandbox, script).await;
    assert_eq!(output.exit.status, crate::Status::Code(0), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end_matches('\n').to_owned()
}

/// A program that does nothing for long, and that no other sandbox runs, since processes may be visible to each other.
pub(super) fn nap(sandbox: &Sandbox) -> String {
    let digits: String = sandbox.id().to_string().bytes().map(|byte| char::from(b'0' + byte % 10)).take(8).collect();
    format!("sleep 9{digits}")
}

/// How many processes run exactly this.
pub(super) async fn running(sandbox: &Sandbox, program: &str) -> String {
    text(sandbox, &format!("ps -eo args | grep -c '^{program}$' || true")).await
}

/// Waits for a condition.
///
/// # Panics
/// If it does not come within ten seconds.
pub(super) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let patience = async {
        while !condition().await {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(std::time::Duration::from_secs(10), patience).await.is_ok(), "never: {what}");
}

/// Makes a test of each case of the contract. The argument is an async function that makes a [`Fixture`].
#[macro_export]
macro_rules! contract {
    ($fixture:path) => {
        $crate::contract! { @ $fixture:
            a_background_process_holds_nobody_up
            a_container_that_ends_takes_its_sandbox_with_it
            a_deadline_ends_what_ignores_it
            a_directory_comes_back_as_it_went
            a_dropped_exec_ends_all_that_it_started
            a_dropped_sandbox_is_taken_down
            a_file_comes_back_as_it_was_written
            a_file_is_whole_or_not_there
            a_full_disk_is_full_and_the_sandbox_goes_on
            a_gateway_without_a_report_is_no_gateway
            a_copy_is_the_sandboxs_own_and_lacks_what_git_ignores
            a_copy_on_a_read_only_root_lies_in_memory
            a_copy_that_is_larger_than_the_disk_is_refused
            git_works_in_a_copy_and_its_commits_come_back
            an_agent_that_the_image_does_not_know_has_a_name_and_a_home
            odd_names_come_and_go_in_a_copy
            odd_names_come_and_go_in_a_mounted_workspace
            on_a_read_only_root_the_home_is_small_and_writable
            sudo_any_is_root_inside_and_no_further
            sudo_installs_packages
            sudo_refuses_what_is_not_allowed_with_a_reason
            sudo_takes_no_places_and_no_nonsense
            a_lifetime_ends_the_sandbox
            a_listener_inside_is_accepted_on_outside
            a_gateways_variables_are_the_weakest
            a_placed_file_is_there_for_everybody
            a_missing_command_and_a_file_that_is_none_differ
            a_missing_image_is_named
            a_missing_workspace_is_named
            a_policy_that_denies_touches_nothing
            a_signal_reaches_the_program
            a_spin_has_no_more_than_its_share_of_the_processors
            a_start_that_is_given_up_leaves_nothing
            a_terminal_has_a_size_that_can_change
            a_terminal_that_is_dropped_hangs_up
            a_terminal_types_and_shows
            a_waiver_is_an_event
            an_event_that_is_refused_stops_its_effect
            arguments_stay_apart
            binary_output_is_not_touched
            destroying_leaves_nothing
            each_exit_code_comes_through
            events_are_numbered_and_hold_no_argument
            files_are_the_agents
            files_without_content_fill_a_disk_too
            input_reaches_the_program
            limits_are_in_force_inside
            limits_beyond_the_policy_are_refused
            links_that_lead_out_stay_inside
            many_programs_run_at_once
            many_short_lines_arrive
            no_descriptor_of_the_guest_is_inherited
            orphans_leave_no_zombies
            output_is_bounded
            privilege_is_out_of_reach
            signals_end_programs
            standard_streams_can_be_opened_anew
            the_attestation_says_what_was_asked
            the_disk_of_the_run_directory_may_be_full
            the_environment_is_what_was_given
            the_workspace_is_mounted
            two_streams_at_once
            two_sandboxes_do_not_meet
            what_a_runtime_lacks_is_refused
            what_an_agent_writes_is_the_workspaces_owners
            what_is_not_there_is_not_found
            what_is_over_the_limit_is_not_read
        }
    };
    (@ $fixture:path: $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let fixture = $fixture().await;
                let case = $crate::testkit::contract::$case(&fixture);
                // No case may hang: not on an engine, not on a guest.
                if tokio::time::timeout(std::time::Duration::from_secs(120), case).await.is_err() {
                    panic!("{} took more than two minutes", stringify!($case));
                }
            }
        )*
    };
}
