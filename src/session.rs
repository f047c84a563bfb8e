//! The straight path of one session, from a task to an outcome. Read [`run`] from top to bottom.
//!
//! A failing session is not a failing worker: every error of a room becomes a reason in the outcome. Two scopes: the path obeys the
//! session's deadline and cancellation; keeping work, teardown and the outcome do not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::try_join_all;

use crate::agent::{self, TurnReport};
use crate::gateway::egress::Refusals;
use crate::gateway::model::Meter;
use crate::message::event::Stage;
use crate::message::notes::Asked;
use crate::message::outcome::Outcome;
use crate::message::{
    AgentName, Amendment, ConnectionName, EventBody, Notes, ProjectKey, ProjectOutcome, Resume, SavedState,
    SessionOutcome, Task,
};
use crate::progress::Progress;
use crate::secret::Secret;
use crate::tools::Wishes;

mod add;
mod adding;
pub mod admit;
mod ask;
pub mod change_text;
pub mod checks;
mod connections;
pub mod credential;
mod directories;
mod expiry;
pub mod failure;
mod guard;
pub mod identity;
mod image;
mod keep;
pub mod lending;
mod live;
mod minted;
mod objects;
mod orders;
mod phases;
pub mod pool;
mod projects;
mod prompts;
mod publish;
mod push_options;
mod questions;
mod reach;
mod renew;
pub mod rooms;
mod routes;
pub mod saved;
mod scope;
mod set_up;
mod space;
mod stage;
pub mod steering;
mod talk;
pub mod tenant;
mod told;
mod turn;
mod usage;
mod verdict;
pub mod visibility;
mod workspace;

use failure::Failure;
use image::Image;
use live::Live;
use orders::Open;
use pool::Kind;
use rooms::HeldSandbox;
pub use rooms::{Config, LiveSandboxes, Rooms};
use scope::{TELLING, said, stoppable, stopped, tell};
pub use set_up::SetUpSecrets;
use stage::{no_trailers, stage_all};
use steering::Steering;
use talk::Close;
use told::Told;
use verdict::{bounded, fold};

/// How a session gave its slot back.
#[derive(Debug)]
pub enum Ended {
    /// It is over.
    Finished(SessionOutcome),
    /// It goes on later.
    Suspended(Box<Suspension>),
}

/// A session that is to go on.
#[derive(Debug)]
pub struct Suspension {
    /// Why, for people.
    pub message: String,
    /// How each project stands.
    pub projects: Vec<ProjectOutcome>,
    /// The conversation so far, masked; its attempt is whoever's who runs it.
    pub resume: Resume,
    /// What control messages made of the task.
    pub amendment: Amendment,
    /// What another worker is to be asked at once; otherwise the next prompt is waited for.
    pub next: Option<String>,
    /// Whether it goes on because this worker's engine was lost: that counts as a take-over, so that it has an end.
    pub is_lost: bool,
    /// How long it ran, in milliseconds.
    pub duration_ms: u64,
}

impl Suspension {
    /// The outcome, where the session was ended while it was being suspended.
    #[must_use]
    pub fn ended(self) -> SessionOutcome {
        let (reason, message, projects) = fold(self.projects);
        SessionOutcome {
            result: reason.result(),
            reason,
            message,
            projects,
            answer: String::new(),
            duration_ms: self.duration_ms,
        }
    }
}

/// How far the session came when this attempt at it begins: what its last owner noted, else what the task says.
fn begun(task: &Task, notes: Option<Notes>) -> Notes {
    notes.unwrap_or_else(|| {
        let resume = task.resume.clone().unwrap_or_default();
        Notes {
            turns: resume.turns,
            history: resume.history,
            to_ask: vec![Asked {
                ids: Vec::new(),
                text: task.prompt.clone(),
            }],
            ..Notes::default()
        }
    })
}

/// The agent's memory that was saved, if it is that of the conversation from which this attempt goes on: a dead owner may have gone further.
fn saved(task: &Task, notes: Option<&Notes>) -> Option<SavedState> {
    let resume = task.resume.as_ref()?;
    let is_current = notes.is_none_or(|notes| notes.turns == resume.turns);
    resume.saved.clone().filter(|_| is_current)
}

