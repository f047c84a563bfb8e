//! What the fuzzers reach here: what is made of GitLab's answers, good and bad. It only calls what a real answer meets.

use serde_json::{Value, to_value};

use super::refused;
use super::wire::{Access, Branch, MergeRequest, Project, Token, User};
use crate::forge::fuzzing::{INSTANCE, project, read, told};
use crate::forge::http::Answer;
use crate::secret::Mask;

pub(in crate::forge) fn shown(body: &Value, mask: &Mask) -> Vec<Value> {
    let facts = project();
    let mut shown = super::inspect::fuzzing::shown(body, &facts.path, mask);
    let _ = (
        read::<Token>(body),
        read::<Branch>(body),
        read::<Access>(body).map(|access| access.may_push()),
    );
    if let Some(user) = read::<User>(body) {
        shown.extend([user.account(), user.display_name(), user.address()].map(Value::String));
    }
    if let Some(found) = read::<Project>(body) {
        let may_push = found.may_push().unwrap_or(true);
        shown.extend(found.facts(INSTANCE, may_push).ok().map(|facts| told(&facts)));
    }
    if let Some(request) = read::<MergeRequest>(body) {
        let _ = request.is_draft();
        let request = request.change_request(INSTANCE, &facts).ok();
        shown.extend(request.map(|request| to_value(request.url)).into_iter().flatten());
    }
    shown
}

pub(in crate::forge) fn refusal(answer: &Answer) {
    let _ = (refused::not_created(answer), refused::limits_rate(answer));
}
