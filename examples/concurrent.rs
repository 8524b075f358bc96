//! Many sandboxes at once on one connection.
//!
//! usage: `cargo run -p sandbox-examples --bin concurrent -- unix:///var/run/docker.sock debian:12 8`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::sync::Arc;
use std::time::Instant;

use sandbox_core::policy::{Control, Policy};
use sandbox_core::{Result, Runtime, Sandbox};
use sandbox_runtime::DockerRuntime;
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(engine), Some(image), Some(count)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("usage: concurrent ENGINE IMAGE COUNT".into());
    };
    let runtime: Arc<dyn Runtime> = Arc::new(DockerRuntime::connect(engine.parse()?).await?);

    let begun = Instant::now();
    let mut jobs = JoinSet::new();
    for number in 0..count.parse::<usize>()? {
        jobs.spawn(job(Arc::clone(&runtime), image.clone(), number));
    }
    // Each is waited for, whatever became of the others: a program that ends takes their clean-up with it.
    let mut failed = 0;
    while let Some(answer) = jobs.join_next().await {
        let text = answer?.unwrap_or_else(|error| {
            failed += 1;
            format!("failed: {error}")
        });
        println!("{:>6.1} ms: {text}", begun.elapsed().as_secs_f64() * 1_000.0);
    }

    let left = runtime.list().await?;
    println!("containers left by this process: {}", left.iter().filter(|container| is_mine(container)).count());
    if failed == 0 { Ok(()) } else { Err(format!("{failed} jobs failed").into()) }
}

async fn job(runtime: Arc<dyn Runtime>, image: String, number: usize) -> Result<String> {
    let policy = Policy::standard().with_waived(Control::Disk).with_waived(Control::UserNamespace);
    let sandbox = Sandbox::builder().shared_runtime(runtime).policy(policy).image(image).start().await?;
    let output = sandbox.command("sh").args(["-c", &format!("echo $(({number} * {number}))")]).output().await;
    sandbox.destroy().await?;
    Ok(format!("the square of {number} is {}", String::from_utf8_lossy(&output?.stdout).trim()))
}

fn is_mine(container: &sandbox_core::ContainerSummary) -> bool {
    container.owner == sandbox_core::Owner::current().ok()
}
