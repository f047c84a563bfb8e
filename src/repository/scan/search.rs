//! Looks through what a session would publish, piece by piece, and notes where something stands that must not leave. Pure.
//!
//! What it notes are places and rules, never values; a place whose own name is a secret is noted without its name.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::frame::Header;
use super::hidden;
use super::rules::Rules;
use crate::secret::Traces;

/// How much of the piece before is looked at again, so that nothing is missed where pieces meet.
const OVERLAP: usize = 8 * 1024;
/// Findings after which the search may end: the work is not published anyway.
pub(super) const MOST_FINDINGS: usize = 20;
/// Hidden characters that are told by place.
const MOST_HIDDEN: usize = 20;
/// Paths that are told.
const MOST_CHANGED: usize = 100_000;

/// What was found: a credential of the session itself, or what looks like one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where, in words: `src/a.rs:12 (commit 1a2b3c4)`.
    pub place: String,
    /// What it is, in words.
    pub says: String,
    /// The rule's id; `None` for a credential of the session itself.
    pub rule: Option<String>,
}

/// A path that the session's branch changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Changed {
    /// The path.
    pub path: String,
    /// Where it leads, for a symbolic link.
    pub target: Option<String>,
}

/// What a search came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// What must not leave.
    pub findings: BTreeSet<Finding>,
    /// The paths that differ between base and head.
    pub changed: BTreeSet<Changed>,
    /// Where characters were added that nobody sees: path and line.
    pub hidden: BTreeSet<(String, u64)>,
    /// Whether there are more such places than are told.
    pub more_hidden: bool,
}

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What credentials look like; `None` where only the session's own are looked for.
    pub rules: Option<Arc<Rules>>,
    /// The session's own.
    pub own: Traces,
}

impl Wanted {
    /// What a text of ours holds that must not leave. `place` says where the text stands.
    #[must_use]
    pub fn in_text(&self, place: &str, text: &str) -> Vec<Finding> {
        let line = |start: usize| 1 + lines(text.as_bytes().get(..start).unwrap_or_default());
        self.places(text.as_bytes(), true)
            .into_iter()
            .map(|(start, says, rule)| Finding {
                place: format!("{place}, line {}", line(start)),
                says,
                rule,
            })
            .collect()
    }

    /// Where in the bytes, what it is, and the rule.
    fn places(&self, bytes: &[u8], by_rules: bool) -> Vec<(usize, String, Option<String>)> {
        let own = self.own.find(bytes);
        let mut found: Vec<_> = own
            .map(|start| (start, "a credential of this session".to_owned(), None))
            .into_iter()
            .collect();
        if let Some(rules) = self.rules.as_deref().filter(|_| by_rules) {
            let looks_like =
                |found: super::Match| (found.start, format!("what looks like {}", found.says), Some(found.rule));
            found.extend(rules.find(bytes).into_iter().map(looks_like));
        }
        found
    }

    /// A path as it may be told.
    fn shown(&self, path: &str) -> String {
        if self.places(path.as_bytes(), true).is_empty() {
            crate::message::readable::revealed(path).replace(['\n', '\t'], " ")
        } else {
            "a file whose name is withheld".to_owned()
        }
    }
}

/// A search under way.
#[derive(Debug)]
pub(super) struct Search {
    wanted: Wanted,
    seen: Seen,
    /// The end of the piece before, and the line that it begins in.
    before: (Vec<u8>, u64),
}

