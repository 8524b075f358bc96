//! One sandbox's dealings with the gateway: what is asked, decided, told, counted and then dialled.
//!
//! Invariant: nothing is dialled without a [`Pass`], a pass is made by [`Session::ask`] alone, and what it names is what was
//! decided on. Its event comes before it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use sandbox_core::{EgressVerdict, Event, Events, Resolve};
use sandbox_policy::{Decision, Destination, Egress, Host};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::answer::{Refusal, RefusalKind};
use super::budget::{Budgets, Meter, Overdrawn, Spent};
use super::intercept::Intercept;
use super::ledger::Ledger;
use super::tunnel::Pipes;
use super::upstream::Upstream;
use super::vault::Vault;

/// What a gateway knows of one sandbox.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) reach: watch::Receiver<Arc<Egress>>,
    pub(crate) events: Events,
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) upstream: Option<Arc<Upstream>>,
    pub(crate) intercept: Option<Arc<dyn Intercept>>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) budgets: Arc<Budgets>,
    pub(crate) pipes: Pipes,
    /// The caller's runtime, for what is the caller's own.
    pub(crate) home: Handle,
}

/// Says that a destination may be dialled.
#[derive(Debug)]
pub(crate) struct Pass {
    host: Host,
    port: u16,
    request: Option<(String, String)>,
    decision: Decision,
    /// What it was decided by.
    reach: Arc<Egress>,
    meter: Meter,
}

impl Session {
    /// Decides on a destination, and tells the audit. The request is its method and path, where it can be seen.
    pub(crate) fn ask(&self, host: &Host, port: u16, request: Option<(&str, &str)>) -> Result<Pass, Refusal> {
        let method = request.map(|(method, _)| method);
        let reach = Arc::clone(&self.reach.borrow());
        let decision = reach.decide(&Destination { host, port, request });
        let (rule, budget) = match &decision {
            Decision::Allow { rule, budget, .. } => (rule.clone(), *budget),
            Decision::Deny { rule, reason, hint } => {
                return Err(self.deny(host, port, method, Refusal::new(RefusalKind::Denied, rule, reason, hint)));
            }
        };
        let spent = |spent: Spent| self.deny(host, port, method, spent.refusal());
        let metering = self.budgets.begin(host, budget, Instant::now()).map_err(spent)?;
        let event = told(host, port, method, EgressVerdict::Allowed, &rule, None);
        self.events.announce(event).map_err(|_| {
            Refusal::new(RefusalKind::Audit, "the audit", "the audit cannot be written, so nothing goes out", "")
        })?;
        let meter = Meter::new(metering, self.ledger.allowed(host, port, &rule), self.overdrawn(host, port, method));
        let request = request.map(|(method, path)| (method.to_owned(), path.to_owned()));
        Ok(Pass { host: host.clone(), port, request, decision, reach, meter })
    }

    /// Refuses what had been allowed, by something that came out later.
    pub(crate) fn revoke(&self, pass: &Pass, rule: &str, reason: impl Into<String>, hint: &str) -> Refusal {
        let method = pass.request.as_ref().map(|(method, _)| method.as_str());
        self.deny(&pass.host, pass.port, method, Refusal::new(RefusalKind::Denied, rule, reason, hint))
    }

    /// Waits until a destination that was allowed is so no more, and tells so.
    pub(crate) async fn denied(&self, pass: &Pass, peer: Option<IpAddr>) {
        let mut reach = self.reach.clone();
        loop {
            let now = Arc::clone(&reach.borrow_and_update());
            if self.is_denied_by(&now, pass, peer) {
                return;
            }
            if reach.changed().await.is_err() {
                // Nobody can change it any more, and the gateway's end ends all of this.
                return std::future::pending().await;
            }
        }
    }

    /// Decides anew on a destination that was allowed, and tells where it is so no more.
    pub(crate) fn is_denied_by(&self, now: &Arc<Egress>, pass: &Pass, peer: Option<IpAddr>) -> bool {
        // What the pass was decided by says the same again.
        let same = Arc::ptr_eq(now, &pass.reach);
        let anew = (!same).then(|| now.decide(&pass.destination()));
        let decision = anew.as_ref().unwrap_or(&pass.decision);
        let checked = peer.map_or(Ok(()), |peer| decision.check_address(peer));
        let (rule, reason) = match (decision, checked) {
            (Decision::Deny { rule, reason, .. }, _) => (rule, reason.clone()),
            (Decision::Allow { rule, .. }, Err(reason)) => (rule, reason),
            (Decision::Allow { .. }, Ok(())) => return false,
        };
        self.revoke(pass, rule, reason, "");
        true
    }

    /// Whether a pass was decided by what holds now.
    pub(crate) fn is_current(&self, pass: &Pass) -> bool {
        Arc::ptr_eq(&self.reach.borrow(), &pass.reach)
    }

    /// What tells that a connection was ended because it moved more than it may.
    fn overdrawn(&self, host: &Host, port: u16, method: Option<&str>) -> Overdrawn {
        let (ledger, events) = (Arc::clone(&self.ledger), self.events.clone());
        let (host, method) = (host.clone(), method.map(str::to_owned));
        Overdrawn::new(move |spent| {
            deny(&ledger, &events, &host, port, method.as_deref(), &spent.refusal());
        })
    }

    /// Refuses a destination, and tells so.
    pub(crate) fn deny(&self, host: &Host, port: u16, method: Option<&str>, refusal: Refusal) -> Refusal {
        deny(&self.ledger, &self.events, host, port, method, &refusal);
        refusal
    }
}

fn deny(ledger: &Ledger, events: &Events, host: &Host, port: u16, method: Option<&str>, refusal: &Refusal) {
    let Refusal { rule, reason, hint, .. } = refusal;
    ledger.denied(host, port, rule, reason, hint);
    // Nothing goes out, whether or not this can be told.
    events.report(told(host, port, method, EgressVerdict::Denied, rule, Some(reason.clone())));
}

fn told(
    host: &Host,
    port: u16,
    method: Option<&str>,
    verdict: EgressVerdict,
    rule: &str,
    reason: Option<String>,
) -> Event {
    let method = method.map(str::to_owned);
    Event::EgressDecided { host: host.to_string(), port, method, verdict, rule: rule.to_owned(), reason }
}

impl Pass {
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What counts its bytes.
    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Whether one of the host's addresses may be dialled.
    pub(crate) fn check_address(&self, address: IpAddr) -> Result<(), String> {
        self.decision.check_address(address)
    }

    fn destination(&self) -> Destination<'_> {
        let request = self.request.as_ref().map(|(method, path)| (method.as_str(), path.as_str()));
        Destination { host: &self.host, port: self.port, request }
    }
}
