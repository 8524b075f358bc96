//! When a token ends, as GitHub says it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDateTime};

/// Reads the header `github-authentication-token-expiration`. It has been seen with the name of a zone and with an offset
/// (<https://github.com/google/go-github/issues/2649>); `None` where it is neither.
pub(crate) fn header(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    let seconds = match text.strip_suffix(" UTC").or_else(|| text.strip_suffix(" GMT")) {
        Some(text) => NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").ok()?.and_utc().timestamp(),
        None => DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S %z").ok()?.timestamp(),
    };
    since_epoch(seconds)
}

/// Reads the time of a body: `2026-11-24T10:00:00Z`.
pub(crate) fn body(text: &str) -> Option<SystemTime> {
    since_epoch(DateTime::parse_from_rfc3339(text).ok()?.timestamp())
}

fn since_epoch(seconds: i64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_mean_the_same_moment() {
        let expected = UNIX_EPOCH + Duration::from_hours(498_778);
        for text in ["2026-11-25 10:00:00 UTC", "2026-11-25 12:00:00 +0200", "2026-11-25 05:00:00 -0500"] {
            assert_eq!(header(text), Some(expected), "{text}");
        }
        assert_eq!(body("2026-11-25T10:00:00Z"), Some(expected));
    }

    #[test]
    fn anything_else_is_no_time() {
        for text in
            ["", "never", "2026-11-25", "2026-11-25 10:00:00", "2026-11-25 10:00:00 CET", "1960-01-01 00:00:00 UTC"]
        {
            assert_eq!(header(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*") {
            let _ = (header(&text), body(&text));
        }
    }
}
