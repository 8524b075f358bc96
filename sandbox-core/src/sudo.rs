//! Root inside, asked for by a program there and decided on here.
//!
//! The program `sudo` connects to a socket whose listener the guest has passed out. It brings its arguments and its own streams;
//! the policy decides, the sink records, and then the guest runs the program as container root on those streams. The asking
//! program has no more rights afterwards than before, and no bit of it is set-id.

mod call;
mod peer;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sandbox_guest::sudo::{NAME, SOCKET};
use sandbox_policy::{Capabilities, Control, SandboxSpec, SudoRule, Support};
use tokio::net::UnixListener;
use tokio::task::JoinSet;

use call::Calls;

use crate::{Error, ErrorKind, Events, Gateway, Guest, OpenGateway, Result, Status, Token};

/// Lets the agent ask for root inside, as far as the policy says.
#[derive(Clone, Copy, Debug, Default)]
pub struct SudoGateway {}

impl SudoGateway {
    /// Makes it; it serves the sandboxes that ask for sudo.
    pub fn new() -> Self {
        Self {}
    }
}

#[async_trait]
impl Gateway for SudoGateway {
    fn name(&self) -> &'static str {
        "sudo"
    }

    fn capabilities(&self) -> Capabilities {
        let by = "the host, which decides on each command, and the guest, which alone can run it";
        Capabilities::new().with(Control::Sudo, Support::Enforced { by: by.to_owned() })
    }

    async fn open(&self, spec: &SandboxSpec, events: &Events, _: Option<Token>) -> Result<Box<dyn OpenGateway>> {
        Ok(Box::new(OpenSudo { spec: spec.clone(), events: events.clone(), serving: JoinSet::new() }))
    }
}

/// Sudo of one sandbox. What serves it ends with it, and what was run ends with what serves it.
#[derive(Debug)]
struct OpenSudo {
    spec: SandboxSpec,
    events: Events,
    serving: JoinSet<()>,
}

#[async_trait]
impl OpenGateway for OpenSudo {
    async fn attach(&mut self, guest: &Guest) -> Result<()> {
        if self.spec.sudo() == SudoRule::Deny {
            return Ok(());
        }
        let listener = guest.listen_unix(SOCKET, EVERYBODY).await?;
        let calls = Calls { spec: self.spec.clone(), events: self.events.clone(), guest: guest.clone() };
        self.serving.spawn(serve(listener, Arc::new(calls)));
        // The agent's own way, tried before the agent is there.
        let tried = guest.command(NAME).arg("-V").deadline(TRIAL).output_limit(1 << 10).output().await;
        let found = tried
            .is_ok_and(|output| output.exit.status == Status::Code(0) && output.stdout.starts_with(NAME.as_bytes()));
        if found {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Guest, "sudo does not answer inside")
            .with_hint("the image's /run must be a directory that only root can write"))
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        self.serving.shutdown().await;
        Ok(())
    }
}

/// Accepts as many callers as are served at once; the others wait, and the kernel keeps so many of them.
async fn serve(listener: UnixListener, calls: Arc<Calls>) {
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = running.join_next() => {}
            accepted = listener.accept(), if running.len() < MOST_AT_ONCE => match accepted {
                Ok((caller, _)) => {
                    running.spawn(Arc::clone(&calls).attend(caller));
                }
                // The host has no descriptor to spare for the moment.
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }
}

/// Permission bits: whoever is inside may ask, since the answer does not depend on who it is.
const EVERYBODY: u32 = 0o666;
/// How many callers are served at once; one whose program runs counts.
const MOST_AT_ONCE: usize = 16;
/// How long after a failed accept the next one is tried.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long the first answer may take.
const TRIAL: Duration = Duration::from_secs(20);
