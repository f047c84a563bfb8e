//! Cleans what leaves in events: known secrets, control and invisible characters, lengths. Pure.
//!
//! Never changes words of ours, and never makes an event that cannot be read back.

use std::str::FromStr;

use crate::message::outcome::ChangeRequestRef;
use crate::message::readable::readable;
use crate::message::{
    BranchName, ConnectionName, EventBody, ProjectKey, ProjectOutcome, ProjectPath, Question, SavedState,
    SessionOutcome,
};
use crate::secret::Mask;

/// Longest text of an event, in bytes.
pub(super) const LONGEST_TEXT: usize = 16 * 1024;
/// How much of a longer text is looked at.
const LONGEST_READ: usize = 64 * 1024;
/// Entries of a list that are kept.
const LONGEST_LIST: usize = 200;
/// What stands at the end of a text that was cut.
const CUT: &str = " [cut]";

/// Cleans, masks and bounds one text.
pub(super) fn text(text: &mut String, mask: &Mask) {
    let mut cleaned = readable(text);
    let mut was_cut = false;
    if cleaned.len() > LONGEST_READ {
        // Not through a secret: half of one would not be recognised.
        let end = cleaned.floor_char_boundary(LONGEST_READ);
        cleaned.truncate(mask.settled(&cleaned[..end]));
        was_cut = true;
    }
    let mut masked = mask.apply(&cleaned);
    if masked.len() > LONGEST_TEXT {
        masked.truncate(masked.floor_char_boundary(LONGEST_TEXT - CUT.len()));
        was_cut = true;
    }
    if was_cut {
        masked.push_str(CUT);
    }
    *text = masked;
}

/// Cleans every text of an event.
pub(super) fn body(body: &mut EventBody, mask: &Mask) {
    let text = |value: &mut String| text(value, mask);
    match body {
        EventBody::Rejected { code, message } | EventBody::Warning { code, message } => {
            text(code);
            text(message);
        }
        EventBody::Claimed { worker } => text(worker),
        EventBody::Stage { stage: _ } | EventBody::TurnStarted { turn: _ } => {}
        EventBody::Connected {
            connection,
            account,
            scopes,
            expires,
            capabilities: _,
        } => {
            name(connection, mask);
            text(account);
            scopes.truncate(LONGEST_LIST);
            scopes.iter_mut().for_each(text);
            expires.iter_mut().for_each(text);
        }
        EventBody::Granted { project, base, branch } => {
            key(project, mask);
            name(base, mask);
            name(branch, mask);
        }
        EventBody::Clone {
            project,
            phase,
            percent: _,
        } => {
            key(project, mask);
            text(phase);
        }
        EventBody::Cloned {
            project,
            directory,
            base: _,
        } => {
            key(project, mask);
            text(directory);
        }
        EventBody::AgentMessage { text: value } | EventBody::AgentThought { text: value } => text(value),
        EventBody::AgentTool {
            call,
            title,
            kind,
            status,
        } => [call, title, kind, status].into_iter().for_each(text),
        EventBody::AgentPlan { entries } => {
            entries.truncate(LONGEST_LIST);
            for entry in entries {
                text(&mut entry.text);
                text(&mut entry.status);
            }
        }
        EventBody::AgentPermission {
            title,
            answer,
            by: _,
            question,
        } => {
            text(title);
            text(answer);
            question.iter_mut().for_each(text);
        }
        EventBody::AgentUsage {
            input_tokens: _,
            output_tokens: _,
        } => {}
        EventBody::OutputDropped { what, bytes: _ } => text(what),
        EventBody::EgressRefused {
            host,
            port: _,
            rule,
            message,
        } => [host, rule, message].into_iter().for_each(text),
        EventBody::ModelUsage { model, .. } => text(model),
        EventBody::TurnEnded { turn: _, stop_reason } => text(stop_reason),
        EventBody::PushAccepted { project, head: _ } => key(project, mask),
        EventBody::PushRefused { project, message } => {
            key(project, mask);
            text(message);
        }
        EventBody::BranchPublished {
            project,
            branch,
            head: _,
        } => {
            key(project, mask);
            name(branch, mask);
        }
        EventBody::ChangeRequestOpened {
            project,
            change_request: request,
        }
        | EventBody::ChangeRequestUpdated {
            project,
            change_request: request,
        } => {
            key(project, mask);
            change_request(request, mask);
        }
        EventBody::NeedsAttention {
            project,
            reason: _,
            message,
            wait_s: _,
            default: _,
            question,
        } => {
            project.iter_mut().for_each(|project| key(project, mask));
            text(message);
            if let Some(Question { id, detail, options }) = question {
                text(id);
                text(detail);
                options.truncate(LONGEST_LIST);
                options.iter_mut().for_each(|option| text(&mut option.name));
            }
        }
        EventBody::Commented {
            project,
            on: _,
            number: _,
            url,
            text: said,
        } => {
            key(project, mask);
            url.iter_mut().for_each(text);
            text(said);
        }
        EventBody::ProjectFinished { outcome } => project_outcome(outcome, mask),
        EventBody::ControlReceived { in_reply_to, kind } => {
            text(in_reply_to);
            text(kind);
        }
        EventBody::Suspended {
            message,
            queued: _,
            projects,
            resume,
        } => {
            text(message);
            projects.iter_mut().for_each(|project| project_outcome(project, mask));
            for exchange in &mut resume.history {
                text(&mut exchange.prompt);
                text(&mut exchange.answer);
            }
            // Its name is ours and stays as it is. What the mask knows of the rest makes it useless.
            let is_hidden = |saved: &SavedState| {
                [saved.session.as_str(), &saved.directory]
                    .iter()
                    .any(|text| mask.apply(text) != **text)
            };
            if resume.saved.as_ref().is_some_and(is_hidden) {
                resume.saved = None;
            }
        }
        EventBody::ControlAnswered {
            in_reply_to,
            applied: _,
            message,
        } => {
            text(in_reply_to);
            text(message);
        }
        EventBody::Finished { outcome } => session_outcome(outcome, mask),
    }
}

