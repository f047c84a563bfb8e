//! A session's authority and its projects as they are at this moment: both grow when a project is added, so they are read anew at each use.
//! Values only; no I/O.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::failure::Failure;
use super::publish::Work;
use crate::grant::Grant;
use crate::message::task::ProjectRequest;
use crate::message::{ProjectKey, Reason};
use crate::repository::Staging;

/// Clones share it. Holds nothing of the sandbox, so that the gateway's routes may hold it.
#[derive(Clone, Default)]
pub(super) struct Projects(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// What the session may do, once that is known.
    grant: Option<Arc<Grant>>,
    work: Vec<Arc<Work>>,
    /// Those that came while the session ran, in all attempts.
    added: Vec<ProjectRequest>,
    /// Those that the agent is not told of yet.
    untold: Vec<ProjectKey>,
}

impl Projects {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What earlier attempts added, before anything of this one is known.
    pub(super) fn were_added(&self, added: &[ProjectRequest]) {
        self.state().added = added.to_vec();
    }

    /// The projects are staged.
    pub(super) fn staged(&self, grant: Arc<Grant>, work: &[Arc<Work>]) {
        let mut state = self.state();
        state.grant = Some(grant);
        state.work = work.to_vec();
    }

    /// One more project, in one step, unless its connection was dropped meanwhile: whoever drops it looks for its projects after that.
    pub(super) fn widen(&self, grant: Grant, work: Arc<Work>, request: ProjectRequest) -> Result<(), Failure> {
        let mut state = self.state();
        let connection = &work.admitted.connection;
        if connection.is_closed() {
            return Err(connection.dropped());
        }
        state.grant = Some(Arc::new(grant));
        state.untold.push(work.admitted.grant.key.clone());
        state.added.push(request);
        state.work.push(work);
        Ok(())
    }

    /// What the session may do at this moment.
    pub(super) fn grant(&self) -> Result<Arc<Grant>, Failure> {
        let grant = self.state().grant.clone();
        grant.ok_or_else(|| Failure::new(Reason::Internal, "the session has no grant yet"))
    }

    /// Its projects at this moment; none before they are staged.
    pub(super) fn work(&self) -> Vec<Arc<Work>> {
        self.state().work.clone()
    }

    /// The project of that key.
    pub(super) fn work_of(&self, key: &ProjectKey) -> Option<Arc<Work>> {
        let state = self.state();
        state.work.iter().find(|work| work.admitted.grant.key == *key).cloned()
    }

    /// All that may be pushed to.
    pub(super) fn stagings(&self) -> Vec<Arc<Staging>> {
        self.state().work.iter().map(|work| work.staging.clone()).collect()
    }

    /// Those that the agent is to be told of with its next prompt; each once, and none that ended meanwhile.
    pub(super) fn take_untold(&self) -> Vec<ProjectKey> {
        let mut state = self.state();
        let mut untold = std::mem::take(&mut state.untold);
        let goes_on = |work: &Arc<Work>| work.ended.get().is_none();
        untold.retain(|key| {
            let mut all = state.work.iter();
            all.any(|work| work.admitted.grant.key == *key && goes_on(work))
        });
        untold
    }

    /// What the task that goes on with the session has to have besides its own: without those whose connection was dropped.
    pub(super) fn added(&self) -> Vec<ProjectRequest> {
        let state = self.state();
        let is_dropped = |request: &&ProjectRequest| {
            let key = request.key();
            let mut all = state.work.iter();
            all.any(|work| work.admitted.grant.key == key && work.admitted.connection.is_closed())
        };
        state.added.iter().filter(|one| !is_dropped(one)).cloned().collect()
    }
}
