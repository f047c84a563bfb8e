//! What the fuzzers reach here: every wire type, and our words for it as JSON. It only calls what a real answer meets.

use serde_json::{Value, to_value};

use super::checks::{CheckRuns, Combined, pipeline};
use super::diff::FileRow;
use super::talk::{Comment, Review, conversation};
use super::wire::{Found, Installed, Issue, Pull, RepositoryRow};
use crate::forge::fuzzing::{INSTANCE, read};
use crate::forge::inspect::{ChangeRequestQuery, IssueQuery};
use crate::message::ProjectPath;
use crate::secret::Mask;

pub(in crate::forge) fn shown(body: &Value, path: &ProjectPath, mask: &Mask) -> Vec<Value> {
    let mut shown = Vec::new();
    let (runs, statuses) = (read::<CheckRuns>(body), read::<Combined>(body));
    let word = pipeline(runs.as_ref(), statuses.as_ref(), mask);
    if let Some(row) = read::<Pull>(body) {
        let _ = row.passes(&ChangeRequestQuery::default());
        shown.extend(to_value(row.details(INSTANCE, (path, "7"), word.clone(), mask)));
    }
    let found = read::<Found>(body).map_or_else(Vec::new, |found| found.items);
    for row in found.into_iter().chain(read::<Issue>(body)) {
        let _ = (
            row.passes(&IssueQuery::default()),
            row.is_pull(),
            row.is_of(path),
            row.is_elsewhere(path),
        );
        shown.extend(to_value(row.details(INSTANCE, path, mask)));
    }
    let comments: Vec<Comment> = read(body).or_else(|| Some(vec![read(body)?])).unwrap_or_default();
    let on_diff: Vec<Comment> = read(body).unwrap_or_default();
    let reviews: Vec<Review> = read(body).or_else(|| Some(vec![read(body)?])).unwrap_or_default();
    shown.extend(to_value(conversation(&comments, &reviews, &on_diff, mask)));
    shown.extend(read::<FileRow>(body).and_then(|row| to_value(row.file(mask).0).ok()));
    let repositories = read::<Installed>(body).map_or_else(Vec::new, |installed| installed.repositories);
    for row in repositories.into_iter().chain(read::<RepositoryRow>(body)) {
        shown.extend(to_value(row.summary(None, INSTANCE, mask)));
    }
    shown.push(Value::String(word));
    shown
}
