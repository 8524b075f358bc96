//! Names become addresses on the host, and only after they are allowed.

use std::fmt;
use std::io;
use std::net::IpAddr;

use async_trait::async_trait;

/// Finds the addresses of a name.
#[async_trait]
pub trait Resolve: fmt::Debug + Send + Sync + 'static {
    /// Returns every address that the name has now.
    ///
    /// # Errors
    /// Whatever keeps it from being found.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// Asks as every program of the host does (nsswitch.conf(5)).
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        // With its final dot no domain of the host's own is tried behind it (resolv.conf(5), `search`). The host's own
        // file of hosts knows no final dots.
        let absolute = tokio::net::lookup_host((format!("{name}."), 0)).await;
        match absolute {
            Ok(found) => Ok(found.map(|address| address.ip()).collect()),
            Err(_) => Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect()),
        }
    }
}
