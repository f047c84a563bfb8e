//! One file of a pull request as GitHub tells it. Pure.
//!
//! Never takes a missing patch for no change, nor a shortened one for the whole: its lines are counted.

use serde::Deserialize;

use crate::forge::inspect::FileDiff;
use crate::forge::lenient::nullable;
use crate::forge::text::{hunks, line, word};
use crate::secret::Mask;

/// A row of `GET /repos/:owner/:name/pulls/:number/files`
#[derive(Debug, Deserialize)]
pub(super) struct FileRow {
    #[serde(default, deserialize_with = "nullable")]
    filename: String,
    #[serde(default)]
    previous_filename: Option<String>,
    #[serde(default, deserialize_with = "nullable")]
    status: String,
    #[serde(default)]
    additions: Option<u64>,
    #[serde(default)]
    deletions: Option<u64>,
    /// Absent for binary and for large files.
    #[serde(default)]
    patch: Option<String>,
}

impl FileRow {
    /// Our words for it, and whether all of it is here.
    pub(super) fn file(self, mask: &Mask) -> (FileDiff, bool) {
        let counted = self.additions.unwrap_or(0).saturating_add(self.deletions.unwrap_or(0));
        let (diff, why) = match self.patch.as_deref().filter(|patch| !patch.is_empty()) {
            Some(patch) => {
                let (shown, cut) = hunks(patch, mask);
                let short = cut || lines(patch, '+') != self.additions || lines(patch, '-') != self.deletions;
                (Some(shown), short.then_some("cut"))
            }
            None if counted > 0 => (None, Some("too_large")),
            // Only the name or the mode; GitHub calls the latter "changed".
            None if matches!(self.status.as_str(), "renamed" | "copied" | "changed" | "unchanged") => {
                (None, Some("no_lines"))
            }
            // An empty file looks the same.
            None => (None, Some("binary")),
        };
        let change = match self.status.as_str() {
            "changed" => "modified".to_owned(),
            other => word(other, mask),
        };
        let file = FileDiff {
            path: line(&self.filename, mask),
            old_path: self.previous_filename.as_deref().map(|path| line(path, mask)),
            change,
            diff,
            why: why.map(str::to_owned),
        };
        (file, matches!(why, None | Some("no_lines")))
    }
}

fn lines(patch: &str, sign: char) -> Option<u64> {
    u64::try_from(patch.lines().filter(|line| line.starts_with(sign)).count()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_short_patch_is_never_the_whole() {
        for (text, why, complete) in [
            (
                r#"{"status":"modified","additions":1,"deletions":1,"patch":"@@ -1 +1 @@\n-a\n+b"}"#,
                None,
                true,
            ),
            (
                r#"{"status":"modified","additions":9,"deletions":1,"patch":"@@ -1 +1 @@\n-a\n+b"}"#,
                Some("cut"),
                false,
            ),
            (
                r#"{"status":"modified","patch":"@@ -1 +1 @@\n-a\n+b"}"#,
                Some("cut"),
                false,
            ),
            (
                r#"{"status":"modified","additions":9000,"deletions":0}"#,
                Some("too_large"),
                false,
            ),
            (
                r#"{"status":"added","additions":0,"deletions":0,"patch":null}"#,
                Some("binary"),
                false,
            ),
            (
                r#"{"status":"renamed","additions":0,"deletions":0}"#,
                Some("no_lines"),
                true,
            ),
            (r#"{"status":"of_tomorrow"}"#, Some("binary"), false),
        ] {
            let row: FileRow = serde_json::from_str(text).unwrap();
            let (file, whole) = row.file(&Mask::default());
            assert_eq!((file.why.as_deref(), whole), (why, complete), "{text}");
        }
    }
}