/// Runs one session until it ends or is suspended, from what a dead owner noted, where one did. Everything it took is let go when this returns.
///
/// Not cancel-safe by dropping: stop it by its steering, so that work is kept and the sandbox removed.
pub async fn run(
    rooms: &Rooms,
    task: &Task,
    notes: Option<Notes>,
    secrets: BTreeMap<ConnectionName, Secret>,
    progress: &Arc<Progress>,
    steering: &Steering,
) -> Ended {
    let open = Open::default();
    let saved = saved(task, notes.as_ref());
    let from = begun(task, notes);
    let memory = Resume {
        turns: from.turns,
        history: from.history.clone(),
        saved,
        ..Resume::default()
    };
    open.amended(from.amendment.clone());
    // Before orders are obeyed: what comes early finds the first prompt waiting.
    let is_open_ended = talk::idle_timeout(rooms, task).is_some();
    open.prompts.open(from, is_open_ended, steering.noting());
    let (_, never) = tokio::sync::mpsc::channel(1);
    let mut inbox = steering.inbox().unwrap_or(never);
    let ended = tokio::select! {
        ended = path(rooms, task, (secrets, memory), &open, progress, steering) => ended,
        never = orders::obey(rooms, task, &open, progress, steering, &mut inbox) => match never {},
    };
    let goes_on = matches!(&ended, Ended::Suspended(suspension) if suspension.next.is_some());
    // A broker that is away must not hold the end up.
    if tokio::time::timeout(TELLING, orders::decline(&open, progress, &mut inbox, goes_on))
        .await
        .is_err()
    {
        tracing::warn!("orders were left unanswered: the broker takes no events");
    }
    ended
}

/// Answers the orders to a session that ends before it runs.
pub async fn decline(progress: &Progress, steering: &Steering) {
    let Some(mut inbox) = steering.inbox() else { return };
    let nothing = Open::default();
    let declining = orders::decline(&nothing, progress, &mut inbox, false);
    // A broker that is away must not hold the end up.
    if tokio::time::timeout(TELLING, declining).await.is_err() {
        tracing::warn!("orders were left unanswered: the broker takes no events");
    }
}

/// The path itself.
async fn path(
    rooms: &Rooms,
    task: &Task,
    (secrets, memory): (BTreeMap<ConnectionName, Secret>, Resume),
    open: &Open,
    progress: &Arc<Progress>,
    steering: &Steering,
) -> Ended {
    let began = Instant::now();
    for secret in rooms.own_keys.iter().chain(secrets.values()) {
        open.known.add(secret);
    }
    open.projects.were_added(&task.added);
    let deadline = tokio::time::Instant::now() + admit::limits(rooms, task).session;
    let mut session = Session {
        deadline,
        cloning: phases::Budget::cloning(rooms.config.clone_s),
        rooms,
        task,
        progress,
        steering,
        open,
        stage: None,
        span: None,
        live: Live::default(),
        first: None,
        report: TurnReport::default(),
        loadable: None,
        told: Told::of(&memory.history),
        memory,
    };
    // Boxed: the states of all steps together would fill a thread's stack.
    let ready = tokio::time::timeout_at(deadline, Box::pin(session.begin(secrets))).await;
    let close = match ready.unwrap_or_else(|_| Err(session.out_of_time())) {
        Ok(ready) => {
            open.adding.stands();
            Box::pin(session.talk(&ready, deadline)).await
        }
        Err(failure) => Box::pin(session.broke(failure)).await,
    };
    // From here on the worker's scope: neither the deadline nor the cancellation reaches it.
    if let Close::Finished(_, _, projects) = &close {
        session.conclude(projects).await;
    }
    let (first, live) = (session.first.take(), std::mem::take(&mut session.live));
    let prepares = rooms.engine.shares_directories() && !rooms.disk.is_low();
    session.leave(Some(Stage::Cleanup));
    // A broker that is away may hold the event back, never the sandbox's end.
    tokio::join!(
        tell(progress, EventBody::Stage { stage: Stage::Cleanup }),
        async {
            if let Some(first) = first {
                first.close_sandbox(&task.session).await;
            }
            live.close(rooms, task.session, publish::give_back(&open.work(), prepares))
                .await;
        },
        said(&open.speaking)
    );
    session.leave(None);
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    match close {
        Close::Finished(reason, message, projects) => {
            // Where nothing was left to ask, the last answer was given to a worker that died.
            let is_before = open.prompts.begun_here() == 0 && reason.result() == Outcome::Success;
            let before = session.memory.history.pop().filter(|_| is_before);
            let answer = before.map_or(session.report.answer, |last| last.answer);
            Ended::Finished(SessionOutcome {
                result: reason.result(),
                reason,
                message,
                projects,
                answer: bounded(answer, 16 * 1024),
                duration_ms,
            })
        }
        Close::Suspended {
            message,
            projects,
            next,
            is_lost,
        } => {
            session.memory.turns = open.prompts.begun();
            let amendment = open.amendment(task);
            session.memory.added = amendment.added.clone();
            Ended::Suspended(Box::new(Suspension {
                message,
                projects,
                resume: session.memory,
                amendment,
                next,
                is_lost,
                duration_ms,
            }))
        }
    }
}

