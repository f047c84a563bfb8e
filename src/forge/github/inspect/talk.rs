//! What was said about a pull request: GitHub keeps comments, reviews and review comments apart; here they are one conversation. Pure.
//!
//! Never shows a review that says nothing of its own: such a one only carries its comments, which are here as threads.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::wire::{Person, short};
use crate::forge::inspect::{Discussion, Note};
use crate::forge::lenient::nullable;
use crate::forge::text::{line, paragraphs, word};
use crate::secret::Mask;

/// A comment on an issue or a pull request, and one on a pull request's diff, which has the later fields.
#[derive(Debug, Deserialize)]
pub(super) struct Comment {
    id: u64,
    #[serde(default, deserialize_with = "nullable")]
    user: Person,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    created_at: Option<String>,
    #[serde(default)]
    path: Option<String>,
    #[serde(default)]
    line: Option<u64>,
    #[serde(default)]
    original_line: Option<u64>,
    #[serde(default)]
    in_reply_to_id: Option<u64>,
}

impl Comment {
    /// Our words for it.
    pub(super) fn note(&self, mask: &Mask) -> Note {
        Note {
            id: self.id.to_string(),
            author: line(&self.user.login, mask),
            body: paragraphs(self.body.as_deref().unwrap_or_default(), mask),
            system: false,
            created_at: short(&self.created_at, mask),
            path: self.path.as_deref().map(|path| line(path, mask)),
            line: self.line.or(self.original_line),
            verdict: None,
        }
    }
}

/// A review of a pull request.
#[derive(Debug, Deserialize)]
pub(super) struct Review {
    id: u64,
    #[serde(default, deserialize_with = "nullable")]
    user: Person,
    #[serde(default)]
    body: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    state: String,
    #[serde(default)]
    submitted_at: Option<String>,
}

impl Review {
    fn discussion(&self, mask: &Mask) -> Option<Discussion> {
        let verdict = word(&self.state.to_lowercase(), mask);
        let body = paragraphs(self.body.as_deref().unwrap_or_default(), mask);
        if body.trim().is_empty() && matches!(verdict.as_str(), "" | "commented") {
            return None;
        }
        let note = Note {
            id: self.id.to_string(),
            author: line(&self.user.login, mask),
            body,
            system: false,
            created_at: short(&self.submitted_at, mask),
            path: None,
            line: None,
            verdict: Some(verdict),
        };
        Some(Discussion {
            id: None,
            kind: "review".to_owned(),
            resolved: None,
            notes: vec![note],
        })
    }
}

/// All three in one list, the oldest beginning first; comments on one place of the diff are one thread, which goes by its first comment's id.
pub(super) fn conversation(
    comments: &[Comment],
    reviews: &[Review],
    on_diff: &[Comment],
    mask: &Mask,
) -> Vec<Discussion> {
    let alone = comments.iter().map(|comment| Discussion {
        id: None,
        kind: "comment".to_owned(),
        resolved: None,
        notes: vec![comment.note(mask)],
    });
    let mut threads: BTreeMap<u64, Vec<Note>> = BTreeMap::new();
    for comment in on_diff {
        let first = comment.in_reply_to_id.unwrap_or(comment.id);
        threads.entry(first).or_default().push(comment.note(mask));
    }
    let threads = threads.into_iter().map(|(first, mut notes)| {
        notes.sort_by(|one, other| one.created_at.cmp(&other.created_at));
        Discussion {
            id: Some(first.to_string()),
            kind: "review_comment".to_owned(),
            resolved: None,
            notes,
        }
    });
    let mut all: Vec<Discussion> = alone
        .chain(reviews.iter().filter_map(|review| review.discussion(mask)))
        .chain(threads)
        .collect();
    let begun = |discussion: &Discussion| discussion.notes.first().map(|note| note.created_at.clone());
    all.sort_by_key(begun);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn three_lists_become_one_conversation() {
        let comments: Vec<Comment> = serde_json::from_value(
            json!([{"id": 1, "user": null, "body": "hello", "created_at": "2026-01-02T00:00:00Z"}]),
        )
        .unwrap();
        let reviews: Vec<Review> = serde_json::from_value(json!([
            {"id": 2, "user": {"login": "ann"}, "body": "", "state": "COMMENTED", "submitted_at": "2026-01-01T00:00:00Z"},
            {"id": 3, "user": {"login": "ann"}, "body": "", "state": "CHANGES_REQUESTED", "submitted_at": "2026-01-03T00:00:00Z"},
            {"id": 4, "body": null, "state": "OF_TOMORROW"},
        ]))
        .unwrap();
        let on_diff: Vec<Comment> = serde_json::from_value(json!([
            {"id": 10, "body": "why?", "path": "a.rs", "line": null, "original_line": 7, "created_at": "2026-01-01T00:00:00Z"},
            {"id": 12, "body": "because", "in_reply_to_id": 10, "created_at": "2026-01-04T00:00:00Z"},
            {"id": 11, "body": "other", "path": "b.rs", "line": 3, "created_at": "2026-01-01T12:00:00Z"},
        ]))
        .unwrap();
        let all = conversation(&comments, &reviews, &on_diff, &Mask::default());
        let seen: Vec<(&str, Option<&str>, usize)> = all
            .iter()
            .map(|one| (one.kind.as_str(), one.id.as_deref(), one.notes.len()))
            .collect();
        assert_eq!(
            seen,
            [
                ("review", None, 1),
                ("review_comment", Some("10"), 2),
                ("review_comment", Some("11"), 1),
                ("comment", None, 1),
                ("review", None, 1),
            ]
        );
        assert_eq!(all[0].notes[0].verdict.as_deref(), Some("of_tomorrow"));
        assert_eq!(all[4].notes[0].verdict.as_deref(), Some("changes_requested"));
        assert_eq!(
            (all[1].notes[0].path.as_deref(), all[1].notes[0].line),
            (Some("a.rs"), Some(7))
        );
        assert_eq!(all[3].notes[0].author, "");
    }
}
