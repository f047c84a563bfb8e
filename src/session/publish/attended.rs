//! Publishing with a credential that may die meanwhile: the session waits a while for a fresh one, with the work safe in staging.
//!
//! Never tries a dead credential again: forges lock out whoever does.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::{Pace, Publishing, Work};
use crate::forge::ForgeError;
use crate::message::{Attention, EventBody, Otherwise, Reason};
use crate::metrics::Awaits;
use crate::session::connections::Connected;
use crate::session::failure::Failure;

/// How long a session that is ending anyway waits at most.
const ENDING: Duration = Duration::from_secs(30);

/// Does something with the project's forge. When the credential turns out to be dead, says so and waits for a fresh one; when the connection is
/// dropped, stops at once.
pub(super) async fn attended<'a, T>(
    publishing: &Publishing<'_>,
    work: &Work,
    act: impl Fn(Arc<Connected>) -> BoxFuture<'a, Result<T, Failure>>,
) -> Result<T, Failure> {
    let connection = &work.admitted.connection;
    loop {
        publishing.owned().await?;
        let connected = connection.current()?;
        let done = tokio::select! {
            biased;
            () = connection.closed() => return Err(connection.dropped()),
            done = act(connected.clone()) => done,
        };
        let (failure, reason) = match done {
            Err(failure) => match Attention::to_credential(failure.reason) {
                Some(reason) => (failure, reason),
                None => return Err(failure),
            },
            done => return done,
        };
        let mut wait = Duration::from_secs(publishing.rooms.config.credential_wait_s);
        if publishing.steering.token().is_cancelled() {
            wait = wait.min(ENDING);
        }
        tracing::warn!(
            project = %work.admitted.grant.key,
            reason = failure.reason.as_str(),
            wait_s = wait.as_secs(),
            "finished work waits for a fresh credential"
        );
        let body = EventBody::NeedsAttention {
            project: Some(work.admitted.grant.key.clone()),
            reason,
            message: format!(
                "the token of the connection {} is refused ({}): send a fresh one as the control message `credential`; until then the work waits in staging",
                work.admitted.grant.connection,
                failure.reason.as_str()
            ),
            wait_s: wait.as_secs(),
            default: Otherwise::Kept,
            question: None,
        };
        let _waits = publishing.steering.waits(Awaits::Answer);
        publishing.progress.state(body).await;
        let stopped = async {
            if publishing.steering.token().is_cancelled() {
                std::future::pending::<()>().await;
            }
            publishing.steering.token().cancelled().await;
        };
        tokio::select! {
            renewed = connection.renewed(&connected) => drop(renewed?),
            () = stopped => return Err(failure),
            () = tokio::time::sleep(wait) => return Err(failure),
        }
    }
}

impl Publishing<'_> {
    /// Does what leaves a trace, again where it failed in passing: each time only while the session is certainly this worker's.
    pub(super) async fn retry_owned<T, Call: Future<Output = Result<T, ForgeError>>>(
        &self,
        mut call: impl FnMut() -> Call,
    ) -> Result<T, Failure> {
        let mut pace = Pace::default();
        loop {
            self.owned().await?;
            match call().await {
                Err(error) => match pace.next(&error) {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => return Err(error.into()),
                },
                Ok(done) => return Ok(done),
            }
        }
    }

    /// Waits until the session is certainly this worker's.
    pub(super) async fn owned(&self) -> Result<(), Failure> {
        if self.steering.owned().await {
            return Ok(());
        }
        let message = "another worker owns the session, or the broker that says so is away for too long";
        Err(Failure::new(Reason::WorkerStopped, message))
    }
}
