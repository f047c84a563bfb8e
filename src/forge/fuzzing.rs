//! What the fuzzers reach of this room: addresses, answers, headers. It only calls what a real forge's bytes meet, and decides nothing.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use super::address::{self, Address, Shape};
use super::http::{Answer, link, pace::asked_wait, rate::Rate};
use super::{CloneBy, Config, ProjectFacts, Visibility, github, gitlab, text};
use crate::message::ProjectPath;
use crate::secret::Mask;

/// The instance that is asked.
pub(super) const INSTANCE: &str = "https://h.example/sub";

/// As a real answer is read.
pub(super) fn read<T: DeserializeOwned>(body: &Value) -> Option<T> {
    serde_json::from_value(body.clone()).ok()
}

pub(super) fn project() -> ProjectFacts {
    let path = ProjectPath::try_from("a/b".to_owned()).unwrap_or_else(|_| unreachable!());
    ProjectFacts {
        id: "7".to_owned(),
        clone_url: format!("{INSTANCE}/{path}.git"),
        web_url: format!("{INSTANCE}/{path}"),
        default_branch: None,
        may_push: true,
        archived: false,
        visibility: Visibility::Private,
        path,
    }
}

pub(super) fn told(facts: &ProjectFacts) -> Value {
    json!([facts.id, facts.path, facts.clone_url, facts.web_url])
}

/// Our words, as JSON, for a body of either forge, read as every type of answer.
#[must_use]
pub fn shown(body: &[u8], mask: &Mask) -> Vec<Value> {
    let Ok(body) = serde_json::from_slice(body) else {
        return Vec::new();
    };
    let mut shown = gitlab::fuzzing::shown(&body, mask);
    shown.extend(github::fuzzing::shown(&body, mask));
    shown
}

/// The words of a body that reports an error.
#[must_use]
pub fn refused(status: u16, headers: HeaderMap, body: &[u8], mask: &Mask) -> String {
    let status = StatusCode::from_u16(status).unwrap_or_default();
    let answer = Answer {
        status,
        headers,
        body: body.to_vec(),
    };
    gitlab::fuzzing::refusal(&answer);
    github::fuzzing::refusal(&answer);
    text::detail(body, mask)
}

/// A description cut to a forge's limit, in UTF-16 units.
#[must_use]
pub fn description(whole: &str, most: usize) -> String {
    text::description(whole, most)
}

/// A forge's address as a task may name it.
///
/// # Errors
/// The sentence for the user.
pub fn canonical(pasted: &str, allow_http: bool) -> Result<String, String> {
    address::canonical(pasted, allow_http).map_err(|error| error.to_string())
}

/// Where git goes when a forge names an address and the operator lets it.
#[must_use]
pub fn clone_url(named: &str, allowed: &[String]) -> Option<String> {
    let config = Config {
        clone_by: CloneBy::Project,
        ..Config::default()
    };
    let address = connection(&config, allowed)?;
    Some(address.clone_url(Some(named), &project().path))
}

/// Where the next page is, if there is one.
pub type Next = Result<Option<Url>, String>;

/// Where the next page and a redirect lead; an error is the sentence for the user.
#[must_use]
pub fn next(headers: &HeaderMap) -> Option<(Next, Result<Url, String>)> {
    let address = connection(&Config::default(), &[])?;
    let current = address.resource(&["projects"]);
    Some((
        link::next_page(headers, &current, &address, &Mask::default()),
        link::redirect(headers, &current, &address, &Mask::default()),
    ))
}

/// How long to wait, and how much of a limit is left.
#[must_use]
pub fn pace(headers: &HeaderMap) -> (Option<Duration>, Option<u8>) {
    let (rate, now) = (Rate::default(), std::time::Instant::now());
    rate.note(headers, now);
    (asked_wait(headers, SystemTime::UNIX_EPOCH), rate.left(now))
}

fn connection(config: &Config, allowed: &[String]) -> Option<Address> {
    let shape = Shape {
        public_instance: "https://public.example",
        public_api: None,
        api_suffix: "api/v4",
    };
    Address::new(shape, Some(INSTANCE), config, allowed).ok()
}
