//! The one way to GitHub's API.
//!
//! Invariants: a credential is sent to the configured address and nowhere else, for no redirect is followed; a write that
//! may have been done is not sent again; every wait has an end; what comes back is bounded. The connection is octocrab's,
//! without its credentials, retries and redirects: it would repeat writes, and keep tokens in types that print them.

mod answer;
mod call;
mod limit;
mod memory;
mod page;
mod url;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use octocrab::{OctoBody, Octocrab};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub use self::url::GitHubUrl;
pub(crate) use self::{
    answer::{Answer, read},
    call::{Call, Credential},
};
use crate::redact::shown;
use crate::{Error, Result};

/// Speaks to one GitHub. It holds no credential; clones share the connection and what is known of rate limits.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    octocrab: Octocrab,
    url: GitHubUrl,
    patience: Patience,
    room: Semaphore,
    /// Until when GitHub asked each credential to be silent.
    silence: Mutex<HashMap<[u8; 32], Instant>>,
    memory: Mutex<memory::Memory>,
}

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For one answer. GitHub cuts requests off after ten seconds itself.
    pub answer: Duration,
    /// For a call with all its waits and repetitions.
    pub in_all: Duration,
    /// The longest wait that GitHub may ask for; if it asks for more, the call fails at once and says so.
    pub longest_wait: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { answer: Duration::from_secs(15), in_all: Duration::from_secs(150), longest_wait: Duration::from_mins(2) }
    }
}

impl Client {
    /// Prepares to speak to a GitHub; nothing is sent. Certificates are checked against the system's own roots.
    ///
    /// # Errors
    /// `Unreachable` outside of a tokio runtime, and where the system has no root certificates.
    pub fn new(url: GitHubUrl) -> Result<Self> {
        Self::with_patience(url, Patience::default())
    }

