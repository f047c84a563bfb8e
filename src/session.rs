//! The straight path of one session, from a task to an outcome. Read [`run`] from top to bottom.
//!
//! A failing session is not a failing worker: every error of a room becomes a reason in the outcome. Two scopes: the path obeys the
//! session's deadline and cancellation; keeping work, teardown and the outcome do not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use tokio_util::task::TaskTracker;

use crate::agent::{self, AgentError, ProjectBrief, TurnLimits, TurnReport, prompt, sections};
use crate::gateway::egress::Refusals;
use crate::gateway::model::Meter;
use crate::grant::{Egress, Grant, Identity, ProjectGrant};
use crate::message::event::Stage;
use crate::message::{AgentName, ConnectionName, EventBody, ProjectKey, ProjectOutcome, Reason, SessionOutcome, Task};
use crate::progress::Progress;
use crate::secret::Secret;
use crate::tools::Wishes;

pub mod admit;
pub mod change_text;
pub mod checks;
mod connections;
pub mod credential;
mod expiry;
pub mod failure;
mod guard;
pub mod identity;
mod keep;
mod live;
mod orders;
mod publish;
mod push_options;
mod reach;
pub mod rooms;
mod routes;
mod set_up;
mod space;
mod stage;
pub mod steering;
pub mod tenant;
mod turn;
mod usage;
mod verdict;
pub mod visibility;
mod workspace;

use admit::Admitted;
use failure::Failure;
use live::Live;
use orders::Open;
use publish::{Left, Publishing, Words, Work};
use rooms::HeldSandbox;
pub use rooms::{Config, LiveSandboxes, Rooms};
pub use set_up::SetUpSecrets;
use stage::{no_trailers, stage_all};
use steering::{Cause, Steering};
use verdict::{bounded, fold};

/// How long a comment that is on its way may take at the end.
const SAYING: Duration = Duration::from_secs(60);
/// How long an event of the teardown may wait for a broker that is away.
const TELLING: Duration = Duration::from_secs(10);

/// Runs one session to its outcome. Everything it took is let go when this returns.
///
/// Not cancel-safe by dropping: stop it by its steering, so that work is kept and the sandbox removed.
pub async fn run(
    rooms: &Rooms,
    task: &Task,
    secrets: BTreeMap<ConnectionName, Secret>,
    progress: &Arc<Progress>,
    steering: &Steering,
) -> SessionOutcome {
    let open = Open::default();
    let (_, never) = tokio::sync::mpsc::channel(1);
    let mut inbox = steering.inbox().unwrap_or(never);
    let outcome = tokio::select! {
        outcome = path(rooms, task, secrets, &open, progress, steering) => outcome,
        never = orders::obey(rooms, task, &open, progress, steering, &mut inbox) => match never {},
    };
    // A broker that is away must not hold the end up.
    if tokio::time::timeout(TELLING, orders::decline(&open, progress, &mut inbox))
        .await
        .is_err()
    {
        tracing::warn!("orders were left unanswered: the broker takes no events");
    }
    outcome
}

/// The path itself.
async fn path(
    rooms: &Rooms,
    task: &Task,
    secrets: BTreeMap<ConnectionName, Secret>,
    open: &Open,
    progress: &Arc<Progress>,
    steering: &Steering,
) -> SessionOutcome {
    let began = Instant::now();
    for secret in secrets.values().chain(&rooms.own_keys) {
        open.known.add(secret);
    }
    let mut session = Session {
        rooms,
        task,
        progress,
        steering,
        open,
        stage: None,
        live: Live::default(),
        first: None,
        work: Vec::new(),
        report: TurnReport::default(),
    };
    let limit = admit::limits(rooms, task).session;
    let worked = match tokio::time::timeout(limit, session.work(secrets)).await {
        Ok(worked) => worked,
        Err(_) => {
            let message = format!(
                "the session reached its limit of {} s: ask for less at a time, or for a higher limit",
                limit.as_secs()
            );
            Err(Failure::new(Reason::SessionTimeout, message))
        }
    };
    // From here on the worker's scope: the deadline and the cancellation above do not reach it. Publishing is in it, because cut in the
    // middle it would leave a change request that no outcome names; its calls have limits of their own.
    let (reason, message, projects) = match worked {
        Ok(worked) => fold(session.publish(&worked).await),
        Err(failure) => {
            let projects = session.keep_work(&failure).await;
            (failure.reason, failure.message, projects)
        }
    };
    let (first, live) = (session.first.take(), std::mem::take(&mut session.live));
    session.leave(Some(Stage::Cleanup));
    // A broker that is away may hold the event back, never the sandbox's end.
    tokio::join!(
        tell(progress, EventBody::Stage { stage: Stage::Cleanup }),
        async {
            if let Some(first) = first {
                first.close_sandbox(task.session).await;
            }
            live.close(rooms, task.session).await;
        },
        said(&open.speaking)
    );
    session.leave(None);
    let report = session.report;
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    rooms
        .metrics
        .session_finished(reason.result().as_str(), reason.as_str(), began.elapsed());
    SessionOutcome {
        result: reason.result(),
        reason,
        message,
        projects,
        answer: bounded(report.answer, 16 * 1024),
        duration_ms,
    }
}

