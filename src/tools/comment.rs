//! What both ways to speak in the user's name have in common: who may, what is taken out of the text, and that the user is told.
//!
//! Never says anything twice: a comment whose fate is unknown is not repeated.

use schemars::JsonSchema;
use serde::Serialize;

use super::arguments::refused;
use super::error::ToolError;
use super::reach::{Act, ForgeProject};
use super::{LONGEST_ARGUMENT, Tools};
use crate::grant::{ProjectGrant, neutral};
use crate::message::EventBody;
use crate::message::event::CommentedOn;
use crate::message::readable::readable;

/// Longest text that both forges take, in UTF-16 units: taming makes a text longer.
const LONGEST_BODY: usize = 65_000;

/// What stands under each comment: it bears a person's name and was not written by one.
const SIGNED: &str = "_Written by a coding agent in a cofferdam session._";

/// What a tool that spoke answers.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Posted {
    /// The project.
    project: String,
    /// The number of what was commented on.
    number: u64,
    /// The forge's id of the new note.
    note_id: String,
    /// How many more comments this session may make.
    comments_left: u32,
}

/// What is to be said, and about what.
pub(super) struct Comment {
    pub(super) on: CommentedOn,
    pub(super) number: u64,
    /// The discussion that it answers.
    pub(super) discussion: Option<String>,
    /// Where people look at what it is about.
    pub(super) url: String,
    pub(super) text: String,
}

impl Tools {
    /// The project, if the agent may speak there: the task first, then the token.
    pub(super) fn may_comment(&self, named: Option<&str>) -> Result<(ProjectGrant, ForgeProject), ToolError> {
        if !self.granted.now().may_comment {
            return Err(ToolError::MayNotComment);
        }
        self.reach(named, Act::Comment)
    }

    /// The text without its teeth: what a model wrote mentions nobody, closes nothing and commands nothing. One with a credential is refused.
    pub(super) fn comment_body(&self, said: &str) -> Result<String, ToolError> {
        if said.len() > LONGEST_ARGUMENT {
            return refused("body", "may have at most 32 KiB: shorten it".to_owned());
        }
        self.without_secrets("body", said)?;
        let body = neutral::text(said);
        // What was hidden between its characters is gone now.
        self.without_secrets("body", &body)?;
        if body.trim().is_empty() {
            return refused("body", "must say something".to_owned());
        }
        if body.encode_utf16().count() > LONGEST_BODY {
            return refused(
                "body",
                "is too long with so many mentions and references: shorten it".to_owned(),
            );
        }
        Ok(format!("{}\n\n{SIGNED}", body.trim_end()))
    }

    /// Says it, tells the user what was said in their name, then the agent that it was said. Goes on when the agent hangs up in the middle:
    /// nothing is said that the user is not told.
    pub(super) async fn speak(
        &self,
        project: &ProjectGrant,
        at: &ForgeProject,
        comment: Comment,
    ) -> Result<Posted, ToolError> {
        if !(self.reach.may_act)() {
            return Err(ToolError::NotNow);
        }
        let comments_left = self.budget.comment()?;
        let (key, at, tell) = (project.key.clone(), at.clone(), self.reach.tell.clone());
        let speaking = self.reach.speaking.spawn(async move {
            let Comment {
                on,
                number,
                discussion,
                url,
                text,
            } = comment;
            let said = match on {
                CommentedOn::ChangeRequest => at.forge.reply(&at.facts, number, discussion.as_deref(), &text).await,
                CommentedOn::Issue => at.forge.comment_on_issue(&at.facts, number, &text).await,
            };
            let project = key.to_string();
            let note = match said.map_err(ToolError::of_comment) {
                Ok(note) => note,
                Err(error) => {
                    if matches!(error, ToolError::CommentUnknown(_)) {
                        let message = format!(
                            "the agent commented on {} {number} of {project}, and nobody knows whether it arrived: {text}",
                            on.as_str()
                        );
                        let code = "comment_unknown".to_owned();
                        tell(EventBody::Warning { code, message }).await;
                    }
                    return Err(error);
                }
            };
            let url = Some(url).filter(|url| !url.is_empty());
            tell(EventBody::Commented {
                project: key,
                on,
                number,
                url,
                text,
            })
            .await;
            Ok(Posted {
                project,
                number,
                note_id: readable(&note.id),
                comments_left,
            })
        });
        speaking.await.map_err(|_| ToolError::Interrupted)?
    }
}
