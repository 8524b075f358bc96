//! A pass becomes a connection: every address that its host has is checked, and a checked one is dialled.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;

use super::answer::Refusal;
use super::session::{Pass, Session};
use super::thread::AtHome;

impl Session {
    /// Connects to where a pass leads, by way of the upstream proxy where there is one.
    pub(crate) async fn dial(&self, pass: &Pass) -> Result<TcpStream, Refusal> {
        match &self.upstream {
            Some(upstream) => upstream.tunnel(pass).await,
            None => self.dial_directly(pass).await,
        }
    }

    async fn dial_directly(&self, pass: &Pass) -> Result<TcpStream, Refusal> {
        let addresses = self.addresses(pass).await?;
        let mut last = None;
        let dialling = async {
            for address in addresses.into_iter().take(MAX_TRIED) {
                match TcpStream::connect(SocketAddr::new(address, pass.port())).await {
                    Ok(stream) => return Some(stream),
                    Err(error) => last = Some(error),
                }
            }
            None
        };
        let stream = tokio::time::timeout(DIAL_WITHIN, dialling).await;
        let at = format!("{} port {}", pass.host(), pass.port());
        match stream {
            Ok(Some(stream)) => {
                // Small messages are not held back; where that cannot be had, they are slower.
                let _ = stream.set_nodelay(true);
                keep_alive(&stream);
                Ok(stream)
            }
            Ok(None) => {
                let why = last.map_or_else(|| "no address".to_owned(), |error| error.kind().to_string());
                Err(Refusal::unreachable(format!("{at} cannot be reached: {why}")))
            }
            Err(_) => Err(Refusal::unreachable(format!("{at} did not answer within {} s", DIAL_WITHIN.as_secs()))),
        }
    }

    /// Every address of the pass's host, if all of them may be dialled.
    async fn addresses(&self, pass: &Pass) -> Result<Vec<IpAddr>, Refusal> {
        let found = match (pass.host().address(), pass.host().name()) {
            (Some(address), _) => vec![address],
            (None, Some(name)) => {
                let unfound = |why: String| Refusal::unreachable(format!("{name} cannot be resolved: {why}"));
                let resolving = AtHome::new(&self.home, self.resolver.resolve(name));
                match tokio::time::timeout(RESOLVE_WITHIN, resolving).await {
                    Ok(Ok(found)) if !found.is_empty() => found,
                    Ok(Ok(_)) => return Err(unfound("it has no address".to_owned())),
                    Ok(Err(_)) => return Err(unfound("the host's resolver does not know it".to_owned())),
                    Err(_) => return Err(unfound(format!("no answer within {} s", RESOLVE_WITHIN.as_secs()))),
                }
            }
            (None, None) => Vec::new(),
        };
        // One bad answer spoils all: a name that leads to a public address and to a private one is up to no good.
        for address in &found {
            if let Err(reason) = pass.check_address(*address) {
                let reason = format!("{} resolves to {reason}", pass.host());
                let hint = "only a rule that names the host and the address allows it";
                return Err(self.revoke(pass, "addresses that are not public", reason, hint));
            }
        }
        Ok(found)
    }
}

/// Has the kernel find out about a peer that is gone without a word.
pub(crate) fn keep_alive(stream: &TcpStream) {
    use rustix::net::sockopt;
    let set = || -> io::Result<()> {
        sockopt::set_socket_keepalive(stream, true)?;
        sockopt::set_tcp_keepidle(stream, Duration::from_mins(1))?;
        sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15))?;
        sockopt::set_tcp_keepcnt(stream, 4)?;
        Ok(())
    };
    // Without it, such a connection stays until the sandbox's end.
    let _ = set();
}

/// How long it may take to connect, all addresses together.
const DIAL_WITHIN: Duration = Duration::from_secs(15);
/// How long a resolver may take.
const RESOLVE_WITHIN: Duration = Duration::from_secs(10);
/// How many of a host's addresses are tried.
const MAX_TRIED: usize = 4;
