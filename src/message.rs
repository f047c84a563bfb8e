//! The wire contract: what an orchestrator sends (task, control) and what it gets back (events, outcome), with the ids both use.
//!
//! Nothing here does I/O, and nothing here imports another room. All that is parsed here is hostile until it parsed: bounded and typed.

pub mod amendment;
pub mod attention;
pub mod capability;
mod connection;
pub mod control;
pub mod egress;
pub mod event;
pub mod host;
pub mod id;
pub mod notes;
pub mod outcome;
pub mod readable;
pub mod redact;
pub mod resume;
pub mod task;
pub mod trace;
mod tree;

pub use amendment::Amendment;
pub use attention::{Attention, Choice, ChoiceKind, DecidedBy, Otherwise, Question};
pub use capability::{Capabilities, Right};
pub use control::{Control, ControlKind};
pub use egress::{EgressLevel, EgressMethod, EgressRequest, EgressRule};
pub use event::{Event, EventBody};
pub use host::{HostName, HostPattern};
pub use id::{
    AgentName, AgentSession, BranchName, CommitId, ConnectionName, ProjectKey, ProjectPath, SandboxId, SavedName,
    SessionId, TenantName,
};
pub use notes::Notes;
pub use outcome::{ProjectOutcome, Reason, SessionOutcome};
pub use resume::{Resume, SavedState};
pub use task::{Credential, ForgeKind, Publish, Task, TaskError, Uncommitted, User};
pub use trace::TraceParent;
