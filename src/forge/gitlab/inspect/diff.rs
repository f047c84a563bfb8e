//! A merge request's diff as GitLab's API tells it: paged, or whole from servers that know no pages. Pure.
//!
//! Never takes an empty diff for no change: GitLab empties what it collapsed, and older servers do not say that they did.

use serde::Deserialize;

use crate::forge::inspect::{FileDiff, Page, PageRequest};
use crate::forge::lenient::nullable;
use crate::forge::text::{hunks, line};
use crate::secret::Mask;

/// A row of `GET .../diffs`, and of `changes` in `GET .../changes`.
#[derive(Debug, Deserialize)]
pub(super) struct FileRow {
    #[serde(default, deserialize_with = "nullable")]
    old_path: String,
    #[serde(default, deserialize_with = "nullable")]
    new_path: String,
    #[serde(default)]
    a_mode: Option<String>,
    #[serde(default)]
    b_mode: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    diff: String,
    #[serde(default, deserialize_with = "nullable")]
    new_file: bool,
    #[serde(default, deserialize_with = "nullable")]
    renamed_file: bool,
    #[serde(default, deserialize_with = "nullable")]
    deleted_file: bool,
    /// Since 18.4.
    #[serde(default)]
    collapsed: Option<bool>,
    /// Since 18.4.
    #[serde(default)]
    too_large: Option<bool>,
}

/// `GET .../changes`
#[derive(Debug, Deserialize)]
pub(super) struct Changes {
    #[serde(default, deserialize_with = "nullable")]
    changes: Vec<FileRow>,
    /// Whether files were left out.
    #[serde(default, deserialize_with = "nullable")]
    pub(super) overflow: bool,
}

impl Changes {
    /// One page of the files.
    pub(super) fn page(self, page: PageRequest) -> Page<FileRow> {
        let PageRequest { page, per_page } = page.bounded();
        let size = usize::try_from(per_page).unwrap_or(usize::MAX);
        let before = usize::try_from(page - 1).unwrap_or(usize::MAX).saturating_mul(size);
        let more = self.changes.len() > before.saturating_add(size);
        Page {
            items: self.changes.into_iter().skip(before).take(size).collect(),
            next_page: more.then_some(page + 1),
        }
    }
}

impl FileRow {
    /// Our words for it, and whether all of it is here.
    pub(super) fn file(self, mask: &Mask) -> (FileDiff, bool) {
        let change = match (self.new_file, self.deleted_file, self.renamed_file) {
            (true, _, _) => "added",
            (_, true, _) => "removed",
            (_, _, true) => "renamed",
            (false, false, false) => "modified",
        };
        let told = self.collapsed.is_some() || self.too_large.is_some();
        let mode = self.a_mode != self.b_mode;
        let (diff, why) = if self.too_large == Some(true) {
            (None, Some("too_large"))
        } else if self.collapsed == Some(true) {
            (None, Some("collapsed"))
        } else if self.diff.starts_with("Binary files ") {
            (None, Some("binary"))
        } else if !self.diff.is_empty() {
            let (shown, cut) = hunks(&self.diff, mask);
            (Some(shown), cut.then_some("cut"))
        } else if told && (self.renamed_file || self.new_file || self.deleted_file || mode) {
            // An empty file came or went, or only name or mode changed.
            (None, Some("no_lines"))
        } else {
            (None, Some("collapsed"))
        };
        let complete = matches!(why, None | Some("no_lines"));
        let old = line(&self.old_path, mask);
        let path = line(&self.new_path, mask);
        let file = FileDiff {
            old_path: Some(old).filter(|old| !old.is_empty() && *old != path),
            path,
            change: change.to_owned(),
            diff,
            why: why.map(str::to_owned),
        };
        (file, complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (Option<String>, Option<String>, bool) {
        let row: FileRow = serde_json::from_str(text).unwrap();
        let (file, complete) = row.file(&Mask::default());
        (file.diff, file.why, complete)
    }

    #[test]
    fn an_empty_diff_is_never_no_change() {
        for (text, diff, why, complete) in [
            (
                r#"{"diff":"@@ -1 +1 @@\n-a\n+b\n","collapsed":false,"too_large":false}"#,
                true,
                None,
                true,
            ),
            (r#"{"diff":"@@ -1 +1 @@\n-a\n+b\n"}"#, true, None, true),
            (
                r#"{"diff":"","collapsed":true,"too_large":false}"#,
                false,
                Some("collapsed"),
                false,
            ),
            (
                r#"{"diff":"","collapsed":false,"too_large":true}"#,
                false,
                Some("too_large"),
                false,
            ),
            (r#"{"diff":"","renamed_file":true}"#, false, Some("collapsed"), false),
            (
                r#"{"diff":"","renamed_file":true,"collapsed":false}"#,
                false,
                Some("no_lines"),
                true,
            ),
            (
                r#"{"diff":"","a_mode":"100644","b_mode":"100755","too_large":false}"#,
                false,
                Some("no_lines"),
                true,
            ),
            (
                r#"{"diff":"","collapsed":false,"too_large":false}"#,
                false,
                Some("collapsed"),
                false,
            ),
            (r#"{"diff":null}"#, false, Some("collapsed"), false),
            (r#"{}"#, false, Some("collapsed"), false),
            (
                r#"{"diff":"Binary files a/x and b/x differ\n"}"#,
                false,
                Some("binary"),
                false,
            ),
        ] {
            let got = file(text);
            assert_eq!(
                (got.0.is_some(), got.1.as_deref(), got.2),
                (diff, why, complete),
                "{text}"
            );
        }
        let long = serde_json::json!({"diff": "+x\n".repeat(100_000)}).to_string();
        let (diff, why, complete) = file(&long);
        assert!(diff.unwrap().len() < 70_000 && why.as_deref() == Some("cut") && !complete);
    }
}
