//! What a sandbox asked for, what became of it and how much was moved.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sandbox_policy::Host;
use serde::{Deserialize, Serialize};

/// One destination and one answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub struct LedgerEntry {
    /// The host, as a URL has it; `…` stands for all that came after the ledger was full.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What became of it.
    pub outcome: Outcome,
    /// Which rule allowed or denied it.
    pub rule: String,
    /// Why it was denied, at the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What would allow it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Connections and requests.
    pub count: u64,
    /// Bytes that went out.
    pub sent: u64,
    /// Bytes that came in.
    pub received: u64,
}

/// What became of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::exhaustive_enums, reason = "there is nothing between them")]
pub enum Outcome {
    /// It was allowed.
    Allowed,
    /// It was denied.
    Denied,
}

/// Bytes that were moved for one entry.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
}

/// All entries of one sandbox, of which there are so many at most.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    lines: Mutex<BTreeMap<Key, Line>>,
}

type Key = (String, u16, Outcome, String);

#[derive(Debug, Default)]
struct Line {
    why: Option<(String, String)>,
    count: u64,
    traffic: Arc<Traffic>,
}

impl Ledger {
    /// Counts what is allowed, and gives the place where its bytes are counted.
    pub(crate) fn allowed(&self, host: &Host, port: u16, rule: &str) -> Arc<Traffic> {
        self.note(host, port, Outcome::Allowed, rule, None)
    }

    /// Counts what is denied.
    pub(crate) fn denied(&self, host: &Host, port: u16, rule: &str, reason: &str, hint: &str) {
        self.note(host, port, Outcome::Denied, rule, Some((reason.to_owned(), hint.to_owned())));
    }

    fn note(
        &self,
        host: &Host,
        port: u16,
        outcome: Outcome,
        rule: &str,
        why: Option<(String, String)>,
    ) -> Arc<Traffic> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (host.to_string(), port, outcome, rule.to_owned());
        if lines.len() >= MAX_LINES && !lines.contains_key(&key) {
            key = (REST.to_owned(), 0, outcome, REST.to_owned());
        }
        let line = lines.entry(key).or_default();
        line.count += 1;
        line.why = why.or(line.why.take());
        Arc::clone(&line.traffic)
    }

    /// Every entry, by host.
    pub(crate) fn entries(&self) -> Vec<LedgerEntry> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = |((host, port, outcome, rule), line): (&Key, &Line)| LedgerEntry {
            host: host.clone(),
            port: *port,
            outcome: *outcome,
            rule: rule.clone(),
            reason: line.why.as_ref().map(|(reason, _)| reason.clone()),
            hint: line.why.as_ref().map(|(_, hint)| hint.clone()),
            count: line.count,
            sent: line.traffic.sent.load(Ordering::Relaxed),
            received: line.traffic.received.load(Ordering::Relaxed),
        };
        lines.iter().map(entry).collect()
    }
}

const MAX_LINES: usize = 1_000;
const REST: &str = "…";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_counts_and_is_bounded() {
        let ledger = Ledger::default();
        let host: Host = "example.org".parse().unwrap();
        for _ in 0..3 {
            ledger.allowed(&host, 443, "rule example.org").sent.fetch_add(5, Ordering::Relaxed);
        }
        for number in 0..MAX_LINES + 5 {
            ledger.denied(&format!("h{number}.example").parse().unwrap(), 80, "no rule", "why", "how");
        }
        let entries = ledger.entries();
        let allowed = entries.iter().find(|entry| entry.outcome == Outcome::Allowed).unwrap();
        assert_eq!((allowed.count, allowed.sent, allowed.host.as_str()), (3, 15, "example.org"));
        let rest = entries.iter().find(|entry| entry.host == REST).unwrap();
        assert_eq!((rest.count, entries.len()), (6, MAX_LINES + 1));
    }
}
