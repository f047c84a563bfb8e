//! The git hooks that add the session's trailers. They never change anything else of a message, and never make a
//! message out of an empty one: git has to abort such a commit as it always does.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cofferdam_inside::missing_trailer;

use crate::git::{Comments, Git, GitError, add_arguments, session_trailers};

/// The hooks that are given a message to change. The first runs even under `--no-verify`.
pub(crate) const NAMES: [&str; 3] = ["prepare-commit-msg", "commit-msg", "applypatch-msg"];

/// Below this line is a diff, which git takes out. Whatever the comment character is, it stands before it.
const SCISSORS: &[u8] = b" ------------------------ >8 ------------------------";
/// Git does not count these as a message either.
const SIGN_OFF: &[u8] = b"Signed-off-by: ";

/// Arguments: the file of the message, and what else git gives.
pub(crate) fn run(arguments: &[OsString]) -> Result<(), GitError> {
    let path = arguments.first().map(PathBuf::from).ok_or(GitError::FindMessage)?;
    let git = Git::default();
    let Some(trailers) = session_trailers(&git)?.filter(|trailers| !trailers.is_empty()) else {
        return Ok(());
    };
    let failed = |source| GitError::ReadMessage {
        path: path.clone(),
        source,
    };
    let message = fs::read(&path).map_err(failed)?;
    let editor = std::env::var_os("GIT_EDITOR").is_none_or(|editor| editor != ":");
    if !editor && is_done(&message, &trailers) {
        return Ok(());
    }
    let comments = match content(&git, &message, &trailers, Comments::AreComments)? {
        Content::Text if editor && is_template(&git, &message)? => return Ok(()),
        Content::Text => Comments::AreComments,
        Content::Nothing | Content::OnlyOurs if !editor && is_comment_like(&git, &message, &trailers)? => {
            Comments::AreText
        }
        Content::Nothing => return Ok(()),
        // All of the text was taken out in the editor, and only what an earlier hook had added was left.
        Content::OnlyOurs => return fs::write(&path, without(&message, &trailers)).map_err(failed),
    };
    let mut tidy = without_doubles(&message, &trailers);
    if !tidy.ends_with(b"\n") {
        // As `git merge` leaves it; git would take the last line and the trailers for one paragraph.
        tidy.push(b'\n');
    }
    if tidy != message {
        fs::write(&path, tidy).map_err(failed)?;
    }
    let mut adding = add_arguments(&trailers, comments);
    adding.push("--in-place".into());
    adding.push(absolute(&path));
    git.run(&adding, b"").map(drop)
}

/// Whether an earlier hook did it all: what most commits are like when the second hook sees them. No git is asked.
fn is_done(message: &[u8], trailers: &[OsString]) -> bool {
    let begins_with_text = lines(message)
        .find(|line| !line.trim_ascii().is_empty())
        .is_some_and(|first| !is_ours(first, trailers));
    begins_with_text
        && missing_trailer(message, trailers.iter().map(|trailer| trailer.as_bytes())).is_none()
        && message.ends_with(b"\n")
        && without_doubles(message, trailers) == message
}

/// What there is in a message.
#[derive(Debug, PartialEq, Eq)]
enum Content {
    Text,
    Nothing,
    OnlyOurs,
}

fn content(git: &Git, message: &[u8], trailers: &[OsString], comments: Comments) -> Result<Content, GitError> {
    // By git, which knows the comment character.
    let strip: &[&str] = match comments {
        Comments::AreComments => &["stripspace", "--strip-comments"],
        Comments::AreText => &["stripspace"],
    };
    let stripped = git.run(strip, above_scissors(message))?;
    let mut ours = false;
    for line in lines(&stripped) {
        if is_ours(line, trailers) {
            ours = true;
        } else if !line.is_empty() && !line.starts_with(SIGN_OFF) {
            return Ok(Content::Text);
        }
    }
    Ok(if ours { Content::OnlyOurs } else { Content::Nothing })
}

/// Whether it is a message that looks like a comment, as in `git commit -m '#12: fix'`. What git itself writes for an
/// editor begins with an empty line.
fn is_comment_like(git: &Git, message: &[u8], trailers: &[OsString]) -> Result<bool, GitError> {
    Ok(!message.starts_with(b"\n") && content(git, message, trailers, Comments::AreText)? == Content::Text)
}

