//! The question for a forge's branches and tags in git's second protocol, and its answer. Pure.
//!
//! The answer is the forge's: every length, id and name is checked, and what is not exactly as asked for is no answer. Never guesses:
//! who gets none asks git instead, which has the words for what is wrong.

use std::collections::BTreeMap;

use crate::grant::ShownRef;
use crate::message::CommitId;

/// The media type of the question.
pub(super) const ASKED: &str = "application/x-git-upload-pack-request";
/// The media type of the answer.
pub(super) const ANSWERED: &str = "application/x-git-upload-pack-result";
/// Longest answer that is read, in bytes.
pub(super) const LONGEST: usize = 64 * 1024 * 1024;

/// Longest packet of the protocol, its length's four digits included.
const LONGEST_PACKET: usize = 65_520;
/// Longest name of a reference, in bytes: longer ones fit into no file name of the usual systems' paths.
const LONGEST_NAME: usize = 4_096;
/// Digits of an id in a repository of the only kind that is mirrored.
const DIGITS: usize = 40;

/// The body of the question: all branches and tags, not peeled.
pub(super) fn question() -> Vec<u8> {
    let mut body = Vec::with_capacity(160);
    let mut packet = |line: &str| body.extend(format!("{:04x}{line}\n", line.len() + 5).into_bytes());
    packet("command=ls-refs");
    packet(concat!("agent=cofferdam/", env!("CARGO_PKG_VERSION")));
    packet("object-format=sha1");
    body.extend(b"0001");
    let mut packet = |line: &str| body.extend(format!("{:04x}{line}\n", line.len() + 5).into_bytes());
    packet("ref-prefix refs/heads/");
    packet("ref-prefix refs/tags/");
    body.extend(b"0000");
    body
}

/// The branches and tags in an answer, by name; `None` for anything but a whole list of them.
pub(crate) fn parse(answer: &[u8]) -> Option<Vec<ShownRef>> {
    if answer.len() > LONGEST {
        return None;
    }
    let mut found = BTreeMap::new();
    let mut rest = answer;
    loop {
        let (digits, behind) = rest.split_first_chunk::<4>()?;
        let length = length(digits)?;
        if length == 0 {
            // The end, and nothing comes behind it.
            return behind.is_empty().then(|| collected(found));
        }
        // 1 to 3 are marks of which none belongs here, 4 is an empty packet.
        let line = behind.get(..length.checked_sub(4)?)?;
        rest = behind.get(line.len()..)?;
        let (name, target) = entry(line)?;
        if found.insert(name, target).is_some() {
            return None;
        }
    }
}

fn collected(found: BTreeMap<&str, CommitId>) -> Vec<ShownRef> {
    let shown = |(name, target): (&str, CommitId)| ShownRef {
        name: name.to_owned(),
        target,
    };
    found.into_iter().map(shown).collect()
}

/// Four hexadecimal digits, without a sign or a blank as the standard library would let through.
fn length(digits: &[u8; 4]) -> Option<usize> {
    let text = std::str::from_utf8(digits).ok()?;
    let length = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let length = length.then(|| usize::from_str_radix(text, 16).ok()).flatten()?;
    (length <= LONGEST_PACKET).then_some(length)
}

/// `id name`, and nothing else: no attributes were asked for.
fn entry(line: &[u8]) -> Option<(&str, CommitId)> {
    let text = std::str::from_utf8(line).ok()?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let (id, name) = text.split_once(' ')?;
    if id.len() != DIGITS || id.bytes().all(|digit| digit == b'0') {
        return None;
    }
    let id = id.parse().ok()?;
    is_wanted(name).then_some((name, id))
}

