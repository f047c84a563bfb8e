//! What credentials look like: the rules compiled in, those of the operator, and what the operator allows. Pure.
//!
//! Time grows with the length of a text and nothing else. Never returns or prints a value: a finding is a rule and a place. Comments in the
//! text that ask to be let through are not heeded, because an agent could write them.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, MatchKind};
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use sha2::Digest as _;

use super::random;

/// The rules that every worker has.
const BUILT_IN: &str = include_str!("rules.toml");
/// Largest compiled pattern, in bytes.
const LARGEST_PATTERN: usize = 4 * 1024 * 1024;
/// Matches of one rule in one piece that are looked at.
const MOST_MATCHES: usize = 1000;

/// What the operator lets through. Known secrets of the session are never let through.
#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Allow {
    /// Files that no rule is tried on, as patterns of paths: `*` within a name, `**` across directories, `?` one character.
    pub paths: Vec<String>,
    /// Regular expressions; a value that one matches as a whole is let through.
    pub values: Vec<String>,
    /// SHA-256 of values that are let through, in hexadecimal: `printf %s VALUE | sha256sum`.
    pub sha256: Vec<String>,
}

/// Why rules cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {detail}")]
pub struct RulesError {
    place: String,
    detail: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesFile {
    #[serde(default)]
    rule: Vec<RuleText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    id: String,
    says: String,
    #[serde(default)]
    keywords: Vec<String>,
    pattern: String,
    #[serde(default)]
    entropy: f64,
    #[serde(default)]
    random: bool,
}

/// One rule.
#[derive(Debug)]
struct Rule {
    id: String,
    says: String,
    pattern: String,
    /// Compiled when a keyword of it is met first: all of them together take two megabytes.
    compiled: OnceLock<Option<Regex>>,
    entropy: f64,
    random: bool,
    /// Whether it is tried without a keyword.
    always: bool,
}

impl Rule {
    fn compiled(&self) -> Option<&Regex> {
        let compile = || pattern(&self.id, &self.pattern).ok();
        self.compiled.get_or_init(compile).as_ref()
    }

    fn at(&self, start: usize) -> Match {
        Match {
            start,
            rule: self.id.clone(),
            says: self.says.clone(),
        }
    }
}

/// What a rule found, and where in the text it begins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Match {
    /// Where the value begins.
    pub start: usize,
    /// The rule's id.
    pub rule: String,
    /// What it looks like.
    pub says: String,
}

/// All rules of a worker.
#[derive(Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    keywords: AhoCorasick,
    /// The rule of each keyword.
    owners: Vec<usize>,
    paths: Vec<regex::Regex>,
    values: Vec<Regex>,
    digests: BTreeSet<String>,
}

impl Rules {
    /// Compiles the rules: those built in, and those of an operator's file, given as its text.
    ///
    /// # Errors
    /// Names the rule or the key that does not read.
    pub fn new(more: Option<&str>, allow: &Allow) -> Result<Self, RulesError> {
        let mut texts = read("the rules built in", BUILT_IN)?;
        if let Some(more) = more {
            texts.extend(read("the rules file", more)?);
        }
        let (mut rules, mut keywords, mut owners) = (Vec::new(), Vec::new(), Vec::new());
        for text in texts {
            // What does not compile is told now, by name.
            pattern(&format!("rule {:?}", text.id), &text.pattern)?;
            owners.extend(text.keywords.iter().map(|_| rules.len()));
            rules.push(Rule {
                always: text.keywords.is_empty(),
                id: text.id,
                says: text.says,
                pattern: text.pattern,
                compiled: OnceLock::new(),
                entropy: text.entropy,
                random: text.random,
            });
            keywords.extend(text.keywords);
        }
        let keywords = AhoCorasick::builder()
            .ascii_case_insensitive(true)
            .match_kind(MatchKind::Standard)
            .build(&keywords)
            .map_err(wrong("the keywords"))?;
        let whole =
            |(index, text): (usize, &String)| pattern(&format!("allow.values[{index}]"), &format!("^(?:{text})$"));
        let path = |(index, text): (usize, &String)| {
            regex::Regex::new(&glob(text)).map_err(wrong(&format!("allow.paths[{index}]")))
        };
        let digest = |(index, text): (usize, &String)| {
            let text = text.to_ascii_lowercase();
            let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_digest
                .then_some(text)
                .ok_or("must have 64 hexadecimal digits")
                .map_err(wrong(&format!("allow.sha256[{index}]")))
        };
        Ok(Self {
            rules,
            keywords,
            owners,
            paths: allow.paths.iter().enumerate().map(path).collect::<Result<_, _>>()?,
            values: allow.values.iter().enumerate().map(whole).collect::<Result<_, _>>()?,
            digests: allow.sha256.iter().enumerate().map(digest).collect::<Result<_, _>>()?,
        })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rules.len()
    }

    /// Whether the operator lets through whatever stands in this file.
    #[must_use]
    pub fn lets_through(&self, path: &str) -> bool {
        self.paths.iter().any(|pattern| pattern.is_match(path))
    }

    /// What looks like a credential in a text, in the text's order.
    #[must_use]
    pub fn find(&self, text: &[u8]) -> Vec<Match> {
        let mut found = Vec::new();
        for index in self.worth_trying(text) {
            let Some(rule) = self.rules.get(index) else { continue };
            let Some(pattern) = rule.compiled() else {
                // It was compiled once already, so this is never seen; and no pattern is no reason to let something through.
                found.push(rule.at(0));
                continue;
            };
            for captures in pattern.captures_iter(text).take(MOST_MATCHES) {
                let Some(value) = captures.name("secret").or_else(|| captures.get(0)) else {
                    continue;
                };
                if self.counts(rule, value.as_bytes()) {
                    found.push(rule.at(value.start()));
                }
            }
        }
        found.sort();
        found
    }