impl Search {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            seen: Seen::default(),
            before: (Vec::new(), 1),
        }
    }

    /// Whether there is a use in going on.
    pub(super) fn has_enough(&self) -> bool {
        self.seen.findings.len() >= MOST_FINDINGS
    }

    pub(super) fn finish(self) -> Seen {
        self.seen
    }

    /// Looks at one piece; an error where the child says what cannot be.
    pub(super) fn look(&mut self, header: Header, bytes: Vec<u8>) -> Result<(), String> {
        match header {
            Header::Lines {
                commit,
                path,
                line,
                joined,
                ..
            } => self.lines(&short(&commit), &path, line, joined, bytes),
            Header::Name { commit, .. } => {
                let place = format!("the name of a file (commit {})", short(&commit));
                self.note(&bytes, |_| place.clone(), true);
            }
            Header::Commit { commit, .. } => {
                let head = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap_or(bytes.len());
                let place = |start: usize| {
                    if start < head {
                        return format!("what the commit {} says of its author", short(&commit));
                    }
                    let line = lines(bytes.get(head + 2..start).unwrap_or_default()) + 1;
                    format!("line {line} of the message of commit {}", short(&commit))
                };
                self.note(&bytes, place, true);
            }
            Header::Changed { path, target } => {
                if self.seen.changed.len() >= MOST_CHANGED {
                    return Err("it changes too many files".to_owned());
                }
                self.seen.changed.insert(Changed { path, target });
            }
            Header::End => {}
        }
        Ok(())
    }

    fn lines(&mut self, commit: &str, path: &str, line: u64, joined: bool, bytes: Vec<u8>) {
        if !joined {
            self.before = (Vec::new(), line);
        }
        let (mut text, first) = std::mem::take(&mut self.before);
        text.extend_from_slice(&bytes);
        let at = |start: usize| first + lines(text.get(..start).unwrap_or_default());
        let through = self
            .wanted
            .rules
            .as_deref()
            .is_some_and(|rules| rules.lets_through(path));
        let shown = self.wanted.shown(path);
        let place = |start: usize| format!("{shown}:{} (commit {commit})", at(start));
        self.note(&text, place, !through);
        self.note_hidden(&shown, first, &text);
        let keep = text.len().saturating_sub(OVERLAP);
        let line = first + lines(text.get(..keep).unwrap_or_default());
        self.before = (text.split_off(keep), line);
    }

    fn note(&mut self, bytes: &[u8], place: impl Fn(usize) -> String, by_rules: bool) {
        for (start, says, rule) in self.wanted.places(bytes, by_rules) {
            if self.seen.findings.len() < MOST_FINDINGS {
                let place = place(start);
                self.seen.findings.insert(Finding { place, says, rule });
            }
        }
    }

    fn note_hidden(&mut self, path: &str, first: u64, text: &[u8]) {
        if text.is_ascii() {
            return;
        }
        // What is no text has no reader whom it could mislead.
        if text.contains(&0) {
            return;
        }
        for (number, line) in (first..).zip(text.split(|byte| *byte == b'\n')) {
            // A piece may end within a character: then this line comes again, whole.
            let Ok(line) = std::str::from_utf8(line) else { continue };
            if !line.is_ascii() && hidden::holds_hidden(line, number == 1) {
                if self.seen.hidden.len() >= MOST_HIDDEN {
                    self.seen.more_hidden |= !self.seen.hidden.contains(&(path.to_owned(), number));
                } else {
                    self.seen.hidden.insert((path.to_owned(), number));
                }
            }
        }
    }
}

fn lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

