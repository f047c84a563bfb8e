//! Writing commits with `git fast-import`: first commits, made-up histories, commits of "somebody else".

use std::collections::BTreeMap;

use super::{GitError, Repository};
use crate::forge::seed::Generate;

/// What one imported commit says.
pub(crate) struct NewCommit<'a> {
    pub(crate) branch: &'a str,
    /// The branch's present head, if it has one.
    pub(crate) parent: Option<&'a str>,
    pub(crate) author: (&'a str, &'a str),
    /// Seconds since 1970.
    pub(crate) when: i64,
    pub(crate) message: &'a str,
    /// Content by path; `None` deletes.
    pub(crate) files: &'a BTreeMap<String, Option<String>>,
}

impl Repository {
    /// Writes one commit and moves its branch.
    pub(crate) async fn import(&self, commit: &NewCommit<'_>) -> Result<(), GitError> {
        let mut stream = Vec::new();
        header(&mut stream, commit.branch, commit.author, commit.when, commit.message);
        if let Some(parent) = commit.parent {
            line(&mut stream, &format!("from {parent}"));
        }
        for (path, content) in commit.files {
            match content {
                Some(content) => file(&mut stream, path, content),
                None => line(&mut stream, &format!("D {}", quoted(path))),
            }
        }
        self.feed(&["fast-import", "--quiet", "--force"], &stream)
            .await
            .map(drop)
    }

    /// Makes up a history: all files at first, then one changed file a commit.
    pub(crate) async fn generate(
        &self,
        branch: &str,
        size: Generate,
        author: (&str, &str),
        when: i64,
    ) -> Result<(), GitError> {
        let mut stream = Vec::new();
        header(&mut stream, branch, author, when, "Generate files\n");
        for number in 0..size.files {
            file(
                &mut stream,
                &generated_path(number),
                &generated_text(number, 0, size.bytes),
            );
        }
        for round in 1..size.commits.max(1) {
            header(
                &mut stream,
                branch,
                author,
                when + i64::from(round),
                &format!("Change {round}\n"),
            );
            let number = round % size.files.max(1);
            file(
                &mut stream,
                &generated_path(number),
                &generated_text(number, round, size.bytes),
            );
        }
        self.feed(&["fast-import", "--quiet"], &stream).await.map(drop)
    }
}

fn line(stream: &mut Vec<u8>, text: &str) {
    stream.extend_from_slice(text.as_bytes());
    stream.push(b'\n');
}

fn data(stream: &mut Vec<u8>, content: &str) {
    line(stream, &format!("data {}", content.len()));
    line(stream, content);
}

fn header(stream: &mut Vec<u8>, branch: &str, (name, email): (&str, &str), when: i64, message: &str) {
    let clean = |text: &str| text.replace(['<', '>', '\n', '\0'], "");
    let (name, email) = (clean(name), clean(email));
    line(stream, &format!("commit refs/heads/{branch}"));
    line(stream, &format!("author {name} <{email}> {when} +0000"));
    line(stream, &format!("committer {name} <{email}> {when} +0000"));
    data(stream, message);
}

fn file(stream: &mut Vec<u8>, path: &str, content: &str) {
    line(stream, &format!("M 100644 inline {}", quoted(path)));
    data(stream, content);
}

fn quoted(path: &str) -> String {
    let escaped = path.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

fn generated_path(number: u32) -> String {
    format!("generated/{:03}/file-{number:06}.txt", number / 100)
}

/// Text that does not compress to nothing: a linear congruential sequence in hex, the same on every run.
fn generated_text(number: u32, round: u32, bytes: u32) -> String {
    let mut state = u64::from(number)
        .wrapping_mul(0x9E37_79B9)
        .wrapping_add(u64::from(round))
        .wrapping_add(1);
    let mut text = String::new();
    let wanted = usize::try_from(bytes).unwrap_or(usize::MAX);
    while text.len() < wanted {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        text.push_str(&format!("{:012x}\n", state >> 16));
    }
    text.truncate(wanted);
    text
}