/// A session on its way.
struct Session<'a> {
    rooms: &'a Rooms,
    task: &'a Task,
    progress: &'a Arc<Progress>,
    steering: &'a Steering,
    stage: Option<(Stage, Instant)>,
    live: Live,
    /// The sandbox of the set-up, as long as it is there.
    first: Option<Live>,
    open: &'a Open,
    work: Vec<Arc<Work>>,
    report: TurnReport,
}

impl<'a> Session<'a> {
    /// grant -> mirror -> sandbox -> clone -> turn -> staging.
    async fn work(&mut self, secrets: BTreeMap<ConnectionName, Secret>) -> Result<Worked, Failure> {
        let (rooms, task) = (self.rooms, self.task);
        let (agent_name, agent) = self.agent()?;
        let agent_identity = identity::parse(&agent.co_author)
            .ok_or_else(|| Failure::new(Reason::Internal, "the agent's co_author is unreadable"))?;

        let all = rooms.sandbox.runtime.as_deref();
        let runtime = tenant::runtime(&rooms.tenants, task.tenant.as_ref(), agent.runtime.as_deref(), all)?;

        self.enter(Stage::Grant).await;
        let egress = admit::egress(rooms, task)?;
        rooms.engine.require_image(&agent.image).await?;
        if let Some(runtime) = runtime {
            rooms.engine.require_runtime(runtime).await?;
        }
        let admitted = self
            .early(admit::admit(
                rooms,
                task,
                secrets,
                &self.open.connections,
                self.progress,
            ))
            .await?;
        let grant = self.mint(&admitted, &agent_identity, egress);

        // The engine needs its time, and so does the forge: both at once.
        self.enter(Stage::Mirror).await;
        let plan = self.plan(&agent_name, &grant);
        if let Some(plan) = &plan {
            rooms.engine.require_image(plan.image).await?;
            self.make_first()?;
        }
        let starting = match (&mut self.first, &plan) {
            (Some(first), Some(plan)) => first.start(rooms, plan.image, runtime, self.progress),
            (_, _) => self.live.start(rooms, &agent.image, runtime, self.progress),
        };
        // What is started belongs to the session from its first moment: this may be dropped at any await.
        let (started, staged) = tokio::join!(
            starting,
            self.open
                .undropped(stoppable(self.steering, stage_all(rooms, task, grant, admitted)))
        );
        let (grant, work) = staged?;
        self.open.staged(&work);
        self.work = work;
        for project in &grant.projects {
            let (base, branch) = (project.base.clone(), project.branch.clone());
            self.progress
                .state(EventBody::Granted {
                    project: project.key.clone(),
                    base,
                    branch,
                })
                .await;
        }
        self.enter(Stage::Sandbox).await;
        started?;
        let (wishes, refusals) = (Wishes::default(), Refusals::default());
        let proxy = self.egress(&grant, &refusals);
        match plan {
            Some(plan) => self.set_up(plan, &grant, &agent.image, runtime, &proxy).await?,
            None => self.enter(Stage::Clone).await,
        }
        let meter = self.open_routes(&grant, agent, &wishes, proxy)?;
        let stagings = self.work.iter().map(|work| work.staging.clone()).collect();
        self.live.watch_pushes(stagings);
        let inside = self.live.inside()?;
        self.early(self.live.while_alive(async {
            workspace::prepare(&inside, &grant).await?;
            try_join_all(self.work.iter().map(|work| {
                let exists = work.expected.is_some();
                let project = &work.admitted.grant;
                let trailers = grant.trailers.get(&project.key).ok_or_else(no_trailers);
                let (inside, progress) = (&inside, self.progress);
                async move {
                    if plan.is_some() {
                        workspace::adopt(inside, project, trailers?, exists).await
                    } else {
                        workspace::clone(inside, project, trailers?, exists, progress).await
                    }
                }
            }))
            .await
        }))
        .await?;
        for work in &self.work {
            let base = work.expected.clone().unwrap_or_else(|| work.staging.base().clone());
            let project = &work.admitted.grant;
            let body = EventBody::Cloned {
                project: project.key.clone(),
                directory: project.directory.clone(),
                base,
            };
            self.progress.state(body).await;
        }

        self.enter(Stage::Turn).await;
        let turned = self.turn(&grant, agent, meter.as_deref()).await;
        let stopped_to_publish = self.steering.cause() == Some(Cause::Publish);
        match turned {
            Ok(report) => self.report = report,
            Err(failure) if failure.reason == Reason::Cancelled && stopped_to_publish => {}
            Err(failure) if failure.reason == Reason::Cancelled => return Err(stopped(self.steering)),
            Err(failure) => return Err(failure),
        }
        if self.steering.cause().is_some_and(|cause| cause != Cause::Publish) {
            return Err(stopped(self.steering));
        }
        let refused = self.live.while_alive(self.collect(&grant)).await?;
        if !refused.is_empty()
            && let Some(place) = self.live.full().await
        {
            let message = format!(
                "{place} in the sandbox is full and not everything could be committed: ask for less at a time, or let the operator raise \
                 sandbox.workspace_bytes"
            );
            return Err(Failure::new(Reason::DiskFull, message));
        }
        Ok(Worked {
            agent: agent_name,
            grant,
            wishes,
            refusals,
            refused,
        })
    }