fn short(commit: &str) -> String {
    commit.chars().filter(char::is_ascii_hexdigit).take(10).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::scan::rules::Allow;
    use crate::secret::Secret;

    fn search(allow: &[&str]) -> Search {
        let allow = Allow {
            paths: allow.iter().map(|path| (*path).to_owned()).collect(),
            ..Allow::default()
        };
        let mut own = Traces::default();
        own.add(&Secret::new("own-secret-1234"));
        Search::new(Wanted {
            rules: Some(Arc::new(Rules::new(None, &allow).unwrap())),
            own,
        })
    }

    fn piece(path: &str, line: u64, joined: bool, text: &str) -> (Header, Vec<u8>) {
        let header = Header::Lines {
            commit: "0123456789abcdef".into(),
            path: path.into(),
            line,
            joined,
            bytes: text.len(),
        };
        (header, text.as_bytes().to_vec())
    }

    fn token() -> String {
        ["gl", "pat-", "Xk3J9vQ2mR7tB5nW8cLd"].concat()
    }

    fn places(search: Search) -> Vec<String> {
        search.finish().findings.into_iter().map(|found| found.place).collect()
    }

    #[test]
    fn a_value_that_is_cut_by_pieces_is_found_on_its_line() {
        for value in [token(), "own-secret-1234".to_owned()] {
            let mut search = search(&[]);
            let (one, two) = value.split_at(9);
            let (header, bytes) = piece("a.txt", 40, false, &format!("x\ny {one}"));
            search.look(header, bytes).unwrap();
            let (header, bytes) = piece("a.txt", 41, true, &format!("{two} z\n"));
            search.look(header, bytes).unwrap();
            assert_eq!(places(search), ["a.txt:41 (commit 0123456789)"]);
        }
    }

    #[test]
    fn pieces_that_do_not_meet_are_not_joined() {
        let value = token();
        let (one, two) = value.split_at(9);
        let mut search = search(&[]);
        for (line, text) in [(1, one), (9, two)] {
            let (header, bytes) = piece("a.txt", line, false, text);
            search.look(header, bytes).unwrap();
        }
        assert_eq!(places(search), Vec::<String>::new());
    }

    #[test]
    fn allowed_paths_are_for_rules_and_not_for_the_sessions_own() {
        let mut search = search(&["tests/**"]);
        for (path, text) in [
            ("tests/a", token()),
            ("tests/b", "own-secret-1234".into()),
            ("src/c", token()),
        ] {
            let (header, bytes) = piece(path, 3, false, &text);
            search.look(header, bytes).unwrap();
        }
        assert_eq!(
            places(search),
            ["src/c:3 (commit 0123456789)", "tests/b:3 (commit 0123456789)"]
        );
    }

    #[test]
    fn a_name_that_is_a_secret_is_not_told() {
        let mut search = search(&[]);
        let name = format!("conf/{}.txt", token());
        let header = Header::Name {
            commit: "ab".into(),
            bytes: name.len(),
        };
        search.look(header, name.clone().into_bytes()).unwrap();
        let (header, bytes) = piece(&name, 1, false, "own-secret-1234\u{202e}");
        search.look(header, bytes).unwrap();
        let seen = search.finish();
        assert_eq!(seen.findings.len(), 2);
        assert!(!format!("{:?}{:?}", seen.findings, seen.hidden).contains("Xk3J9v"));
    }

    #[test]
    fn a_commit_is_told_by_the_line_of_its_message() {
        let mut search = search(&[]);
        let text = format!("tree a\nauthor A {} <a@b>\n\nSubject\n\nown-secret-1234\n", token());
        let header = Header::Commit {
            commit: "abcdef".into(),
            bytes: text.len(),
        };
        search.look(header, text.into_bytes()).unwrap();
        assert_eq!(
            places(search),
            [
                "line 3 of the message of commit abcdef",
                "what the commit abcdef says of its author"
            ]
        );
    }

    #[test]
    fn hidden_characters_are_told_by_line_and_binary_files_are_not() {
        let mut search = search(&[]);
        let (header, bytes) = piece("a.rs", 7, false, "ok\nif a\u{202e} {\n");
        search.look(header, bytes).unwrap();
        let (header, bytes) = piece("b.bin", 1, false, "\0\u{202e}");
        search.look(header, bytes).unwrap();
        assert_eq!(
            search.finish().hidden.into_iter().collect::<Vec<_>>(),
            [("a.rs".to_owned(), 8)]
        );
    }

    #[test]
    fn a_text_is_told_by_its_line() {
        let found = search(&[]).wanted.in_text("the title", &format!("a\n{}", token()));
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].place.as_str(), found[0].says.as_str()),
            ("the title, line 2", "what looks like a GitLab token")
        );
    }
}
