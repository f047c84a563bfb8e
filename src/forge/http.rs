//! The one way requests go to forges: bounded answers, time limits, careful retries, no redirect or paging link to another place.
//!
//! Never repeats a write unless nothing of it can have been sent, and never sends the token outside the connection's own API.

pub(super) mod cache;
mod errors;
pub(super) mod link;
pub(super) mod pace;
mod pages;
pub(super) mod rate;
pub(super) mod turns;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::Instrument as _;
use tracing::field::Empty;
use url::Url;

use super::address::Address;
use super::text::looks_like_html;
use super::{CountRequests, ForgeError};
use crate::message::ForgeKind;
use crate::secret::Mask;
use cache::Cache;
use http::header::IF_NONE_MATCH;
use pace::{Pace, UNSAID_WAIT, asked_wait};
use turns::{Digest, Turn};

/// How many redirects of one read are followed.
const MOST_REDIRECTS: usize = 3;

/// How many pages of one list are read.
const MOST_PAGES: usize = 10;

/// How much of an answer that reports an error is read.
const LARGEST_ERROR: usize = 64 * 1024;

/// What a request is for: the word that operators see in metrics, and the words that users see in errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// For metrics.
    pub(super) endpoint: &'static str,
    /// Completes "asked to ...".
    pub(super) act: &'static str,
}

/// The API of one instance with one token.
pub(super) struct Api {
    pub(super) client: reqwest::Client,
    pub(super) kind: ForgeKind,
    pub(super) address: Address,
    /// Sent with every request; holds the token.
    pub(super) headers: HeaderMap,
    pub(super) mask: Mask,
    pub(super) counter: Arc<dyn CountRequests>,
    pub(super) largest_answer: usize,
    /// Time limit of one attempt.
    pub(super) timeout: Duration,
    pub(super) pace: Pace,
    /// Least time between two writes.
    pub(super) between_writes: Duration,
    /// Whether an answer that is no 429 limits the rate all the same.
    pub(super) limits: fn(&Answer) -> bool,
    /// Stands for the token where answers are kept.
    pub(super) token: Digest,
    pub(super) turn: Arc<Turn>,
    pub(super) cache: Arc<Cache>,
    pub(super) rate: rate::Rate,
    /// The answer that said that the token is dead: forges lock out whoever goes on asking with one.
    pub(super) dead: OnceLock<Answer>,
}

/// One request, however often it is tried.
struct Request<'a, B> {
    asked: Asked,
    method: &'a Method,
    url: &'a Url,
    body: Option<&'a B>,
    /// Whether its answer is kept, so that the next one costs nothing.
    kept: bool,
    deadline: Instant,
}

/// An answer whose status is neither 429 nor 5xx.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// How one attempt failed.
enum Failed {
    /// Nothing of the request left this machine.
    Unsent(ForgeError),
    /// It may have had its effect.
    Unknown(ForgeError),
    /// Trying again would give the same.
    Final(ForgeError),
}

impl Api {
    /// Reads a resource, following redirects inside the API.
    pub(super) async fn get(&self, asked: Asked, url: Url) -> Result<Answer, ForgeError> {
        self.follow(asked, url, false).await
    }

    /// The same for what is read again and again: the answer is kept, and the forge asked whether it still holds.
    pub(super) async fn get_kept(&self, asked: Asked, url: Url) -> Result<Answer, ForgeError> {
        self.follow(asked, url, true).await
    }

    /// The same for what seldom changes: within `age` it is not asked for again. The token itself must have been checked just now.
    pub(super) async fn get_fresh(&self, asked: Asked, url: Url, age: Duration) -> Result<Answer, ForgeError> {
        match self.cache.fresh(&self.token, url.as_str(), age) {
            Some(answer) => Ok(answer),
            None => self.get_kept(asked, url).await,
        }
    }

    async fn follow(&self, asked: Asked, url: Url, kept: bool) -> Result<Answer, ForgeError> {
        let deadline = self.deadline();
        let mut url = url;
        for _ in 0..=MOST_REDIRECTS {
            let request = Request::<()> {
                asked,
                method: &Method::GET,
                url: &url,
                body: None,
                kept,
                deadline,
            };
            let answer = self.persist(&request).await?;
            match answer.status.as_u16() {
                301 | 302 | 307 | 308 => {
                    url = link::redirect(&answer.headers, &url, &self.address, &self.mask)
                        .map_err(|said| self.misunderstood(asked, &said))?;
                }
                _ => return Ok(answer),
            }
        }
        Err(self.misunderstood(asked, "it redirects in a circle"))
    }

