//! How much may still be moved: bytes and new requests, for each host and for the sandbox.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fmt, io};

use sandbox_policy::{Budget, ByteSize, Host};

use super::answer::{Refusal, RefusalKind};
use super::ledger::Traffic;

/// What each host, and the sandbox, has used.
#[derive(Debug)]
pub(crate) struct Budgets {
    whole: Arc<Whole>,
    hosts: Mutex<HashMap<Host, Arc<Used>>>,
    /// For hosts that come after so many others.
    rest: Arc<Used>,
}

/// What the sandbox has used of what it may use in all, which a reload changes for what is under way, too.
#[derive(Debug)]
struct Whole {
    used: Used,
    budget: Mutex<Budget>,
    /// The bytes of the budget.
    bytes: AtomicU64,
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

/// A budget that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spent {
    whose: Whose,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Host,
    Sandbox,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Bytes(u64),
    Rate(u32),
}

impl Spent {
    /// What whoever asked is told: which budget, and what would allow it.
    pub(crate) fn refusal(self) -> Refusal {
        let Self { whose, what } = self;
        let (whose, of, place) = match whose {
            Whose::Host => ("the host", "the rule's", "the rule"),
            Whose::Sandbox => ("the sandbox", "the sandbox's", "the policy's section egress"),
        };
        match what {
            What::Bytes(bytes) => {
                let bytes = ByteSize::from_bytes(bytes).map_or_else(|_| format!("{bytes}B"), |bytes| bytes.to_string());
                let reason = format!("the {bytes} that {whose} may have moved are used up");
                Refusal::new(
                    RefusalKind::Denied,
                    &format!("{of} budget of bytes"),
                    reason,
                    format!("more bytes in {place}"),
                )
            }
            What::Rate(rate) => {
                let reason = format!("the {rate} requests a minute that {whose} has are used up");
                let hint = format!("wait a minute, or a higher rate in {place}");
                Refusal::new(RefusalKind::TooMany, &format!("{of} budget of requests"), reason, hint)
            }
        }
    }
}

impl Budgets {
    /// Starts with nothing used of what the sandbox may use in all.
    pub(crate) fn new(whole: Budget) -> Self {
        let whole = Whole { used: Used::default(), bytes: AtomicU64::new(bytes_of(whole)), budget: Mutex::new(whole) };
        Self { whole: Arc::new(whole), hosts: Mutex::default(), rest: Arc::default() }
    }

    /// Sets anew what the sandbox may use in all; what it has used stays used.
    pub(crate) fn limit(&self, whole: Budget) {
        *self.whole.budget.lock().unwrap_or_else(PoisonError::into_inner) = whole;
        self.whole.bytes.store(bytes_of(whole), Ordering::Relaxed);
    }

    /// Counts a new request to a host, and gives what counts its bytes.
    pub(crate) fn begin(&self, host: &Host, budget: Budget, now: Instant) -> Result<Metering, Spent> {
        let used = self.of(host);
        let whole = *self.whole.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let both = [(&*used, budget, Whose::Host), (&self.whole.used, whole, Whose::Sandbox)];
        for (used, budget, whose) in both {
            if let Some(bytes) = budget.bytes.map(ByteSize::bytes)
                && used.bytes.load(Ordering::Relaxed) >= bytes
            {
                return Err(Spent { whose, what: What::Bytes(bytes) });
            }
        }
        for (used, budget, whose) in both {
            if let Some(rate) = budget.rate
                && !used.rate.lock().unwrap_or_else(PoisonError::into_inner).take(rate, now)
            {
                return Err(Spent { whose, what: What::Rate(rate) });
            }
        }
        Ok(Metering { host: used, most: bytes_of(budget), whole: Arc::clone(&self.whole) })
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
    host: Arc<Used>,
    /// The most bytes to and from the host.
    most: u64,
    whole: Arc<Whole>,
}

/// Counts the bytes of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    budgets: Metering,
    traffic: Arc<Traffic>,
    overdrawn: Arc<Overdrawn>,
}

/// What is done, once, when a connection wants more than is left.
pub(crate) struct Overdrawn {
    done: AtomicBool,
    tell: Box<dyn Fn(Spent) + Send + Sync>,
}

