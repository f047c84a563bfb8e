//! The one way requests go to forges: bounded answers, time limits, careful retries, no redirect or paging link to another place.
//!
//! Never repeats a write unless nothing of it can have been sent, and never sends the token outside the connection's own API.

mod link;
pub(super) mod pace;
mod pages;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::address::Address;
use super::text::{clean, detail, looks_like_html};
use super::{CountRequests, ForgeError};
use crate::message::ForgeKind;
use crate::secret::Mask;
use pace::{Pace, UNSAID_WAIT, asked_wait};

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
}

/// An answer whose status is neither 429 nor 5xx.
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
        let deadline = self.deadline();
        let mut url = url;
        for _ in 0..=MOST_REDIRECTS {
            let answer = self.persist::<()>(asked, &Method::GET, &url, None, deadline).await?;
            match answer.status.as_u16() {
                301 | 302 | 307 | 308 => {
                    url = link::redirect(&answer.headers, &url, &self.address)
                        .map_err(|said| self.misunderstood(asked, &said))?;
                }
                _ => return Ok(answer),
            }
        }
        Err(self.misunderstood(asked, "it redirects in a circle"))
    }

    /// Changes a resource. Redirects are not followed: the request would have to be repeated elsewhere.
    pub(super) async fn write<B: Serialize + Sync>(
        &self,
        asked: Asked,
        method: &Method,
        url: &Url,
        body: &B,
    ) -> Result<Answer, ForgeError> {
        let deadline = self.deadline();
        let answer = self.persist(asked, method, url, Some(body), deadline).await?;
        if answer.status.is_redirection() {
            return Err(self.misunderstood(asked, "it redirects a request that changes something"));
        }
        Ok(answer)
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
            match link::next_page(&answer.headers, &url, &self.address) {
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
                self.misunderstood(asked, &format!("{} instead of JSON", self.detail(answer)))
            } else {
                self.misunderstood(asked, &format!("at {}: {}", error.path(), error.inner()))
            }
        })
    }

    /// The words of an answer that refuses, bounded and masked; its status where it says nothing.
    pub(super) fn detail(&self, answer: &Answer) -> String {
        let said = detail(&answer.body, &self.mask);
        if said.is_empty() {
            format!("HTTP {}", answer.status.as_u16())
        } else {
            said
        }
    }

    /// The error for an answer that the API does not promise.
    pub(super) fn misunderstood(&self, asked: Asked, said: &str) -> ForgeError {
        ForgeError::Answer {
            instance: self.address.instance.clone(),
            act: asked.act.to_owned(),
            detail: clean(said, &self.mask),
        }
    }

    /// The error for an address at which there is no such API: every instance knows its token's user.
    pub(super) fn no_api(&self, asked: Asked) -> ForgeError {
        self.misunderstood(
            asked,
            "there is no such API at this address: check the address and the kind of forge",
        )
    }

    /// The error for an answer that limits the rate.
    pub(super) fn rate_limited(&self, headers: &HeaderMap) -> ForgeError {
        ForgeError::RateLimited {
            instance: self.address.instance.clone(),
            wait: asked_wait(headers, SystemTime::now()).unwrap_or(UNSAID_WAIT),
        }
    }

    fn unavailable(&self, said: &str) -> ForgeError {
        ForgeError::Unavailable {
            instance: self.address.instance.clone(),
            detail: clean(said, &self.mask),
        }
    }

    /// When the last attempt of a request must have ended.
    fn deadline(&self) -> Instant {
        Instant::now() + self.pace.total.max(self.timeout)
    }

    /// Tries until there is an answer worth reading: reads when the forge or the way to it fails, writes only when nothing was sent.
    async fn persist<B: Serialize + Sync>(
        &self,
        asked: Asked,
        method: &Method,
        url: &Url,
        body: Option<&B>,
        deadline: Instant,
    ) -> Result<Answer, ForgeError> {
        let is_read = *method == Method::GET;
        let mut delays = self.pace.delays();
        loop {
            let (error, again, asked_for) = match self.attempt(asked, method, url, body, deadline).await {
                Ok(answer) if answer.status == StatusCode::TOO_MANY_REQUESTS => {
                    let wait = asked_wait(&answer.headers, SystemTime::now());
                    (self.rate_limited(&answer.headers), is_read, wait)
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
            let delay = asked_for.map_or(delay, |wait| wait.max(delay));
            if Instant::now() + delay > deadline {
                return Err(error);
            }
            tracing::debug!(endpoint = asked.endpoint, %error, ?delay, "asking the forge again");
            tokio::time::sleep(delay).await;
        }
    }

    async fn attempt<B: Serialize + Sync>(
        &self,
        asked: Asked,
        method: &Method,
        url: &Url,
        body: Option<&B>,
        deadline: Instant,
    ) -> Result<Answer, Failed> {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut request = self
            .client
            .request(method.clone(), url.clone())
            .timeout(self.timeout.min(left))
            .headers(self.headers.clone());
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => {
                self.counter.count(self.kind, asked.endpoint, 0);
                let (tls, unsent) = (fails_in_tls(&error), error.is_connect());
                let said = chain(error);
                return Err(if tls {
                    let advice = "an own certificate authority belongs into the worker's SSL_CERT_FILE";
                    Failed::Final(self.unavailable(&format!("{said} ({advice})")))
                } else if unsent {
                    // No connection means that no byte of the request was written.
                    Failed::Unsent(self.unavailable(&said))
                } else {
                    Failed::Unknown(self.unavailable(&said))
                });
            }
        };
        self.counter
            .count(self.kind, asked.endpoint, response.status().as_u16());
        self.read(asked, response).await
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