    /// staging -> publish.
    async fn publish(&mut self, worked: &Worked) -> Vec<ProjectOutcome> {
        self.enter(Stage::Publish).await;
        let publishing = Publishing {
            rooms: self.rooms,
            progress: self.progress,
            steering: self.steering,
            open: self.open,
            words: self.words(&worked.agent, &worked.grant, &worked.refusals),
        };
        let left = |work: &Work| Left {
            wish: worked.wishes.get(&work.admitted.grant.key),
            refused: worked.refused.get(&work.admitted.grant.key).cloned(),
        };
        publishing.all(&self.work, left).await
    }

    /// The agent that the task names, or the default one.
    fn agent(&self) -> Result<(AgentName, &'a agent::Config), Failure> {
        let names = || {
            self.rooms
                .agents
                .keys()
                .map(AgentName::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let name = self
            .task
            .agent
            .as_ref()
            .or(self.rooms.default_agent.as_ref())
            .ok_or_else(|| {
                let message = format!(
                    "the task names no agent and this worker has no default_agent: name one of {}",
                    names()
                );
                Failure::new(Reason::UnknownAgent, message)
            })?;
        let config = self.rooms.agents.get(name).ok_or_else(|| {
            Failure::new(
                Reason::UnknownAgent,
                format!("this worker has no agent {name}: name one of {}", names()),
            )
        })?;
        Ok((name.clone(), config))
    }

    /// The authority of this session, from what the forges answered.
    fn mint(&self, admitted: &[Admitted], agent: &Identity, egress: Egress) -> Grant {
        Grant {
            session: self.task.session,
            projects: admitted.iter().map(|one| one.grant.clone()).collect(),
            trailers: admit::trailers(self.task, admitted, agent),
            publish: self.task.publish,
            uncommitted: self.task.uncommitted,
            may_comment: self.task.comment,
            egress,
            limits: admit::limits(self.rooms, self.task),
        }
    }

    /// One prompt and the agent's answer to it.
    async fn turn(&self, grant: &Grant, config: &agent::Config, meter: Option<&Meter>) -> Result<TurnReport, Failure> {
        let inside = self.live.inside()?;
        let directories: Vec<String> = grant.projects.iter().map(|project| project.directory.clone()).collect();
        let directory = turn::directory(&directories);
        let starting = turn::start(&inside, config, self.task, &directory, self.progress);
        let mut started = self.stoppable(self.live.while_alive(starting)).await?;
        let prompt = prompt::first(&self.task.prompt, &self.briefs(grant));
        let limits = TurnLimits {
            turn: grant.limits.turn,
            idle: grant.limits.idle,
            grace: Duration::from_secs(self.rooms.config.grace_s),
        };
        self.progress.state(EventBody::TurnStarted { turn: 1 }).await;
        let stop = self.steering.token().child_token();
        let turning = self.live.while_alive(async {
            let turned = started.agent.turn(&prompt, limits, self.progress, &stop).await;
            if matches!(turned, Err(AgentError::Ended { .. })) {
                started.settle().await;
            }
            turned.map_err(|error| {
                let ended = matches!(error, AgentError::Ended { .. } | AgentError::Answered { .. });
                let mut failure = Failure::from(error);
                if ended {
                    turn::add_last_words(&mut failure, &started.last_words());
                }
                failure
            })
        });
        let turned = usage::watched(meter, self.progress, &stop, self.steering.token(), turning).await;
        agent::tell_dropped_errors(started.dropped_errors(), self.progress).await;
        let stop_reason = match &turned {
            Ok(report) => report.stop_reason.clone(),
            Err(failure) => failure.reason.as_str().to_owned(),
        };
        self.progress.state(EventBody::TurnEnded { turn: 1, stop_reason }).await;
        turned
    }

    fn words<'w>(&'w self, agent: &'w AgentName, grant: &'w Grant, refusals: &Refusals) -> Words<'w> {
        let user = self.task.user.as_ref().map(|user| user.name.as_str());
        Words {
            session: self.task.session,
            publish: self.task.publish,
            title: self.task.title.as_deref(),
            sections: sections::read(&self.report.answer),
            unreached: refusals.counted(),
            agent: agent.as_str(),
            user: user
                .or_else(|| grant.projects.first().map(|project| project.identity.name.as_str()))
                .unwrap_or_default(),
        }
    }

