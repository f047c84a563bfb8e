//! What the fuzzers reach here: every wire type, and our words for it as JSON. It only calls what a real answer meets.

use serde_json::{Value, to_value};

use super::diff::{Changes, FileRow};
use super::wire::{DiscussionRow, Issue, NoteRow, ProjectRow, Request};
use crate::forge::fuzzing::{INSTANCE, read};
use crate::forge::inspect::{ChangeRequestQuery, IssueQuery, PageRequest, SourceRepository};
use crate::message::ProjectPath;
use crate::secret::Mask;

pub(in crate::forge) fn shown(body: &Value, path: &ProjectPath, mask: &Mask) -> Vec<Value> {
    let mut shown = Vec::new();
    if let Some(row) = read::<Request>(body) {
        let _ = row.passes(&ChangeRequestQuery::default());
        shown.extend(to_value(row.details(INSTANCE, path, SourceRepository::Same, mask)));
    }
    if let Some(row) = read::<Issue>(body) {
        let _ = (row.passes(&IssueQuery::default()), row.other_type());
        shown.extend(to_value(row.details(INSTANCE, path, mask)));
    }
    shown.extend(read::<NoteRow>(body).and_then(|row| to_value(row.note(mask)).ok()));
    shown.extend(read::<DiscussionRow>(body).and_then(|row| to_value(row.discussion(mask)).ok()));
    shown.extend(read::<FileRow>(body).and_then(|row| to_value(row.file(mask).0).ok()));
    shown.extend(read::<ProjectRow>(body).and_then(|row| to_value(row.summary(INSTANCE, mask)).ok()));
    if let Some(changes) = read::<Changes>(body) {
        let page = changes.page(PageRequest::default());
        shown.extend(page.items.into_iter().flat_map(|row| to_value(row.file(mask).0)));
    }
    shown
}