/// Whether this is the full name of a branch or a tag that git would take, by the rules of `git check-ref-format`.
fn is_wanted(name: &str) -> bool {
    let Some(short) = name
        .strip_prefix("refs/heads/")
        .or_else(|| name.strip_prefix("refs/tags/"))
    else {
        return false;
    };
    let forbidden = |c: char| c.is_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\');
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    name.len() <= LONGEST_NAME
        && !short.contains(forbidden)
        && !short.contains("..")
        && !short.contains("@{")
        && !short.ends_with('.')
        && short.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn packet(line: &str) -> String {
        format!("{:04x}{line}", line.len() + 4)
    }

    fn answer(lines: &[&str]) -> Vec<u8> {
        let packets: String = lines.iter().map(|line| packet(line)).collect();
        format!("{packets}0000").into_bytes()
    }

    #[test]
    fn the_question_is_packets() {
        let text = String::from_utf8(question()).unwrap();
        assert!(text.starts_with("0014command=ls-refs\n"), "{text}");
        assert!(
            text.contains("0017object-format=sha1\n0001001bref-prefix refs/heads/\n"),
            "{text}"
        );
        assert!(text.ends_with("001aref-prefix refs/tags/\n0000"), "{text}");
    }

    #[test]
    fn branches_and_tags_come_sorted() {
        let lines = [format!("{ID} refs/tags/v1\n"), format!("{ID} refs/heads/ünï/a-b")];
        let shown = parse(&answer(&[&lines[0], &lines[1]])).unwrap();
        let names: Vec<&str> = shown.iter().map(|shown| shown.name.as_str()).collect();
        assert_eq!(names, ["refs/heads/ünï/a-b", "refs/tags/v1"]);
        assert!(shown.iter().all(|shown| shown.target.as_str() == ID));
        assert_eq!(parse(b"0000"), Some(Vec::new()));
    }

    #[test]
    fn a_cut_answer_is_none() {
        let whole = answer(&[&format!("{ID} refs/heads/main\n"), &format!("{ID} refs/tags/v1\n")]);
        assert!(parse(&whole).is_some());
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
        assert_eq!(parse(&[&whole[..], b"0000"].concat()), None, "something behind the end");
    }

    #[test]
    fn what_was_not_asked_for_is_none() {
        for line in [
            "ERR access denied\n".to_owned(),
            format!("{ID} HEAD\n"),
            format!("{ID} refs/merge-requests/1/head\n"),
            format!("{ID} refs/heads/\n"),
            format!("{ID} refs/heads\n"),
            format!("{ID} refs/heads/main symref-target:refs/heads/x\n"),
            format!("{ID} refs/tags/v1 peeled:{ID}\n"),
            format!("{ID} refs/heads/../../config\n"),
            format!("{ID} refs/heads/a..b\n"),
            format!("{ID} refs/heads/a.lock/b\n"),
            format!("{ID} refs/heads/a//b\n"),
            format!("{ID} refs/heads/.a\n"),
            format!("{ID} refs/heads/a\n\n"),
            format!("{ID} refs/heads/a\u{7f}\n"),
            format!("{ID} refs/heads/{}\n", "a".repeat(LONGEST_NAME)),
            format!("{} refs/heads/main\n", ID.to_uppercase()),
            format!("{ID}{} refs/heads/main\n", &ID[..24]),
            format!("{} refs/heads/main\n", "0".repeat(40)),
            format!("{} refs/heads/main\n", &ID[1..]),
            "unborn HEAD\n".to_owned(),
            String::new(),
        ] {
            assert_eq!(parse(&answer(&[&line])), None, "{line:?}");
        }
        let twice = format!("{ID} refs/heads/main\n");
        assert_eq!(parse(&answer(&[&twice, &twice])), None);
    }

    #[test]
    fn lengths_are_four_digits() {
        for bad in [
            "+0040000", "-0040000", "00010000", "00020000", "00030000", "fff00000", "  000000", "<htm", "0000\n",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(parse(&[0xff; 64]), None);
        let mut long = answer(&[]);
        long.resize(LONGEST + 1, b'0');
        assert_eq!(parse(&long), None);
    }
}
