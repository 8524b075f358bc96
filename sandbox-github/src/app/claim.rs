//! How an app says who it is: a claim that it signs and that is good for minutes
//! (<https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app>).

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use secrecy::SecretString;
use serde_json::json;

use super::PrivateKey;
use crate::{Error, Result};

/// Names an app: by its client id, or by its number where an Enterprise Server is too old for client ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppIssuer(String);

impl FromStr for AppIssuer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.';
        if (1..=MAX_ISSUER).contains(&text.len()) && text.bytes().all(plain) {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::Input {
            field: "the app's client id",
            given: format!("{} bytes that are none", text.len()),
            allowed: "a client id such as Iv23liABCDEF, or the app's number",
        })
    }
}

impl fmt::Display for AppIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Makes claims, by a clock that follows GitHub's.
#[derive(Debug)]
pub(crate) struct Claimant {
    issuer: AppIssuer,
    key: PrivateKey,
    /// Seconds by which GitHub's clock is ahead of this machine's.
    ahead: Mutex<i64>,
}

impl Claimant {
    pub(crate) fn new(issuer: AppIssuer, key: PrivateKey) -> Self {
        Self { issuer, key, ahead: Mutex::new(0) }
    }

    /// Makes a claim that is good now. GitHub takes none that is good for longer than ten minutes.
    pub(crate) fn claim(&self) -> Result<SecretString> {
        let now = seconds(self.now());
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
        let body = json!({ "iat": now - EARLIER, "exp": now + GOOD_FOR, "iss": self.issuer.0 });
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(body.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes())?);
        Ok(SecretString::from(format!("{signed}.{signature}")))
    }

    /// What time it is at GitHub, as far as is known.
    pub(crate) fn now(&self) -> SystemTime {
        let ahead = *self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let by = Duration::from_secs(ahead.unsigned_abs());
        let now = SystemTime::now();
        let moved = if ahead < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        moved.unwrap_or(now)
    }

    /// Learns from a refusal's `Date` what time it is at GitHub. Tells whether a claim would be another one now.
    pub(crate) fn learn(&self, date: &str) -> bool {
        let Ok(there) = DateTime::parse_from_rfc2822(date) else { return false };
        let off = there.timestamp() - seconds(self.now());
        if off.abs() < WORTH_IT || off.abs() > MOST {
            return false;
        }
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) += off;
        true
    }
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX / 2))
}

const MAX_ISSUER: usize = 64;
/// Seconds that a claim is dated back, since a clock that is ahead makes it one of the future.
const EARLIER: i64 = 60;
/// Seconds; with the dating back it makes ten minutes.
const GOOD_FOR: i64 = 9 * 60;
/// Seconds from which on a difference of clocks can be why a claim was refused.
const WORTH_IT: i64 = 20;
/// Seconds: ten years. What is further off is no clock.
const MOST: i64 = 10 * 365 * 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;
    use serde_json::Value;

    use super::*;
    use crate::app::key::tests::{key, verify};

    fn claimant() -> Claimant {
        Claimant::new("Iv23liMADEUP".parse().unwrap(), key())
    }

    fn body(claimant: &Claimant) -> Value {
        let claim = claimant.claim().unwrap();
        let claim = claim.expose_secret();
        let (signed, signature) = claim.rsplit_once('.').unwrap();
        assert!(verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()));
        let (header, body) = signed.split_once('.').unwrap();
        let read = |part| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        assert_eq!(read(header), json!({ "alg": "RS256", "typ": "JWT" }));
        read(body)
    }

    #[test]
    fn a_claim_is_dated_back_and_good_for_no_more_than_ten_minutes() {
        let before = seconds(SystemTime::now());
        let body = body(&claimant());
        let (issued, ends) = (body["iat"].as_i64().unwrap(), body["exp"].as_i64().unwrap());
        assert_eq!((body["iss"].as_str(), ends - issued), (Some("Iv23liMADEUP"), 600));
        assert!(issued <= before - 59 && ends - before <= 600, "{body} at {before}");
    }

    #[test]
    fn a_clock_that_is_off_is_corrected_by_githubs() {
        for off in [-7200_i64, 7200] {
            let claimant = claimant();
            let there = seconds(SystemTime::now()) + off;
            let date = DateTime::from_timestamp(there, 0).unwrap().to_rfc2822();
            assert!(claimant.learn(&date));
            let issued = body(&claimant)["iat"].as_i64().unwrap();
            assert!((issued + EARLIER - there).abs() <= 2, "{issued} at {there}");
            assert!(!claimant.learn(&date), "the same date teaches nothing new");
        }
    }

    #[test]
    fn a_date_that_is_none_teaches_nothing() {
        let claimant = claimant();
        for date in ["", "yesterday", "Tue, 24 Nov 9999 10:00:00 GMT", "2026-11-24T10:00:00Z"] {
            assert!(!claimant.learn(date), "{date}");
        }
    }

    #[test]
    fn an_issuer_is_a_client_id_or_a_number() {
        for text in ["Iv1.ab1112223334445c", "Iv23liABCDEF", "12345"] {
            assert_eq!(text.parse::<AppIssuer>().unwrap().to_string(), text);
        }
        for text in ["", "a b", "a\"b", "é", &"x".repeat(65)] {
            assert!(text.parse::<AppIssuer>().is_err(), "{text:?}");
        }
    }
}
