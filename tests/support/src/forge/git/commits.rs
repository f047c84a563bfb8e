//! Reading commits. Never writes.

use super::{GitError, Repository};

/// Name, e-mail and date (ISO 8601 with the writer's offset).
#[derive(Debug, Clone)]
pub(crate) struct Signature {
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) date: String,
}

/// One commit.
#[derive(Debug, Clone)]
pub(crate) struct Commit {
    pub(crate) sha: String,
    pub(crate) tree: String,
    pub(crate) parents: Vec<String>,
    pub(crate) author: Signature,
    pub(crate) committer: Signature,
    pub(crate) message: String,
}

const FORMAT: &str = "--format=tformat:%H%x00%T%x00%P%x00%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%B%x00";
const FIELDS: usize = 10;

impl Commit {
    /// The first line of the message.
    pub(crate) fn title(&self) -> &str {
        self.message.lines().next().unwrap_or_default()
    }

    /// The message after its first paragraph.
    pub(crate) fn body(&self) -> &str {
        self.message.split_once("\n\n").map_or("", |(_, body)| body.trim_end())
    }

    /// The trailers, in order.
    pub(crate) fn trailers(&self) -> Vec<(String, String)> {
        let Some((_, last)) = self.message.trim_end().rsplit_once("\n\n") else {
            return Vec::new();
        };
        let pairs: Option<Vec<_>> = last
            .lines()
            .map(|line| {
                let (key, value) = line.split_once(": ")?;
                let plain = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
                plain.then(|| (key.to_owned(), value.trim().to_owned()))
            })
            .collect();
        pairs.unwrap_or_default()
    }
}

impl Repository {
    /// Commits that the arguments of `git log` select, newest first.
    async fn log(&self, selection: &[&str]) -> Result<Vec<Commit>, GitError> {
        let mut arguments = vec!["log", "--no-show-signature", FORMAT];
        arguments.extend_from_slice(selection);
        let text = self.git(&arguments).await?;
        let text = String::from_utf8_lossy(&text);
        let fields: Vec<&str> = text.split('\0').collect();
        fields.chunks_exact(FIELDS).map(parse).collect()
    }

    /// Commits of `head` that `base` does not have, newest first.
    pub(crate) async fn commits_between(&self, base: &str, head: &str) -> Result<Vec<Commit>, GitError> {
        let range = format!("{base}..{head}");
        self.log(&["--max-count=1000", "--end-of-options", &range]).await
    }

    /// Commits that a push brings and no ref has yet.
    pub(crate) async fn commits_new_in(&self, head: &str) -> Result<Vec<Commit>, GitError> {
        self.log(&["--max-count=1000", head, "--not", "--all"]).await
    }

    /// History of a commit, newest first.
    pub(crate) async fn history(&self, head: &str) -> Result<Vec<Commit>, GitError> {
        self.log(&["--max-count=1000", "--end-of-options", head]).await
    }

    /// One commit by its id.
    pub(crate) async fn commit(&self, sha: &str) -> Result<Commit, GitError> {
        let found = self.log(&["--max-count=1", "--end-of-options", sha]).await?;
        found.into_iter().next().ok_or(GitError::Parse { act: "log" })
    }
}

fn parse(fields: &[&str]) -> Result<Commit, GitError> {
    let [sha, tree, parents, an, ae, ad, cn, ce, cd, message] = fields else {
        return Err(GitError::Parse { act: "log" });
    };
    let signature = |name: &str, email: &str, date: &str| Signature {
        name: name.to_owned(),
        email: email.to_owned(),
        date: date.to_owned(),
    };
    Ok(Commit {
        // Each record but the first begins with the line end of the one before.
        sha: sha.trim_start().to_owned(),
        tree: (*tree).to_owned(),
        parents: parents.split_whitespace().map(ToOwned::to_owned).collect(),
        author: signature(an, ae, ad),
        committer: signature(cn, ce, cd),
        message: (*message).to_owned(),
    })
}
