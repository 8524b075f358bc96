//! A server with TLS at this machine's own address, and a gateway that finds it by a name and trusts it.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;

use async_trait::async_trait;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sandbox_runtime::{EgressProxy, Resolve, Roots, SystemResolver};

use super::super::harness::{Origin, own_address};
use crate::termination::origin::Trusted;

/// The server's name.
pub(super) const NAME: &str = "origin.example";

pub(super) struct Secure {
    pub(super) origin: Origin,
    trusted: Trusted,
}

/// Knows where the server is, and of every other name what this machine knows.
#[derive(Debug)]
struct Names;

#[async_trait]
impl Resolve for Names {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        if name == NAME { Ok(vec![own_address()]) } else { SystemResolver.resolve(name).await }
    }
}

impl Secure {
    /// Answers requests; the path and query of each is noted, a line for each.
    pub(super) async fn serving<F>(answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let trusted = Trusted::new();
        let acceptor = trusted.server(NAME, &["http/1.1"]);
        let origin = Origin::serving(0, move |stream, seen| {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            async move {
                // Who does not trust it goes away.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request: Request<Incoming>| {
                    seen.lock().unwrap().extend(format!("{} {}\n", request.method(), request.uri()).bytes());
                    let answering = answer(request);
                    async move { Ok::<_, Infallible>(answering.await) }
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await;
        Self { origin, trusted }
    }

    /// The authority that vouches for it, in PEM.
    pub(super) fn authority(&self) -> String {
        self.trusted.pem().to_owned()
    }

    /// A gateway that trusts it beside whom this machine trusts.
    pub(super) fn gateway(&self) -> EgressProxy {
        EgressProxy::new().with_resolver(Names).with_roots(Roots::system().unwrap().and(&self.trusted.roots()))
    }
}
