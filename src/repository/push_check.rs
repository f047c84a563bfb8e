//! What may be pushed into staging: the rules, as a pure decision, and the words in which a refusal is told to whoever pushed.
//!
//! Never reads an object and never sees a repository. All that it is given was made by an agent: bytes, bounded by the caller.

use crate::grant::Trailers;
use crate::message::CommitId;
use crate::message::readable::is_shown;

mod entries;
mod refusal;

pub use entries::{check_link, check_modules, is_modules, is_special};
pub use refusal::{Person, Refusal};

/// The command with which `inside` gives commits what they lack.
pub const REPAIR: &str = "/opt/cofferdam/inside trailers";

/// Longest list of updates that is looked at, in bytes.
pub const LONGEST_LIST: usize = 64 * 1024;

/// One reference that a push wants to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefUpdate {
    /// Where it stands; `None` when it does not exist.
    pub old: Option<CommitId>,
    /// Where it shall stand; `None` when it shall be deleted.
    pub new: Option<CommitId>,
    /// Its full name.
    pub name: Vec<u8>,
}

/// What is asked of a new commit.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The lines that it carries.
    pub trailers: Trailers,
    /// The e-mail address of its author and committer.
    pub email: String,
}

/// A commit that no forge reference shown to the session reaches.
#[derive(Debug, Clone, Copy)]
pub struct NewCommit<'a> {
    /// Its id.
    pub id: &'a CommitId,
    /// Its message.
    pub message: &'a [u8],
    /// Its author's e-mail address.
    pub author: &'a [u8],
    /// Its committer's e-mail address.
    pub committer: &'a [u8],
    /// How many parents it has.
    pub parents: usize,
}

/// Reads git's list of updates: `old new name`, a line each.
///
/// # Errors
/// A list that is empty, too long, or not of that form.
pub fn parse_updates(list: &[u8]) -> Result<Vec<RefUpdate>, Refusal> {
    let unreadable = |what: &str| Refusal::Unreadable(what.to_owned());
    if list.len() > LONGEST_LIST {
        return Err(unreadable("the list of references is too long"));
    }
    let mut updates = Vec::new();
    for line in list.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let mut parts = line.splitn(3, |byte| *byte == b' ');
        let (Some(old), Some(new), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(unreadable("a line of the list has not three parts"));
        };
        updates.push(RefUpdate {
            old: parse_id(old)?,
            new: parse_id(new)?,
            name: name.to_vec(),
        });
    }
    if updates.is_empty() {
        return Err(unreadable("the list of references is empty"));
    }
    Ok(updates)
}

/// An id, or `None` for git's all-zero id.
fn parse_id(text: &[u8]) -> Result<Option<CommitId>, Refusal> {
    let id: CommitId = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Refusal::Unreadable("an id of the list is not one".to_owned()))?;
    Ok((!id.as_str().bytes().all(|digit| digit == b'0')).then_some(id))
}

/// The one update that is allowed: old and new commit of the session's branch.
///
/// # Errors
/// Any other reference, more than one, or a deletion.
pub fn check_updates(updates: &[RefUpdate], allowed: &str) -> Result<(Option<CommitId>, CommitId), Refusal> {
    let [update] = updates else {
        return Err(Refusal::SeveralRefs {
            count: updates.len(),
            allowed: allowed.to_owned(),
        });
    };
    if update.name != allowed.as_bytes() {
        return Err(Refusal::OtherRef {
            name: shown(&update.name),
            allowed: allowed.to_owned(),
        });
    }
    match &update.new {
        None => Err(Refusal::Delete {
            name: allowed.to_owned(),
        }),
        Some(new) => Ok((update.old.clone(), new.clone())),
    }
}

/// Whether a new commit has what every new commit must have.
///
/// # Errors
/// The first thing that it lacks.
pub fn check_commit(commit: &NewCommit<'_>, rules: &Rules) -> Result<(), Refusal> {
    if commit.parents == 0 {
        return Err(Refusal::NoParent { id: commit.id.clone() });
    }
    for (person, found) in [(Person::Author, commit.author), (Person::Committer, commit.committer)] {
        if found != rules.email.as_bytes() {
            return Err(Refusal::OtherPerson {
                id: commit.id.clone(),
                person,
                found: shown(found),
                wanted: rules.email.clone(),
            });
        }
    }
    match rules.trailers.missing_from(commit.message) {
        None => Ok(()),
        Some(line) => Err(Refusal::MissingTrailer {
            id: commit.id.clone(),
            line: line.to_owned(),
        }),
    }
}

