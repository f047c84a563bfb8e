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
    /// The session's branch would point at something else than a commit.
    NotCommit {
        /// The branch.
        name: String,
    },
    /// Objects that the branch needs are not there.
    Incomplete {
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
    /// The push brings too many objects.
    TooManyObjects {
        /// The limit.
        most: u64,
    },
    /// A commit's tree comes to too many files, some of them perhaps the same again and again.
    TooManyFiles {
        /// The commit.
        id: CommitId,
        /// The limit.
        most: u64,
    },
    /// A commit's directories are too deep.
    TooDeep {
        /// The commit.
        id: CommitId,
        /// The limit.
        most: usize,
    },
    /// A directory has too many entries.
    LargeDirectory {
        /// The tree's id.
        id: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        largest: u64,
    },
    /// A directory without any file, which git itself never commits.
    EmptyDirectory {
        /// The commit.
        id: CommitId,
        /// The directory.
        path: String,
    },
    /// A symbolic link that leads out of the checkout, or stands for a file that git itself reads.
    Link {
        /// The commit.
        id: CommitId,
        /// The link's path.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A submodule with an address that is none of a repository on the network.
    Submodule {
        /// The commit.
        id: CommitId,
        /// The file that names it.
        path: String,
        /// The address.
        url: String,
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
            Self::NotCommit { name } => write!(
                formatter,
                "{name} points at a commit, not at a tag or a file. Push the commit itself: `git push origin HEAD:{name}`."
            ),
            Self::Incomplete { name } => write!(
                formatter,
                "objects that {name} needs are neither in the push nor in this project. When this clone is cut off (shallow), get the rest with \
                 `git fetch --unshallow`, else with `git fetch origin`; then `git push` again."
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
            Self::TooManyObjects { most } => write!(
                formatter,
                "more than {most} new files, directories and commits in one push. Leave out what is generated or installed (`git rm -r --cached`), or \
                 push a part first (`git push origin COMMIT:BRANCH`)."
            ),
            Self::TooManyFiles { id, most } => write!(
                formatter,
                "commit {} comes to more than {most} files when it is checked out. Take what is too much out of the commit, then `git push` again.",
                id.short()
            ),
            Self::TooDeep { id, most } => write!(
                formatter,
                "commit {} has directories deeper than {most}. Take them out of the commit, then `git push` again.",
                id.short()
            ),
            Self::LargeDirectory { id, size, largest } => write!(
                formatter,
                "directory {id} has a list of {size} bytes; at most {largest} are allowed. Put its files into several directories, then `git push` again."
            ),
            Self::EmptyDirectory { id, path } => write!(
                formatter,
                "commit {} has the directory {path} without any file in it. Take it out of the commit (`git commit --amend`), then `git push` again.",
                id.short()
            ),
            Self::Link { id, path, why } => write!(
                formatter,
                "commit {} has the symbolic link {path}, which {why}. Put a file in its place, or link to a path inside the project, and amend the \
                 commit (`git commit --amend`), then `git push` again.",
                id.short()
            ),
            Self::Submodule { id, path, url } => write!(
                formatter,
                "commit {} names in {path} a submodule at {url}, which is no address of a repository on the network (https, http, ssh, git or \
                 relative). Change the address and amend the commit (`git commit --amend`), then `git push` again.",
                id.short()
            ),
            Self::LargeObject { id, size, largest } => write!(
                formatter,
                "object {id} has {size} bytes; at most {largest} are allowed. Find its file with `git rev-list --objects HEAD | grep {id}`, take it out \
                 of the commits, then `git push` again."
            ),
        }
    }
}
