//! Where the proxies meet: one server and everybody's way to it.

use std::cell::Cell;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::daemon::Memory;
use super::gateway::Gateway;
use super::origin::{HOST, LARGE, Origin};
use super::rivals::Rival;
use super::{Entrant, Session, Trust, Via};
use crate::{OURS, Result};

/// A server, and proxies to it.
#[derive(Debug)]
pub struct Contest {
    origin: Origin,
    /// How many of the server's further ports have been used.
    used: Cell<usize>,
    gateway: Gateway,
    squid: Rival,
    tinyproxy: Rival,
    mitmdump: Rival,
}

impl Contest {
    /// Starts the server and all proxies.
    ///
    /// # Errors
    /// If one of them does not start, with what it said.
    pub fn start() -> Result<Self> {
        // What is started here inherits it.
        let files = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;
        let origin = Origin::start(CONTENDERS.len() + CROWDS)?;
        let [plain, secure] = [origin.plain[0], origin.secure[0]];
        let gateway = Gateway::start(&origin, plain, secure)?;
        let squid = Rival::squid(origin.address)?;
        let tinyproxy = Rival::tinyproxy()?;
        let mitmdump = Rival::mitmdump(&origin.authority())?;
        Ok(Self { origin, used: Cell::new(CONTENDERS.len()), gateway, squid, tinyproxy, mitmdump })
    }

    /// How many tunnels a proxy can hold, but not more than this: each takes two descriptors of it.
    pub fn room(&self, most: usize) -> usize {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        usize::try_from(descriptors.saturating_sub(SPARE) / 2).map_or(most, |room| room.min(most))
    }

    /// These contenders, by name.
    ///
    /// # Errors
    /// If there is none of that name, or it has no authority.
    pub fn entrants(&self, names: &[&'static str]) -> Result<Vec<Entrant>> {
        names.iter().map(|name| self.entrant(name)).collect()
    }

    fn entrant(&self, name: &'static str) -> Result<Entrant> {
        let at =
            CONTENDERS.iter().position(|other| *other == name).ok_or_else(|| format!("nobody is called {name}"))?;
        let (proxy, authority) = match name {
            OURS => (Some(self.gateway.at), Some(self.gateway.bundle.clone())),
            "squid" => (Some(self.squid.at), None),
            "tinyproxy" => (Some(self.tinyproxy.at), None),
            "mitmdump" => (Some(self.mitmdump.at), Some(self.mitmdump.file("mitmproxy-ca-cert.pem"))),
            _ => (None, Some(self.origin.authority())),
        };
        let trust = authority.map(|authority| Trust::file(&authority)).transpose()?;
        // Nobody but our gateway is asked by name: it has a policy to look that up in, and the others would ask a resolver.
        let host = if name == OURS { HOST.to_owned() } else { self.origin.address.to_string() };
        Ok(Entrant { name, proxy, host, plain: self.origin.plain[at], secure: self.origin.secure[at], trust })
    }

    /// Opens so many tunnels by a new proxy of this name, uses each of them once, and leaves them open; returns by how much
    /// more memory the proxy held at its peak than with one, in KiB for each.
    ///
    /// # Errors
    /// If one of them cannot be opened.
    pub fn idle(&self, name: &'static str, count: usize) -> Result<f64> {
        let mut entrant = self.entrant(name)?;
        // Those that were closed before keep the proxy's ports to theirs for a minute (tcp(7), TIME_WAIT).
        let next = self.used.replace(self.used.get() + 1);
        entrant.plain = *self.origin.plain.get(next).ok_or("there are no more crowds than six")?;
        if name == OURS {
            let gateway = Gateway::start(&self.origin, entrant.plain, entrant.secure)?;
            entrant.proxy = Some(gateway.at);
            grown(&entrant, count, || gateway.memory())
        } else {
            let squid = Rival::squid(self.origin.address)?;
            entrant.proxy = Some(squid.at);
            grown(&entrant, count, || squid.memory())
        }
    }
}

impl Entrant {
    /// Takes the large file once; returns in what time.
    ///
    /// # Errors
    /// If it does not come whole.
    pub fn large(&self, session: &mut Session) -> Result<Duration> {
        let begun = Instant::now();
        let came = session.get("/large")?;
        let took = begun.elapsed();
        if came == LARGE as u64 { Ok(took) } else { Err(format!("{}: {came} bytes came", self.name).into()) }
    }

    /// Has clients open so many connections each, for one small file each; returns how many there were in a second.
    ///
    /// # Errors
    /// If one of them is not served.
    pub fn crowd(&self, connections: usize) -> Result<f64> {
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let client = || (0..connections).try_for_each(|_| self.once(Via::Tunnel, "/small").map(drop));
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            clients.into_iter().try_for_each(|client| client.join().map_err(|_| "a client broke down")?)
        })?;
        #[expect(clippy::cast_precision_loss, reason = "there are thousands, not billions of billions")]
        Ok((CLIENTS * connections) as f64 / begun.elapsed().as_secs_f64())
    }
}

fn grown(entrant: &Entrant, count: usize, memory: impl Fn() -> Result<Memory>) -> Result<f64> {
    let first = entrant.held(Via::Tunnel, "/small")?;
    let before = memory()?;
    let held: Vec<Session> = (0..count).map(|_| entrant.held(Via::Tunnel, "/small")).collect::<Result<_>>()?;
    let after = memory()?;
    drop((first, held));
    #[expect(clippy::cast_precision_loss, reason = "there are thousands, not billions of billions")]
    Ok((after.peak - before.now) / count as f64)
}

/// How many clients there are at once, where there are many.
pub const CLIENTS: usize = 16;

const CONTENDERS: [&str; 5] = [OURS, "direct", "squid", "tinyproxy", "mitmdump"];

/// How many crowds of idle connections there are: each has a port of the server's for itself.
const CROWDS: usize = 6;

/// Descriptors that a proxy has for itself.
const SPARE: u64 = 1_000;
