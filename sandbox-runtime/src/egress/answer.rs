//! What whoever asked is told when it may not, or cannot, get there: words that a program can act on.

use serde::Serialize;

/// Why a destination is not reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) kind: RefusalKind,
    /// Which rule, or what else, keeps it from being reached.
    pub(crate) rule: String,
    /// Why, in words for whoever asked.
    pub(crate) reason: String,
    /// What would help; empty where nothing is known.
    pub(crate) hint: String,
}

/// What a refusal is, for code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalKind {
    /// The audit could not be written.
    Audit,
    /// The policy says no.
    Denied,
    /// The request makes no sense.
    Malformed,
    /// The request is for another host than the connection.
    Misdirected,
    /// There are too many connections or requests.
    TooMany,
    /// It does not answer.
    Unreachable,
}

impl Refusal {
    pub(crate) fn new(kind: RefusalKind, rule: &str, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind, rule: rule.to_owned(), reason: reason.into(), hint: hint.into() }
    }

    pub(crate) fn malformed(reason: impl Into<String>) -> Self {
        Self::new(RefusalKind::Malformed, "the grammar of HTTP", reason, "")
    }

    pub(crate) fn unreachable(reason: impl Into<String>) -> Self {
        Self::new(RefusalKind::Unreachable, "the network", reason, "")
    }

    /// A whole response of HTTP/1.1, after which the connection ends.
    pub(crate) fn response(&self, method: &str) -> Vec<u8> {
        let (status, words) = self.status();
        let body = self.body();
        let head = format!(
            "HTTP/1.1 {status} {words}\r\nx-sandbox-denied: {}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            self.rule_field(),
            body.len(),
        );
        let body = if method == "HEAD" { "" } else { body.as_str() };
        [head.as_bytes(), body.as_bytes()].concat()
    }

    /// The status of HTTP, and its words.
    pub(crate) fn status(&self) -> (u16, &'static str) {
        match self.kind {
            RefusalKind::Audit => (503, "Service Unavailable"),
            RefusalKind::Denied => (403, "Forbidden"),
            RefusalKind::Malformed => (400, "Bad Request"),
            RefusalKind::Misdirected => (421, "Misdirected Request"),
            RefusalKind::TooMany => (429, "Too Many Requests"),
            RefusalKind::Unreachable => (502, "Bad Gateway"),
        }
    }

    /// The body: JSON, in one line.
    pub(crate) fn body(&self) -> String {
        let Self { kind: _, rule, reason, hint } = self;
        serde_json::to_string(&Body { reason, rule, hint }).unwrap_or_default() + "\n"
    }

    /// The rule, as a field of HTTP may hold it.
    pub(crate) fn rule_field(&self) -> String {
        visible(&self.rule)
    }

    /// The reply of SOCKS5 (RFC 1928, section 6).
    pub(crate) fn socks_reply(&self) -> u8 {
        match self.kind {
            RefusalKind::Audit | RefusalKind::Malformed | RefusalKind::Misdirected => 1,
            RefusalKind::Denied | RefusalKind::TooMany => 2,
            RefusalKind::Unreachable => 4,
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    reason: &'a str,
    rule: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    hint: &'a str,
}

/// Text as a field may hold it: no control character, and ASCII alone.
fn visible(text: &str) -> String {
    let replaced = text.replace('\u{2227}', "and");
    replaced.chars().take(200).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_response_whatever_its_words_are() {
        let refusal = Refusal::new(RefusalKind::Denied, "a \u{2227} b\r\nset-cookie: x", "why\r\n\r\n\"", "do");
        let text = String::from_utf8(refusal.response("GET")).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 403 ") && head.contains("x-sandbox-denied: a and b??set-cookie: x\r\n"));
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!((&body["reason"], &body["hint"]), (&"why\r\n\r\n\"".into(), &"do".into()));
        assert!(refusal.response("HEAD").ends_with(b"\r\n\r\n"));
    }
}
