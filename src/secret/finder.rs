//! Finds all forms of many secrets in one pass, as if a text had no white space: encoders break lines, and JSON writes a line's end as `\n`. Pure.
//!
//! Never fails and never leaves a form out, however many or long they are: the automaton knows only each form's beginning, what follows is
//! compared. Never prints a value.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use zeroize::Zeroizing;

use super::forms::{Form, SHORTEST};

/// The forms of some secrets, ready to be looked for. Shares their memory.
#[derive(Default)]
pub(super) struct Finder {
    secrets: Vec<Arc<Vec<Form>>>,
    /// Knows the beginnings; `None` where it could not be made, and then each form is looked for alone.
    automaton: Option<AhoCorasick>,
    /// Which forms have the beginning of that number: secret and form.
    beginnings: Vec<Vec<(usize, usize)>>,
    longest: usize,
}

/// How a text is read: without white space, or also without the line ends and tabs that are written as escapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum View {
    Spaces,
    Escapes,
}

/// Those in use, by where the forms lie that they look for: a session has several masks for the same secrets.
static SHARED: Mutex<Vec<(Vec<usize>, Weak<Finder>)>> = Mutex::new(Vec::new());

impl Finder {
    /// One for these secrets in this order: the one that there is, else a new one.
    pub(super) fn of(secrets: impl IntoIterator<Item = Arc<Vec<Form>>>) -> Arc<Self> {
        let secrets: Vec<_> = secrets.into_iter().collect();
        let key: Vec<usize> = secrets.iter().map(|forms| Arc::as_ptr(forms).addr()).collect();
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        // Where another's forms come to lie in the same place later, this one is gone: it holds its own.
        shared.retain(|(_, finder)| finder.strong_count() > 0);
        let mut same = shared.iter().filter(|(of, _)| *of == key);
        if let Some(finder) = same.find_map(|(_, finder)| finder.upgrade()) {
            return finder;
        }
        let finder = Arc::new(Self::new(secrets));
        shared.push((key, Arc::downgrade(&finder)));
        finder
    }

    pub(super) fn new(secrets: impl IntoIterator<Item = Arc<Vec<Form>>>) -> Self {
        let secrets: Vec<_> = secrets.into_iter().collect();
        let mut by_beginning: BTreeMap<&[u8], Vec<(usize, usize)>> = BTreeMap::new();
        for (secret, forms) in secrets.iter().enumerate() {
            for (form, bytes) in forms.iter().enumerate() {
                let beginning = bytes.get(..SHORTEST).unwrap_or(bytes);
                by_beginning.entry(beginning).or_default().push((secret, form));
            }
        }
        // Small: every session has several, each for as long as it lives. The quickest kind would take ten times the memory.
        let automaton = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .dense_depth(1)
            .build(by_beginning.keys())
            .ok();
        let beginnings = by_beginning.into_values().collect();
        let longest = secrets
            .iter()
            .flat_map(|forms| forms.iter().map(|form| form.len()))
            .max();
        Self {
            automaton,
            beginnings,
            longest: longest.unwrap_or_default(),
            secrets,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.beginnings.is_empty()
    }

    fn form(&self, (secret, form): (usize, usize)) -> &[u8] {
        let forms = self.secrets.get(secret);
        forms
            .and_then(|forms| forms.get(form))
            .map_or(&[], |form| form.as_slice())
    }

    fn all(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        self.beginnings.iter().flatten().copied()
    }

    /// Everywhere that a form stands in bytes without white space, also where two overlap: place, length, and whose it is.
    fn stand_in(&self, dense: &[u8]) -> Vec<(usize, usize, usize)> {
        let mut found = Vec::new();
        let Some(automaton) = &self.automaton else {
            for which in self.all() {
                let form = self.form(which);
                let mut from = 0;
                while let Some(at) = dense.get(from..).and_then(|rest| memchr::memmem::find(rest, form)) {
                    found.push((from + at, form.len(), which.0));
                    from += at + 1;
                }
            }
            return found;
        };
        for begun in automaton.find_overlapping_iter(dense) {
            let rest = dense.get(begun.start()..).unwrap_or_default();
            for which in self.beginnings.get(begun.pattern().as_usize()).into_iter().flatten() {
                let form = self.form(*which);
                if rest.starts_with(form) {
                    found.push((begun.start(), form.len(), which.0));
                }
            }
        }
        found
    }

    /// Everywhere that a form stands in these bytes: from, to, and whose it is, by the order in which the secrets were given.
    pub(super) fn places(&self, bytes: &[u8]) -> Vec<(usize, usize, usize)> {
        let mut places = Vec::new();
        if self.is_empty() {
            return places;
        }
        for view in View::of(bytes) {
            let found = self.stand_in(&view.dense(bytes, true));
            if found.is_empty() {
                continue;
            }
            let at = view.positions(bytes);
            places.extend(found.into_iter().filter_map(|(start, length, of)| {
                let end = at.get(start + length - 1)? + 1;
                Some((*at.get(start)?, end, of))
            }));
        }
        places
    }

    /// Where at the end of these bytes something begins that may become a form, whatever follows; their length where nothing does.
    pub(super) fn begun(&self, bytes: &[u8]) -> usize {
        let mut cut = bytes.len();
        if self.is_empty() {
            return cut;
        }
        for view in View::of(bytes) {
            let dense = view.dense(bytes, false);
            let begun = |which: (usize, usize)| {
                let form = self.form(which);
                let first = dense.len().saturating_sub(form.len().saturating_sub(1));
                let tail = dense.get(first..).unwrap_or_default();
                let starts = memchr::memchr_iter(*form.first()?, tail);
                let mut starts = starts.filter(|start| form.starts_with(tail.get(*start..).unwrap_or_default()));
                starts.next().map(|start| first + start)
            };
            if let Some(start) = self.all().filter_map(begun).min() {
                cut = cut.min(view.positions(bytes).get(start).copied().unwrap_or(cut));
            }
        }
        cut
    }

    /// Looks through what comes in pieces and is not to be kept.
    pub(super) fn trail(&self) -> Trail<'_> {
        Trail {
            finder: self,
            views: [View::Spaces, View::Escapes].map(|view| (view, 0, Zeroizing::default())),
        }
    }
}

