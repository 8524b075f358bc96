//! A policy from a document, tightened by another, and a request that it refuses, with every reason at once.
//!
//! No engine is needed: a policy performs no I/O. usage: `cargo run -p sandbox-examples --bin policy`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use sandbox_core::policy::{Capabilities, Control, NetworkRequest, Policy, SandboxRequest, Support, Violation};

/// What the host's owner allows at most.
const HOST: &str = r#"
version = 1
name = ["host"]
base = "standard"

[limits]
memory = "8GiB"
processes = 1024

[image]
pull = "never"
"#;

/// What a repository asks of its own sandboxes. It is not trusted, and it need not be: joined to the host's policy it
/// can only tighten.
const REPOSITORY: &str = r#"
version = 1
name = ["repository"]
network = "none"
waive = ["seccomp"]

[limits]
memory = "64GiB"
processes = 64
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let host = Policy::from_toml(HOST)?;
    let policy = host.meet(&Policy::from_toml(REPOSITORY)?);
    assert!(policy.is_at_least_as_strict_as(&host));
    for part in policy.explain() {
        println!("{} = {}  ({})", part.field, part.value, part.meaning);
    }

    // What the machine enforces comes from its runtime; here, everything but a limit on the disk.
    let unsupported = Support::Unsupported { why: "the storage has no quotas".into(), hint: "use XFS".into() };
    let capabilities = Control::ALL
        .iter()
        .fold(Capabilities::new(), |all, control| all.with(*control, Support::Enforced { by: "an engine".into() }))
        .with(Control::Disk, unsupported);

    let mut request = SandboxRequest::new("debian:12".parse()?);
    request.limits.memory = Some("16GiB".parse()?);
    request.network = NetworkRequest::Egress;
    let refused = policy.check(&request, &capabilities).err().ok_or("the policy should refuse this")?;
    println!("\npolicy {} refuses:", refused.policy_name());
    for violation in refused.violations() {
        match violation {
            Violation::Denied { field, requested, allowed } => {
                println!("  {field}: asked for {requested}, allowed is {allowed}");
            }
            Violation::Unenforceable { control, why, hint } => println!("  {control}: {why}; {hint}"),
            other => println!("  {other}"),
        }
    }

    // What remains is asked for, and what the machine lacks is waived by name, by the host's owner.
    request.limits.memory = None;
    request.network = NetworkRequest::None;
    let spec = policy.with_waived(Control::Disk).check(&request, &capabilities)?;
    println!("\nagreed: {} of memory, {} processes", spec.limits().memory, spec.limits().processes);
    Ok(())
}
