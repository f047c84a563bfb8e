//! The text of a change request: title, *Changes*, *Approach*, *Trade-offs*, how it was checked, sister change requests, the session. Pure.
//!
//! All that a model wrote goes through [`crate::grant::neutral`]. No section is ever empty: what the agent did not say is written from the branch.

use crate::agent::sections::Sections;
use crate::gateway::egress::Counted;
use crate::grant::neutral;
use crate::message::{ProjectKey, SessionId};

/// Longest description. GitHub's limit is 65,536 characters; this leaves room for what is added later.
const LONGEST: usize = 60_000;
/// Longest text of one section, in bytes.
const LONGEST_SECTION: usize = 14_000;
/// Most commits and files that are listed.
const MOST_LISTED: usize = 30;
/// Longest title, in characters.
const LONGEST_TITLE: usize = 120;

/// What is known of the branch from git.
#[derive(Debug, Clone, Default)]
pub struct Branch {
    /// Subject and body of each commit, oldest first.
    pub commits: Vec<(String, String)>,
    /// Path, lines added and lines deleted of each file.
    pub files: Vec<(String, u64, u64)>,
    /// Whether there is more than is listed.
    pub truncated: bool,
    /// What a reviewer is to look at first, one sentence each, harmless already.
    pub warnings: Vec<String>,
}

/// A change request of the same session on another project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sister {
    /// Which project.
    pub project: ProjectKey,
    /// "merge request" or "pull request".
    pub word: &'static str,
    /// Its address.
    pub url: String,
}

/// Everything that a text is made of.
#[derive(Debug, Clone)]
pub struct Parts<'a> {
    /// The session.
    pub session: SessionId,
    /// The sections that the agent wrote; empty ones are filled from the branch.
    pub sections: &'a Sections,
    /// The branch as git sees it.
    pub branch: &'a Branch,
    /// The agent's name.
    pub agent: &'a str,
    /// The user's name.
    pub user: &'a str,
    /// The other change requests of the session.
    pub sisters: &'a [Sister],
    /// The ways out that were refused, and how many more there were.
    pub unreached: &'a (Vec<Counted>, u64),
    /// Whether the branch may hold more than the sections tell of: then its commits are listed as well.
    pub is_whole: bool,
}

/// What the agent said in all its turns, oldest first, as the sections of one text. Where that is too long the oldest go.
#[must_use]
pub fn whole(turns: &[Sections]) -> Sections {
    let joined = |of: fn(&Sections) -> &str| {
        let mut kept: Vec<&str> = Vec::new();
        let mut length = 0;
        for text in turns
            .iter()
            .rev()
            .map(|turn| of(turn).trim())
            .filter(|text| !text.is_empty())
        {
            length += text.len() + 2;
            if kept.contains(&text) {
                continue;
            }
            if length > LONGEST_SECTION && !kept.is_empty() {
                break;
            }
            kept.push(text);
        }
        kept.reverse();
        kept.join("\n\n")
    };
    Sections {
        changes: joined(|turn| &turn.changes),
        approach: joined(|turn| &turn.approach),
        trade_offs: joined(|turn| &turn.trade_offs),
        checked: joined(|turn| &turn.checked),
    }
}

/// The title.
#[must_use]
pub fn title(wanted: &str, branch: &Branch) -> String {
    let first = if wanted.trim().is_empty() {
        branch
            .commits
            .last()
            .map_or("Changes of a coding session", |(subject, _)| subject.as_str())
    } else {
        wanted
    };
    let title = neutral::title(first, LONGEST_TITLE);
    if title.is_empty() {
        "Changes of a coding session".to_owned()
    } else {
        title
    }
}

