//! Finds the sections that reviewers need in an agent's answer. Pure, and lenient about headings.
//!
//! Never invents one: what the agent did not write stays empty here and is written from git elsewhere.

/// The sections of a change request's text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sections {
    /// What changed.
    pub changes: String,
    /// How and why that way.
    pub approach: String,
    /// What it costs and what was left.
    pub trade_offs: String,
    /// How it was checked.
    pub checked: String,
}

/// Reads the sections from an answer. The last section of each name wins: agents repeat themselves while they work.
#[must_use]
pub fn read(answer: &str) -> Sections {
    let mut sections = Sections::default();
    let mut current: Option<(Name, String)> = None;
    let mut fenced = false;
    for line in answer.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        match (fenced, heading(line)) {
            (false, Some(name)) => {
                store(&mut sections, current.take());
                current = name.map(|name| (name, String::new()));
            }
            (_, _) => {
                if let Some((_, text)) = &mut current {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
    }
    store(&mut sections, current);
    sections
}

#[derive(Debug, Clone, Copy)]
enum Name {
    Changes,
    Approach,
    TradeOffs,
    Checked,
}

/// `Some(None)` is a heading of another name, which ends a section.
fn heading(line: &str) -> Option<Option<Name>> {
    let text = line.trim();
    let marked = text.starts_with('#') || (text.starts_with("**") && text.ends_with("**"));
    if !marked {
        return None;
    }
    let word: String = text
        .chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    Some(match word.as_str() {
        "changes" => Some(Name::Changes),
        "approach" => Some(Name::Approach),
        "tradeoffs" => Some(Name::TradeOffs),
        "checked" | "checks" | "verification" | "testing" => Some(Name::Checked),
        _ => None,
    })
}

fn store(sections: &mut Sections, found: Option<(Name, String)>) {
    let Some((name, text)) = found else { return };
    let text = text.trim();
    if text.is_empty() {
        return;
    }
    let slot = match name {
        Name::Changes => &mut sections.changes,
        Name::Approach => &mut sections.approach,
        Name::TradeOffs => &mut sections.trade_offs,
        Name::Checked => &mut sections.checked,
    };
    text.clone_into(slot);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_sections_under_usual_headings() {
        let got = read(
            "I did it.\n\n## Changes\nA\n\n### Trade-offs\nB\nC\n**Approach**\nD\n## Summary\nnot this\n## Checked\ncargo test",
        );
        assert_eq!(got.changes, "A");
        assert_eq!(got.trade_offs, "B\nC");
        assert_eq!(got.approach, "D");
        assert_eq!(got.checked, "cargo test");
    }

    #[test]
    fn the_last_one_wins_and_fences_are_no_headings() {
        assert_eq!(
            read("## Changes\nold\n## Changes\nnew\n```\n## Approach\n```").changes,
            "new\n```\n## Approach\n```"
        );
        assert_eq!(read("nothing here"), Sections::default());
        assert_eq!(read("## Changes\n   \n"), Sections::default());
    }
}