    fn briefs(&self, grant: &Grant) -> Vec<ProjectBrief> {
        let begun = |key: &ProjectKey| {
            let mut all = self.work.iter();
            all.any(|work| work.admitted.grant.key == *key && work.expected.is_some())
        };
        let brief = |project: &ProjectGrant| ProjectBrief {
            connection: project.connection.clone(),
            path: project.key.path.clone(),
            directory: project.directory.clone(),
            branch: project.branch.to_string(),
            base: project.base.to_string(),
            change_request_word: project.forge.change_request_word(),
            begun: begun(&project.key),
        };
        grant.projects.iter().map(brief).collect()
    }

    /// The same before the agent begins: then a dropped connection ends the session, because nothing is lost by it.
    async fn early<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.open.undropped(self.stoppable(work)).await
    }

    /// Goes on with something until the session is told to stop.
    async fn stoppable<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        stoppable(self.steering, work).await
    }

    async fn enter(&mut self, stage: Stage) {
        self.leave(Some(stage));
        self.progress.state(EventBody::Stage { stage }).await;
    }

    fn leave(&mut self, next: Option<Stage>) {
        if let Some(stage) = next {
            self.steering.at(stage);
        }
        let left = self
            .stage
            .take()
            .map(|(stage, since)| (stage.as_str(), since.elapsed()));
        self.rooms.metrics.session_moved(left, next.map(Stage::as_str));
        self.stage = next.map(|stage| (stage, Instant::now()));
    }
}

/// What the session's work left to publish.
struct Worked {
    agent: AgentName,
    grant: Arc<Grant>,
    wishes: Wishes,
    refusals: Refusals,
    refused: BTreeMap<ProjectKey, String>,
}

/// Goes on with something until the session is told to stop.
async fn stoppable<T>(steering: &Steering, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        biased;
        () = steering.token().cancelled() => Err(stopped(steering)),
        done = work => done,
    }
}

fn stopped(steering: &Steering) -> Failure {
    match steering.cause() {
        Some(Cause::WorkerStopped) => {
            Failure::new(Reason::WorkerStopped, "the worker was stopped: send the task again")
        }
        Some(Cause::OwnershipLost) => Failure::new(Reason::WorkerStopped, "another worker took the session over"),
        Some(Cause::Publish | Cause::Discard) | None => {
            Failure::new(Reason::Cancelled, "a control message ended the session")
        }
    }
}

/// Waits for what an agent is saying on a forge: nothing is said that is not told.
async fn said(speaking: &TaskTracker) {
    speaking.close();
    if tokio::time::timeout(SAYING, speaking.wait()).await.is_err() {
        tracing::warn!("a comment was on its way when its session ended; whether it arrived is not told");
    }
}

/// Emits an event of the teardown. When the broker is away for long it is given up: the final event says the same, and cleaning up must go on.
async fn tell(progress: &Progress, event: EventBody) {
    let kind = event.kind();
    if tokio::time::timeout(TELLING, progress.state(event)).await.is_err() {
        tracing::warn!(kind, "an event of the teardown was given up: the broker takes none");
    }
}
