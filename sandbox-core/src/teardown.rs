//! The one stack on which everything that is opened lies until it is closed.
//!
//! An undo is pushed *before* its effect, so that an effect whose answer was lost is undone as well; each undo is
//! therefore content to find nothing.

use std::sync::Arc;
use std::time::Duration;

use crate::cover::Held;
use crate::run_directory::RunDirectory;
use crate::work::Checkout;
use crate::{ContainerId, Error, ErrorKind, OpenGateway, Result, Runtime, Token, TokenProvider};

/// How long one step back may take.
const STEP: Duration = Duration::from_mins(1);

/// One step back.
#[derive(Debug)]
pub(crate) enum Undo {
    /// Lets go of what lies below the workspace.
    Checkout(Checkout),
    /// Removes a container, by the id or the name that it was to have.
    Container(Arc<dyn Runtime>, ContainerId),
    /// Lets go of what is covered in the workspace; what was made there goes with the run directory.
    Covers(Held),
    /// Closes a gateway.
    Gateway(Box<dyn OpenGateway>),
    /// Removes the run directory.
    RunDirectory(RunDirectory),
    /// Takes a token back.
    Token(Arc<dyn TokenProvider>, Token),
}

impl Undo {
    async fn run(self) -> Result<()> {
        match self {
            Self::Container(runtime, container) => runtime.delete(&container).await,
            Self::Checkout(checkout) => {
                drop(checkout);
                Ok(())
            }
            Self::Covers(held) => {
                drop(held);
                Ok(())
            }
            Self::Gateway(gateway) => gateway.close().await,
            Self::RunDirectory(directory) => directory.remove(),
            Self::Token(provider, token) => provider.revoke(token).await,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Checkout(_) => "letting go of what lies below the workspace".to_owned(),
            Self::Container(_, container) => format!("removing container {container}"),
            Self::Covers(_) => "letting go of the workspace".to_owned(),
            Self::Gateway(gateway) => format!("closing {gateway:?}"),
            Self::RunDirectory(_) => "removing the run directory".to_owned(),
            Self::Token(_, token) => format!("revoking the token for {}", token.repository()),
        }
    }
}

/// Everything that is open.
#[derive(Debug, Default)]
pub(crate) struct Teardown {
    stack: Vec<Undo>,
}

impl Teardown {
    pub(crate) fn push(&mut self, undo: Undo) {
        self.stack.push(undo);
    }

    /// The gateways that are open, in the order in which they were opened.
    pub(crate) fn gateways(&mut self) -> impl Iterator<Item = &mut Box<dyn OpenGateway>> {
        self.stack.iter_mut().filter_map(|undo| match undo {
            Undo::Gateway(gateway) => Some(gateway),
            Undo::Checkout(_) | Undo::Container(..) | Undo::Covers(_) | Undo::RunDirectory(_) | Undo::Token(..) => None,
        })
    }

    /// Undoes everything, last first; a step that fails does not keep the others from being taken, but for one: a container
    /// that may still run keeps what covers its workspace, and the run directory that names it, for the reaper.
    pub(crate) async fn unwind(&mut self) -> Vec<Error> {
        let mut residue = Vec::new();
        let mut is_covered = false;
        while let Some(undo) = self.stack.pop() {
            let name = undo.name();
            let undo = match undo {
                // Whoever removes a placeholder on the host takes away the mount on it. The locks go with this process.
                Undo::Covers(held) if !residue.is_empty() => {
                    std::mem::forget(held);
                    is_covered = true;
                    continue;
                }
                // What may still run may still read it.
                Undo::Checkout(checkout) if !residue.is_empty() => {
                    std::mem::forget(checkout);
                    continue;
                }
                Undo::RunDirectory(_) if is_covered => continue,
                undo => undo,
            };
            match tokio::time::timeout(STEP, undo.run()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    residue.push(Error::new(ErrorKind::Residue, format!("{name} failed")).with_source(error));
                }
                Err(_) => residue.push(Error::deadline(name, STEP)),
            }
        }
        residue
    }
}
