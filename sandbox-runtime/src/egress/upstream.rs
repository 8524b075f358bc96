//! A proxy beyond this one, where an organisation has one: it is asked for what the policy has allowed.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sandbox_policy::Host;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::answer::Refusal;
use super::buffer::Buffer;
use super::head::{self, ResponseHead};
use super::session::Pass;

/// An HTTP proxy through which everything goes.
///
/// It resolves the names, so that what they resolve to is its own to check; addresses that are asked for as such are checked
/// here all the same.
#[derive(Clone)]
pub struct Upstream {
    host: Host,
    port: u16,
    login: Option<(String, SecretString)>,
}

impl Upstream {
    /// Names the proxy.
    pub fn new(host: Host, port: u16) -> Self {
        Self { host, port, login: None }
    }

    /// Sets the user and the password that it asks for.
    #[must_use]
    pub fn with_login(mut self, user: impl Into<String>, password: SecretString) -> Self {
        self.login = Some((user.into(), password));
        self
    }

    /// Connects to the proxy itself.
    pub(crate) async fn connect(&self) -> Result<TcpStream, Refusal> {
        let host = self.host.address().map_or_else(|| self.host.to_string(), |address| address.to_string());
        let connected = tokio::time::timeout(WITHIN, TcpStream::connect((host, self.port))).await;
        let Ok(Ok(stream)) = connected else {
            return Err(Refusal::unreachable("the proxy beyond this one does not answer"));
        };
        super::dial::keep_alive(&stream);
        // Small messages are not held back; where that cannot be had, they are slower.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// Asks the proxy for a tunnel to where a pass leads.
    pub(crate) async fn tunnel(&self, pass: &Pass) -> Result<TcpStream, Refusal> {
        let mut stream = self.connect().await?;
        let at = format!("{}:{}", pass.host(), pass.port());
        let asking = async {
            let login = self.login_field();
            let request = format!("CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n{login}\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut buffer = Buffer::default();
            let head = head::read(&mut buffer, &mut stream, WITHIN, WITHIN).await?;
            // What it says before anybody has spoken is nobody's.
            let silent = buffer.unread().is_empty();
            Ok::<_, std::io::Error>(ResponseHead::parse(&head).ok().filter(|_| silent).map(|head| head.status))
        };
        match tokio::time::timeout(WITHIN, asking).await {
            Ok(Ok(Some(200..=299))) => Ok(stream),
            Ok(Ok(Some(status))) => {
                Err(Refusal::unreachable(format!("the proxy beyond this one answers {status} for {at}")))
            }
            _ => Err(Refusal::unreachable("the proxy beyond this one makes no sense")),
        }
    }

    /// The field that says who asks, with its end; empty where nobody does.
    pub(crate) fn login_field(&self) -> String {
        self.login.as_ref().map_or_else(String::new, |(user, password)| {
            let login = BASE64_STANDARD.encode(format!("{user}:{}", password.expose_secret()));
            format!("Proxy-Authorization: Basic {login}\r\n")
        })
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("host", &self.host).field("port", &self.port).finish_non_exhaustive()
    }
}

const WITHIN: Duration = Duration::from_secs(20);
