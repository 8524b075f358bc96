//! Connections to engines: by a socket, by a port with TLS, or by a program that leads to one.
//!
//! Invariant: a connection holds all that it needs, and dropping it ends that.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bollard::errors::Error as Failure;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use http::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use sandbox_core::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::endpoint::{SshEndpoint, TcpEndpoint};
use super::{Endpoint, error, ssh, tls};

/// Makes a client of the engine's API; nothing is sent yet.
pub(crate) fn client(endpoint: &Endpoint) -> Result<Docker> {
    let way = match endpoint {
        Endpoint::Unix(path) => {
            let socket = path.to_str().ok_or_else(|| {
                Error::new(ErrorKind::InvalidInput, format!("engine address {endpoint}: the path is not UTF-8"))
                    .with_hint("give the engine a socket whose path is")
            })?;
            return Docker::connect_with_unix(socket, UNUSED.as_secs(), API_DEFAULT_VERSION)
                .map_err(|failure| error::answer(endpoint, "connect", failure).into_error());
        }
        Endpoint::Tcp(tcp) => {
            tcp.check()?;
            let secured = tcp.certificates.as_deref().map(|directory| secured(tcp, directory)).transpose()?;
            Way::Tcp(tcp.clone(), secured)
        }
        Endpoint::Ssh(ssh) => Way::Ssh(ssh.clone()),
    };
    let client: Client<Dialer, _> = Client::builder(TokioExecutor::new()).build(Dialer(Arc::new(way)));
    let transport = move |request: BollardRequest| {
        let client = client.clone();
        async move { client.request(request).await.map_err(Failure::from) }
    };
    // The name is what the engine sees as its own; where it is, the dialer knows.
    Docker::connect_with_custom_transport(transport, Some("http://engine"), UNUSED.as_secs(), API_DEFAULT_VERSION)
        .map_err(|failure| error::answer(endpoint, "connect", failure).into_error())
}

fn secured(tcp: &TcpEndpoint, directory: &std::path::Path) -> Result<(TlsConnector, ServerName<'static>)> {
    let name = match tcp.host.address() {
        Some(address) => ServerName::from(address),
        None => ServerName::try_from(tcp.host.to_string()).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, format!("host {} can have no certificate", tcp.host)).with_source(error)
        })?,
    };
    Ok((TlsConnector::from(Arc::new(tls::settings(directory)?)), name))
}

/// How an engine is reached.
enum Way {
    Tcp(TcpEndpoint, Option<(TlsConnector, ServerName<'static>)>),
    Ssh(SshEndpoint),
}

/// Opens connections, each time one is needed.
#[derive(Clone)]
struct Dialer(Arc<Way>);

impl Dialer {
    async fn dial(self) -> io::Result<Dialed> {
        let (endpoint, secured) = match &*self.0 {
            Way::Ssh(endpoint) => return Ok(Dialed(Box::new(ssh::dial(endpoint)?))),
            Way::Tcp(endpoint, secured) => (endpoint, secured),
        };
        let stream = TcpStream::connect(endpoint.target()).await?;
        stream.set_nodelay(true)?;
        Ok(Dialed(match secured {
            None => Box::new(stream),
            Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await?),
        }))
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<Dialed>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            match tokio::time::timeout(DIAL, dialer.dial()).await {
                Ok(connection) => connection.map(TokioIo::new),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }
}

/// An open connection.
struct Dialed(Box<dyn Stream>);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Connection for Dialed {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Dialed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Dialed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }
}

/// What opening one connection may take.
const DIAL: Duration = Duration::from_secs(15);

/// Deadlines are our own, call by call; the client's must only be longer.
const UNUSED: Duration = Duration::from_hours(24);
