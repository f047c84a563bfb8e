//! Reading differences. Never writes.

use super::{GitError, Repository};

/// A patch longer than this is withheld, as the real forges do.
const PATCH_LIMIT: usize = 200 * 1024;

/// One changed file.
#[derive(Debug, Clone)]
pub(crate) struct FileDiff {
    pub(crate) old_path: String,
    pub(crate) new_path: String,
    pub(crate) old_mode: String,
    pub(crate) new_mode: String,
    /// Blob id after the change; before it, if the file is gone.
    pub(crate) blob: String,
    /// git's letter: A, C, D, M, R, T.
    pub(crate) letter: char,
    /// From the first `@@` on; empty if binary or too large.
    pub(crate) patch: String,
    pub(crate) too_large: bool,
    pub(crate) binary: bool,
    pub(crate) additions: usize,
    pub(crate) deletions: usize,
}

impl Repository {
    /// What changed from one commit to another, by file.
    pub(crate) async fn diff(&self, from: &str, to: &str) -> Result<Vec<FileDiff>, GitError> {
        let common = ["diff", "--no-ext-diff", "--no-textconv", "--find-renames"];
        let raw = [
            &common[..],
            &["--raw", "-z", "--no-abbrev", "--end-of-options", from, to],
        ]
        .concat();
        let patch = [&common[..], &["--patch", "--end-of-options", from, to]].concat();
        let (raw, patch) = tokio::join!(self.git(&raw), self.git(&patch));
        let mut files = parse_raw(&String::from_utf8_lossy(&raw?))?;
        let patch = patch?;
        let patch = String::from_utf8_lossy(&patch);
        for (file, text) in files.iter_mut().zip(split_patches(&patch)) {
            file.take_patch(text);
        }
        Ok(files)
    }

    /// How many files differ.
    pub(crate) async fn changed_files(&self, from: &str, to: &str) -> Result<usize, GitError> {
        let raw = [
            "diff",
            "--find-renames",
            "--raw",
            "-z",
            "--no-abbrev",
            "--end-of-options",
            from,
            to,
        ];
        Ok(parse_raw(&String::from_utf8_lossy(&self.git(&raw).await?))?.len())
    }

    /// The same as one text, as git prints it.
    pub(crate) async fn raw_diff(&self, from: &str, to: &str) -> Result<Vec<u8>, GitError> {
        self.git(&[
            "diff",
            "--no-ext-diff",
            "--no-textconv",
            "--find-renames",
            "--end-of-options",
            from,
            to,
        ])
        .await
    }

    /// The files of one commit against its first parent, or against nothing.
    pub(crate) async fn diff_of(&self, sha: &str, parents: &[String]) -> Result<Vec<FileDiff>, GitError> {
        const EMPTY_TREE: &str = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
        self.diff(parents.first().map_or(EMPTY_TREE, String::as_str), sha).await
    }
}

impl FileDiff {
    fn take_patch(&mut self, text: &str) {
        let start = if text.starts_with("@@ ") {
            Some(0)
        } else {
            text.find("\n@@ ").map(|at| at + 1)
        };
        let hunks = start.and_then(|at| text.get(at..)).unwrap_or_default();
        self.binary = hunks.is_empty() && text.contains("\nBinary files ");
        self.additions = hunks.lines().filter(|line| line.starts_with('+')).count();
        self.deletions = hunks.lines().filter(|line| line.starts_with('-')).count();
        self.too_large = hunks.len() > PATCH_LIMIT;
        if !self.too_large {
            self.patch = hunks.to_owned();
        }
    }
}

fn parse_raw(text: &str) -> Result<Vec<FileDiff>, GitError> {
    let wrong = || GitError::Parse { act: "diff" };
    let mut parts = text.split('\0').filter(|part| !part.is_empty());
    let mut files = Vec::new();
    while let Some(head) = parts.next() {
        let head: Vec<&str> = head.trim_start_matches(':').split(' ').collect();
        let [old_mode, new_mode, old_blob, new_blob, status] = head[..] else {
            return Err(wrong());
        };
        let letter = status.chars().next().ok_or_else(wrong)?;
        let old_path = parts.next().ok_or_else(wrong)?.to_owned();
        let new_path = match letter {
            'R' | 'C' => parts.next().ok_or_else(wrong)?.to_owned(),
            _ => old_path.clone(),
        };
        files.push(FileDiff {
            old_path,
            new_path,
            old_mode: old_mode.to_owned(),
            new_mode: new_mode.to_owned(),
            blob: if letter == 'D' { old_blob } else { new_blob }.to_owned(),
            letter,
            patch: String::new(),
            too_large: false,
            binary: false,
            additions: 0,
            deletions: 0,
        });
    }
    Ok(files)
}

/// Cuts git's text at each file's header. Lines of a hunk begin with a sign, so the header cannot be forged by content.
fn split_patches(text: &str) -> Vec<&str> {
    const HEADER: &str = "diff --git ";
    let mut starts: Vec<usize> = text.match_indices("\ndiff --git ").map(|(at, _)| at + 1).collect();
    if text.starts_with(HEADER) {
        starts.insert(0, 0);
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts
        .iter()
        .zip(ends)
        .filter_map(|(start, end)| text.get(*start..end))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_content_that_looks_like_a_header_does_not_cut() {
        let text = "diff --git a/x b/x\n@@ -1 +1 @@\n+diff --git a/y b/y\ndiff --git a/z b/z\n";
        assert_eq!(split_patches(text).len(), 2);
    }

    #[test]
    fn a_raw_record_that_breaks_off_is_an_error() {
        assert!(parse_raw(":100644 100644 a b M\0").is_err());
        assert!(parse_raw(":100644\0x\0").is_err());
    }
}