/// A session on its way.
struct Session<'a> {
    rooms: &'a Rooms,
    task: &'a Task,
    progress: &'a Arc<Progress>,
    steering: &'a Steering,
    stage: Option<(Stage, Instant)>,
    /// The stage as a part of the session's trace.
    span: Option<tracing::Span>,
    live: Live,
    /// The sandbox of the set-up, as long as it is there.
    first: Option<Live>,
    open: &'a Open,
    /// The agent's last answer.
    report: TurnReport,
    /// The conversation that the agent can load again, as it stands after its last turn.
    loadable: Option<saved::Loadable>,
    told: Told,
    /// The conversation so far.
    memory: Resume,
    /// When it ends at the latest.
    deadline: tokio::time::Instant,
    /// What may still be spent on mirrors and clones.
    cloning: phases::Budget,
}

impl<'a> Session<'a> {
    /// grant -> mirror -> sandbox -> clone.
    async fn begin(&mut self, secrets: BTreeMap<ConnectionName, Secret>) -> Result<Ready<'a>, Failure> {
        let (rooms, task) = (self.rooms, self.task);
        let (agent_name, agent) = minted::agent(rooms, task)?;
        let agent_identity = minted::credited(agent)?;

        let all = rooms.sandbox.runtime.as_deref();
        let runtime = tenant::runtime(&rooms.tenants, task.tenant.as_ref(), agent.runtime.as_deref(), all)?;

        self.enter(Stage::Grant).await;
        let egress = admit::egress(rooms, task)?;
        // It may be pulled now, which takes its time.
        let image_id = self
            .early(async { Ok(rooms.engine.require_image(&agent.image).await?) })
            .await?;
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

