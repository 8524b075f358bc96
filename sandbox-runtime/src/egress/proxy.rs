//! The gateway itself, and what an orchestrator can set and see.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sandbox_core::{
    CredentialProvider, Error, Events, Gateway, Guest, OpenGateway, Resolve, Result, SandboxId, SystemResolver, Token,
};
use sandbox_policy::{Budget, Capabilities, Control, Egress, NetworkRequest, Policy, SandboxSpec, Support};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::budget::Budgets;
use super::environment;
use super::ledger::{Ledger, LedgerEntry};
use super::session::Session;
use super::termination::Termination;
use super::thread::Thread;
use super::trust::{self, Roots};
use super::tunnel::Pipes;
use super::upstream::Upstream;
use super::vault::Vault;

/// Lets through to the internet what the policy allows, and nothing else.
///
/// It accepts on the sandbox's own loopback, as an HTTP proxy and as SOCKS5, so that a sandbox without any network reaches
/// what its policy names. Clones are the same gateway; one may serve many sandboxes.
#[derive(Debug, Clone)]
pub struct EgressProxy {
    settings: Settings,
    shared: Arc<Shared>,
}

#[derive(Debug, Clone)]
struct Settings {
    ports: Ports,
    connections: usize,
    budget: Budget,
    resolver: Arc<dyn Resolve>,
    upstream: Option<Arc<Upstream>>,
    roots: Option<Roots>,
    bundle: String,
    credentials: Option<Arc<dyn CredentialProvider>>,
}

/// Where the gateway is found inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) http: u16,
    pub(crate) socks: u16,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What a reload has left of every policy.
    ceiling: Option<(Egress, Budget)>,
    open: HashMap<SandboxId, Open>,
}

#[derive(Debug)]
struct Open {
    agreed: (Egress, Budget),
    reach: watch::Sender<Arc<Egress>>,
    budgets: Arc<Budgets>,
    ledger: Arc<Ledger>,
}

impl EgressProxy {
    /// Makes a gateway that resolves as the host does, at ports 3128 (HTTP) and 1080 (SOCKS) inside.
    pub fn new() -> Self {
        let settings = Settings {
            ports: Ports { http: 3128, socks: 1080 },
            connections: CONNECTIONS,
            budget: Budget::default(),
            resolver: Arc::new(SystemResolver),
            upstream: None,
            roots: None,
            bundle: trust::BUNDLE_PATH.to_owned(),
            credentials: None,
        };
        Self { settings, shared: Arc::default() }
    }

    /// Sets at which ports of the sandbox's loopback it is found.
    #[must_use]
    pub fn with_ports(mut self, http: u16, socks: u16) -> Self {
        self.settings.ports = Ports { http, socks };
        self
    }

    /// Sets how many connections each sandbox may have at once; 1,024 without it.
    #[must_use]
    pub fn with_connections(mut self, most: usize) -> Self {
        self.settings.connections = most.clamp(1, MAX_CONNECTIONS);
        self
    }

