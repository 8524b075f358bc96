//! Whom the agent is inside, and where it is at home.

use sandbox_policy::{AgentUser, ByteSize, Control, LimitsRequest, RootFilesystem};

use super::refusals::unenforceable;
use super::{Fixture, sh, text};
use crate::Status;

pub async fn an_agent_that_the_image_does_not_know_has_a_name_and_a_home(fixture: &Fixture) {
    let stranger = AgentUser::new(4_242, 4_243).unwrap();
    if fixture.lacks(Control::HostFilesystem) || fixture.lacks(Control::Sudo) {
        // Nothing of the host's is changed for it, and who is alone in its namespace can write nobody else's files: it has its
        // numbers, and no name.
        let sandbox = fixture.builder().agent(stranger).start().await.unwrap();
        let seen = text(&sandbox, "id -u; id -g; getent passwd 4242 || echo unknown").await;
        assert_eq!(seen, "4242\n4243\nunknown");
        sandbox.destroy().await.unwrap();
        return;
    }
    let sandbox = fixture.builder().agent(stranger).start().await.unwrap();
    let seen =
        text(&sandbox, "id -un; id -gn; echo $HOME; pwd; stat -c '%u:%g %a' ~; touch ~/x; getent passwd 4242").await;
    let name = "agent-4242";
    assert_eq!(
        seen,
        format!(
            "{name}\n{name}\n/home/{name}\n/home/{name}\n4242:4243 700\n{name}:x:4242:4243::/home/{name}:/bin/bash"
        )
    );
    sandbox.destroy().await.unwrap();
    // The image has what it had: another sandbox of it knows nobody of that name.
    let sandbox = fixture.start().await;
    assert_eq!(text(&sandbox, "getent passwd 4242 || id -un").await, "agent");
    sandbox.destroy().await.unwrap();
}

pub async fn on_a_read_only_root_the_home_is_small_and_writable(fixture: &Fixture) {
    if fixture.lacks(Control::ReadonlyRootfs) {
        let policy = fixture.policy_for(&[Control::ReadonlyRootfs]);
        let error = fixture.builder().policy(policy).root(RootFilesystem::ReadOnly).start().await.unwrap_err();
        assert_eq!(unenforceable(&error), [Control::ReadonlyRootfs]);
        return;
    }
    let memory = ByteSize::mib(256);
    let limits = LimitsRequest { memory: Some(memory), ..LimitsRequest::default() };
    let sandbox = fixture.builder().root(RootFilesystem::ReadOnly).limits(limits).start().await.unwrap();
    let script = "for d in ~ /tmp /var/tmp; do touch $d/x && stat -f -c %T $d; done; touch /usr/x /etc/x /x 2>/dev/null || echo kept";
    assert_eq!(text(&sandbox, script).await, "tmpfs\ntmpfs\ntmpfs\nkept");
    let full = sh(&sandbox, "head -c 80M /dev/zero > ~/full").await;
    assert_ne!(full.exit.status, Status::Code(0), "a quarter of the memory is the most");
    sandbox.destroy().await.unwrap();
}
