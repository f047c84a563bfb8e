//! cofferdam: coding sessions from a queue, in sealed containers, to merge and pull requests.
//!
//! # The map
//!
//! ```text
//! delivery -> task -> claim -> grant -> mirror -> sandbox -> clone (inside) -> turn (agent) -> staging -> publish -> outcome -> settle
//! ```
//!
//! [`worker`] is the loop around that line, [`session`] is the line. Start reading at `session::run`.
//!
//! | room | does | imports of ours |
//! |---|---|---|
//! | [`message`] | task, control, event, outcome, ids: the wire contract | - |
//! | [`secret`] | credentials that cannot be printed; masking | - |
//! | [`grant`] | what one session may do; branch names, trailers | message, secret |
//! | [`queue`] | the seam to the broker | message |
//! | [`progress`] | ordered events, bounded outbox, masking | message, queue, secret |
//! | [`metrics`] | what operators see | - |
//! | [`forge`] | the seam to GitLab and GitHub | message, secret |
//! | [`repository`] | mirror, staging, checks, publish | message, grant, secret |
//! | [`sandbox`] | the seam to the container engine | message |
//! | [`gateway`] | the sandbox's one socket: git, model, `inside` | grant, message, secret, repository |
//! | [`agent`] | the seam to agents | message, progress |
//! | [`tools`] | MCP tools offered to the agent | message, grant, forge |
//! | [`session`] | the straight path | all above but queue |
//! | [`worker`] | slots, claim, drain, settle | message, queue, session, progress, secret, sandbox, repository |
//! | [`admin`] | health, readiness, status, metrics over HTTP; the operator's socket | metrics |
//! | [`client`] | what an orchestrator does, as a library | message, queue |
//! | [`config`] | composes each room's own configuration | each room |
//! | [`cli`] | the composition root | anything |
//!
//! # What always holds
//!
//! - **Nothing under `message` does I/O**, and pure decisions have files without I/O types.
//! - **A failing session is not a failing worker**: every room's error becomes a reason in `session/failure.rs`, by exhaustive match.
//! - **Backends never see each other.** Provider words stay under their own file; adding one adds files and one arm in `cli/compose.rs`.
//! - **Only the worker talks to forges**, and only `repository/git.rs` runs git.
//! - **Two scopes of cancellation**: the session's (deadline, control, shutdown), and the worker's, in which work is kept, the sandbox
//!   removed and the final event confirmed.

pub mod admin;
pub mod agent;
pub mod cli;
pub mod client;
pub mod config;
pub mod forge;
/// The private parsers as the fuzzers in `tests/fuzz` reach them. No part of the interface, and nothing is done here.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::agent::acp::fuzzing as acp;
    pub use crate::{
        forge::fuzzing as forge, gateway::fuzzing as gateway, repository::fuzzing as repository,
        tools::fuzzing as tools,
    };
}
pub mod gateway;
pub mod grant;
pub mod message;
pub mod metrics;
pub mod progress;
pub mod queue;
pub mod repository;
pub mod sandbox;
pub mod secret;
pub mod session;
pub mod tools;
pub mod worker;
