//! A GitHub that is played: it answers with what a test lays down, and holds both sides to the description.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sandbox_github::{Client, Patience};
use serde_json::Value;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use crate::description::{answer_fault, request_fault};

/// One answer that is laid down for a method and a path; each is given once, in order, and the last for ever.
pub(crate) struct Answer {
    pub(crate) call: (&'static str, &'static str),
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Value,
    /// Whether GitHub's description knows this answer; it does not know of limits and gateways.
    pub(crate) described: bool,
    /// How long GitHub takes to say it.
    pub(crate) delay: Duration,
}

pub(crate) fn answer(method: &'static str, path: &'static str, status: u16, body: Value) -> Answer {
    Answer { call: (method, path), status, headers: Vec::new(), body, described: true, delay: Duration::ZERO }
}

impl Answer {
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn slow(mut self) -> Self {
        self.delay = Duration::from_millis(300);
        self
    }

    pub(crate) fn undescribed(mut self) -> Self {
        self.described = false;
        self
    }
}

pub(crate) struct GitHub {
    server: MockServer,
    faults: Arc<Mutex<Vec<String>>>,
    laid: Arc<Mutex<Vec<Answer>>>,
}

impl GitHub {
    pub(crate) async fn play(answers: Vec<Answer>) -> Self {
        let server = MockServer::start().await;
        let faults = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&faults);
        let laid = Arc::new(Mutex::new(answers));
        let given = Arc::clone(&laid);
        let respond = move |request: &Request| respond(request, &given, &noted);
        Mock::given(any()).respond_with(respond).mount(&server).await;
        Self { server, faults, laid }
    }

    /// Lays down an answer in place of those that are left for its call.
    pub(crate) fn lay(&self, answer: Answer) {
        let mut laid = self.laid.lock().unwrap();
        laid.retain(|other| other.call != answer.call);
        laid.push(answer);
    }

    pub(crate) fn client(&self) -> Client {
        self.client_below("")
    }

    /// A client that takes it for an Enterprise Server.
    pub(crate) fn enterprise_client(&self) -> Client {
        self.client_below("/api/v3")
    }

    fn client_below(&self, prefix: &str) -> Client {
        let second = Duration::from_secs(1);
        let patience = Patience { answer: second * 10, in_all: second * 20, longest_wait: second * 2 };
        Client::with_patience(format!("{}{prefix}", self.server.uri()).parse().unwrap(), patience).unwrap()
    }

    /// All that was asked, as `METHOD path?query`; fails if anything was not as described.
    pub(crate) async fn asked(&self) -> Vec<String> {
        assert_eq!(*self.faults.lock().unwrap(), Vec::<String>::new());
        self.requests().await.iter().map(line).collect()
    }

    /// Waits until something was asked this often.
    pub(crate) async fn until_asked(&self, line_asked: &str, times: usize) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let asked: Vec<String> = self.requests().await.iter().map(line).collect();
            if asked.iter().filter(|asked| *asked == line_asked).count() >= times {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{line_asked} is not among {asked:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn requests(&self) -> Vec<Request> {
        self.server.received_requests().await.unwrap()
    }
}

fn line(request: &Request) -> String {
    let query = request.url.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{} {}{query}", request.method, request.url.path())
}

fn respond(request: &Request, laid: &Mutex<Vec<Answer>>, faults: &Mutex<Vec<String>>) -> ResponseTemplate {
    let path = request.url.path();
    let (method, path) = (request.method.as_str(), path.strip_prefix("/api/v3").unwrap_or(path));
    let note = |fault: Option<String>| faults.lock().unwrap().extend(fault);
    let query: Vec<(String, String)> =
        request.url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    note(request_fault(method, path, &query, &request.body));
    for (name, value) in [("x-github-api-version", "2022-11-28"), ("accept", "application/vnd.github+json")] {
        if request.headers.get(name).is_none_or(|given| given != value) {
            note(Some(format!("{method} {path} comes without {name}: {value}")));
        }
    }
    let mut laid = laid.lock().unwrap();
    let fitting: Vec<usize> =
        laid.iter().enumerate().filter(|(_, answer)| answer.call == (method, path)).map(|(index, _)| index).collect();
    let Some(first) = fitting.first().copied() else {
        note(Some(format!("{method} {path} was not expected")));
        return ResponseTemplate::new(500);
    };
    let Answer { call: _, status, headers, body, described, delay } = &laid[first];
    if *described {
        note(answer_fault(method, path, *status, body).map(|fault| format!("answer to {method} {path}: {fault}")));
    }
    let mut response = ResponseTemplate::new(*status).set_delay(*delay);
    if !body.is_null() {
        response = response.set_body_json(body);
    }
    for (name, value) in headers {
        response = response.insert_header(*name, value.as_str());
    }
    if fitting.len() > 1 {
        laid.remove(first);
    }
    response
}