/// Whether it is the configured template, untouched, with which git does not commit.
fn is_template(git: &Git, message: &[u8]) -> Result<bool, GitError> {
    let named = git.ask(&["config", "--type=path", "--get", "commit.template"], b"")?;
    let name = named.stdout.strip_suffix(b"\n").unwrap_or(&named.stdout);
    if !named.success || name.is_empty() {
        return Ok(false);
    }
    // Relative ones are relative to the work tree's root, where hooks run.
    let Ok(template) = fs::read(Path::new(std::ffi::OsStr::from_bytes(name))) else {
        return Ok(false);
    };
    let plain = |text: &[u8]| git.run(&["stripspace", "--strip-comments"], text);
    Ok(plain(&template)? == plain(above_scissors(message))?)
}

fn above_scissors(message: &[u8]) -> &[u8] {
    let mut length = 0;
    for line in lines(message) {
        if line.ends_with(SCISSORS) {
            break;
        }
        length += line.len() + 1;
    }
    &message[..length.min(message.len())]
}

fn without(message: &[u8], trailers: &[OsString]) -> Vec<u8> {
    let kept: Vec<&[u8]> = lines(message).filter(|line| !is_ours(line, trailers)).collect();
    kept.join(&b'\n')
}

/// Only the last of each of the session's own lines: squashed commits bring theirs along, in the middle of the message.
fn without_doubles(message: &[u8], trailers: &[OsString]) -> Vec<u8> {
    let mut seen = HashSet::new();
    let backwards: Vec<&[u8]> = lines(message).collect();
    let mut kept: Vec<&[u8]> = backwards
        .into_iter()
        .rev()
        .filter(|line| !is_ours(line, trailers) || seen.insert(line.trim_ascii().to_ascii_lowercase()))
        .collect();
    kept.reverse();
    kept.join(&b'\n')
}

fn is_ours(line: &[u8], trailers: &[OsString]) -> bool {
    trailers
        .iter()
        .any(|trailer| trailer.as_bytes().eq_ignore_ascii_case(line.trim_ascii()))
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
}

/// So that no file name can be an option.
fn absolute(path: &Path) -> OsString {
    std::path::absolute(path).map_or_else(|_| path.as_os_str().to_owned(), PathBuf::into_os_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_of_each_own_line() {
        let trailers = [OsString::from("A: b")];
        assert_eq!(
            without_doubles(b"t\n\nA: b\n\nu\nX: y\nX: y\na: B\n", &trailers),
            b"t\n\n\nu\nX: y\nX: y\na: B\n"
        );
        assert_eq!(without_doubles(b"t\n\nA: b", &trailers), b"t\n\nA: b");
    }

    #[test]
    fn is_done_only_where_nothing_is_left_to_do() {
        let trailers = [OsString::from("A: b"), OsString::from("C: d")];
        assert!(is_done(b"t\n\nA: b\nC: d\n", &trailers));
        assert!(is_done(b"\nt\n\nmore\n\nX: y\nA: b\nC: d\n", &trailers));
        let left: [&[u8]; 6] = [
            b"t\n\nA: b\n",
            b"t\n\nA: b\nC: d",
            b"t\n\nA: b\nC: d\n\nmore\n",
            b"t\n\nA: b\n\nA: b\nC: d\n",
            b"A: b\n\nA: b\nC: d\n",
            b"A: b\nC: d\n",
        ];
        for message in left {
            assert!(!is_done(message, &trailers), "{}", String::from_utf8_lossy(message));
        }
    }

    #[test]
    fn cuts_at_scissors_of_any_comment_character() {
        let message = [b"title\n\n; ".as_slice(), &SCISSORS[1..], b"\n; diff\n"].concat();
        assert_eq!(above_scissors(&message), b"title\n\n");
        assert_eq!(above_scissors(b"title"), b"title");
        assert_eq!(above_scissors(b"title\n"), b"title\n");
        assert_eq!(above_scissors(b""), b"");
    }
}