/// The description.
#[must_use]
pub fn description(parts: &Parts<'_>) -> String {
    let Parts { sections, branch, .. } = parts;
    let said = |text: &str, fallback: String| {
        if text.trim().is_empty() {
            fallback
        } else {
            bounded(&neutral::text(text), LONGEST_SECTION)
        }
    };
    let mut text = String::new();
    let mut section = |name: &str, body: String| {
        text.push_str(&format!("## {name}\n\n{}\n\n", body.trim_end()));
    };
    if !branch.warnings.is_empty() {
        let list: Vec<String> = branch.warnings.iter().map(|warning| format!("- {warning}")).collect();
        section(
            "Look at this before you merge",
            bounded(&list.join("\n"), LONGEST_SECTION),
        );
    }
    let mut changes = said(&sections.changes, changes_from(branch));
    if parts.is_whole && !sections.changes.trim().is_empty() {
        changes = format!(
            "{}\n\nThe whole branch:\n\n{}",
            changes.trim_end(),
            changes_from(branch)
        );
    }
    section("Changes", changes);
    section("Approach", said(&sections.approach, approach_from(branch)));
    section("Trade-offs", said(&sections.trade_offs, trade_offs_from(branch)));
    section(
        "How it was checked",
        said(
            &sections.checked,
            "The agent reported no checks; the pipeline of this project decides.".to_owned(),
        ),
    );
    if !parts.sisters.is_empty() {
        let list: Vec<String> = parts
            .sisters
            .iter()
            .map(|sister| {
                let address = neutral::address(&sister.url).unwrap_or_default();
                format!("- {} in {}: {address}", sister.word, sister.project.path)
            })
            .collect();
        section("Belongs together with", list.join("\n"));
    }
    if !parts.unreached.0.is_empty() {
        section("Refused network access", unreached(parts.unreached));
    }
    let closing = format!(
        "---\nWritten by {} for {} in a cofferdam session. The agent's text above was not edited by a person.\nCofferdam-Session: {}\n",
        neutral::line(parts.agent, 80),
        neutral::line(parts.user, 80),
        parts.session
    );
    format!("{}\n\n{closing}", bounded(text.trim_end(), LONGEST - closing.len() - 2))
}

/// What the agent tried to reach: a reviewer should know, and may wonder why.
fn unreached((each, beyond): &(Vec<Counted>, u64)) -> String {
    let mut lines = vec!["The sandbox asked for these hosts and did not reach them:".to_owned()];
    for one in each.iter().take(MOST_LISTED) {
        let times = if one.times == 1 {
            "once".to_owned()
        } else {
            format!("{} times", one.times)
        };
        let port = if one.port == 0 {
            String::new()
        } else {
            format!(" port {}", one.port)
        };
        lines.push(format!(
            "- {}{port}, {times} ({})",
            neutral::code(&one.host),
            one.rule.as_str()
        ));
    }
    let unlisted: u64 = each.iter().skip(MOST_LISTED).map(|one| one.times).sum();
    let more = beyond.saturating_add(unlisted);
    if more > 0 {
        lines.push(format!("- and {more} more"));
    }
    lines.join("\n")
}

fn changes_from(branch: &Branch) -> String {
    let mut lines: Vec<String> = branch
        .commits
        .iter()
        .take(MOST_LISTED)
        .map(|(subject, _)| format!("- {}", neutral::line(subject, 200)))
        .collect();
    let (added, deleted) = branch.files.iter().fold((0_u64, 0_u64), |(a, d), (_, added, deleted)| {
        (a.saturating_add(*added), d.saturating_add(*deleted))
    });
    lines.push(format!(
        "\n{} changed, {added} lines added, {deleted} deleted:",
        count(branch.files.len(), "file")
    ));
    for (path, added, deleted) in branch.files.iter().take(MOST_LISTED) {
        lines.push(format!("- {} (+{added} -{deleted})", neutral::code(path)));
    }
    if branch.truncated || branch.files.len() > MOST_LISTED || branch.commits.len() > MOST_LISTED {
        lines.push("- and more: this list is not complete".to_owned());
    }
    lines.join("\n")
}

