//! What the fuzzers reach here: what is made of GitHub's answers, good and bad. It only calls what a real answer meets.

use serde_json::{Value, to_value};

use super::refused;
use super::wire::{Branch, PullRequest, Repository, User};
use crate::forge::fuzzing::{INSTANCE, project, read, told};
use crate::forge::http::Answer;
use crate::secret::Mask;

pub(in crate::forge) fn shown(body: &Value, mask: &Mask) -> Vec<Value> {
    let facts = project();
    let mut shown = super::inspect::fuzzing::shown(body, &facts.path, mask);
    let _ = read::<Branch>(body);
    if let Some(user) = read::<User>(body) {
        shown.extend([user.account(), user.display_name(), user.address("h.example")].map(Value::String));
    }
    let found = read::<Repository>(body).and_then(|found| found.facts(INSTANCE).ok());
    shown.extend(found.map(|facts| told(&facts)));
    if let Some(request) = read::<PullRequest>(body) {
        let request = request.change_request(INSTANCE, &facts).ok();
        shown.extend(request.map(|request| to_value(request.url)).into_iter().flatten());
    }
    shown
}

pub(in crate::forge) fn refusal(answer: &Answer) {
    let _ = (refused::not_created(answer), refused::limits_rate(answer));
}
