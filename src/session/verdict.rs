//! What a session came to: one verdict over its projects, and the words made of the agent's answer. Pure.

use crate::agent::sections;
use crate::message::{ProjectOutcome, Reason};

/// One verdict over all projects.
pub(super) fn fold(projects: Vec<ProjectOutcome>) -> (Reason, String, Vec<ProjectOutcome>) {
    let good = projects
        .iter()
        .filter(|project| matches!(project.reason, Reason::Published | Reason::Kept))
        .count();
    let bad: Vec<&ProjectOutcome> = projects
        .iter()
        .filter(|project| {
            !matches!(
                project.reason,
                Reason::Published | Reason::Kept | Reason::NothingToPublish
            )
        })
        .collect();
    let (reason, message) = match (good, bad.first()) {
        (0, None) => (
            Reason::NothingToPublish,
            "the agent answered and changed nothing".to_owned(),
        ),
        (_, None) if projects.iter().any(|project| project.reason == Reason::Kept) => (
            Reason::Kept,
            "the commits are kept on the worker, as the task asked".to_owned(),
        ),
        (count, None) => (
            Reason::Published,
            format!("{count} of {} projects changed and published", projects.len()),
        ),
        (0, Some(first)) => (first.reason, format!("{}: {}", first.project, first.message)),
        (count, Some(first)) => {
            let message = format!(
                "{count} published, {} not; {}: {}",
                bad.len(),
                first.project,
                first.message
            );
            (Reason::PartlyPublished, message)
        }
    };
    (reason, message, projects)
}

/// The message of the commit of what the agent left uncommitted: the session's title, and the agent's own summary where it gave one.
pub(super) fn commit_message(title: &str, answer: &str) -> String {
    let summary = sections::read(answer).changes;
    let summary: String = summary
        .chars()
        .filter(|c| !c.is_control() || *c == '\n')
        .take(2000)
        .collect();
    let subject: String = title.chars().filter(|c| !c.is_control()).take(72).collect();
    let subject = if subject.trim().is_empty() {
        "Work of a coding session"
    } else {
        subject.trim()
    };
    if summary.trim().is_empty() {
        subject.to_owned()
    } else {
        format!("{subject}\n\n{}", summary.trim())
    }
}

pub(super) fn bounded(text: String, longest: usize) -> String {
    if text.len() <= longest {
        return text;
    }
    let mut start = text.len() - longest;
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(reason: Reason) -> ProjectOutcome {
        ProjectOutcome {
            project: crate::message::ProjectKey {
                connection: "lab".parse().unwrap(),
                path: "a/b".parse().unwrap(),
            },
            reason,
            message: "words".into(),
            branch: None,
            head: None,
            change_request: None,
            kept: None,
            patch: None,
        }
    }

    #[test]
    fn one_verdict_over_all_projects() {
        let of = |reasons: &[Reason]| fold(reasons.iter().copied().map(project).collect()).0;
        assert_eq!(
            of(&[Reason::NothingToPublish, Reason::NothingToPublish]),
            Reason::NothingToPublish
        );
        assert_eq!(of(&[Reason::Published, Reason::NothingToPublish]), Reason::Published);
        assert_eq!(of(&[Reason::Published, Reason::PushRejected]), Reason::PartlyPublished);
        assert_eq!(
            of(&[Reason::NothingToPublish, Reason::PushRejected]),
            Reason::PushRejected
        );
        assert_eq!(of(&[Reason::Kept, Reason::NothingToPublish]), Reason::Kept);
    }

    #[test]
    fn a_commit_message_is_the_title_and_the_agents_summary() {
        assert_eq!(commit_message("Fix it", ""), "Fix it");
        assert_eq!(
            commit_message("Fix\u{7} it", "## Changes\nA\n## Approach\nB"),
            "Fix it\n\nA"
        );
        assert!(commit_message(&"x".repeat(300), "").len() <= 72);
    }

    #[test]
    fn the_end_of_a_long_text_is_kept_whole() {
        assert_eq!(bounded("aäb".to_owned(), 2), "b");
        assert_eq!(bounded("ab".to_owned(), 2), "ab");
    }
}