    /// Changes a resource, when it is this token's turn. Redirects are not followed: the request would have to be repeated elsewhere.
    pub(super) async fn write<B: Serialize + Sync>(
        &self,
        asked: Asked,
        method: &Method,
        url: &Url,
        body: &B,
    ) -> Result<Answer, ForgeError> {
        let mut writes = self.turn.0.lock().await;
        let wait = writes.wait(Instant::now(), self.between_writes);
        if wait > self.pace.total {
            let instance = self.address.instance.clone();
            return Err(ForgeError::RateLimited { instance, wait });
        }
        tokio::time::sleep(wait).await;
        writes.sent(Instant::now());
        let request = Request {
            asked,
            method,
            url,
            body: Some(body),
            kept: false,
            deadline: self.deadline(),
        };
        let written = self.persist(&request).await;
        writes.sent(Instant::now());
        match written {
            Ok(answer) if answer.status.is_redirection() => {
                Err(self.misunderstood(asked, "it redirects a request that changes something"))
            }
            Ok(answer) => {
                writes.passed();
                Ok(answer)
            }
            Err(ForgeError::RateLimited { instance, wait }) => {
                let wait = writes.limited(Instant::now(), wait);
                Err(ForgeError::RateLimited { instance, wait })
            }
            Err(error) => Err(error),
        }
    }

    /// The first entry of a paged list that is wanted; `refuse` makes the error of a page that was refused.
    pub(super) async fn find<T: DeserializeOwned>(
        &self,
        asked: Asked,
        url: Url,
        refuse: impl Fn(&Answer) -> ForgeError + Send,
        wanted: impl Fn(&T) -> bool + Send,
    ) -> Result<Option<T>, ForgeError> {
        let mut url = url;
        for _ in 0..MOST_PAGES {
            let answer = self.get(asked, url.clone()).await?;
            if !answer.status.is_success() {
                return Err(refuse(&answer));
            }
            let page: Vec<T> = self.parse(asked, &answer)?;
            if let Some(found) = page.into_iter().find(|entry| wanted(entry)) {
                return Ok(Some(found));
            }
            match link::next_page(&answer.headers, &url, &self.address, &self.mask) {
                Ok(Some(next)) => url = next,
                Ok(None) => return Ok(None),
                Err(said) => return Err(self.misunderstood(asked, &said)),
            }
        }
        Err(self.misunderstood(asked, &format!("its list has more than {MOST_PAGES} pages")))
    }

