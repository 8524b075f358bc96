//! A runtime of one's own: here, one that times what another does. An engine implements the same verbs.
//!
//! The contract that each must keep is `sandbox_core::contract!`, which makes a test of every promise.
//!
//! usage: `cargo run -p sandbox-examples --bin own_runtime`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Instant;

use async_trait::async_trait;
use sandbox_core::policy::{AgentUser, Capabilities, Policy, SandboxSpec};
use sandbox_core::testkit::FakeRuntime;
use sandbox_core::{
    ContainerId, ContainerState, ContainerSummary, Events, Image, Result, Runtime, RuntimeInfo, Sandbox, Signal, Wiring,
};

/// Says how long each verb of another runtime takes.
#[derive(Debug)]
struct Timed<R>(R);

async fn timed<T>(verb: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let begun = Instant::now();
    let result = work.await;
    println!("{verb:>8}: {:?}", begun.elapsed());
    result
}

#[async_trait]
impl<R: Runtime> Runtime for Timed<R> {
    fn info(&self) -> &RuntimeInfo {
        self.0.info()
    }
    // What is reported here is what a policy may count on: report nothing that is not enforced.
    fn capabilities(&self) -> &Capabilities {
        self.0.capabilities()
    }
    fn guest(&self) -> &[u8] {
        self.0.guest()
    }
    async fn resolve(&self, spec: &SandboxSpec, events: &Events) -> Result<Image> {
        timed("resolve", self.0.resolve(spec, events)).await
    }
    async fn create(&self, spec: &SandboxSpec, wiring: &Wiring) -> Result<ContainerId> {
        timed("create", self.0.create(spec, wiring)).await
    }
    async fn start(&self, container: &ContainerId) -> Result<()> {
        timed("start", self.0.start(container)).await
    }
    async fn state(&self, container: &ContainerId) -> Result<ContainerState> {
        timed("state", self.0.state(container)).await
    }
    async fn kill(&self, container: &ContainerId, signal: Signal) -> Result<()> {
        timed("kill", self.0.kill(container, signal)).await
    }
    async fn delete(&self, container: &ContainerId) -> Result<()> {
        timed("delete", self.0.delete(container)).await
    }
    async fn list(&self) -> Result<Vec<ContainerSummary>> {
        timed("list", self.0.list()).await
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The fake isolates nothing and says so; each control that it lacks has to be waived by name.
    let fake = FakeRuntime::new(sandbox_runtime::guest_program());
    let lacking: Vec<_> = fake.capabilities().iter().map(|(control, _)| control).collect();
    let policy = lacking.into_iter().fold(Policy::standard(), Policy::with_waived);
    // Its containers are processes of this user, who can become another only as root.
    let agent = AgentUser::new(fake.info().root_uid, fake.info().root_gid).unwrap_or_default();

    let builder = Sandbox::builder().runtime(Timed(fake)).policy(policy).image(FakeRuntime::IMAGE).agent(agent);
    let sandbox = builder.start().await?;
    timed("exec", sandbox.command("true").output()).await?;
    timed("destroy", sandbox.destroy()).await?;
    Ok(())
}