impl Overdrawn {
    pub(crate) fn new(tell: impl Fn(Spent) + Send + Sync + 'static) -> Self {
        Self { done: AtomicBool::new(false), tell: Box::new(tell) }
    }
}

impl fmt::Debug for Overdrawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Overdrawn").field("done", &self.done).finish_non_exhaustive()
    }
}

impl Meter {
    pub(crate) fn new(budgets: Metering, traffic: Arc<Traffic>, overdrawn: Overdrawn) -> Self {
        Self { budgets, traffic, overdrawn: Arc::new(overdrawn) }
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
        let Metering { host, most, whole } = &self.budgets;
        let mut spent = None;
        let all = whole.bytes.load(Ordering::Relaxed);
        for (used, limit, whose) in [(&whole.used, all, Whose::Sandbox), (&**host, *most, Whose::Host)] {
            let before = used.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            if before.saturating_add(bytes as u64) > limit {
                spent = Some(Spent { whose, what: What::Bytes(limit) });
            }
        }
        let Some(spent) = spent else { return Ok(()) };
        if !self.overdrawn.done.swap(true, Ordering::Relaxed) {
            (self.overdrawn.tell)(spent);
        }
        Err(io::Error::new(io::ErrorKind::QuotaExceeded, "the budget of bytes is used up"))
    }
}

fn bytes_of(budget: Budget) -> u64 {
    budget.bytes.map_or(u64::MAX, ByteSize::bytes)
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
        assert!(matches!(
            budgets.begin(&host("a.example"), budget, start),
            Err(Spent { what: What::Rate(2), whose: Whose::Host })
        ));
        assert!(budgets.begin(&host("b.example"), budget, start).is_ok());
        let later = start + Duration::from_secs(31);
        assert!(budgets.begin(&host("a.example"), budget, later).is_ok());
        assert!(matches!(
            budgets.begin(&host("a.example"), budget, later),
            Err(Spent { what: What::Rate(2), whose: Whose::Host })
        ));
    }

    #[test]
    fn bytes_are_counted_in_both_directions_and_over_all_connections() {
        let whole = Budget { bytes: "1KiB".parse().ok(), rate: None };
        let budgets = Budgets::new(whole);
        let budget = Budget { bytes: "1KiB".parse().ok(), rate: None };
        let told = Arc::new(Mutex::new(Vec::new()));
        let meter = |name| {
            let told = Arc::clone(&told);
            let overdrawn = Overdrawn::new(move |spent| told.lock().unwrap().push(spent.whose));
            Meter::new(budgets.begin(&host(name), budget, Instant::now()).unwrap(), Arc::default(), overdrawn)
        };
        let (one, other, third) = (meter("a.example"), meter("a.example"), meter("b.example"));
        one.sent(500).unwrap();
        other.received(500).unwrap();
        assert!(other.received(500).is_err());
        assert!(third.sent(1).is_err(), "the sandbox has no more either");
        assert!(third.sent(1).is_err());
        assert_eq!(*told.lock().unwrap(), [Whose::Host, Whose::Sandbox], "each connection is told of once");
        let spent_by = |name| budgets.begin(&host(name), budget, Instant::now()).unwrap_err().whose;
        assert_eq!((spent_by("a.example"), spent_by("c.example")), (Whose::Host, Whose::Sandbox));
    }

    #[test]
    fn what_the_sandbox_may_use_in_all_can_be_changed_under_way() {
        let budgets = Budgets::new(Budget::default());
        let metering = budgets.begin(&host("a.example"), Budget::default(), Instant::now()).unwrap();
        let meter = Meter::new(metering, Arc::default(), Overdrawn::new(|_| ()));
        meter.sent(2_000).unwrap();
        budgets.limit(Budget { bytes: "1KiB".parse().ok(), rate: None });
        assert!(meter.sent(1).is_err());
        assert!(budgets.begin(&host("b.example"), Budget::default(), Instant::now()).is_err());
        budgets.limit(Budget { bytes: "4KiB".parse().ok(), rate: None });
        meter.sent(1).unwrap();
    }
}