/// Bytes of an agent as harmless text.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .filter(|character| !character.is_control() && is_shown(*character))
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::Identity;

    const ALLOWED: &str = "refs/heads/cofferdam/fix-1";

    fn id(digit: char) -> CommitId {
        digit.to_string().repeat(40).parse().unwrap()
    }

    fn line(old: char, new: char, name: &str) -> String {
        format!("{} {} {name}\n", id(old), id(new))
    }

    fn decide(list: &str) -> Result<(Option<CommitId>, CommitId), Refusal> {
        check_updates(&parse_updates(list.as_bytes())?, ALLOWED)
    }

    #[test]
    fn the_session_s_branch_may_be_made_and_moved() {
        assert_eq!(decide(&line('0', 'a', ALLOWED)), Ok((None, id('a'))));
        assert_eq!(decide(&line('a', 'b', ALLOWED)), Ok((Some(id('a')), id('b'))));
    }

    #[test]
    fn every_other_reference_is_refused_by_name() {
        for name in [
            "refs/heads/main",
            "refs/heads/cofferdam/fix-10",
            "refs/heads/cofferdam/fix-1/x",
            "refs/heads/Cofferdam/fix-1",
            "refs/tags/cofferdam/fix-1",
            "refs/merge-requests/1/head",
            "HEAD",
            "refs/heads/cofferdam/fix-1 ",
        ] {
            let refusal = decide(&line('0', 'a', name)).unwrap_err();
            assert!(matches!(refusal, Refusal::OtherRef { .. }), "{name}");
            assert!(refusal.to_string().contains(ALLOWED), "{refusal}");
        }
        let two = line('0', 'a', ALLOWED) + &line('0', 'a', "refs/heads/main");
        assert!(matches!(decide(&two), Err(Refusal::SeveralRefs { count: 2, .. })));
        assert!(matches!(decide(&line('a', '0', ALLOWED)), Err(Refusal::Delete { .. })));
    }

    #[test]
    fn lists_that_are_none_are_refused() {
        for list in [
            "",
            "\n",
            "a b c\n",
            &format!("{} {}\n", id('a'), id('b')),
            &"x".repeat(LONGEST_LIST + 1),
        ] {
            assert!(matches!(decide(list), Err(Refusal::Unreadable(_))), "{list:.40}");
        }
    }

    #[test]
    fn a_new_commit_has_its_people_and_its_trailers() {
        let person = |name: &str, email: &str| Identity {
            name: name.into(),
            email: email.into(),
        };
        let rules = Rules {
            trailers: Trailers::new(
                &person("Ada", "ada@example.org"),
                &person("agent", "agent@agents.invalid"),
                "0190c2f0-7c1e-7000-8000-000000000001".parse().unwrap(),
            ),
            email: "ada@example.org".into(),
        };
        let id = id('c');
        let message = format!("Fix\n\n{}\n", rules.trailers.lines().join("\n"));
        let good = NewCommit {
            id: &id,
            message: message.as_bytes(),
            author: b"ada@example.org",
            committer: b"ada@example.org",
            parents: 1,
        };
        assert_eq!(check_commit(&good, &rules), Ok(()));
        assert!(check_commit(&NewCommit { parents: 2, ..good }, &rules).is_ok());
        assert!(matches!(
            check_commit(&NewCommit { parents: 0, ..good }, &rules),
            Err(Refusal::NoParent { .. })
        ));
        let author = check_commit(
            &NewCommit {
                // Found by fuzzing: what turns the reading direction went through.
                author: "eve@example.org\x1b[2J\u{202e}".as_bytes(),
                ..good
            },
            &rules,
        )
        .unwrap_err();
        assert!(author.to_string().contains("author <eve@example.org[2J>"), "{author}");
        let committer = check_commit(
            &NewCommit {
                committer: b"Ada@example.org",
                ..good
            },
            &rules,
        )
        .unwrap_err();
        assert!(committer.to_string().contains("committer"), "{committer}");
        let bare = check_commit(
            &NewCommit {
                message: b"Fix\n",
                ..good
            },
            &rules,
        )
        .unwrap_err()
        .to_string();
        assert!(
            bare.contains("Co-authored-by: Ada") && bare.contains(REPAIR) && bare.contains("git push"),
            "{bare}"
        );
    }
}