    /// Sets how much each sandbox may move in all, to every host together, where its policy does not say less.
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.settings.budget = budget;
        self
    }

    /// Sets who resolves names.
    #[must_use]
    pub fn with_resolver(mut self, resolver: impl Resolve) -> Self {
        self.settings.resolver = Arc::new(resolver);
        self
    }

    /// Sets a proxy through which everything goes on.
    #[must_use]
    pub fn with_upstream(mut self, upstream: Upstream) -> Self {
        self.settings.upstream = Some(Arc::new(upstream));
        self
    }

    /// Sets the authorities that hosts are checked against where TLS ends here; those of this machine without it.
    #[must_use]
    pub fn with_roots(mut self, roots: Roots) -> Self {
        self.settings.roots = Some(roots);
        self
    }

    /// Sets where the authorities that programs inside trust are placed, in a sandbox where TLS ends here;
    /// `/run/sandbox/authorities.pem` without it.
    #[must_use]
    pub fn with_bundle_at(mut self, path: impl Into<String>) -> Self {
        self.settings.bundle = path.into();
        self
    }

    /// Sets who knows the secrets of the policy's credentials.
    #[must_use]
    pub fn with_credentials(self, provider: impl CredentialProvider) -> Self {
        self.with_shared_credentials(Arc::new(provider))
    }

    /// Sets who knows the secrets of the policy's credentials, for others as well.
    #[must_use]
    pub fn with_shared_credentials(mut self, provider: Arc<dyn CredentialProvider>) -> Self {
        self.settings.credentials = Some(provider);
        self
    }

    /// Tightens what every sandbox of this gateway reaches and moves to what this policy allows, too. What is under way and is no
    /// longer allowed is closed at once.
    pub fn reload(&self, policy: &Policy) {
        let mut state = self.state();
        for open in state.open.values() {
            let (egress, budget) = &open.agreed;
            open.budgets.limit(budget.meet(policy.egress_budget()));
            open.reach.send_replace(Arc::new(egress.meet(policy.egress())));
        }
        state.ceiling = Some((policy.egress().clone(), policy.egress_budget()));
    }

    /// What a sandbox asked for and what became of it; nothing for one that this gateway does not serve, or no more.
    pub fn ledger(&self, sandbox: SandboxId) -> Option<Vec<LedgerEntry>> {
        let ledger = Arc::clone(&self.state().open.get(&sandbox)?.ledger);
        Some(ledger.entries())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for EgressProxy {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Gateway for EgressProxy {
    fn name(&self) -> &'static str {
        "egress"
    }

    fn capabilities(&self) -> Capabilities {
        let by = "the egress gateway: each destination is decided on, resolved on the host and checked".to_owned();
        Capabilities::new().with(Control::EgressAllowlist, Support::Enforced { by })
    }

    async fn open(&self, spec: &SandboxSpec, events: &Events, _: Option<Token>) -> Result<Box<dyn OpenGateway>> {
        let sandbox = events.sandbox();
        if spec.network() == NetworkRequest::None {
            return Ok(Box::new(OpenProxy::new(self, sandbox)));
        }
        let Settings { budget, resolver, upstream, roots, credentials, .. } = self.settings.clone();
        let vault = Arc::new(Vault::new(spec.credentials(), credentials)?);
        let home = Handle::try_current().map_err(|error| {
            Error::io("the egress gateway needs a runtime of tokio's", std::io::Error::other(error))
        })?;
        let termination = Termination::where_needed(spec, roots, &vault)?;
        let ledger = Arc::new(Ledger::default());
        let mut state = self.state();
        let agreed = (spec.egress().clone(), budget.meet(spec.egress_budget()));
        let (reach, budget) = match (&agreed, &state.ceiling) {
            ((egress, budget), Some((ceiling, most))) => (egress.meet(ceiling), budget.meet(*most)),
            ((egress, budget), None) => (egress.clone(), *budget),
        };
        let budgets = Arc::new(Budgets::new(budget));
        let (reach, reached) = watch::channel(Arc::new(reach));
        let session = Session {
            reach: reached,
            events: events.clone(),
            resolver,
            upstream,
            intercept: termination.clone().map(|termination| Arc::new(termination) as _),
            vault: Arc::clone(&vault),
            ledger: Arc::clone(&ledger),
            budgets: Arc::clone(&budgets),
            pipes: Pipes::default(),
            home,
        };
        state.open.insert(sandbox, Open { agreed, reach, budgets, ledger });
        drop(state);
        let mut open = OpenProxy::new(self, sandbox);
        open.session = Some(Arc::new(session));
        open.termination = termination;
        Ok(Box::new(open))
    }
}

/// The gateway of one sandbox.
#[derive(Debug)]
struct OpenProxy {
    proxy: EgressProxy,
    sandbox: SandboxId,
    /// None for a sandbox that reaches nothing.
    session: Option<Arc<Session>>,
    /// None where no request needs to be seen in TLS.
    termination: Option<Arc<Termination>>,
    /// None before the guest was met. When it ends, so do the listeners and all that they brought.
    thread: Option<Thread>,
}

impl OpenProxy {
    fn new(proxy: &EgressProxy, sandbox: SandboxId) -> Self {
        Self { proxy: proxy.clone(), sandbox, session: None, termination: None, thread: None }
    }
}

#[async_trait]
impl OpenGateway for OpenProxy {
    fn environment(&self) -> Vec<(String, String)> {
        let Settings { ports, bundle, .. } = &self.proxy.settings;
        let Some(session) = &self.session else { return Vec::new() };
        let mut variables = environment::variables(*ports);
        variables.extend(session.vault.variables());
        if self.termination.is_some() {
            variables.extend(trust::variables(bundle));
            for (_, options) in variables.iter_mut().filter(|(name, _)| name == environment::JAVA) {
                options.push_str(&trust::java_options(bundle));
            }
        }
        variables
    }

    async fn attach(&mut self, guest: &Guest) -> Result<()> {
        let Some(session) = self.session.clone() else { return Ok(()) };
        let Settings { ports, connections, .. } = &self.proxy.settings;
        let unopened = |error: Error| {
            Error::new(error.kind(), "the egress gateway cannot listen inside the sandbox").with_source(error)
        };
        if let Some(termination) = &self.termination {
            for (path, bytes) in termination.files(&self.proxy.settings.bundle) {
                guest.place(path, 0o644, bytes).await?;
            }
        }
        let http = guest.listen_tcp(ports.http).await.map_err(unopened)?;
        let socks = guest.listen_tcp(ports.socks).await.map_err(unopened)?;
        self.thread = Some(Thread::start(session, http, socks, *connections)?);
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        match self.thread.take() {
            Some(thread) => thread.end().await,
            None => Ok(()),
        }
    }
}

impl Drop for OpenProxy {
    fn drop(&mut self) {
        self.proxy.state().open.remove(&self.sandbox);
    }
}

const CONNECTIONS: usize = 1_024;
const MAX_CONNECTIONS: usize = 100_000;
