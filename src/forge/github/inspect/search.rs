//! The text of a search on GitHub, from words that anybody may have chosen. Pure.
//!
//! No word can become a qualifier or an operator: a search never leaves the repository that it was made for.

use crate::forge::inspect::State;

/// Most characters of words and branches in one search; GitHub refuses more than 256.
const LONGEST_WORDS: usize = 200;

/// What to search for besides words.
#[derive(Debug, Default)]
pub(super) struct Filters<'a> {
    /// The author's login.
    pub(super) author: Option<&'a str>,
    /// Labels, all of them.
    pub(super) labels: &'a [String],
    /// The branch of a pull request.
    pub(super) head: Option<&'a str>,
    /// The branch that it goes into.
    pub(super) base: Option<&'a str>,
}

/// The query, `None` where nothing can match. `kind` is `pr` or `issue`; `path` has the form owner/name.
pub(super) fn query(
    path: &str,
    kind: &str,
    state: State,
    words: Option<&str>,
    filters: &Filters<'_>,
) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if !path.chars().all(plain) {
        return None;
    }
    let mut parts = vec![format!("repo:{path}"), format!("is:{kind}")];
    parts.extend(
        match state {
            State::Open => vec!["is:open"],
            State::Merged => vec!["is:merged"],
            State::Closed if kind == "pr" => vec!["is:closed", "is:unmerged"],
            State::Closed => vec!["is:closed"],
            State::All => vec![],
        }
        .into_iter()
        .map(str::to_owned),
    );
    if let Some(author) = filters.author {
        // An App's account is written with brackets. A name with other characters is nobody's.
        let login = author.strip_suffix("[bot]").unwrap_or(author);
        if login.is_empty() || login.len() > 100 || !login.chars().all(|c| plain(c) && c != '/') {
            return None;
        }
        let app = if login.len() < author.len() { "app/" } else { "" };
        parts.push(format!("author:{app}{login}"));
    }
    let named = filters.labels.iter().map(|label| ("label", label.as_str()));
    let ends = [("head", filters.head), ("base", filters.base)];
    let ends = ends.into_iter().filter_map(|(name, value)| Some((name, value?)));
    parts.extend(
        named
            .chain(ends)
            .map(|(name, value)| format!("{name}:{}", quoted(value))),
    );
    let mut left = LONGEST_WORDS;
    for word in words.unwrap_or_default().split_whitespace() {
        let word = quoted(word);
        let Some(rest) = left.checked_sub(word.chars().count()) else {
            break;
        };
        left = rest;
        if word != "\"\"" {
            parts.push(word);
        }
    }
    Some(parts.join(" "))
}

/// A value in quotes. What could end the quotes is left out: the rows are looked at again.
fn quoted(value: &str) -> String {
    let inside: String = value
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .filter(|c| !matches!(c, '"' | '\\'))
        .take(LONGEST_WORDS)
        .collect();
    format!("\"{}\"", inside.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_leaves_the_quotes() {
        let of = |words| query("o/r", "pr", State::Open, Some(words), &Filters::default()).unwrap();
        assert_eq!(of("fix login"), r#"repo:o/r is:pr is:open "fix" "login""#);
        assert_eq!(
            of("x repo:o/private OR is:issue"),
            r#"repo:o/r is:pr is:open "x" "repo:o/private" "OR" "is:issue""#
        );
        assert_eq!(
            of(r#"a" repo:o/private "b \" org:x"#),
            r#"repo:o/r is:pr is:open "a" "repo:o/private" "b" "org:x""#
        );
        for hostile in ["\" repo:x/y", "\\\" org:x", "\u{0}\" in:body", "a\n\"\nuser:b"] {
            let made = of(hostile);
            let outside: Vec<&str> = made.split('"').step_by(2).collect();
            assert!(made.matches('"').count() % 2 == 0, "{made}");
            assert!(!outside.concat().contains(['\\', '\n']), "{made}");
            assert_eq!(outside.concat().matches(':').count(), 3, "{made}");
        }
        assert!(of(&"word ".repeat(1000)).len() < 300);
    }

    #[test]
    fn filters_are_qualifiers_and_bad_names_find_nothing() {
        let labels = ["needs \"review\"".to_owned()];
        let filters = Filters {
            author: Some("dependabot[bot]"),
            labels: &labels,
            head: Some("feat/one"),
            base: Some("main"),
        };
        assert_eq!(
            query("o/r", "pr", State::Closed, None, &filters).unwrap(),
            r#"repo:o/r is:pr is:closed is:unmerged author:app/dependabot label:"needs review" head:"feat/one" base:"main""#
        );
        for author in ["", "a b", "a\" org:x", "o/r", "[bot]"] {
            let filters = Filters {
                author: Some(author),
                ..Filters::default()
            };
            assert_eq!(query("o/r", "issue", State::All, None, &filters), None, "{author}");
        }
        assert_eq!(query("o/r x", "issue", State::All, None, &Filters::default()), None);
    }
}