fn session_outcome(outcome: &mut SessionOutcome, mask: &Mask) {
    let SessionOutcome {
        result: _,
        reason: _,
        message,
        projects,
        answer,
        duration_ms: _,
    } = outcome;
    text(message, mask);
    text(answer, mask);
    for project in projects {
        project_outcome(project, mask);
    }
}

fn project_outcome(outcome: &mut ProjectOutcome, mask: &Mask) {
    let ProjectOutcome {
        project,
        reason: _,
        message,
        branch,
        head: _,
        change_request: request,
        kept,
        patch,
    } = outcome;
    key(project, mask);
    text(message, mask);
    branch.iter_mut().for_each(|branch| name(branch, mask));
    request.iter_mut().for_each(|request| change_request(request, mask));
    kept.iter_mut().for_each(|kept| text(kept, mask));
    patch.iter_mut().for_each(|patch| text(patch, mask));
}

fn change_request(request: &mut ChangeRequestRef, mask: &Mask) {
    let ChangeRequestRef {
        word,
        number: _,
        url,
        draft: _,
    } = request;
    text(word, mask);
    text(url, mask);
}

fn key(project: &mut ProjectKey, mask: &Mask) {
    name(&mut project.connection, mask);
    name(&mut project.path, mask);
}

/// A name that must stay a name. Commit ids are left alone: they are hashes that git made.
trait Name: FromStr + AsRef<str> {
    /// A well-formed name that stands for a hidden one.
    const HIDDEN: &str;
}
impl Name for BranchName {
    const HIDDEN: &str = "masked";
}
impl Name for ConnectionName {
    const HIDDEN: &str = "masked";
}
impl Name for ProjectPath {
    const HIDDEN: &str = "masked/masked";
}

/// Replaces a name that contains a secret as a whole.
fn name<T: Name>(value: &mut T, mask: &Mask) {
    if mask.apply(value.as_ref()) != value.as_ref()
        && let Ok(hidden) = T::HIDDEN.parse()
    {
        *value = hidden;
    }
}

/// About how many bytes an event takes.
pub(super) fn size(body: &EventBody) -> usize {
    serde_json::to_vec(body).map_or(LONGEST_TEXT, |json| json.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::event::PlanEntry;
    use crate::secret::{MASKED, Secret};

    const TOKEN: &str = "glpat-0123456789";

    fn mask() -> Mask {
        Mask::new([&Secret::new(TOKEN)])
    }

    #[test]
    fn an_invisible_character_does_not_save_a_secret_from_the_mask() {
        let mut value = "glpat-\u{200b}01234\u{1b}56789".to_owned();
        text(&mut value, &mask());
        assert_eq!(value, MASKED);
    }

    #[test]
    fn long_texts_are_cut_and_not_through_a_secret() {
        let mut value = "x".repeat(LONGEST_READ - 5) + TOKEN;
        text(&mut value, &mask());
        assert!(value.len() <= LONGEST_TEXT && value.ends_with(CUT));
        // So many secrets that masking makes the text short enough to be shown whole.
        let mut value = TOKEN.repeat(LONGEST_READ / TOKEN.len() + 1);
        value.insert(0, 'x');
        text(&mut value, &mask());
        assert!(!value.contains("glpat"), "{}", &value[value.len() - 40..]);
    }

    #[test]
    fn nested_texts_and_names_are_masked_and_stay_readable() {
        let mut event = EventBody::AgentPlan {
            entries: vec![PlanEntry {
                text: format!("use {TOKEN}"),
                status: "pending".into(),
            }],
        };
        body(&mut event, &mask());
        assert!(!serde_json::to_string(&event).unwrap().contains(TOKEN));
        let mut event = EventBody::Granted {
            project: ProjectKey {
                connection: TOKEN.parse().unwrap(),
                path: format!("a/{TOKEN}").parse().unwrap(),
            },
            base: TOKEN.parse().unwrap(),
            branch: "cofferdam/x".parse().unwrap(),
        };
        body(&mut event, &mask());
        let json = serde_json::to_string(&event).unwrap();
        assert!(!json.contains(TOKEN) && json.contains("cofferdam/x"), "{json}");
        assert!(serde_json::from_str::<EventBody>(&json).is_ok());
    }
}
