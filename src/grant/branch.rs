//! The name of a session's branch: from a pattern, the session and a title. Pure.
//!
//! A name never begins with a digit (GitLab would close issue 12 for `12-fix`) and never collides with a branch that exists as
//! directory or file (`a` and `a/b`).

use std::collections::BTreeSet;

use crate::message::{BranchName, SessionId};

/// Why no branch name could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BranchError {
    /// The pattern lacks `{session}`, so two sessions would share a branch.
    #[error("the branch pattern {0:?} must contain {{session}}, so that each session has its own branch")]
    NoSession(String),
    /// The pattern makes names that git or a forge would refuse.
    #[error("the branch pattern {0:?} makes {1:?}, which is not a safe branch name")]
    Unsafe(String, String),
    /// Every candidate collides with branches that exist.
    #[error("no branch name is free: the project has branches that collide with {0:?}")]
    NoneFree(String),
}

/// Longest slug made from a title.
const LONGEST_SLUG: usize = 40;

/// The branch of a session, given the branches that the forge has already.
///
/// # Errors
/// The pattern is unusable, or everything it makes collides.
pub fn branch_name(
    pattern: &str,
    session: SessionId,
    title: &str,
    existing: &BTreeSet<String>,
) -> Result<BranchName, BranchError> {
    if !pattern.contains("{session}") {
        return Err(BranchError::NoSession(pattern.to_owned()));
    }
    let filled = pattern
        .replace("{session}", &session.short())
        .replace("{title}", &slug(title));
    let first = parse_safe(pattern, &filled)?;
    // `a/b` cannot exist beside `a`, nor `a` beside `a/b`: flat names are tried next.
    let flat = filled.replace('/', "-");
    for candidate in [
        first,
        parse_safe(pattern, &flat)?,
        parse_safe(pattern, &format!("{flat}-session"))?,
    ] {
        if !collides(candidate.as_str(), existing) {
            return Ok(candidate);
        }
    }
    Err(BranchError::NoneFree(filled))
}

/// The branch that a session published before, whatever its title was then.
#[must_use]
pub fn begun(pattern: &str, session: SessionId, existing: &BTreeSet<String>) -> Option<BranchName> {
    let filled = pattern.replace("{session}", &session.short());
    let flat = filled.replace('/', "-");
    let longer = format!("{flat}-session");
    let fits = |name: &str, form: &str| match (form.split_once("{title}"), form.rsplit_once("{title}")) {
        (Some((before, _)), Some((_, after))) => {
            let slug = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            slug.is_some_and(|slug| !slug.is_empty() && !slug.contains('/'))
        }
        (_, _) => name == form,
    };
    [filled, flat, longer].iter().find_map(|form| {
        let found = existing.iter().find(|name| fits(name, form))?;
        found.parse().ok()
    })
}

fn parse_safe(pattern: &str, name: &str) -> Result<BranchName, BranchError> {
    let refused = || BranchError::Unsafe(pattern.to_owned(), name.to_owned());
    if name.starts_with(|c: char| c.is_ascii_digit()) || name.starts_with("refs/") {
        return Err(refused());
    }
    name.parse().map_err(|_| refused())
}

/// Whether a new branch of that name could not be made beside the existing ones. The same name does not collide: it is the session's
/// own branch from an earlier attempt, and who may move it is decided when it is published.
fn collides(name: &str, existing: &BTreeSet<String>) -> bool {
    let below = format!("{name}/");
    let mut parents = name.match_indices('/').map(|(end, _)| &name[..end]);
    parents.any(|parent| existing.contains(parent))
        || existing
            .range(below.clone()..)
            .next()
            .is_some_and(|other| other.starts_with(&below))
}

/// Lower-case ASCII words joined by dashes; "work" when the title has none.
#[must_use]
pub fn slug(title: &str) -> String {
    let mut out = String::new();
    for c in title.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
        if out.len() >= LONGEST_SLUG {
            break;
        }
    }
    let trimmed = out.trim_matches('-');
    if trimmed.is_empty() {
        "work".to_owned()
    } else {
        trimmed.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_of_the_session_is_found_under_another_title() {
        let pattern = "cofferdam/{title}-{session}";
        let short = session().short();
        let all = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
        let mine = format!("cofferdam/old-words-{short}");
        let others = ["main".to_owned(), "cofferdam/old-words-11111111".to_owned()];
        let found = begun(
            pattern,
            session(),
            &all(&[others.to_vec(), vec![mine.clone()]].concat()),
        );
        assert_eq!(found.map(|name| name.to_string()), Some(mine));
        assert_eq!(begun(pattern, session(), &all(&others)), None);
        assert_eq!(
            begun(
                pattern,
                session(),
                &all(&[format!("cofferdam/a/b-{short}"), format!("x{short}")])
            ),
            None
        );
        let flat = format!("cofferdam-work-{short}-session");
        let found = begun(pattern, session(), &all(std::slice::from_ref(&flat)));
        assert_eq!(found.map(|name| name.to_string()), Some(flat));
    }

    fn session() -> SessionId {
        "0190c2f0-7c1e-7000-8000-0000deadbeef".parse().unwrap()
    }

    fn name(pattern: &str, title: &str, existing: &[&str]) -> Result<String, BranchError> {
        branch_name(
            pattern,
            session(),
            title,
            &existing.iter().map(|s| (*s).to_owned()).collect(),
        )
        .map(|branch| branch.to_string())
    }

    #[test]
    fn is_made_of_title_and_session() {
        assert_eq!(
            name("cofferdam/{title}-{session}", "Fix: the Größe!", &[]).unwrap(),
            "cofferdam/fix-the-gr-e-deadbeef"
        );
        assert_eq!(
            name("cofferdam/{title}-{session}", "修复", &[]).unwrap(),
            "cofferdam/work-deadbeef"
        );
    }

    #[test]
    fn never_begins_with_a_digit_and_always_names_the_session() {
        assert!(matches!(
            name("{title}-{session}", "12 monkeys", &[]),
            Err(BranchError::Unsafe(..))
        ));
        assert!(matches!(
            name("cofferdam/{title}", "x", &[]),
            Err(BranchError::NoSession(_))
        ));
        assert!(matches!(name("-x{session}", "x", &[]), Err(BranchError::Unsafe(..))));
    }

    #[test]
    fn pitfall_05_steps_aside_when_a_and_a_slash_b_collide() {
        assert_eq!(
            name("bot/{title}-{session}", "fix", &["bot"]).unwrap(),
            "bot-fix-deadbeef"
        );
        assert_eq!(
            name("bot/{title}-{session}", "fix", &["bot/fix-deadbeef/x"]).unwrap(),
            "bot-fix-deadbeef"
        );
        assert_eq!(
            name("bot/{title}-{session}", "fix", &["bot/fix-deadbeef"]).unwrap(),
            "bot/fix-deadbeef"
        );
        assert_eq!(
            name("bot-{session}", "fix", &["bot-deadbeef/y"]).unwrap(),
            "bot-deadbeef-session"
        );
    }
}
