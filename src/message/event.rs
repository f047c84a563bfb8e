//! Events: CloudEvents 1.0 in structured JSON, one per thing that happened, `seq` strictly increasing within an attempt.
//!
//! Pure values and their encoding. Masking of secrets and publishing are the progress room's work.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::attention::{Attention, DecidedBy, Otherwise, Question};
use super::capability::Capabilities;
use super::id::{BranchName, CommitId, ConnectionName, ProjectKey, SessionId};
use super::outcome::{ChangeRequestRef, ProjectOutcome, Reason, SessionOutcome};
use super::resume::Resume;
use super::trace::TraceParent;

/// The prefix of every event's CloudEvents type.
pub const TYPE_PREFIX: &str = "dev.cofferdam.session.";

/// One event as it travels.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// CloudEvents version; "1.0".
    pub specversion: String,
    /// Unique: `<session>/<attempt>/<seq>`.
    pub id: String,
    /// The worker, as `/cofferdam/workers/<name>`.
    pub source: String,
    /// `dev.cofferdam.session.<kind>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The session's id.
    pub subject: String,
    /// When it happened, RFC 3339 in UTC.
    pub time: String,
    /// Always `application/json`.
    pub datacontenttype: String,
    /// What happened.
    pub data: EventData,
    /// Its trace, in the message's headers and not in its body.
    #[serde(skip)]
    pub trace: Option<TraceParent>,
}