    /// The same, with other limits of time.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn with_patience(url: GitHubUrl, patience: Patience) -> Result<Self> {
        let error = |why: String| Error::Unreachable {
            what: "preparing to speak to GitHub".to_owned(),
            origin: url.origin().to_owned(),
            why,
        };
        tokio::runtime::Handle::try_current().map_err(|_| error("there is no tokio runtime".to_owned()))?;
        let octocrab = Octocrab::builder()
            .set_connect_timeout(Some(patience.answer))
            .set_read_timeout(Some(patience.answer))
            .set_write_timeout(Some(patience.answer))
            .add_header(header::USER_AGENT, USER_AGENT.to_owned())
            .build()
            .map_err(|cause| error(shown(&chain(&cause), None)))?;
        Ok(Self {
            inner: Arc::new(Inner {
                octocrab,
                url,
                patience,
                room: Semaphore::new(AT_ONCE),
                silence: Mutex::default(),
                memory: Mutex::default(),
            }),
        })
    }

    /// Where it speaks to.
    pub fn url(&self) -> &GitHubUrl {
        &self.inner.url
    }

    /// Sends a call and returns the answer, whatever its status, unless it is about rates.
    pub(crate) async fn send(&self, call: &Call<'_>) -> Result<Answer> {
        let within = self.inner.patience.in_all;
        let deadline = Instant::now() + within;
        let late = |_| Error::Deadline { what: call.what.clone(), within };
        timeout_at(deadline, self.persist(call, deadline)).await.map_err(late)?
    }

    async fn persist(&self, call: &Call<'_>, deadline: Instant) -> Result<Answer> {
        let mut attempt = 0;
        loop {
            self.keep_silent(call, deadline).await?;
            let outcome = self.try_once(call).await;
            let last = attempt + 1 >= ATTEMPTS;
            match &outcome {
                Ok(answer) => {
                    let asked =
                        limit::wait_asked(answer.status, &answer.headers, &answer.said, attempt, SystemTime::now());
                    if let Some(wait) = asked {
                        // Refused before it was done: so a write may be asked again, too.
                        self.be_silent(call, wait);
                        if last {
                            return Err(Error::RateLimited { what: call.what.clone(), wait });
                        }
                    } else if last || !call.is_read() || !limit::is_passing(answer.status) {
                        return outcome;
                    } else {
                        sleep(PAUSE.saturating_mul(1 << attempt)).await;
                    }
                }
                Err(Error::Unreachable { .. }) if call.is_read() && !last => {
                    sleep(PAUSE.saturating_mul(1 << attempt)).await;
                }
                Err(_) => return outcome,
            }
            attempt += 1;
        }
    }

    /// Waits until GitHub wants to hear of this credential again, or fails at once where that is too late.
    async fn keep_silent(&self, call: &Call<'_>, deadline: Instant) -> Result<()> {
        let until = lock(&self.inner.silence).get(&call.credential.digest()).copied();
        let Some(until) = until.filter(|until| *until > Instant::now()) else { return Ok(()) };
        let wait = until.duration_since(Instant::now());
        if wait > self.inner.patience.longest_wait || until > deadline {
            return Err(Error::RateLimited { what: call.what.clone(), wait });
        }
        tokio::time::sleep_until(until).await;
        Ok(())
    }

    fn be_silent(&self, call: &Call<'_>, wait: Duration) {
        let now = Instant::now();
        let mut silence = lock(&self.inner.silence);
        silence.retain(|_, until| *until > now);
        // A header that names a time beyond all clocks is held for a day.
        silence.insert(call.credential.digest(), now + wait.min(A_DAY));
    }

    async fn try_once(&self, call: &Call<'_>) -> Result<Answer> {
        let key = (call.credential.digest(), call.target.clone());
        let tag = if call.remembered { lock(&self.inner.memory).tag(&key) } else { None };
        let asked_by_tag = tag.is_some();
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{}", self.inner.url.api(), call.target))
            .header(header::ACCEPT, "application/vnd.github+json")
            .header("x-github-api-version", API_VERSION);
        if let (Some(headers), Some(credential)) = (request.headers_mut(), call.credential.header()?) {
            headers.insert(header::AUTHORIZATION, credential);
        }
        if let (Some(headers), Some(tag)) = (request.headers_mut(), tag) {
            headers.insert(header::IF_NONE_MATCH, tag);
        }
        let body = match &call.body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                OctoBody::from(body.to_string())
            }
            None => OctoBody::empty(),
        };
        let unreachable = |why: String| Error::Unreachable {
            what: call.what.clone(),
            origin: self.inner.url.origin().to_owned(),
            why,
        };
        let request = request.body(body).map_err(|error| unreachable(error.to_string()))?;
        let (status, headers, body) = {
            let _room = self.inner.room.acquire().await.map_err(|error| unreachable(error.to_string()))?;
            let within = self.inner.patience.answer;
            let late = |_| unreachable(format!("no answer within {within:?}"));
            timeout(within, self.exchange(call, request)).await.map_err(late)??
        };
        if status == StatusCode::NOT_MODIFIED && asked_by_tag {
            let remembered = lock(&self.inner.memory).recall(&key).cloned();
            return remembered.ok_or_else(|| unreachable("an answer that is no longer remembered".to_owned()));
        }
        let answer = Answer::new(status, headers, body, call);
        if call.remembered {
            lock(&self.inner.memory).keep(key, &answer);
        }
        Ok(answer)
    }

    async fn exchange(&self, call: &Call<'_>, request: Request<OctoBody>) -> Result<(StatusCode, HeaderMap, Vec<u8>)> {
        let response = self.inner.octocrab.send(request).await.map_err(|error| Error::Unreachable {
            what: call.what.clone(),
            origin: self.inner.url.origin().to_owned(),
            why: shown(&chain(&error), call.secrets()),
        })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| Error::Unreadable {
            what: call.what.clone(),
            why: shown(&chain(error.as_ref()), call.secrets()),
        })?;
        Ok((head.status, head.headers, body.to_bytes().to_vec()))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.inner.url).finish_non_exhaustive()
    }
}

/// An error and its causes in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Supported until 2028 at least; the next one breaks some answers
/// (<https://docs.github.com/en/rest/about-the-rest-api/api-versions>).
const API_VERSION: &str = "2022-11-28";
const USER_AGENT: &str = concat!("sandbox-github/", env!("CARGO_PKG_VERSION"));
/// Requests under way: GitHub asks for few.
const AT_ONCE: usize = 4;
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
const A_DAY: Duration = Duration::from_hours(24);
/// Bytes of one answer.
const MAX_ANSWER: usize = 8 * 1024 * 1024;