fn approach_from(branch: &Branch) -> String {
    let bodies: Vec<String> = branch
        .commits
        .iter()
        .filter(|(_, body)| !body.trim().is_empty())
        .take(MOST_LISTED)
        // Apart: behind a subject a fence would be none, and what it holds would be live; and "Closes" would meet what it closes.
        .map(|(subject, body)| format!("{}:\n\n{}", neutral::line(subject, 200), neutral::text(body)))
        .collect();
    if bodies.is_empty() {
        format!(
            "The agent described no approach. The branch has {}; their messages are listed above.",
            count(branch.commits.len(), "commit")
        )
    } else {
        bounded(&bodies.join("\n\n"), LONGEST_SECTION)
    }
}

fn trade_offs_from(branch: &Branch) -> String {
    let tests = branch.files.iter().any(|(path, _, _)| {
        let path = path.to_ascii_lowercase();
        path.contains("test") || path.contains("spec")
    });
    let mut lines = vec!["The agent named none. Worth a reviewer's look:".to_owned()];
    lines.push(if tests {
        "- tests are among the changed files".to_owned()
    } else {
        "- no test is among the changed files".to_owned()
    });
    if let Some((path, added, deleted)) = branch
        .files
        .iter()
        .max_by_key(|(_, added, deleted)| added.saturating_add(*deleted))
    {
        lines.push(format!(
            "- most of the change is in {} ({} lines)",
            neutral::code(path),
            added.saturating_add(*deleted)
        ));
    }
    lines.join("\n")
}

fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Cut at a line's end, with a note, when it is too long.
fn bounded(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let note = "\n\n(cut: the text was longer)";
    let mut end = longest.saturating_sub(note.len() + neutral::LONGEST_FENCE + 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let end = text[..end].rfind('\n').unwrap_or(end);
    let kept = &text[..end];
    // A fence that the cut left open would swallow what follows.
    let closing = neutral::open_fence(kept).map_or_else(String::new, |ticks| format!("\n{}", "`".repeat(ticks)));
    format!("{kept}{closing}{note}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts<'a>(sections: &'a Sections, branch: &'a Branch, sisters: &'a [Sister]) -> Parts<'a> {
        Parts {
            session: "0190c2f0-7c1e-7000-8000-000000000001".parse().unwrap(),
            sections,
            branch,
            agent: "opencode",
            user: "Ada Example",
            sisters,
            unreached: const { &(Vec::new(), 0) },
            is_whole: false,
        }
    }

    fn branch() -> Branch {
        Branch {
            commits: vec![("Add greeting".into(), "It was missing.".into())],
            files: vec![("src/hello.rs".into(), 3, 1)],
            truncated: false,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn the_agents_sections_and_the_sister_are_there() {
        let sections = Sections {
            changes: "A".into(),
            approach: "B".into(),
            trade_offs: "C".into(),
            checked: "D".into(),
        };
        let sisters = [Sister {
            project: crate::message::ProjectKey {
                connection: "hub".parse().unwrap(),
                path: "acme/site".parse().unwrap(),
            },
            word: "pull request",
            url: "https://hub/acme/site/pull/1".into(),
        }];
        insta::assert_snapshot!(description(&parts(&sections, &branch(), &sisters)), @"
        ## Changes

        A

        ## Approach

        B

        ## Trade-offs

        C

        ## How it was checked

        D

        ## Belongs together with

        - pull request in acme/site: https://hub/acme/site/pull/1

        ---
        Written by opencode for Ada Example in a cofferdam session. The agent's text above was not edited by a person.
        Cofferdam-Session: 0190c2f0-7c1e-7000-8000-000000000001
        ");
    }

    #[test]
    fn a_conversation_tells_of_all_its_turns_and_of_the_whole_branch() {
        let turn = |changes: &str, checked: &str| Sections {
            changes: changes.into(),
            checked: checked.into(),
            ..Sections::default()
        };
        let turns = [
            turn("first", "tests"),
            turn("", ""),
            turn("second", "tests"),
            turn("second", ""),
        ];
        let sections = whole(&turns);
        assert_eq!(
            (sections.changes.as_str(), sections.checked.as_str()),
            ("first\n\nsecond", "tests")
        );
        let (branch, sisters) = (branch(), []);
        let text = description(&Parts {
            is_whole: true,
            ..parts(&sections, &branch, &sisters)
        });
        assert!(text.contains("second\n\nThe whole branch:\n\n- Add greeting"), "{text}");
        let long = [turn(&"a".repeat(LONGEST_SECTION), ""), turn("last", "")];
        assert_eq!(whole(&long).changes, "last");
    }

    #[test]
    fn no_section_is_empty_without_the_agent() {
        insta::assert_snapshot!(description(&parts(&Sections::default(), &branch(), &[])), @"
        ## Changes

        - Add greeting

        1 file changed, 3 lines added, 1 deleted:
        - `src/hello.rs` (+3 -1)

        ## Approach

        Add greeting:

        It was missing.

        ## Trade-offs

        The agent named none. Worth a reviewer's look:
        - no test is among the changed files
        - most of the change is in `src/hello.rs` (4 lines)

        ## How it was checked

        The agent reported no checks; the pipeline of this project decides.

        ---
        Written by opencode for Ada Example in a cofferdam session. The agent's text above was not edited by a person.
        Cofferdam-Session: 0190c2f0-7c1e-7000-8000-000000000001
        ");
    }

    #[test]
    fn what_a_reviewer_must_know_comes_first() {
        let mut branch = branch();
        branch.warnings = vec!["It changes `x`.".into(), "It changes `y`.".into()];
        let text = description(&parts(&Sections::default(), &branch, &[]));
        assert!(
            text.starts_with(
                "## Look at this before you merge\n\n- It changes `x`.\n- It changes `y`.\n\n## Changes\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_long_text_is_cut_and_still_names_the_session() {
        let long = Sections {
            changes: "word @all\n".repeat(40_000),
            ..Sections::default()
        };
        let text = description(&parts(&long, &branch(), &[]));
        assert!(text.encode_utf16().count() <= 65_536 && text.len() <= LONGEST);
        assert!(text.contains("(cut: the text was longer)") && text.contains("Cofferdam-Session: 0190c2f0"));
        assert!(text.contains("## Trade-offs") && !text.contains("@all"));
    }

    /// Found by fuzzing.
    #[test]
    fn a_cut_closes_the_fence_that_is_open_and_a_body_s_fence_stands_at_the_margin() {
        let long = Sections {
            changes: format!("````\n```\n{}", "word\n".repeat(4_000)),
            ..Sections::default()
        };
        let text = description(&parts(&long, &branch(), &[]));
        assert!(text.contains("word\n````\n\n(cut: the text was longer)"), "{text:.100}");
        let branch = Branch {
            commits: vec![("Add it".into(), "```\n\n@all\n```".into())],
            files: vec![("a".into(), u64::MAX, u64::MAX)],
            truncated: false,
            ..Branch::default()
        };
        let text = description(&parts(&Sections::default(), &branch, &[]));
        assert!(text.contains("Add it:\n\n```\n\n@all\n```"), "{text}");
    }

    #[test]
    fn refused_hosts_are_listed_as_harmless_text() {
        let one = |host: &str, times| Counted {
            host: host.to_owned(),
            port: 443,
            rule: crate::grant::egress::Rule::Host,
            times,
        };
        let mut each = vec![one("pkgs.example", 3), one("a`b@all[x](http://y)\n# z", 1)];
        each.extend((0..40).map(|n| one(&format!("h{n}.example"), 2)));
        let sections = Sections::default();
        let branch = branch();
        let text = description(&Parts {
            unreached: &(each, 5),
            ..parts(&sections, &branch, &[])
        });
        assert!(text.contains("## Refused network access"), "{text}");
        assert!(text.contains("- `pkgs.example` port 443, 3 times (host)"), "{text}");
        assert!(
            text.contains("- and 29 more") && text.lines().all(|line| line != "# z"),
            "{text}"
        );
        assert!(!description(&parts(&sections, &branch, &[])).contains("Refused network"));
    }

    #[test]
    fn a_title_is_never_empty() {
        assert_eq!(title("  ", &branch()), "Add greeting");
        assert_eq!(title("", &Branch::default()), "Changes of a coding session");
    }
}
