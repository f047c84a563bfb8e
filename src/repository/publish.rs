//! The worker's own push, from staging to the session's branch on the forge.
//!
//! Compare-and-swap on the old value, never a rewind, never another reference, never a retry: after a failure that may have had its effect
//! the caller reads the branch from the forge first.

use std::sync::PoisonError;
use std::time::Duration;

use super::git::{Credential, Invocation, Limits};
use super::remote::{self, Access, remote_lines, shortened};
use super::{RepositoryError, Staging};
use crate::grant::ProjectGrant;
use crate::message::CommitId;

/// What to publish, and over what.
#[derive(Debug, Clone)]
pub struct PublishRequest<'a> {
    /// The commit that the branch shall have; staged before.
    pub head: &'a CommitId,
    /// Where the forge said that the branch stands; `None` when it has no such branch.
    pub expected: Option<&'a CommitId>,
    /// Words for the forge that go with the push (`git push -o`), for forges that take them.
    pub options: &'a [String],
}

/// A push that the forge took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Whether the branch stood there already.
    pub unchanged: bool,
    /// The forge's own words, line by line; untrusted.
    pub remote: Vec<String>,
}

impl Staging {
    /// Pushes `head` to the session's branch on the forge, if that still stands where it was expected.
    ///
    /// # Errors
    /// The forge's refusal, a branch that somebody moved, a rewind, time.
    pub async fn publish(
        &self,
        project: &ProjectGrant,
        access: &Access,
        request: &PublishRequest<'_>,
    ) -> Result<Published, RepositoryError> {
        let address = remote::address(&project.clone_url)?;
        check_options(request.options)?;
        if let Some(expected) = request.expected {
            self.check_builds_on(request.head, expected).await?;
        }
        let reference = self.policy.reference();
        let expected = request.expected.map_or("", CommitId::as_str);
        let mut arguments = vec![
            "push".to_owned(),
            "--porcelain".to_owned(),
            "--no-verify".to_owned(),
            "--no-follow-tags".to_owned(),
            "--no-signed".to_owned(),
            "--recurse-submodules=no".to_owned(),
            format!("--force-with-lease={reference}:{expected}"),
        ];
        arguments.extend(request.options.iter().map(|option| format!("--push-option={option}")));
        arguments.extend([
            "--".to_owned(),
            address.as_str().to_owned(),
            format!("{}:{reference}", request.head),
        ]);
        let limit = Duration::from_secs(self.shared.config.push_timeout_s);
        let invocation = Invocation::new("push to the forge", limit)
            .on(&self.repository())
            .arguments(arguments)
            .limits(self.limits())
            .network(
                Credential::new(access, &address)?,
                access.ca_file.clone(),
                access.mask(),
            );
        let finished = self.shared.git.run(invocation).await?;
        let line = reference_line(&finished.stdout, &reference);
        if finished.success() {
            *self.published.lock().unwrap_or_else(PoisonError::into_inner) = Some(request.head.clone());
            return Ok(Published {
                unchanged: line.as_ref().is_some_and(|line| line.flag == '='),
                remote: remote_lines(&finished.stderr),
            });
        }
        Err(self.push_failure(line, &finished.stderr, &access.mask()))
    }

    fn push_failure(&self, line: Option<ReferenceLine>, stderr: &str, mask: &crate::secret::Mask) -> RepositoryError {
        // Once git has a verdict about the branch, that is the reason; else the talk failed.
        match line.filter(|line| line.flag == '!') {
            Some(line)
                // The client saw it moved before it pushed, or the server while it did.
                if line.summary.starts_with("[rejected]") || stderr.contains("but expected") || stderr.contains("reference already exists") =>
            {
                RepositoryError::PushStale {
                    branch: self.policy.branch.clone(),
                }
            }
            Some(line) if line.summary.starts_with("[remote rejected]") => RepositoryError::PushRejected {
                text: mask.apply(&line.summary),
                remote: remote_lines(stderr),
            },
            Some(_) | None => remote::failure(stderr).unwrap_or_else(|| RepositoryError::PushRejected {
                text: shortened(stderr),
                remote: remote_lines(stderr),
            }),
        }
    }

    /// Whether `head` has `remote` in its history, so that nothing on the forge would be lost.
    async fn check_builds_on(&self, head: &CommitId, remote: &CommitId) -> Result<(), RepositoryError> {
        let invocation = Invocation::new(
            "compare commits",
            Duration::from_secs(self.shared.config.inspect_timeout_s),
        )
        .on(&self.repository())
        .arguments(["merge-base", "--is-ancestor", remote.as_str(), head.as_str()])
        .limits(self.limits());
        let finished = self.shared.git.run(invocation).await?;
        match finished.code {
            Some(0) => Ok(()),
            Some(1) => Err(RepositoryError::PushRewinds {
                remote: remote.clone(),
                head: head.clone(),
            }),
            // A commit that this session never saw: somebody else pushed it.
            Some(128) => Err(RepositoryError::PushStale {
                branch: self.policy.branch.clone(),
            }),
            Some(_) | None => Err(RepositoryError::Inspect {
                text: shortened(&finished.stderr),
            }),
        }
    }

    /// For git processes of the worker that read what an agent made.
    pub(super) fn limits(&self) -> Limits {
        let config = &self.shared.config;
        Limits {
            memory: config.git_memory,
            heap: config.git_memory,
            file: config.largest_push.saturating_mul(8),
            processor_s: config.serve_timeout_s,
        }
    }
}

/// git refuses line breaks itself, but in words that name no option.
fn check_options(options: &[String]) -> Result<(), RepositoryError> {
    match options.iter().find(|option| option.chars().any(char::is_control)) {
        None => Ok(()),
        Some(option) => Err(RepositoryError::PushOption {
            option: option.chars().take(100).collect(),
        }),
    }
}

/// What `push --porcelain` says about the branch.
#[derive(Debug, PartialEq, Eq)]
struct ReferenceLine {
    flag: char,
    summary: String,
}

/// `flag TAB from:to TAB summary`.
fn reference_line(stdout: &[u8], reference: &str) -> Option<ReferenceLine> {
    String::from_utf8_lossy(stdout).lines().find_map(|line| {
        let mut parts = line.splitn(3, '\t');
        let (flag, names, summary) = (parts.next()?, parts.next()?, parts.next()?);
        let (_, to) = names.split_once(':')?;
        let summary: String = summary
            .chars()
            .filter(|character| !character.is_control())
            .take(500)
            .collect();
        (to == reference).then(|| ReferenceLine {
            flag: flag.chars().next().unwrap_or(' '),
            summary,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_s_verdict_about_the_branch_is_found() {
        let text = b"To http://h/p.git\n!\tabc:refs/heads/x\t[remote rejected] (pre-receive hook declined)\nDone\n";
        let line = reference_line(text, "refs/heads/x").unwrap();
        assert_eq!(line.flag, '!');
        assert!(line.summary.contains("pre-receive"));
        assert_eq!(reference_line(text, "refs/heads/y"), None);
        assert_eq!(reference_line(b"\xff\xfe", "refs/heads/y"), None);
    }

    #[test]
    fn push_options_are_one_line() {
        assert!(check_options(&["merge_request.title=Fix it".into()]).is_ok());
        assert!(check_options(&["merge_request.title=Fix\nit".into()]).is_err());
    }
}
