//! When GitHub asks to be left alone, and for how long.
//!
//! <https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#handle-rate-limit-errors-appropriately>

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, StatusCode};

/// Reads from an answer how long to wait before the same is asked again; `None` where it is no matter of rates.
pub(crate) fn wait_asked(
    status: StatusCode,
    headers: &HeaderMap,
    said: &str,
    attempt: u32,
    now: SystemTime,
) -> Option<Duration> {
    if !matches!(status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS) {
        return None;
    }
    if let Some(seconds) = number(headers, "retry-after") {
        return Some(Duration::from_secs(seconds));
    }
    if number(headers, "x-ratelimit-remaining") == Some(0) {
        let reset = UNIX_EPOCH.checked_add(Duration::from_secs(number(headers, "x-ratelimit-reset")?))?;
        // A second more, since the header's is rounded down.
        return Some(reset.duration_since(now).unwrap_or_default().saturating_add(Duration::from_secs(1)));
    }
    let limited =
        status == StatusCode::TOO_MANY_REQUESTS || said.contains("rate limit") || said.contains("abuse detection");
    limited.then(|| AT_LEAST.saturating_mul(2_u32.saturating_pow(attempt)))
}

/// Tells whether a read that failed with this status may be tried again.
pub(crate) fn is_passing(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// What GitHub asks for where it names no time.
const AT_LEAST: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn wait(status: u16, pairs: &[(&'static str, &str)], said: &str, attempt: u32) -> Option<u64> {
        let status = StatusCode::from_u16(status).unwrap();
        wait_asked(status, &headers(pairs), said, attempt, at(1000)).map(|wait| wait.as_secs())
    }

    #[test]
    fn the_header_that_names_a_time_is_heeded() {
        assert_eq!(wait(403, &[("retry-after", "7")], "", 0), Some(7));
        assert_eq!(wait(429, &[("retry-after", "7"), ("x-ratelimit-remaining", "0")], "", 0), Some(7));
    }

    #[test]
    fn a_spent_budget_waits_for_its_renewal() {
        let spent = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1030")];
        assert_eq!(wait(403, &spent, "", 0), Some(31));
        assert_eq!(wait(403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "10")], "", 0), Some(1));
    }

    #[test]
    fn the_secondary_limit_waits_longer_each_time() {
        let said = "You have exceeded a secondary rate limit.";
        assert_eq!([0, 1, 2].map(|attempt| wait(403, &[], said, attempt)), [Some(60), Some(120), Some(240)]);
        assert_eq!(wait(429, &[], "", 0), Some(60));
    }

    #[test]
    fn a_missing_permission_is_no_matter_of_rates() {
        assert_eq!(wait(403, &[("x-ratelimit-remaining", "4999")], "Resource not accessible by integration", 0), None);
        assert_eq!(wait(404, &[("retry-after", "7")], "", 0), None);
    }

    proptest! {
        #[test]
        fn no_header_panics(after in "[ -~]{0,30}", reset in any::<u64>(), attempt in any::<u32>()) {
            let reset = reset.to_string();
            let _ = wait(403, &[("retry-after", &after)], "", attempt);
            let _ = wait(403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &reset)], "", attempt);
            let _ = wait(429, &[], "", attempt);
        }
    }
}
