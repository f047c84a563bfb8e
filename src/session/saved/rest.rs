//! When a session rests its agent's memory is put away, and when it goes on it is looked for: a session's own part in it.
//!
//! Never a session's failure: whatever does not work is told in a warning, and whoever goes on tells the agent the conversation.

use std::sync::Arc;
use std::time::Duration;

use tokio::fs::File;

use super::super::turn::Started;
use super::super::{Ready, Session, tell, workspace};
use super::{SavedError, States, carry};
use crate::agent::{self, Protocol};
use crate::gateway::{GatewayError, Inside};
use crate::message::{AgentSession, EventBody, SavedState};
use crate::progress::Progress;
use crate::sandbox::WORKSPACE;

/// How long an agent that is let go may take to write down what it knows.
const LETTING_GO: Duration = Duration::from_secs(5);

/// A conversation that an agent can load again.
#[derive(Debug, Clone)]
pub(in super::super) struct Loadable {
    /// By what the agent calls it.
    pub(in super::super) session: String,
    /// The directory in which the agent works.
    pub(in super::super) directory: String,
}

/// A saved state that was found.
pub(in super::super) struct Restore {
    /// By what the agent calls the conversation.
    pub(in super::super) session: String,
    /// Where it worked.
    pub(in super::super) directory: String,
    file: File,
    most: u64,
}

impl Restore {
    /// Puts it into the sandbox.
    ///
    /// # Errors
    /// Nothing of it may be used then.
    pub(in super::super) async fn unpack(self, inside: &Inside) -> Result<(), SavedError> {
        carry::unpack(inside, self.file, self.most).await
    }
}

impl Session<'_> {
    /// What is known of the agent's own memory once its turn is over: it can be loaded again where the agent says so, and answered to the end.
    pub(in super::super) fn learn(&mut self, agent: Option<&Started>) {
        self.loadable = agent
            .filter(|started| started.agent.is_usable())
            .and_then(|started| started.loadable.clone());
    }

    /// Ends an agent whose turn was the last one here. One whose memory is to be saved is given a moment to write it down.
    pub(in super::super) async fn let_go(&self, config: &agent::Config, agent: Option<Started>) {
        match agent {
            Some(started) if self.states(config).is_some() && self.loadable.is_some() => started.end(LETTING_GO).await,
            Some(_) | None => {}
        }
    }

    /// The session rests: puts the agent's memory away, where there is one to be loaded again.
    pub(in super::super) async fn put_away(&mut self, ready: &Ready<'_>, agent: Option<Started>) {
        let Some(states) = self.states(ready.config) else {
            return;
        };
        let session = self.task.session;
        let Some(loadable) = self.loadable.clone() else {
            if agent.is_some() {
                tracing::info!(%session, "the agent's state is not saved: it cannot load it, or did not answer to the end");
            }
            return;
        };
        let was_there = agent.is_some();
        self.let_go(ready.config, agent).await;
        let saved = self.save(ready, &states, &loadable, was_there).await;
        match saved {
            Ok(saved) => self.memory.saved = Some(saved),
            Err(error) => {
                tracing::info!(%session, %error, "the agent's state is not saved");
                let message = format!(
                    "the agent's own memory was not saved, it is told the conversation when it goes on: {error}"
                );
                let code = "state_not_saved".to_owned();
                tell(self.progress, EventBody::Warning { code, message }).await;
            }
        }
    }

    async fn save(
        &self,
        ready: &Ready<'_>,
        states: &States,
        loadable: &Loadable,
        quiets: bool,
    ) -> Result<SavedState, SavedError> {
        let odd = || SavedError::NotMeant("the agent gave its session an id that cannot travel".to_owned());
        let id = loadable.session.as_str();
        let agent_session: AgentSession = id.parse().map_err(|_| odd())?;
        if self.progress.masked(id) != id {
            return Err(odd());
        }
        let inside = self.live.inside().map_err(|_| GatewayError::Gone)?;
        let packing = async {
            if quiets {
                // What it left running must not write on.
                workspace::quiet(&inside).await;
            }
            carry::pack(&inside, &ready.config.saved_state, states, self.task.session).await
        };
        // A sandbox that ends in the middle of it ends it.
        let packed = self.live.while_alive(async { Ok(packing.await) }).await;
        let (name, bytes) = packed.unwrap_or(Err(GatewayError::Gone.into()))?;
        tracing::info!(session = %self.task.session, bytes, "the agent's state is saved");
        Ok(SavedState {
            name,
            session: agent_session,
            agent: ready.agent.clone(),
            directory: loadable.directory.clone(),
        })
    }

    /// The agent is about to start: finds what was saved of its memory, where something was.
    pub(in super::super) async fn find_saved(&self, ready: &Ready<'_>, directories: &[String]) -> Option<Restore> {
        let saved = self.memory.saved.as_ref()?;
        let found = async {
            let not_meant = |why: &str| SavedError::NotMeant(why.to_owned());
            if saved.agent != ready.agent {
                return Err(not_meant("it is another agent's"));
            }
            let is_there = |directory: &String| directory == WORKSPACE || directories.contains(directory);
            if !is_there(&saved.directory) {
                return Err(not_meant("the agent worked in a directory that is not here"));
            }
            let states = self
                .states(ready.config)
                .ok_or_else(|| not_meant("this worker loads none of this agent (session.saved_states, saved_state)"))?;
            let file = states.open(self.task.session, &saved.name).await?;
            Ok(Restore {
                session: saved.session.to_string(),
                directory: saved.directory.clone(),
                file,
                most: states.most,
            })
        };
        match found.await {
            Ok(restore) => Some(restore),
            Err(error) => {
                not_loaded(self.progress, &error.to_string()).await;
                None
            }
        }
    }

    /// The agent has started: what was saved before is used, or of no use.
    pub(in super::super) async fn used_saved(&mut self) {
        if self.memory.saved.take().is_some()
            && let Some(states) = States::of(&self.rooms.config)
        {
            states.forget(self.task.session).await;
        }
    }

    /// Where this agent's memory is put away, if it is.
    fn states(&self, config: &agent::Config) -> Option<States> {
        let is_meant = config.protocol == Protocol::Acp && !config.saved_state.is_empty();
        is_meant.then(|| States::of(&self.rooms.config)).flatten()
    }
}

/// Tells that an agent does not go on from its own memory.
pub(in super::super) async fn not_loaded(progress: &Arc<Progress>, why: &str) {
    let message = format!("the agent's own memory was not loaded, it is told the conversation: {why}");
    let code = "state_not_loaded".to_owned();
    progress.state(EventBody::Warning { code, message }).await;
}
