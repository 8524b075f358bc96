//! Lists that come in pages
//! (<https://docs.github.com/en/rest/using-the-rest-api/using-pagination-in-the-rest-api>).

use http::StatusCode;
use serde::de::DeserializeOwned;

use super::answer::read;
use super::{Call, Client};
use crate::{Error, Result};

impl Client {
    /// Reads a list page by page, up to a number of entries. The flag tells whether there are more.
    pub(crate) async fn list<T: DeserializeOwned>(&self, call: Call<'_>, at_most: usize) -> Result<(Vec<T>, bool)> {
        self.list_while(call, at_most, |page| page, |_| true).await
    }

    /// The same, of pages that are taken apart first, and up to the first entry that is not wanted any more.
    pub(crate) async fn list_while<P: DeserializeOwned, T>(
        &self,
        mut call: Call<'_>,
        at_most: usize,
        entries_of: impl Fn(P) -> Vec<T>,
        wanted: impl Fn(&T) -> bool,
    ) -> Result<(Vec<T>, bool)> {
        let mut entries = Vec::new();
        call = call.query("per_page", PER_PAGE);
        loop {
            let answer = self.send(&call).await?.expect(StatusCode::OK)?;
            let next = answer.header("link").and_then(next);
            let page = entries_of(read(&answer.body, answer.what)?);
            let (empty, all) = (page.is_empty(), entries.len() + page.len());
            entries.extend(page.into_iter().take_while(&wanted));
            if entries.len() < all {
                let more = entries.len() > at_most;
                entries.truncate(at_most);
                return Ok((entries, more));
            }
            let Some(next) = next.filter(|_| !empty) else {
                let more = entries.len() > at_most;
                entries.truncate(at_most);
                return Ok((entries, more));
            };
            if entries.len() >= at_most {
                entries.truncate(at_most);
                return Ok((entries, true));
            }
            // Only the query of the link is taken: whatever host and path it names, the next page is asked of this one.
            let (path, before) = call.target.split_once('?').unwrap_or((&call.target, ""));
            if next == before {
                return Err(Error::Unreadable { what: call.what, why: "a page that follows itself".to_owned() });
            }
            call.target = format!("{path}?{next}");
        }
    }
}

/// The query of the link to the next page.
fn next(link: &str) -> Option<String> {
    let entry = link.split(',').find(|entry| entry.split(';').skip(1).any(|part| part.trim() == "rel=\"next\""))?;
    let url = entry.split(';').next()?.trim().strip_prefix('<')?.strip_suffix('>')?;
    let query = url.split_once('?')?.1;
    let plain = query.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%=&+:".contains(&byte));
    (plain && query.len() <= MAX_QUERY).then(|| query.to_owned())
}

const PER_PAGE: usize = 100;
const MAX_QUERY: usize = 2048;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_next_page_is_found_among_the_links() {
        let link = r#"<https://api.github.com/x?page=1>; rel="prev", <https://api.github.com/x?after=a%3D&per_page=2>; rel="next""#;
        assert_eq!(next(link).as_deref(), Some("after=a%3D&per_page=2"));
        for link in
            ["", r#"<https://api.github.com/x?page=1>; rel="prev""#, r#"<x>; rel="next""#, r#"<x?a b>; rel="next""#]
        {
            assert_eq!(next(link), None, "{link}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(link in "[ -~]{0,80}") {
            let _ = next(&link);
        }
    }
}
