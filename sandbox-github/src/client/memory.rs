//! Answers that GitHub may confirm with a 304, which costs nothing of the rate limit
//! (<https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api#use-conditional-requests-if-appropriate>).

use std::collections::VecDeque;

use http::HeaderValue;

use super::answer::Answer;

/// Holds the latest few answers, each for the credential that it was given to.
#[derive(Default)]
pub(crate) struct Memory(VecDeque<(Key, Answer)>);

/// Who asked for what.
pub(crate) type Key = ([u8; 32], String);

impl Memory {
    /// The tag of the answer that is remembered.
    pub(crate) fn tag(&self, key: &Key) -> Option<HeaderValue> {
        self.recall(key)?.headers.get("etag").cloned()
    }

    pub(crate) fn recall(&self, key: &Key) -> Option<&Answer> {
        self.0.iter().find_map(|(of, answer)| (of == key).then_some(answer))
    }

    /// Remembers an answer that can be asked about, if it is of a size to be kept.
    pub(crate) fn keep(&mut self, key: Key, answer: &Answer) {
        self.0.retain(|(of, _)| *of != key);
        if answer.status == http::StatusCode::OK
            && answer.headers.contains_key("etag")
            && answer.body.len() <= MAX_BYTES
        {
            self.0.push_back((key, answer.clone()));
            if self.0.len() > MAX_ANSWERS {
                self.0.pop_front();
            }
        }
    }
}

const MAX_ANSWERS: usize = 64;
/// Bytes of one answer.
const MAX_BYTES: usize = 256 * 1024;
