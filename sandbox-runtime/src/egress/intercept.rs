//! Where each request of a TLS connection must be seen: rules about requests, and credentials.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use sandbox_policy::Host;
use tokio::net::TcpStream;

use super::buffer::Link;
use super::session::Session;

/// Ends TLS in the gateway, and asks the session about every request.
#[async_trait]
pub(crate) trait Intercept: fmt::Debug + Send + Sync + 'static {
    /// Whether connections to there are its own.
    fn wants(&self, host: &Host, port: u16) -> bool;

    /// Serves a connection whose client was told that it is connected to there, until it ends. Nothing has been decided on
    /// yet: each request is to be asked for, by [`Session::ask`] with its method and path.
    async fn serve(&self, session: &Arc<Session>, host: Host, port: u16, client: Link<TcpStream>);
}