    /// The rules of which a keyword stands in the text.
    fn worth_trying(&self, text: &[u8]) -> BTreeSet<usize> {
        let always = (0..self.rules.len()).filter(|index| self.rules.get(*index).is_some_and(|rule| rule.always));
        let mut tried: BTreeSet<usize> = always.collect();
        for keyword in self.keywords.find_overlapping_iter(text) {
            tried.extend(self.owners.get(keyword.pattern().as_usize()));
            if tried.len() == self.rules.len() {
                break;
            }
        }
        tried
    }

    fn counts(&self, rule: &Rule, value: &[u8]) -> bool {
        random::entropy(value) >= rule.entropy
            && (!rule.random || random::is_random(value))
            && !random::is_placeholder(value, rule.random)
            && !self.values.iter().any(|allowed| allowed.is_match(value))
            && (self.digests.is_empty() || !self.digests.contains(&hex::encode(sha2::Sha256::digest(value))))
    }
}

fn read(place: &str, text: &str) -> Result<Vec<RuleText>, RulesError> {
    toml::from_str(text)
        .map(|file: RulesFile| file.rule)
        .map_err(wrong(place))
}

fn pattern(place: &str, text: &str) -> Result<Regex, RulesError> {
    RegexBuilder::new(text)
        .unicode(false)
        .size_limit(LARGEST_PATTERN)
        .build()
        .map_err(wrong(place))
}

fn wrong<E: std::fmt::Display>(place: &str) -> impl FnOnce(E) -> RulesError {
    let place = place.to_owned();
    move |error| RulesError {
        place,
        detail: error.to_string().split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

/// A pattern of paths as a regular expression.
fn glob(pattern: &str) -> String {
    let mut text = String::from("^");
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("**/") {
            text.push_str("(?:.*/)?");
            rest = after;
            continue;
        }
        if let Some(after) = rest.strip_prefix("**") {
            text.push_str(".*");
            rest = after;
            continue;
        }
        match c {
            '*' => text.push_str("[^/]*"),
            '?' => text.push_str("[^/]"),
            other => text.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
    }
    text + "$"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_patterns() {
        let allow = Allow {
            paths: vec!["tests/**/*.pem".into(), "docs/**".into(), "a?.txt".into()],
            ..Allow::default()
        };
        let rules = Rules::new(None, &allow).unwrap();
        for (path, through) in [
            ("tests/a.pem", true),
            ("tests/x/y/a.pem", true),
            ("tests/a.pem.txt", false),
            ("src/tests/a.pem", false),
            ("docs/a/b", true),
            ("ab.txt", true),
            ("a/.txt", false),
            ("axb.txt", false),
        ] {
            assert_eq!(rules.lets_through(path), through, "{path}");
        }
    }

    #[test]
    fn an_operators_rule_is_tried_and_a_broken_one_is_named() {
        let more = "[[rule]]\nid = \"house\"\nsays = \"a key of this house\"\npattern = 'house-[0-9]{6}'";
        let rules = Rules::new(Some(more), &Allow::default()).unwrap();
        let found = rules.find(b"a house-123456 b");
        assert_eq!((found.len(), found[0].start, found[0].rule.as_str()), (1, 2, "house"));
        for (broken, says) in [
            (more.replace("{6}", "{6"), "rule \"house\""),
            (more.replace("pattern", "patern"), "the rules file"),
            (more.replace("{6}", "{1000}{1000}{1000}"), "rule \"house\""),
        ] {
            let error = Rules::new(Some(&broken), &Allow::default()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let allow = Allow {
            sha256: vec!["ab".into()],
            ..Allow::default()
        };
        assert!(
            Rules::new(None, &allow)
                .unwrap_err()
                .to_string()
                .contains("allow.sha256[0]")
        );
    }

    #[test]
    fn what_the_operator_allows_is_passed_over() {
        // In pieces, so that this file is not what it looks for.
        let value = ["gl", "pat-", "Xk3J9vQ2mR7tB5nW8cLd"].concat();
        let find = |allow: Allow| Rules::new(None, &allow).unwrap().find(value.as_bytes()).len();
        assert_eq!(find(Allow::default()), 1);
        let by_value = Allow {
            values: vec!["glpat-Xk3J9v.*".into()],
            ..Allow::default()
        };
        assert_eq!(find(by_value), 0);
        // Only as a whole.
        let by_part = Allow {
            values: vec!["Xk3J9v".into()],
            ..Allow::default()
        };
        assert_eq!(find(by_part), 1);
        let by_digest = Allow {
            sha256: vec![hex::encode_upper(sha2::Sha256::digest(&value))],
            ..Allow::default()
        };
        assert_eq!(find(by_digest), 0);
    }

    #[test]
    fn ids_are_unique_and_keywords_are_lower_case() {
        let texts = read("", BUILT_IN).unwrap();
        let ids: BTreeSet<_> = texts.iter().map(|text| &text.id).collect();
        assert_eq!(ids.len(), texts.len());
        for text in &texts {
            assert!(!text.keywords.is_empty(), "{} is tried on everything", text.id);
            assert!(text.keywords.iter().all(|word| *word == word.to_ascii_lowercase()));
        }
    }
}
