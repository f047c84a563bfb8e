//! Answers that are asked for again and again (a token's, a user's, a project's), so that asking again costs a forge nothing.
//!
//! Never gives an answer to another token than the one that got it, and never without asking unless the caller says how old it may be.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::ETAG;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::Answer;
use super::turns::Digest;

/// Most answers that are kept.
const MOST_ANSWERS: usize = 128;

/// Largest answer that is kept, with its headers, in bytes.
const LARGEST_KEPT: usize = 64 * 1024;

/// The answers that were used last.
#[derive(Default)]
pub(in crate::forge) struct Cache(Mutex<VecDeque<Kept>>);

#[derive(Clone)]
struct Kept {
    token: Digest,
    url: String,
    headers: HeaderMap,
    body: Vec<u8>,
    confirmed: Instant,
}

impl Cache {
    /// The mark of the answer that is kept.
    pub(super) fn mark(&self, token: &Digest, url: &str) -> Option<HeaderValue> {
        self.with(token, url, |kept| kept.headers.get(ETAG).cloned()).flatten()
    }

    /// The answer that is kept, where the forge confirmed it not longer ago than this.
    pub(super) fn fresh(&self, token: &Digest, url: &str, age: Duration) -> Option<Answer> {
        self.with(token, url, |kept| {
            (kept.confirmed.elapsed() <= age).then(|| kept.answer())
        })
        .flatten()
    }

    /// The answer that is kept, which the forge has just confirmed with these headers.
    pub(super) fn confirmed(&self, token: &Digest, url: &str, headers: &HeaderMap) -> Option<Answer> {
        self.with(token, url, |kept| {
            kept.confirmed = Instant::now();
            for (name, value) in headers {
                kept.headers.insert(name.clone(), value.clone());
            }
            kept.answer()
        })
    }

    /// Keeps an answer, where it has a mark and is not too large; forgets what was kept before it either way.
    pub(super) fn keep(&self, token: &Digest, url: &str, answer: &Answer) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|kept| kept.token != *token || kept.url != url);
        let heads: usize = answer
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len())
            .sum();
        let small = answer.body.len() + heads + url.len() <= LARGEST_KEPT;
        if answer.status == StatusCode::OK && answer.headers.contains_key(ETAG) && small {
            all.push_front(Kept {
                token: *token,
                url: url.to_owned(),
                headers: answer.headers.clone(),
                body: answer.body.clone(),
                confirmed: Instant::now(),
            });
            all.truncate(MOST_ANSWERS);
        }
    }

    /// Looks at one that is kept, and marks it as used last.
    fn with<R>(&self, token: &Digest, url: &str, look: impl FnOnce(&mut Kept) -> R) -> Option<R> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = all.iter().position(|kept| kept.token == *token && kept.url == url)?;
        let mut kept = all.remove(place)?;
        let seen = look(&mut kept);
        all.push_front(kept);
        Some(seen)
    }
}

impl Kept {
    fn answer(&self) -> Answer {
        Answer {
            status: StatusCode::OK,
            headers: self.headers.clone(),
            body: self.body.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str, mark: Option<&str>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(mark) = mark {
            headers.insert(ETAG, mark.parse().unwrap());
        }
        Answer {
            status: StatusCode::OK,
            headers,
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn answers_stay_with_their_token_and_are_few() {
        let cache = Cache::default();
        cache.keep(&[1; 32], "u", &answer("one", Some("\"a\"")));
        assert_eq!(cache.mark(&[1; 32], "u").unwrap(), "\"a\"");
        assert!(cache.mark(&[2; 32], "u").is_none() && cache.mark(&[1; 32], "v").is_none());
        let mut headers = HeaderMap::new();
        headers.insert("x-oauth-scopes", "repo".parse().unwrap());
        let confirmed = cache.confirmed(&[1; 32], "u", &headers).unwrap();
        assert_eq!((confirmed.body.as_slice(), confirmed.headers.len()), (&b"one"[..], 2));
        assert!(cache.fresh(&[1; 32], "u", Duration::from_secs(60)).is_some());
        assert!(cache.fresh(&[1; 32], "u", Duration::ZERO).is_none());
        cache.keep(&[1; 32], "u", &answer("two", None));
        assert!(
            cache.mark(&[1; 32], "u").is_none(),
            "what changed without a mark is forgotten"
        );
        cache.keep(&[1; 32], "u", &answer(&"x".repeat(LARGEST_KEPT + 1), Some("\"a\"")));
        assert!(cache.mark(&[1; 32], "u").is_none());
        for n in 0..2 * MOST_ANSWERS {
            cache.keep(&[1; 32], &n.to_string(), &answer("x", Some("\"a\"")));
        }
        assert_eq!(cache.0.lock().unwrap().len(), MOST_ANSWERS);
    }
}
