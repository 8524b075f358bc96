//! A program that wants a terminal, driven from outside: what is written is typed, what is read is on the screen.
//!
//! usage: `cargo run -p sandbox-examples --bin terminal -- unix:///var/run/docker.sock debian:12`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use sandbox_core::policy::{Control, Policy};
use sandbox_core::{Result, Sandbox, Terminal, WindowSize};
use sandbox_runtime::DockerRuntime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(engine), Some(image)) = (arguments.next(), arguments.next()) else {
        return Err("usage: terminal ENGINE IMAGE".into());
    };
    let sandbox = Sandbox::builder()
        .runtime(DockerRuntime::connect(engine.parse()?).await?)
        .policy(Policy::standard().with_waived(Control::Disk).with_waived(Control::UserNamespace))
        .image(image)
        .start()
        .await?;

    let driven = drive(&sandbox).await;
    sandbox.destroy().await?;
    driven
}

async fn drive(sandbox: &Sandbox) -> Result<(), Box<dyn std::error::Error>> {
    let shell = sandbox.command("sh").env("PS1", PROMPT);
    let mut terminal = shell.terminal(WindowSize { rows: 24, columns: 80 }).await?;
    print!("{}", until_prompt(&mut terminal).await?);
    // A person's window changes its size now and then.
    terminal.resize(WindowSize { rows: 50, columns: 132 })?;
    for line in ["tty", "stty size"] {
        terminal.write_all(format!("{line}\n").as_bytes()).await?;
        print!("{}", until_prompt(&mut terminal).await?);
    }
    // The end of input, as it is typed: Ctrl-D.
    terminal.write_all(b"\x04").await?;
    println!("\nthe shell ended: {:?}", terminal.wait().await?.status);
    Ok(())
}

/// What the shell says when it waits for a line.
const PROMPT: &str = "ready> ";

/// Reads the screen until the prompt; what comes from inside is bounded, as everywhere.
async fn until_prompt(terminal: &mut Terminal) -> Result<String, Box<dyn std::error::Error>> {
    let mut seen = Vec::new();
    while !seen.ends_with(PROMPT.as_bytes()) {
        if seen.len() > 64 << 10 {
            return Err("the program writes and writes, and no prompt comes".into());
        }
        if terminal.read_buf(&mut seen).await? == 0 {
            return Err("the program hung up".into());
        }
    }
    Ok(String::from_utf8_lossy(&seen).into_owned())
}
