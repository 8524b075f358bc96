//! One sandbox from start to end, as an orchestrator embeds it.
//!
//! usage: `cargo run -p sandbox-examples --bin embed -- unix:///var/run/docker.sock debian:12`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use sandbox_core::policy::{Control, Policy};
use sandbox_core::{Cause, Envelope, EventSink, Result, Sandbox, Status};
use sandbox_runtime::DockerRuntime;

/// Where the audit goes: each event comes before its effect, and an error here would stop the effect.
#[derive(Debug)]
struct Audit;

impl EventSink for Audit {
    fn record(&self, envelope: &Envelope) -> Result<()> {
        println!("event {}: {:?}", envelope.sequence, envelope.event);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(engine), Some(image)) = (arguments.next(), arguments.next()) else {
        return Err("usage: embed ENGINE IMAGE".into());
    };

    // The engine is probed once; many sandboxes may share the connection.
    let docker = DockerRuntime::connect(engine.parse()?).await?;

    // What an engine cannot enforce is refused, unless it is waived by name. Many lack these two.
    let policy = Policy::standard().with_waived(Control::Disk).with_waived(Control::UserNamespace);

    // When `start` returns, each control has been read back from inside and compared with what was asked.
    let sandbox = Sandbox::builder()
        .runtime(docker)
        .policy(policy)
        .image(image)
        .env("LANG", "C.UTF-8")
        .events(Audit)
        .start()
        .await?;
    for finding in sandbox.attestation().findings() {
        println!("{}: asked {}, found {}: {:?}", finding.control, finding.asked, finding.found, finding.verdict);
    }

    // A program that ends takes its clean-up with it, so an error is looked at after the end of the sandbox.
    let worked = work(&sandbox).await;
    // Dropping the handle takes the sandbox down as well, but only this waits and says whether all of it is gone.
    assert_eq!(sandbox.destroy().await?, Cause::Requested);
    Ok(worked?)
}

async fn work(sandbox: &Sandbox) -> Result<()> {
    // Files are read and written as the agent.
    sandbox.write("/home/agent/greeting", "hello from outside\n").await?;

    // Output is streamed as it comes, to any writer. At the deadline everything that the program started ends.
    let script = "cat /home/agent/greeting; id; echo to stderr >&2; exit 3";
    let command = sandbox.command("sh").args(["-c", script]).deadline(Duration::from_mins(1));
    let exit = command.spawn().await?.copy_output(tokio::io::stdout(), tokio::io::stderr()).await?;
    assert_eq!(exit.status, Status::Code(3));

    // Or it is kept, up to a limit.
    let output = sandbox.command("ls").arg("/sys/class/net").output().await?;
    println!("network interfaces inside: {}", String::from_utf8_lossy(&output.stdout).trim());
    Ok(())
}