        // The engine needs its time, and so does the forge: both at once, unless the projects say of what the sandbox is made.
        self.enter(Stage::Mirror).await;
        let (mut admitted, mut ahead) = (admitted, None);
        let mut image = Image {
            name: agent.image.clone(),
            id: image_id,
            named_by: None,
        };
        if agent.devcontainer {
            let staging = stage_all(rooms, task, grant.clone(), std::mem::take(&mut admitted));
            let (grant, work) = self.early(self.cloning.spend(Box::pin(staging))).await?;
            image = self.image(agent, image.id, &work).await?;
            ahead = Some((grant, work));
        }
        let plan = self.plan(&agent_name, &grant, &image.name);
        if let Some(plan) = &plan {
            self.early(async { Ok(rooms.engine.require_image(plan.image).await?) })
                .await?;
            self.make_first()?;
        }
        let starting = match (&mut self.first, &plan) {
            (Some(first), Some(plan)) => first.start(rooms, plan.image, runtime, self.progress),
            (_, _) => {
                self.live
                    .claim(rooms, &Kind::of(&image.name, image.id.clone(), runtime));
                self.live.start(rooms, &image.name, runtime, self.progress)
            }
        };
        // What is started belongs to the session from its first moment: this may be dropped at any await.
        let (open, steering, cloning) = (self.open, self.steering, &self.cloning);
        let (started, staged) = tokio::join!(starting, async {
            match ahead {
                Some(staged) => Ok(staged),
                None => {
                    let staging = cloning.spend(Box::pin(stage_all(rooms, task, grant, admitted)));
                    open.undropped(stoppable(steering, staging)).await
                }
            }
        });
        let (grant, work) = staged?;
        self.open.projects.staged(grant.clone(), &work);
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
        started.map_err(|failure| if plan.is_some() { failure } else { image.blamed(failure) })?;
        let (wishes, refusals) = (Wishes::default(), Refusals::default());
        let proxy = self.egress(&grant, &refusals);
        match plan {
            Some(plan) => {
                let ready = self.set_up(plan, &grant, &image.name, runtime, &refusals).await;
                ready.map_err(|failure| image.blamed(failure))?;
            }
            None => self.enter(Stage::Clone).await,
        }
        let meter = self.open_routes(&grant, agent, &wishes, proxy)?;
        let projects = self.open.projects.clone();
        self.live.watch_pushes(Box::new(move || projects.stagings()));
        if self.rooms.engine.shares_directories() {
            self.open.shows(self.live.objects()?);
        }
        let inside = self.live.inside()?;
        self.early(self.live.while_alive(self.cloning.spend(Box::pin(async {
            workspace::prepare(&inside, &grant).await?;
            try_join_all(work.iter().map(|work| {
                let exists = work.began_at.is_some();
                let project = &work.admitted.grant;
                let trailers = grant.trailers.get(&project.key).ok_or_else(no_trailers);
                let (inside, progress, open) = (&inside, self.progress, self.open);
                async move {
                    if plan.is_some() {
                        workspace::adopt(inside, project, trailers?, exists).await
                    } else {
                        let shown = open.show(work).await;
                        workspace::clone(inside, project, trailers?, exists, shown.as_deref(), progress).await
                    }
                }
            }))
            .await
        }))))
        .await?;
        for work in &work {
            let base = work.began_at.clone().unwrap_or_else(|| work.staging.base().clone());
            let project = &work.admitted.grant;
            let body = EventBody::Cloned {
                project: project.key.clone(),
                directory: project.directory.clone(),
                base,
            };
            self.progress.state(body).await;
        }
        Ok(Ready {
            agent: agent_name,
            config: agent,
            user: self.user(&grant),
            meter,
            wishes,
            refusals,
            idle: talk::idle_timeout(rooms, task),
        })
    }

    /// The session is over, and so is each project of it.
    async fn conclude(&self, projects: &[ProjectOutcome]) {
        for work in self.open.work() {
            let key = &work.admitted.grant.key;
            let Some(outcome) = projects.iter().find(|outcome| outcome.project == *key) else {
                continue;
            };
            let _busy = work.busy.lock().await;
            let _ = work.ended.set(outcome.clone());
            if work.is_untold() {
                let outcome = outcome.clone();
                tell(self.progress, EventBody::ProjectFinished { outcome }).await;
            }
        }
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
        self.rooms.metrics.sessions.moved(left, next.map(Stage::as_str));
        self.span = next.map(|stage| tracing::info_span!("stage", otel.name = stage.as_str()));
        self.stage = next.map(|stage| (stage, Instant::now()));
    }
}

/// What a conversation needs, once everything stands.
struct Ready<'a> {
    agent: AgentName,
    config: &'a agent::Config,
    /// Who asked, for people.
    user: String,
    meter: Option<Arc<Meter>>,
    wishes: Wishes,
    refusals: Refusals,
    /// How long it waits for another prompt.
    idle: Option<Duration>,
}

/// What was not taken into staging, and why.
type Refused = BTreeMap<ProjectKey, String>;