    /// The answer's body as what the API promises.
    pub(super) fn parse<T: DeserializeOwned>(&self, asked: Asked, answer: &Answer) -> Result<T, ForgeError> {
        let mut reader = serde_json::Deserializer::from_slice(&answer.body);
        serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            if looks_like_html(&String::from_utf8_lossy(&answer.body)) {
                let said = format!(
                    "{} instead of JSON: check that this is the instance's address",
                    self.detail(answer)
                );
                self.misunderstood(asked, &said)
            } else {
                self.misunderstood(asked, &format!("at {}: {}", error.path(), error.inner()))
            }
        })
    }

    /// When the last attempt of a request must have ended.
    fn deadline(&self) -> Instant {
        Instant::now() + self.pace.total.max(self.timeout)
    }

    /// Tries until there is an answer worth reading: reads when the forge or the way to it fails, writes only when nothing was sent.
    async fn persist<B: Serialize + Sync>(&self, request: &Request<'_, B>) -> Result<Answer, ForgeError> {
        if let Some(dead) = self.dead.get() {
            return Ok(dead.clone());
        }
        let answer = self.keep_asking(request).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            // The first one counts; later ones say the same.
            let _ = self.dead.set(answer.clone());
        }
        Ok(answer)
    }

    async fn keep_asking<B: Serialize + Sync>(&self, request: &Request<'_, B>) -> Result<Answer, ForgeError> {
        let is_read = *request.method == Method::GET;
        let mut delays = self.pace.delays();
        loop {
            let (error, again, asked_for) = match self.attempt(request).await {
                Ok(answer) if answer.status == StatusCode::TOO_MANY_REQUESTS => {
                    let wait = asked_wait(&answer.headers, SystemTime::now());
                    (self.rate_limited(&answer.headers), is_read, wait)
                }
                Ok(answer) if (self.limits)(&answer) => {
                    // Such a limit hits all that the token does: it is never tried out how long it lasts.
                    let wait = asked_wait(&answer.headers, SystemTime::now()).unwrap_or(UNSAID_WAIT);
                    (self.rate_limited(&answer.headers), is_read, Some(wait))
                }
                Ok(answer) if answer.status.is_server_error() => {
                    let said = format!("HTTP {}: {}", answer.status.as_u16(), self.detail(&answer));
                    (
                        self.unavailable(&said),
                        is_read,
                        asked_wait(&answer.headers, SystemTime::now()),
                    )
                }
                Ok(answer) => return Ok(answer),
                Err(Failed::Unsent(error)) => (error, true, None),
                Err(Failed::Unknown(error)) => (error, is_read, None),
                Err(Failed::Final(error)) => return Err(error),
            };
            let Some(delay) = delays.next().filter(|_| again) else {
                return Err(error);
            };
            // On top of what was asked for, so that not everybody comes back in the same moment.
            let delay = asked_for.map_or(delay, |wait| wait.saturating_add(delay));
            if Instant::now() + delay > request.deadline {
                return Err(error);
            }
            tracing::debug!(endpoint = request.asked.endpoint, %error, ?delay, "asking the forge again");
            tokio::time::sleep(delay).await;
        }
    }

    async fn attempt<B: Serialize + Sync>(&self, of: &Request<'_, B>) -> Result<Answer, Failed> {
        let asked = of.asked;
        let left = of.deadline.saturating_duration_since(Instant::now());
        let mut request = self
            .client
            .request(of.method.clone(), of.url.clone())
            .timeout(self.timeout.min(left))
            .headers(self.headers.clone());
        if let Some(body) = of.body {
            request = request.json(body);
        }
        let mark = of.kept.then(|| self.cache.mark(&self.token, of.url.as_str())).flatten();
        if let Some(mark) = mark {
            request = request.header(IF_NONE_MATCH, mark);
        }
        let span = tracing::info_span!(
            "forge",
            otel.name = asked.endpoint,
            forge = self.kind.as_str(),
            status = Empty
        );
        let response = match request.send().instrument(span.clone()).await {
            Ok(response) => response,
            Err(error) => {
                self.counter.count(self.kind, asked.endpoint, 0);
                let (tls, unsent) = (fails_in_tls(&error), error.is_connect());
                let said = chain(error);
                return Err(if tls {
                    let advice = "an own certificate authority belongs into the connection's ca, or into the operator's forge.ca_file";
                    Failed::Final(self.unavailable(&format!("{said} ({advice})")))
                } else if unsent {
                    // No connection means that no byte of the request was written.
                    Failed::Unsent(self.unavailable(&said))
                } else {
                    Failed::Unknown(self.unavailable(&said))
                });
            }
        };
        span.record("status", response.status().as_u16());
        drop(span);
        self.counter
            .count(self.kind, asked.endpoint, response.status().as_u16());
        if let Some(left) = self.rate.note(response.headers(), Instant::now()) {
            self.counter.left(self.kind, left);
        }
        let answer = self.read(asked, response).await?;
        if !of.kept {
            return Ok(answer);
        }
        if answer.status == StatusCode::NOT_MODIFIED {
            return match self.cache.confirmed(&self.token, of.url.as_str(), &answer.headers) {
                Some(kept) => Ok(kept),
                // It was dropped for others meanwhile; the next attempt sends no mark.
                None => Err(Failed::Unknown(
                    self.unavailable("it says that nothing changed since nothing was known"),
                )),
            };
        }
        if answer.status.is_success() {
            self.cache.keep(&self.token, of.url.as_str(), &answer);
        }
        Ok(answer)
    }

    /// Reads a body up to the bound; of an answer that reports an error only as much as its words can need.
    async fn read(&self, asked: Asked, mut response: reqwest::Response) -> Result<Answer, Failed> {
        let status = response.status();
        let headers = response.headers().clone();
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > self.largest_answer && status.is_success() => {
                    let said = format!("it is larger than {} bytes", self.largest_answer);
                    return Err(Failed::Final(self.misunderstood(asked, &said)));
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                // The status alone says what an error answer means.
                Err(_) if !status.is_success() => break,
                Err(error) => return Err(Failed::Unknown(self.unavailable(&chain(error)))),
            }
            if !status.is_success() && body.len() > LARGEST_ERROR {
                body.truncate(LARGEST_ERROR);
                break;
            }
        }
        Ok(Answer { status, headers, body })
    }
}

/// Whether TLS itself failed (an unknown certificate, a server that speaks something else): the next attempt would fail alike.
fn fails_in_tls(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        if next.is::<rustls::Error>() {
            return true;
        }
        // An I/O error leaves out what it wraps when it is asked for its source.
        cause = match next.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => next.source(),
        };
    }
    false
}

/// An error with its causes, without the address, which the sentence around it names already.
fn chain(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        said = format!("{said}: {next}");
        cause = next.source();
    }
    said
}

#[cfg(test)]
mod tests;
