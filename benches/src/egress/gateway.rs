//! Our gateway, in a process of its own: a sandbox whose guest runs on the host, so that the listeners that the guest passes
//! out are at the host's loopback. All else is as for any sandbox: the policy, the checks, an audit that is written.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use async_trait::async_trait;
use sandbox_core::policy::{Allowlist, Bundle, Egress, EgressRule, NetworkRequest, Policy};
use sandbox_core::testkit::FakeRuntime;
use sandbox_core::{Envelope, Error, EventSink, RunRoot, Runtime as _, Sandbox};
use sandbox_runtime::{EgressProxy, Resolve, Roots, guest_program};
use tempfile::TempDir;

use super::GATEWAY;
use super::daemon::{Memory, free_ports};
use super::origin::{HOST, Origin};
use crate::{Result, scratch};

/// The gateway's process, which ends with this value.
#[derive(Debug)]
pub(super) struct Gateway {
    child: Child,
    pub(super) at: SocketAddr,
    /// The authorities that programs inside trust.
    pub(super) bundle: PathBuf,
    _directory: TempDir,
}

impl Gateway {
    /// Starts this very program once more, as the gateway to a server at these two ports.
    pub(super) fn start(origin: &Origin, plain: u16, secure: u16) -> Result<Self> {
        let directory = scratch()?;
        let mut child = Command::new(std::env::current_exe()?)
            .arg(GATEWAY)
            .args([origin.address.to_string(), plain.to_string(), secure.to_string()])
            .args([origin.authority(), directory.path().to_owned()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().ok_or("the gateway has no output")?;
        BufReader::new(output).read_line(&mut line)?;
        let bundle = directory.path().join(BUNDLE);
        let mut gateway = Self { child, at: (Ipv4Addr::LOCALHOST, 0).into(), bundle, _directory: directory };
        let port = line.trim().parse().map_err(|_| "the gateway did not start; its error stands above")?;
        gateway.at.set_port(port);
        Ok(gateway)
    }

    pub(super) fn memory(&self) -> Result<Memory> {
        Memory::of(self.child.id())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It ends by itself when its input does. What it says then was said to whoever runs the report.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Is the gateway, until the input ends: prints the port at which it listens.
///
/// # Errors
/// For other arguments than those of [`Contest`](super::Contest), and the sandbox's.
#[expect(clippy::print_stdout, reason = "it is how the port is told")]
pub fn run(arguments: &[String]) -> Result<()> {
    let [address, plain, secure, authority, directory] = arguments else {
        return Err(format!("{GATEWAY} takes an address, two ports and two paths").into());
    };
    let (address, plain, secure): (IpAddr, u16, u16) = (address.parse()?, plain.parse()?, secure.parse()?);
    let directory = PathBuf::from(directory);
    let ports = free_ports(Ipv4Addr::LOCALHOST.into(), 2)?;
    let gateway = EgressProxy::new()
        .with_ports(ports[0], ports[1])
        .with_connections(20_000)
        .with_resolver(There(address))
        .with_roots(Roots::from_pem(&std::fs::read_to_string(authority)?)?)
        .with_bundle_at(directory.join(BUNDLE).to_string_lossy());
    let rule = |port| EgressRule::new(HOST.parse()?).with_ports([port]).with_addresses([address]);
    // TLS ends in the gateway where rules are about requests.
    let rules = [rule(plain)?, rule(secure)?.with_methods(["GET".parse()?])].into();
    let egress = Egress::list(Allowlist { bundles: Bundle::ALL.iter().copied().collect(), rules });
    tokio::runtime::Runtime::new()?.block_on(async {
        let runtime = FakeRuntime::new(guest_program());
        let capabilities = runtime.capabilities();
        let lacking =
            capabilities.iter().map(|(control, _)| control).filter(|control| !capabilities.is_enforced(*control));
        let policy = lacking.fold(Policy::standard(), Policy::with_waived).with_egress(egress);
        let builder =
            Sandbox::builder().policy(policy).image(FakeRuntime::IMAGE).run_root(RunRoot::new(directory.join("run")));
        let builder = builder.network(NetworkRequest::Egress).gateway(gateway);
        let audit = Audit(File::create(directory.join("audit"))?);
        let sandbox = builder.runtime(runtime).events(audit).start().await?;
        println!("{}", ports[0]);
        tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
        sandbox.destroy().await?;
        Ok(())
    })
}

/// Knows one address, since no server of names is measured here.
#[derive(Debug)]
struct There(IpAddr);

#[async_trait]
impl Resolve for There {
    async fn resolve(&self, _: &str) -> std::io::Result<Vec<IpAddr>> {
        Ok(vec![self.0])
    }
}

/// Writes each event down, as `sandbox --audit` does.
#[derive(Debug)]
struct Audit(File);

impl EventSink for Audit {
    fn record(&self, envelope: &Envelope) -> sandbox_core::Result<()> {
        let refused = |error| Error::io("cannot write the audit", error);
        let mut line = serde_json::to_vec(envelope).map_err(|error| refused(error.into()))?;
        line.push(b'\n');
        (&self.0).write_all(&line).map_err(refused)
    }
}

const BUNDLE: &str = "bundle.pem";
