//! The words for what was found in a session's work: for users, for events, and for the reviewers of a change request. Pure.
//!
//! Places and rules, never values. What reviewers read is harmless as Markdown.

use crate::grant::neutral;
use crate::message::Reason;
use crate::repository::scan::Finding;
use crate::session::failure::Failure;

/// Places that a sentence lists.
const MOST_LISTED: usize = 3;
/// Places that a change request lists.
const MOST_SHOWN: usize = 20;
/// Longest place, in characters.
const LONGEST_PLACE: usize = 300;

/// What is to be told of work that may be published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::session) struct Checked {
    /// Changed files that run on their own, and what runs them.
    pub(super) automation: Vec<(String, &'static str)>,
    /// Path and line of characters that nobody sees.
    pub(super) hidden: Vec<(String, u64)>,
    /// Whether there are more of these.
    pub(super) more_hidden: bool,
    /// What looks like a credential, where the operator wants to be warned only.
    pub(super) suspected: Vec<Finding>,
}

fn listed(places: impl ExactSizeIterator<Item = String>) -> String {
    let more = places.len().saturating_sub(MOST_LISTED);
    let first: Vec<String> = places
        .take(MOST_LISTED)
        .map(|place| place.chars().take(LONGEST_PLACE).collect())
        .collect();
    let rest = if more > 0 {
        format!(", and {more} more")
    } else {
        String::new()
    };
    format!("{}{rest}", first.join(", "))
}

fn place(found: &Finding) -> String {
    match &found.rule {
        Some(rule) => format!("{} in {} (rule {rule})", found.says, found.place),
        None => format!("{} in {}", found.says, found.place),
    }
}

/// Why work with a credential in it was not published, and what to do.
pub(super) fn stopped(findings: &[Finding]) -> String {
    let remedy = if findings.iter().any(|found| found.rule.is_none()) {
        "revoke it, and find out how it came there"
    } else {
        "take it out of every commit and revoke it, or let the operator allow it (session.secret_scan.allow)"
    };
    // What is certain first.
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|found| found.rule.is_some());
    format!(
        "the work holds {}, and nothing of it was published: {remedy}",
        listed(sorted.into_iter().map(place))
    )
}

/// The warning where the operator wants no more than that.
pub(super) fn suspected(project: &str, findings: &[Finding]) -> String {
    format!("the work in {project} holds {}", listed(findings.iter().map(place)))
}

/// Why work that was not searched whole is kept.
pub(super) fn not_searched(failure: Failure) -> Failure {
    if failure.reason != Reason::ReviewNeeded {
        return failure;
    }
    let message = format!(
        "{}; nothing of the work was published: look at it yourself, or let the operator raise session.secret_scan.largest_bytes or timeout_s",
        failure.message
    );
    Failure::new(Reason::ReviewNeeded, message)
}

/// That files which run on their own are changed.
pub(super) fn automation(project: &str, files: &[(String, &'static str)]) -> String {
    let files = files.iter().map(|(path, what)| {
        let path = crate::message::readable::revealed(path).replace(['\n', '\t'], " ");
        format!("{path} ({what})")
    });
    format!("the work in {project} changes what runs on its own: {}", listed(files))
}

/// That characters were added which nobody sees.
pub(super) fn hidden(project: &str, checked: &Checked) -> Option<String> {
    if checked.hidden.is_empty() {
        return None;
    }
    let more = if checked.more_hidden { ", and more" } else { "" };
    let places = checked.hidden.iter().map(|(path, line)| format!("{path}:{line}"));
    Some(format!(
        "the work in {project} adds invisible characters or such that turn the reading direction: {}{more}",
        listed(places)
    ))
}

/// What the change request says to its reviewers, one sentence each.
pub(super) fn for_reviewers(checked: &Checked) -> Vec<String> {
    let mut said = Vec::new();
    for (path, what) in checked.automation.iter().take(MOST_SHOWN) {
        said.push(format!(
            "{} is changed, which runs on its own ({what}).",
            neutral::code(path)
        ));
    }
    rest(&mut said, checked.automation.len(), "files that run on their own");
    for (path, line) in &checked.hidden {
        said.push(format!(
            "{} line {line} holds characters that cannot be seen, or that turn the reading direction.",
            neutral::code(path)
        ));
    }
    if checked.more_hidden {
        said.push("More lines hold such characters.".to_owned());
    }
    for found in checked.suspected.iter().take(MOST_SHOWN) {
        said.push(format!("There is {} in {}.", found.says, neutral::code(&found.place)));
    }
    rest(&mut said, checked.suspected.len(), "places that look like credentials");
    said
}

fn rest(said: &mut Vec<String>, all: usize, what: &str) {
    if all > MOST_SHOWN {
        said.push(format!("And {} more {what}.", all - MOST_SHOWN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(place: &str, rule: Option<&str>) -> Finding {
        Finding {
            place: place.into(),
            says: if rule.is_some() {
                "what looks like a key"
            } else {
                "a credential of this session"
            }
            .into(),
            rule: rule.map(str::to_owned),
        }
    }

    #[test]
    fn a_refusal_names_the_first_places_and_what_to_do() {
        let one = stopped(&[found("a.rs:1 (commit ab)", Some("key"))]);
        assert_eq!(
            one,
            "the work holds what looks like a key in a.rs:1 (commit ab) (rule key), and nothing of it was published: take it out of every commit and \
             revoke it, or let the operator allow it (session.secret_scan.allow)"
        );
        let many: Vec<Finding> = (0..6)
            .map(|line| found(&format!("a:{line}"), Some("key")))
            .chain([found("b:1", None)])
            .collect();
        let said = stopped(&many);
        assert!(
            said.starts_with("the work holds a credential of this session in b:1, ") && said.contains("and 4 more"),
            "{said}"
        );
        assert!(said.contains("find out how it came there"));
    }

    #[test]
    fn reviewers_are_told_all_and_harmlessly() {
        let checked = Checked {
            automation: (0..25)
                .map(|n| (format!(".github/workflows/`@all`{n}.yml"), "GitHub Actions"))
                .collect(),
            hidden: vec![("a.rs".into(), 3)],
            more_hidden: true,
            suspected: vec![found("b.rs:4 (commit ab)", Some("key"))],
        };
        let said = for_reviewers(&checked);
        assert_eq!(said.len(), 20 + 1 + 1 + 1 + 1);
        assert!(said[20].contains("5 more files that run on their own"));
        assert!(said[21].contains("`a.rs` line 3"));
        assert_eq!(for_reviewers(&Checked::default()), Vec::<String>::new());
    }
}