/// A search through pieces. Keeps no more than the longest form.
pub struct Trail<'a> {
    finder: &'a Finder,
    views: [(View, usize, Zeroizing<Vec<u8>>); 2],
}

impl std::fmt::Debug for Trail<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Trail(..)")
    }
}

impl Trail<'_> {
    /// The next piece, and which secret ends in it, if one does. Backslashes at its end are looked at with the next one: follow the last
    /// piece by an empty line.
    pub fn push(&mut self, bytes: &[u8]) -> Option<usize> {
        let finder = self.finder;
        let mut whose = None;
        for (view, backslashes, dense) in &mut self.views {
            view.sift(bytes, backslashes, |byte, _| dense.push(byte));
            whose = whose.or(finder.stand_in(dense).first().map(|(_, _, whose)| *whose));
            let kept = dense.len().saturating_sub(finder.longest.saturating_sub(1));
            let end = dense.len();
            dense.copy_within(kept..end, 0);
            dense.truncate(end - kept);
        }
        whose
    }
}

impl View {
    /// The views under which these bytes differ.
    fn of(bytes: &[u8]) -> impl Iterator<Item = Self> {
        let escapes = memchr::memchr(b'\\', bytes).map(|_| Self::Escapes);
        [Self::Spaces].into_iter().chain(escapes)
    }

    /// Gives what counts, with its place. `backslashes` are those that wait for what follows them.
    fn sift(self, bytes: &[u8], backslashes: &mut usize, mut keep: impl FnMut(u8, usize)) {
        for (at, byte) in bytes.iter().copied().enumerate() {
            if self == Self::Escapes {
                if byte == b'\\' {
                    *backslashes += 1;
                    continue;
                }
                let waiting = std::mem::take(backslashes);
                if waiting > 0 && matches!(byte, b'n' | b'r' | b't') {
                    continue;
                }
                for before in (1..=waiting).rev() {
                    keep(b'\\', at.saturating_sub(before));
                }
            }
            if !byte.is_ascii_whitespace() {
                keep(byte, at);
            }
        }
    }

    /// What counts of bytes that are all there is (`whole`), or that go on.
    fn dense(self, bytes: &[u8], whole: bool) -> Zeroizing<Vec<u8>> {
        let (mut dense, mut backslashes) = (Zeroizing::new(Vec::with_capacity(bytes.len())), 0);
        self.sift(bytes, &mut backslashes, |byte, _| dense.push(byte));
        if whole {
            dense.extend(std::iter::repeat_n(b'\\', backslashes));
        }
        dense
    }

    fn positions(self, bytes: &[u8]) -> Vec<usize> {
        let (mut positions, mut backslashes) = (Vec::with_capacity(bytes.len()), 0);
        self.sift(bytes, &mut backslashes, |_, at| positions.push(at));
        positions.extend(bytes.len() - backslashes..bytes.len());
        positions
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::forms;
    use super::*;

    fn finder() -> Finder {
        Finder::new(["t0k/en+\"12345~zZ", "aaaaaaaaaaaa", "glpat-0123456789"].map(|value| Arc::new(forms::of(value))))
    }

    /// Pieces of forms, white space and escapes.
    fn text() -> impl Strategy<Value = String> {
        let mut pieces: Vec<String> = [
            "\n",
            " ",
            "\\n",
            "\\\\n",
            "\\",
            "n",
            "x",
            "a",
            "aaaaaaaaaaaa",
            "glpat-01",
            "23456789",
            "größe",
        ]
        .map(str::to_owned)
        .to_vec();
        for form in finder().secrets.iter().flat_map(|forms| forms.iter()) {
            let text = String::from_utf8(form.to_vec()).unwrap();
            let (one, two) = text.split_at(text.len() / 2);
            pieces.extend([one.to_owned(), two.to_owned(), text.clone()]);
        }
        prop::collection::vec(prop::sample::select(pieces), 0..10).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        /// The plain search, form by form, is the judge.
        #[test]
        fn the_automaton_finds_what_a_search_for_each_form_finds(text in text(), cut in 0_usize..200) {
            let fast = finder();
            let plain = Finder { automaton: None, ..finder() };
            let sorted = |finder: &Finder| {
                let mut places = finder.places(text.as_bytes());
                places.sort_unstable();
                places
            };
            prop_assert_eq!(sorted(&fast), sorted(&plain));
            // In pieces as in one.
            let mut trail = fast.trail();
            let (one, two) = text.as_bytes().split_at(cut.min(text.len()));
            let found = [one, two, b"\n"].map(|piece| trail.push(piece).is_some());
            prop_assert_eq!(found.contains(&true), !sorted(&fast).is_empty());
        }
    }
}
