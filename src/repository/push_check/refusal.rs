//! Why a push is refused, in words for whoever pushed: the rule, the reference or commit, and what to do.
//!
//! Pure. An agent's bytes stand in it only as the caller made them harmless.

use std::fmt;

use super::REPAIR;
use crate::message::CommitId;

/// Which of the two people of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Person {
    /// Who wrote it.
    Author,
    /// Who committed it.
    Committer,
}

/// Why a push is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// git's list of updates does not read as one.
    Unreadable(String),
    /// More than one reference.
    SeveralRefs {
        /// How many.
        count: usize,
        /// The one that may be pushed.
        allowed: String,
    },
    /// Another reference than the session's branch.
    OtherRef {
        /// The one asked for.
        name: String,
        /// The one that may be pushed.
        allowed: String,
    },
    /// The session's branch would be deleted.
    Delete {
        /// The branch.
        name: String,
    },
    /// The session's branch would lose commits.
    Rewinds {
        /// The branch.
        name: String,
        /// Where it stands.
        old: CommitId,
    },
    /// Too many new commits.
    TooManyCommits {
        /// The limit.
        most: u32,
    },
    /// A new commit without a parent: nothing that could be merged.
    NoParent {
        /// The commit.
        id: CommitId,
    },
    /// A new commit lacks a trailer.
    MissingTrailer {
        /// The commit.
        id: CommitId,
        /// The first missing line.
        line: String,
    },
    /// A new commit names somebody else.
    OtherPerson {
        /// The commit.
        id: CommitId,
        /// Which of its two people.
        person: Person,
        /// The address it has.
        found: String,
        /// The address it should have.
        wanted: String,
    },
    /// All pushes together are too large.
    TooMuch {
        /// Their size in bytes.
        size: u64,
        /// The limit in bytes.
        largest: u64,
    },
    /// A file or commit is too large.
    LargeObject {
        /// The object's id.
        id: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        largest: u64,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let repair = format!("Run `{REPAIR}`, then `git push` again.");
        match self {
            Self::Unreadable(what) => write!(formatter, "{what}. Push the session's branch alone."),
            Self::SeveralRefs { count, allowed } => write!(
                formatter,
                "{count} references in one push. Only {allowed} may be pushed: `git push origin HEAD:{allowed}`."
            ),
            Self::OtherRef { name, allowed } => write!(
                formatter,
                "{name} may not be pushed; no other branch and no tag. This session's branch is {allowed}: `git push origin HEAD:{allowed}`."
            ),
            Self::Delete { name } => write!(
                formatter,
                "{name} may not be deleted. To take work back, commit the reverse (`git revert`) and push that."
            ),
            Self::Rewinds { name, old } => write!(
                formatter,
                "{name} would lose commit {}, which was accepted already; accepted commits are never rewritten. Build on it: `git merge {}`, then \
                 `git push` again.",
                old.short(),
                old.as_str()
            ),
            Self::TooManyCommits { most } => write!(
                formatter,
                "more than {most} new commits. Put them together (`git reset --soft`, then one commit), then `git push` again."
            ),
            Self::NoParent { id } => write!(
                formatter,
                "commit {} has no parent, so nothing could merge it. Begin from the base branch, then `git push` again.",
                id.short()
            ),
            Self::MissingTrailer { id, line } => write!(
                formatter,
                "commit {} lacks the trailer `{line}` in the last paragraph of its message. {repair}",
                id.short()
            ),
            Self::OtherPerson {
                id,
                person,
                found,
                wanted,
            } => {
                let person = match person {
                    Person::Author => "author",
                    Person::Committer => "committer",
                };
                write!(
                    formatter,
                    "commit {} has the {person} <{found}>; it must be <{wanted}>. {repair}",
                    id.short()
                )
            }
            Self::TooMuch { size, largest } => write!(
                formatter,
                "with this push the session would hold {size} bytes; at most {largest} are allowed. Push less, or tell the user that it does not fit."
            ),
            Self::LargeObject { id, size, largest } => write!(
                formatter,
                "object {id} has {size} bytes; at most {largest} are allowed. Find its file with `git rev-list --objects HEAD | grep {id}`, take it out \
                 of the commits, then `git push` again."
            ),
        }
    }
}