/// The data of an event: where it stands in the session, and what happened.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct EventData {
    /// The session.
    pub session: SessionId,
    /// Which attempt at the session, from 1.
    #[schemars(range(min = 1))]
    pub attempt: u32,
    /// Position within the attempt, from 1. Consumers drop what they have seen and ignore older attempts.
    pub seq: u64,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventBody {
    /// A message that asked for a session was refused. Terminal.
    Rejected {
        /// A stable word.
        code: String,
        /// What the sender must change.
        message: String,
    },
    /// A worker owns the session now.
    Claimed {
        /// The worker's name.
        worker: String,
    },
    /// The session entered a stage.
    Stage {
        /// Which one.
        stage: Stage,
    },
    /// What a token is and may do, as the forge answered.
    Connected {
        /// The connection.
        connection: ConnectionName,
        /// The account's name on the forge.
        account: String,
        /// What the token's scopes are called there.
        scopes: Vec<String>,
        /// The day it ends, where the forge says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<String>,
        /// What the token may do.
        capabilities: Capabilities,
    },
    /// A project is part of the grant.
    Granted {
        /// Which project.
        project: ProjectKey,
        /// The branch that it starts from.
        base: BranchName,
        /// The branch that the session will publish.
        branch: BranchName,
    },
    /// Progress of a clone inside the sandbox; may be dropped.
    Clone {
        /// Which project.
        project: ProjectKey,
        /// What git says it does.
        phase: String,
        /// How far, 0 to 100.
        percent: u8,
    },
    /// A project stands in the workspace.
    Cloned {
        /// Which project.
        project: ProjectKey,
        /// Where, in the sandbox.
        directory: String,
        /// The commit that the session starts from.
        base: CommitId,
    },
    /// A prompt was given to the agent.
    TurnStarted {
        /// From 1.
        turn: u32,
    },
    /// The agent said something; chunks are joined, may be dropped.
    AgentMessage {
        /// The text.
        text: String,
    },
    /// The agent thought aloud; may be dropped.
    AgentThought {
        /// The text.
        text: String,
    },
    /// A tool call of the agent began or changed; may be dropped.
    AgentTool {
        /// The agent's id of the call.
        call: String,
        /// What the agent calls it.
        title: String,
        /// read, edit, delete, move, search, execute, think, fetch, `switch_mode` or other.
        kind: String,
        /// pending, `in_progress`, completed or failed.
        status: String,
    },
    /// The agent's plan, whole each time; may be dropped.
    AgentPlan {
        /// Its entries in order.
        entries: Vec<PlanEntry>,
    },
    /// The agent asked for leave and was answered.
    AgentPermission {
        /// What for.
        title: String,
        /// The kind of option chosen, or `cancelled`.
        answer: String,
        /// Who decided.
        #[serde(default)]
        by: DecidedBy,
        /// The question that people were asked, where they were.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        question: Option<String>,
    },
    /// Tokens that the agent says it used in this turn.
    AgentUsage {
        /// Tokens read.
        input_tokens: u64,
        /// Tokens written.
        output_tokens: u64,
    },
    /// Output was cut because there was too much of it.
    OutputDropped {
        /// What was cut.
        what: String,
        /// How many bytes are gone.
        bytes: u64,
    },
    /// A way out of the sandbox was refused. Repetitions are counted, not told each.
    EgressRefused {
        /// The host that was asked for, as harmless text.
        host: String,
        /// The port.
        port: u16,
        /// The stable word of the rule that refused it.
        rule: String,
        /// What would be allowed, or what to do.
        message: String,
    },
    /// What the session used of a model so far, as counted by the worker.
    ModelUsage {
        /// The endpoint's name.
        model: String,
        /// Answered requests.
        requests: u64,
        /// Bytes sent to the model.
        request_bytes: u64,
        /// Bytes received from it.
        answer_bytes: u64,
        /// Tokens read, as the answers say.
        input_tokens: u64,
        /// Tokens written, as the answers say.
        output_tokens: u64,
    },
    /// A turn is over.
    TurnEnded {
        /// From 1.
        turn: u32,
        /// The agent's word for why it stopped. Not a verdict: git decides.
        stop_reason: String,
    },
    /// The agent's push was accepted into staging.
    PushAccepted {
        /// Which project.
        project: ProjectKey,
        /// The branch's new head.
        head: CommitId,
    },
    /// The agent's push was refused by staging.
    PushRefused {
        /// Which project.
        project: ProjectKey,
        /// What the agent was told.
        message: String,
    },
    /// A branch is on the forge, and the forge's head equals the expected commit.
    BranchPublished {
        /// Which project.
        project: ProjectKey,
        /// The branch.
        branch: BranchName,
        /// Its head.
        head: CommitId,
    },
    /// A change request was opened.
    ChangeRequestOpened {
        /// Which project.
        project: ProjectKey,
        /// Which one.
        change_request: ChangeRequestRef,
    },
    /// A change request that existed was brought up to date.
    ChangeRequestUpdated {
        /// Which project.
        project: ProjectKey,
        /// Which one.
        change_request: ChangeRequestRef,
    },
    /// The session waits for somebody: for a fresh credential, a word on what a project's work changes, or an answer to a question of the agent.
    NeedsAttention {
        /// Which project's work waits; none for a question of the agent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        project: Option<ProjectKey>,
        /// Why.
        reason: Attention,
        /// What happened and what to do.
        message: String,
        /// For how long the session waits, in seconds.
        wait_s: u64,
        /// What follows when nobody answers by then.
        #[serde(default)]
        default: Otherwise,
        /// The agent's question, with its answers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        question: Option<Question>,
    },
    /// The agent said something on the forge in the name of the token's user.
    Commented {
        /// Which project.
        project: ProjectKey,
        /// What it was said about.
        on: CommentedOn,
        /// Its number.
        number: u64,
        /// Its address, where the forge told it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
        /// What was said.
        text: String,
    },
    /// A project is done.
    ProjectFinished {
        /// How it ended.
        outcome: ProjectOutcome,
    },
    /// Something that a user should know and that stops nothing.
    Warning {
        /// A stable word.
        code: String,
        /// The sentence.
        message: String,
    },
    /// A control message arrived. `control_answered` with the same `in_reply_to` follows when it was applied or refused.
    ControlReceived {
        /// The sender's id of the message.
        in_reply_to: String,
        /// Its kind.
        kind: String,
    },
    /// A control message was applied or refused.
    ControlAnswered {
        /// The sender's id of the message.
        in_reply_to: String,
        /// Whether it was applied.
        applied: bool,
        /// Why not, or what it did.
        message: String,
    },
    /// The session gave its slot back: its work is published or kept, its sandbox is gone. Ends the attempt, not the session.
    Suspended {
        /// Why, for people.
        message: String,
        /// Whether the worker queued the task that goes on with it. Otherwise whoever sends the next prompt does.
        queued: bool,
        /// How each project stands.
        projects: Vec<ProjectOutcome>,
        /// What such a task gives in its `resume`, unchanged.
        resume: Resume,
    },
    /// The session is over. Terminal; nothing follows it.
    Finished {
        /// How it ended.
        outcome: SessionOutcome,
    },
}

/// What a comment is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommentedOn {
    /// A change request.
    ChangeRequest,
    /// An issue.
    Issue,
}

/// A step of the agent's plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanEntry {
    /// The step.
    pub text: String,
    /// pending, `in_progress` or completed.
    pub status: String,
}

/// Where on the straight path a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Tokens and projects are checked.
    Grant,
    /// The worker's copies are refreshed.
    Mirror,
    /// The container starts.
    Sandbox,
    /// Projects are cloned inside.
    Clone,
    /// The set-up script runs, in a sandbox of its own.
    SetUp,
    /// The agent works.
    Turn,
    /// Branches and change requests go to the forge.
    Publish,
    /// The sandbox is removed.
    Cleanup,
}

impl Stage {
    /// All stages in order.
    pub const ALL: [Stage; 8] = [
        Self::Grant,
        Self::Mirror,
        Self::Sandbox,
        Self::Clone,
        Self::SetUp,
        Self::Turn,
        Self::Publish,
        Self::Cleanup,
    ];

    /// The stable word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Mirror => "mirror",
            Self::Sandbox => "sandbox",
            Self::Clone => "clone",
            Self::SetUp => "set_up",
            Self::Turn => "turn",
            Self::Publish => "publish",
            Self::Cleanup => "cleanup",
        }
    }
}

