//! Times until which something is waited for.

use std::time::{Duration, Instant};

use rustix::time::Timespec;

/// What stands for "never" where a span is too long to be added to now.
const FAR: Duration = Duration::from_hours(10 * 365 * 24);

/// The time that lies a span ahead.
pub(crate) fn after(span: Duration) -> Instant {
    Instant::now() + span.min(FAR)
}

/// How long `poll(2)` may wait for that time.
pub(crate) fn until(time: Instant) -> Timespec {
    let left = time.saturating_duration_since(Instant::now());
    Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
}
