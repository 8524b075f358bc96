//! How much may still be moved: bytes and new requests, for each host and for the sandbox.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sandbox_policy::{Budget, ByteSize, Host};

use super::ledger::Traffic;

/// What each host, and the sandbox, has used.
#[derive(Debug)]
pub(crate) struct Budgets {
    /// What the sandbox may use in all.
    whole: Budget,
    used: Arc<Used>,
    hosts: Mutex<HashMap<Host, Arc<Used>>>,
    /// For hosts that come after so many others.
    rest: Arc<Used>,
}

#[derive(Debug, Default)]
struct Used {
    bytes: AtomicU64,
    rate: Mutex<Bucket>,
}

/// Requests that may be made at once; it fills within a minute.
#[derive(Debug, Default)]
struct Bucket {
    used: f64,
    at: Option<Instant>,
}

/// What is used up, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Spent {
    /// Bytes.
    Bytes(String),
    /// Requests of this minute.
    Rate(String),
}

impl Budgets {
    pub(crate) fn new(whole: Budget) -> Self {
        Self { whole, used: Arc::default(), hosts: Mutex::default(), rest: Arc::default() }
    }

    /// Counts a new request to a host, and gives what counts its bytes.
    pub(crate) fn begin(&self, host: &Host, budget: Budget, now: Instant) -> Result<Metering, Spent> {
        let used = self.of(host);
        for (used, budget, whose) in [(&used, budget, "the host"), (&self.used, self.whole, "the sandbox")] {
            if let Some(bytes) = budget.bytes
                && used.bytes.load(Ordering::Relaxed) >= bytes.bytes()
            {
                return Err(Spent::Bytes(format!("the {bytes} that {whose} may have moved are used up")));
            }
        }
        for (used, budget, whose) in [(&used, budget, "the host"), (&self.used, self.whole, "the sandbox")] {
            if let Some(rate) = budget.rate
                && !used.rate.lock().unwrap_or_else(PoisonError::into_inner).take(rate, now)
            {
                return Err(Spent::Rate(format!("the {rate} requests a minute that {whose} has are used up")));
            }
        }
        let limit = |budget: Budget| budget.bytes.map_or(u64::MAX, ByteSize::bytes);
        Ok(Metering { host: (used, limit(budget)), sandbox: (Arc::clone(&self.used), limit(self.whole)) })
    }

    fn of(&self, host: &Host) -> Arc<Used> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = hosts.get(host) {
            return Arc::clone(used);
        }
        if hosts.len() >= MAX_HOSTS {
            return Arc::clone(&self.rest);
        }
        Arc::clone(hosts.entry(host.clone()).or_default())
    }
}

impl Bucket {
    fn take(&mut self, rate: u32, now: Instant) -> bool {
        let rate = f64::from(rate);
        let since = self.at.map_or(MINUTE, |at| now.saturating_duration_since(at));
        self.at = Some(now);
        self.used = (self.used - rate * since.as_secs_f64() / MINUTE.as_secs_f64()).max(0.0);
        if self.used + 1.0 > rate {
            return false;
        }
        self.used += 1.0;
        true
    }
}

/// The budgets that one connection draws from.
#[derive(Debug, Clone)]
pub(crate) struct Metering {
    host: (Arc<Used>, u64),
    sandbox: (Arc<Used>, u64),
}

/// Counts the bytes of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    budgets: Metering,
    traffic: Arc<Traffic>,
}

impl Meter {
    pub(crate) fn new(budgets: Metering, traffic: Arc<Traffic>) -> Self {
        Self { budgets, traffic }
    }

    /// Counts bytes that go out.
    pub(crate) fn sent(&self, bytes: usize) -> io::Result<()> {
        self.traffic.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.draw(bytes)
    }

    /// Counts bytes that come in.
    pub(crate) fn received(&self, bytes: usize) -> io::Result<()> {
        self.traffic.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.draw(bytes)
    }

    fn draw(&self, bytes: usize) -> io::Result<()> {
        let mut holds = true;
        for (used, limit) in [&self.budgets.host, &self.budgets.sandbox] {
            let before = used.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            holds &= before.saturating_add(bytes as u64) <= *limit;
        }
        if holds { Ok(()) } else { Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the budget of bytes is used up")) }
    }
}

const MINUTE: Duration = Duration::from_mins(1);
const MAX_HOSTS: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Host {
        name.parse().unwrap()
    }

    #[test]
    fn a_rate_fills_again_with_time_and_is_each_hosts_own() {
        let budgets = Budgets::new(Budget::default());
        let budget = Budget { bytes: None, rate: Some(2) };
        let start = Instant::now();
        assert!(budgets.begin(&host("a.example"), budget, start).is_ok());
        assert!(budgets.begin(&host("a.example"), budget, start).is_ok());
        assert!(matches!(budgets.begin(&host("a.example"), budget, start), Err(Spent::Rate(_))));
        assert!(budgets.begin(&host("b.example"), budget, start).is_ok());
        let later = start + Duration::from_secs(31);
        assert!(budgets.begin(&host("a.example"), budget, later).is_ok());
        assert!(matches!(budgets.begin(&host("a.example"), budget, later), Err(Spent::Rate(_))));
    }

    #[test]
    fn bytes_are_counted_in_both_directions_and_over_all_connections() {
        let whole = Budget { bytes: "1KiB".parse().ok(), rate: None };
        let budgets = Budgets::new(whole);
        let budget = Budget { bytes: "1KiB".parse().ok(), rate: None };
        let meter = |name| Meter::new(budgets.begin(&host(name), budget, Instant::now()).unwrap(), Arc::default());
        let (one, other, third) = (meter("a.example"), meter("a.example"), meter("b.example"));
        one.sent(500).unwrap();
        other.received(500).unwrap();
        assert!(other.received(500).is_err());
        assert!(third.sent(1).is_err(), "the sandbox has no more either");
        assert!(matches!(budgets.begin(&host("a.example"), budget, Instant::now()), Err(Spent::Bytes(_))));
        assert!(matches!(budgets.begin(&host("c.example"), budget, Instant::now()), Err(Spent::Bytes(_))));
    }
}
