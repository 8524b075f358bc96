//! Accepts what programs inside connect to, within bounds.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use super::answer::{Refusal, RefusalKind};
use super::session::Session;
use super::{forward, socks};

/// Serves both listeners for as long as the future lives. Everything that it serves ends with it, the listeners too; and it
/// ends where anything of it panics.
pub(crate) async fn run(session: Arc<Session>, http: TcpListener, socks: TcpListener, most: usize) {
    let room = Arc::new(Semaphore::new(most));
    let full = Refusal::new(
        RefusalKind::TooMany,
        "a limit of connections",
        format!("this sandbox has {most} connections already"),
        "close some",
    );
    let full = full.response("GET");
    let http = accept(&http, &room, &full, |stream| forward::serve(Arc::clone(&session), stream));
    let socks = accept(&socks, &room, &[], |stream| socks::serve(Arc::clone(&session), stream));
    tokio::join!(http, socks);
}

async fn accept<F>(listener: &TcpListener, room: &Arc<Semaphore>, full: &[u8], serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => match Arc::clone(room).try_acquire_owned() {
                    Ok(place) => {
                        // Small messages are not held back; where that cannot be had, they are slower.
                        let _ = stream.set_nodelay(true);
                        let serving = serve(stream);
                        connections.spawn(async move {
                            // How a connection ended is the client's to see.
                            let _ = serving.await;
                            drop(place);
                        });
                    }
                    // Whoever is turned away need not hear why.
                    Err(_) => drop(stream.try_write(full)),
                },
                // Descriptors are short: those that are in use will come back.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(ended) = connections.join_next() => broken_down(ended),
        }
    }
}

/// Goes down with a connection that broke down: what it was to hold may hold no more, so nothing goes out from here on. Whoever
/// closes the gateway is told.
pub(crate) fn broken_down(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}