impl CommentedOn {
    /// The words that people are shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ChangeRequest => "change request",
            Self::Issue => "issue",
        }
    }
}

impl EventBody {
    /// The kind's word: the end of the CloudEvents type and of the routing key.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Rejected { .. } => "rejected",
            Self::Claimed { .. } => "claimed",
            Self::Stage { .. } => "stage",
            Self::Connected { .. } => "connected",
            Self::Granted { .. } => "granted",
            Self::Clone { .. } => "clone",
            Self::Cloned { .. } => "cloned",
            Self::TurnStarted { .. } => "turn_started",
            Self::AgentMessage { .. } => "agent_message",
            Self::AgentThought { .. } => "agent_thought",
            Self::AgentTool { .. } => "agent_tool",
            Self::AgentPlan { .. } => "agent_plan",
            Self::AgentPermission { .. } => "agent_permission",
            Self::AgentUsage { .. } => "agent_usage",
            Self::OutputDropped { .. } => "output_dropped",
            Self::EgressRefused { .. } => "egress_refused",
            Self::ModelUsage { .. } => "model_usage",
            Self::TurnEnded { .. } => "turn_ended",
            Self::PushAccepted { .. } => "push_accepted",
            Self::PushRefused { .. } => "push_refused",
            Self::BranchPublished { .. } => "branch_published",
            Self::ChangeRequestOpened { .. } => "change_request_opened",
            Self::ChangeRequestUpdated { .. } => "change_request_updated",
            Self::NeedsAttention { .. } => "needs_attention",
            Self::Commented { .. } => "commented",
            Self::ProjectFinished { .. } => "project_finished",
            Self::Warning { .. } => "warning",
            Self::ControlReceived { .. } => "control_received",
            Self::ControlAnswered { .. } => "control_answered",
            Self::Suspended { .. } => "suspended",
            Self::Finished { .. } => "finished",
        }
    }

    /// Whether it may be dropped when the broker is slow: token-level progress only.
    #[must_use]
    pub fn is_progress(&self) -> bool {
        match self {
            Self::Clone { .. }
            | Self::AgentMessage { .. }
            | Self::AgentThought { .. }
            | Self::AgentTool { .. }
            | Self::AgentPlan { .. } => true,
            Self::Rejected { .. }
            | Self::Claimed { .. }
            | Self::Stage { .. }
            | Self::Connected { .. }
            | Self::Granted { .. }
            | Self::Cloned { .. }
            | Self::TurnStarted { .. }
            | Self::AgentPermission { .. }
            | Self::AgentUsage { .. }
            | Self::OutputDropped { .. }
            | Self::EgressRefused { .. }
            | Self::ModelUsage { .. }
            | Self::TurnEnded { .. }
            | Self::PushAccepted { .. }
            | Self::PushRefused { .. }
            | Self::BranchPublished { .. }
            | Self::ChangeRequestOpened { .. }
            | Self::ChangeRequestUpdated { .. }
            | Self::NeedsAttention { .. }
            | Self::Commented { .. }
            | Self::ProjectFinished { .. }
            | Self::Warning { .. }
            | Self::ControlReceived { .. }
            | Self::ControlAnswered { .. }
            | Self::Suspended { .. }
            | Self::Finished { .. } => false,
        }
    }

    /// Whether nothing follows it in its session.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Rejected { .. } | Self::Finished { .. })
    }

    /// A rejection by reason, for refusals that happen after parsing.
    #[must_use]
    pub fn rejected(reason: Reason, message: String) -> Self {
        Self::Rejected {
            code: reason.as_str().to_owned(),
            message,
        }
    }
}

impl Event {
    /// An event of this moment.
    #[must_use]
    pub fn now(worker: &str, session: SessionId, attempt: u32, seq: u64, body: EventBody) -> Self {
        Self {
            specversion: "1.0".into(),
            id: format!("{session}/{attempt}/{seq}"),
            source: format!("/cofferdam/workers/{worker}"),
            kind: format!("{TYPE_PREFIX}{}", body.kind()),
            subject: session.to_string(),
            time: jiff::Timestamp::now().to_string(),
            datacontenttype: "application/json".into(),
            data: EventData {
                session,
                attempt,
                seq,
                body,
            },
            trace: None,
        }
    }

    /// The routing key: `session.<id>.<kind>`.
    #[must_use]
    pub fn routing_key(&self) -> String {
        format!("session.{}.{}", self.data.session, self.data.body.kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_cloud_event_and_comes_back() {
        let session: SessionId = "0190c2f0-7c1e-7000-8000-000000000001".parse().unwrap();
        let event = Event::now("w1", session, 1, 7, EventBody::TurnStarted { turn: 1 });
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["type"], "dev.cofferdam.session.turn_started");
        assert_eq!(json["data"]["event"], "turn_started");
        assert_eq!(json["data"]["seq"], 7);
        assert_eq!(event.routing_key(), format!("session.{session}.turn_started"));
        let back: Event = serde_json::from_value(json).unwrap();
        assert_eq!(back.id, format!("{session}/1/7"));
    }
}
