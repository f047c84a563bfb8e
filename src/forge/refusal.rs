//! What a forge's refusal of a push means, from what git prints. Pure.
//!
//! Never guesses a reason: what no known words explain is `Other`, with the remote's own words.

use super::text::one_line;
use super::{github, gitlab};

/// Longest text of the remote that a sentence holds, in characters.
const LONGEST_TEXT: usize = 600;

/// Longest output that is looked at, in bytes.
const LONGEST_OUTPUT: usize = 256 * 1024;

/// Why a push was refused; each holds the remote's own words, bounded to one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushRefusal {
    /// The branch is protected.
    Protected(String),
    /// History would be rewritten where that is forbidden.
    ForcePush(String),
    /// A rule about commits, messages, names or files.
    PushRule(String),
    /// The forge found a secret in the commits.
    SecretFound(String),
    /// The token may not change CI workflow files.
    WorkflowScope(String),
    /// The token or its user may not push there.
    NotAllowed(String),
    /// Somebody else moved the branch meanwhile.
    Stale(String),
    /// Anything else.
    Other(String),
}

impl PushRefusal {
    /// One sentence for the user: what happened, what helps, and the remote's words.
    #[must_use]
    pub fn sentence(&self) -> String {
        let (meaning, text) = match self {
            Self::Protected(text) => (
                "the branch is protected: let the session use a branch that is not",
                text,
            ),
            Self::ForcePush(text) => ("the branch may not be rewritten: nothing was changed there", text),
            Self::PushRule(text) => ("a rule of the project does not accept these commits", text),
            Self::SecretFound(text) => (
                "the commits hold a secret: it must be removed from every one of them",
                text,
            ),
            Self::WorkflowScope(text) => (
                "the commits change CI workflow files, which the token may not: give it that scope or leave the files",
                text,
            ),
            Self::NotAllowed(text) => ("the token or its user may not push there", text),
            Self::Stale(text) => ("somebody else changed the branch meanwhile: it was left as it is", text),
            Self::Other(text) => ("the push was not accepted", text),
        };
        if text.is_empty() {
            format!("{meaning}.")
        } else {
            format!("{meaning}. The forge said: {text}")
        }
    }
}

/// The kinds of refusal that words can mark, most telling first: where several are marked, the first one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Marker {
    SecretFound,
    WorkflowScope,
    ForcePush,
    Protected,
    PushRule,
    NotAllowed,
    Stale,
}

/// git's own words. A hook that gives no known reason is a rule of the project.
const OWN_MARKERS: &[(Marker, &str)] = &[
    (Marker::ForcePush, "denying non-fast-forward"),
    (Marker::NotAllowed, "authentication failed for"),
    (Marker::NotAllowed, "could not read username"),
    (Marker::NotAllowed, "requested url returned error: 401"),
    (Marker::NotAllowed, "requested url returned error: 403"),
    (Marker::Stale, "(fetch first)"),
    (Marker::Stale, "(non-fast-forward)"),
    (Marker::Stale, "(stale info)"),
    (Marker::Stale, "incorrect old value provided"),
    (Marker::Stale, "remote ref updated since checkout"),
];

/// Reads what `git push` printed (its standard error and `--porcelain` lines alike).
#[must_use]
pub fn classify(stderr: &str) -> PushRefusal {
    let mut end = stderr.len().min(LONGEST_OUTPUT);
    while !stderr.is_char_boundary(end) {
        end -= 1;
    }
    let telling: Vec<&str> = stderr[..end].lines().filter_map(telling).collect();
    let text = words(&telling);
    let marked = telling.iter().filter_map(|line| marker_of(line)).min();
    match marked {
        Some(Marker::SecretFound) => PushRefusal::SecretFound(text),
        Some(Marker::WorkflowScope) => PushRefusal::WorkflowScope(text),
        Some(Marker::ForcePush) => PushRefusal::ForcePush(text),
        Some(Marker::Protected) => PushRefusal::Protected(text),
        Some(Marker::PushRule) => PushRefusal::PushRule(text),
        Some(Marker::NotAllowed) => PushRefusal::NotAllowed(text),
        Some(Marker::Stale) => PushRefusal::Stale(text),
        None if telling.iter().any(|line| line.ends_with("hook declined)")) => PushRefusal::PushRule(text),
        None => PushRefusal::Other(text),
    }
}

/// A line that the remote or git wrote to explain itself, without the part that every such line has.
fn telling(line: &str) -> Option<&str> {
    let line = line.trim();
    if let Some(said) = line.strip_prefix("remote:") {
        return Some(said.trim());
    }
    if let Some(said) = line.strip_prefix("fatal:") {
        return Some(said.trim());
    }
    // " ! [remote rejected] a -> b (why)" and "!\ta:b\t[remote rejected] (why)": names before the reason could say anything.
    let refused = line.starts_with('!').then(|| line.find('('))??;
    Some(&line[refused..])
}

fn marker_of(line: &str) -> Option<Marker> {
    let lower = line.to_ascii_lowercase();
    let moved = lower.contains("cannot lock ref") && lower.contains("but expected");
    let not_granted = lower.starts_with("permission to ") && lower.contains("denied to");
    let missing = lower.starts_with("repository '") && lower.ends_with("not found");
    [gitlab::PUSH_MARKERS, github::PUSH_MARKERS, OWN_MARKERS]
        .into_iter()
        .flatten()
        .filter(|(_, words)| lower.contains(words))
        .map(|(marker, _)| *marker)
        .chain(moved.then_some(Marker::Stale))
        .chain((not_granted || missing).then_some(Marker::NotAllowed))
        .min()
}

/// The words worth repeating: the remote's without rulers and help, else git's reasons.
fn words(telling: &[&str]) -> String {
    let plain: Vec<String> = telling
        .iter()
        .map(|line| line.trim_matches(|c: char| matches!(c, '=' | '—' | '─' | '-' | ' ')))
        .filter(|line| !line.is_empty() && !line.starts_with("(?) Learn") && !line.starts_with("https://docs."))
        .map(without_user)
        .collect();
    let mut kept: Vec<&str> = Vec::new();
    for line in plain.iter().map(String::as_str) {
        if !kept.contains(&line) {
            kept.push(line);
        }
    }
    one_line(&kept.join("; "), LONGEST_TEXT)
}

/// The line without user information in its addresses.
fn without_user(line: &str) -> String {
    let mut parts = line.split("://");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let authority = &part[..part.find(['/', ' ', '\'']).unwrap_or(part.len())];
        let host = authority.rfind('@').map_or(0, |at| at + 1);
        clean.push_str("://");
        clean.push_str(&part[host..]);
    }
    clean
}

#[cfg(test)]
mod tests;
