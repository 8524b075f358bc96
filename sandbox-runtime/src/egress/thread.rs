//! The thread that one sandbox's connections are served on, from the first byte to the last.
//!
//! A connection has two sockets that wait for each other. On a thread of its own the gateway answers to the kernel alone: no
//! readiness is handed from one thread of the caller's to another, which costs more than all else that a small message needs.
//! It also bounds what a sandbox takes of the host: one core, however many connections it has.
//!
//! Invariant: what is served ends with the thread, and the thread ends when this value does. What is the caller's own, its
//! resolver and its provider of credentials, still runs with the caller's runtime around it.

use std::future::Future;
use std::net::TcpListener as StdTcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use sandbox_core::{Error, ErrorKind, Result};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::serve;
use super::session::Session;

/// A gateway that serves; it ends when this is dropped, and may then take a moment.
#[derive(Debug)]
pub(crate) struct Thread {
    handle: JoinHandle<()>,
    /// Dropped to have it end.
    stop: oneshot::Sender<()>,
    /// Ends when it has.
    ended: oneshot::Receiver<()>,
}

impl Thread {
    /// Serves both listeners, with room for so many connections.
    ///
    /// # Errors
    /// `Io` where this machine gives no thread, or none of what it needs.
    pub(crate) fn start(session: Arc<Session>, http: TcpListener, socks: TcpListener, most: usize) -> Result<Self> {
        let cannot = |error| Error::io("cannot serve the egress gateway on a thread of its own", error);
        // They go from the caller's runtime to the thread's.
        let (http, socks) = (http.into_std().map_err(cannot)?, socks.into_std().map_err(cannot)?);
        let runtime = Builder::new_current_thread().enable_io().enable_time().build().map_err(cannot)?;
        let (stop, stopped) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        let serve = move || {
            let _ending: oneshot::Sender<()> = ending;
            runtime.block_on(async {
                tokio::select! {
                    () = served(session, http, socks, most) => {}
                    _ = stopped => {}
                }
            });
            // Nothing is left on it but a look-up that the system has not answered yet.
            runtime.shutdown_background();
        };
        let handle = std::thread::Builder::new().name("sandbox-egress".to_owned()).spawn(serve).map_err(cannot)?;
        Ok(Self { handle, stop, ended })
    }

    /// Ends it. When this returns, nothing can pass any more.
    ///
    /// # Errors
    /// `Residue` where it had broken down, or does not end.
    pub(crate) async fn end(self) -> Result<()> {
        let Self { handle, stop, ended } = self;
        drop(stop);
        // It is told by being dropped, so that it tells of a panic as well.
        if tokio::time::timeout(END_WITHIN, ended).await.is_err() {
            return Err(Error::new(ErrorKind::Residue, "the egress gateway's thread does not end"));
        }
        if handle.join().is_err() {
            // The listeners ended with it, so nothing passed since.
            return Err(Error::new(ErrorKind::Residue, "the egress gateway had broken down before the sandbox's end"));
        }
        Ok(())
    }
}

async fn served(session: Arc<Session>, http: StdTcpListener, socks: StdTcpListener, most: usize) {
    // This fails only where the runtime has no descriptors left; then nothing is served, and nothing passes.
    if let (Ok(http), Ok(socks)) = (TcpListener::from_std(http), TcpListener::from_std(socks)) {
        serve::run(session, http, socks, most).await;
    }
}

/// Work of the caller's, polled here with the caller's runtime around it: what it opens, starts and waits for belongs there.
pub(crate) struct AtHome<F> {
    home: Handle,
    work: F,
}

impl<F: Future + Unpin> AtHome<F> {
    pub(crate) fn new(home: &Handle, work: F) -> Self {
        Self { home: home.clone(), work }
    }
}

impl<F: Future + Unpin> Future for AtHome<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { home, work } = &mut *self;
        let _here = home.enter();
        Pin::new(work).poll(cx)
    }
}

/// Nothing that it does takes longer, but for a sink or a provider that blocks.
const END_WITHIN: Duration = Duration::from_secs(10);
