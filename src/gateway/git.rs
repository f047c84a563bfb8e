//! The git route: smart HTTP at `/git/<connection>/<path>.git/...`, answered by git's own programs over the session's staging.
//!
//! Only granted projects exist here. Never talks to a forge, never serves a file, never lets a client choose git's options. Every push is
//! told to the session, accepted or refused; what a push begins with is read in `head`, what git answers in `report`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::message::{EventBody, ProjectKey};
use crate::repository::{Protocol, RepositoryError, Service, Staging, info_refs_prefix};

mod carry;
mod head;
mod report;
mod request;

use carry::{carry, carry_fetch, carry_report, feed};
use head::Head;
use report::Report;

/// Pushes of one project that run at a time. Two would race for the same branch anyway.
const PUSHES_AT_A_TIME: usize = 1;

/// How long the list of references in front of a push may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Tells the session what happened; the future ends when it is told.
pub type Tell = Box<dyn Fn(EventBody) -> BoxFuture<'static, ()> + Send + Sync>;

/// What the route serves.
pub struct GitRoutes {
    /// By the address's last part; it may grow while the session runs.
    projects: RwLock<BTreeMap<String, Arc<Project>>>,
    tell: Tell,
    /// Places for this session's git programs; a program is not started for whoever waits.
    places: Arc<Semaphore>,
    patience: Duration,
}

#[derive(Debug)]
struct Project {
    key: ProjectKey,
    staging: Arc<Staging>,
    pushes: Arc<Semaphore>,
    /// Set when the project is not the session's any more.
    closed: AtomicBool,
}

impl std::fmt::Debug for GitRoutes {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("GitRoutes")
            .field("projects", &self.projects)
            .finish_non_exhaustive()
    }
}

impl GitRoutes {
    /// A place for a git program; none when none came in time, or the session is over.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.places.clone().acquire_owned();
        tokio::time::timeout(self.patience, place).await.ok()?.ok()
    }

    /// Routes for these projects; what happens to pushes is told to `tell` before the client sees their end.
    #[must_use]
    pub fn new(projects: impl IntoIterator<Item = (ProjectKey, Arc<Staging>)>, tell: Tell) -> Self {
        let (mut share, mut patience) = (1, Duration::ZERO);
        let projects = projects.into_iter().map(|(key, staging)| {
            (share, patience) = (staging.share(), staging.patience());
            (place(&key), Arc::new(Project::new(key, staging, PUSHES_AT_A_TIME)))
        });
        let projects = RwLock::new(projects.collect());
        Self {
            projects,
            tell,
            places: Arc::new(Semaphore::new(share)),
            patience,
        }
    }

    /// Serves one more project from now on, to be cloned; pushes to it wait for [`Self::take_pushes`].
    pub fn open(&self, key: ProjectKey, staging: Arc<Staging>) {
        let project = Arc::new(Project::new(key, staging, 0));
        let mut projects = self.projects.write().unwrap_or_else(PoisonError::into_inner);
        projects.insert(place(&project.key), project);
    }

    /// Takes pushes to a project that was opened later. Once.
    pub fn take_pushes(&self, key: &ProjectKey) {
        if let Some(project) = self.at(&place(key)) {
            project.pushes.add_permits(PUSHES_AT_A_TIME);
        }
    }

    /// Serves a project no longer. What is being answered goes on to its end.
    pub fn close(&self, key: &ProjectKey) {
        if let Some(project) = self.at(&place(key)) {
            project.closed.store(true, Ordering::Release);
        }
    }

    fn at(&self, place: &str) -> Option<Arc<Project>> {
        let projects = self.projects.read().unwrap_or_else(PoisonError::into_inner);
        projects.get(place).cloned()
    }
}

impl Project {
    fn new(key: ProjectKey, staging: Arc<Staging>, pushes: usize) -> Self {
        Self {
            key,
            staging,
            pushes: Arc::new(Semaphore::new(pushes)),
            closed: AtomicBool::new(false),
        }
    }
}

/// The part of the address that names a project.
fn place(key: &ProjectKey) -> String {
    format!("{}/{}.git", key.connection, key.path)
}

/// The route.
pub fn router(routes: Arc<GitRoutes>) -> Router {
    Router::new().route("/git/{*rest}", any(answer)).with_state(routes)
}

async fn answer(
    State(routes): State<Arc<GitRoutes>>,
    Path(rest): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    request: Request,
) -> Response {
    // Nothing that is served has a name that needs escapes; with them one project would have several addresses.
    let path = request.uri().path();
    if path.contains(['%', '\\']) || path.contains("//") || path.contains("..") {
        return plain(StatusCode::NOT_FOUND, "this is no address of a git repository");
    }
    let Some((place, act)) = rest
        .split_once(".git/")
        .map(|(place, act)| (format!("{place}.git"), act))
    else {
        return plain(StatusCode::NOT_FOUND, "this is no address of a git repository");
    };
    // An exact match on the table: a path with tricks in it is simply not there.
    let found = routes.at(&place);
    let Some(project) = found.filter(|project| !project.closed.load(Ordering::Acquire)) else {
        return plain(
            StatusCode::NOT_FOUND,
            "this session has no such project; its projects are those cloned in /workspace",
        );
    };
    let protocol = Protocol::from_header(
        request
            .headers()
            .get("git-protocol")
            .and_then(|value| value.to_str().ok()),
    );
    match (request.method(), act) {
        (&Method::GET, "info/refs") => match query.get("service").and_then(|name| Service::from_name(name)) {
            Some(service) => advertise(&routes, &project, service, protocol).await,
            None => plain(StatusCode::FORBIDDEN, "only git's smart protocol is served"),
        },
        (&Method::POST, "git-upload-pack") => fetch(&routes, &project, protocol, request).await,
        (&Method::POST, "git-receive-pack") => push(&routes, &project, protocol, request).await,
        (_, _) => plain(StatusCode::FORBIDDEN, "only git's smart protocol is served"),
    }
}

async fn advertise(routes: &GitRoutes, project: &Project, service: Service, protocol: Protocol) -> Response {
    // Told here already: of an answer to the push itself git shows no word.
    if service == Service::ReceivePack
        && let Err(error) = project.staging.check_room().await
    {
        return failed(routes, project, &error).await;
    }
    let Some(place) = routes.place().await else {
        return busy();
    };
    let mut serving = match project.staging.info_refs(service, protocol).await {
        Ok(serving) => serving,
        Err(error) => return failed(routes, project, &error).await,
    };
    drop(serving.input.take());
    let prefix = futures::stream::once(async move { Ok(Bytes::from(info_refs_prefix(service, protocol))) });
    let body = Body::from_stream(prefix.chain(carry(serving, || async move { drop(place) })));
    respond(body, format!("application/x-{}-advertisement", service.name()))
}

async fn fetch(routes: &GitRoutes, project: &Project, protocol: Protocol, request: Request) -> Response {
    let compressed = match encoding(request.headers()) {
        Some("gzip" | "x-gzip") => true,
        None | Some("identity") => false,
        Some(_) => return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send the request as it is, or gzip"),
    };
    let told = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok());
    if told
        .and_then(|length| length.parse::<usize>().ok())
        .is_some_and(|length| length > request::LARGEST)
    {
        return plain(StatusCode::PAYLOAD_TOO_LARGE, "the fetch request is too large");
    }
    let Some(place) = routes.place().await else {
        return busy();
    };
    let mut serving = match project.staging.upload_pack(protocol).await {
        Ok(serving) => serving,
        Err(error) => return failed(routes, project, &error).await,
    };
    let (trouble, told) = oneshot::channel();
    if let Some(mut input) = serving.input.take() {
        let body = request.into_body().into_data_stream();
        tokio::spawn(async move {
            if let Err(untaken) = request::feed(body, compressed, &mut input, request::TIMEOUT).await {
                // Before git sees the end, so that it is there when git's answer ends.
                let _ = trouble.send(untaken.packet());
            }
        });
    }
    respond(
        Body::from_stream(carry_fetch(serving, told, || async move { drop(place) })),
        "application/x-git-upload-pack-result".to_owned(),
    )
}

async fn push(routes: &Arc<GitRoutes>, project: &Project, protocol: Protocol, request: Request) -> Response {
    // A compressed push would hide its size from git's own limit.
    if !matches!(encoding(request.headers()), None | Some("identity")) {
        let message = "send the push without Content-Encoding";
        return turned_away(routes, project, StatusCode::UNSUPPORTED_MEDIA_TYPE, message).await;
    }
    let turn = tokio::time::timeout(routes.patience, project.pushes.clone().acquire_owned()).await;
    let (Ok(Ok(turn)), Some(place)) = (turn, routes.place().await) else {
        let message = "the worker is busy with other git requests of this session: try again";
        return turned_away(routes, project, StatusCode::SERVICE_UNAVAILABLE, message).await;
    };
    let mut body = request.into_body().into_data_stream();
    let (head, begun) = match tokio::time::timeout(HEAD_TIMEOUT, read_head(&mut body)).await {
        Ok(Ok(read)) => read,
        Ok(Err(bad)) => return turned_away(routes, project, StatusCode::BAD_REQUEST, &bad.to_string()).await,
        Err(_) => {
            let message = "the push did not begin in time: try again";
            return turned_away(routes, project, StatusCode::REQUEST_TIMEOUT, message).await;
        }
    };
    let before = project.staging.head().ok().flatten();
    let mut serving = match project.staging.receive_pack(protocol).await {
        Ok(serving) => serving,
        Err(error) => return failed(routes, project, &error).await,
    };
    if let Some(input) = serving.input.take() {
        tokio::spawn(feed(begun, body, input));
    }
    let (key, staging, routes) = (project.key.clone(), project.staging.clone(), Arc::clone(routes));
    let body = carry_report(serving, move |report| async move {
        let after = staging.head().ok().flatten();
        let event = match after {
            Some(head) if before.as_ref() != Some(&head) => Some(EventBody::PushAccepted { project: key, head }),
            _ => told(&report, &head).map(|message| EventBody::PushRefused { project: key, message }),
        };
        if let Some(event) = event {
            (routes.tell)(event).await;
        }
        drop((turn, place));
    });
    respond(
        Body::from_stream(body),
        "application/x-git-receive-pack-result".to_owned(),
    )
}

/// A push that does not reach git, with its event.
async fn turned_away(routes: &GitRoutes, project: &Project, status: StatusCode, message: &str) -> Response {
    let event = EventBody::PushRefused {
        project: project.key.clone(),
        message: message.to_owned(),
    };
    (routes.tell)(event).await;
    plain(status, message)
}

/// The words of a refusal. Of a client that wants no report only what it asked for is known.
fn told(report: &Report, head: &Head) -> Option<String> {
    let silent = || {
        let message = format!("{} was not taken; the client asked for no report", head.shown());
        (!head.report && !head.references.is_empty()).then_some(message)
    };
    report.refusal().or_else(silent)
}

/// Reads the list of references, and what came with it.
async fn read_head(body: &mut BodyDataStream) -> Result<(Head, Vec<u8>), head::Bad> {
    let mut begun = Vec::new();
    loop {
        if let Some(head) = head::read(&begun)? {
            head::check_after(&head, &begun)?;
            return Ok((head, begun));
        }
        match body.next().await {
            Some(Ok(piece)) => begun.extend_from_slice(&piece),
            Some(Err(_)) | None => return Err(head::Bad::BrokenOff),
        }
    }
}

fn encoding(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(header::CONTENT_ENCODING)
        .map(|value| value.to_str().unwrap_or("unknown"))
}

fn respond(body: Body, content_type: String) -> Response {
    let mut response = Response::new(body);
    if let Ok(value) = HeaderValue::from_str(&content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn busy() -> Response {
    plain(
        StatusCode::SERVICE_UNAVAILABLE,
        "the worker is busy with other git requests of this session: try again",
    )
}

/// git prints a plain text body after `remote:`.
fn plain(status: StatusCode, message: &str) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        format!("{message}\n"),
    )
        .into_response()
}

async fn failed(routes: &GitRoutes, project: &Project, error: &RepositoryError) -> Response {
    if matches!(error, RepositoryError::ServeBusy { .. }) {
        return plain(StatusCode::SERVICE_UNAVAILABLE, &error.to_string());
    }
    if matches!(error, RepositoryError::StagingFull { .. }) {
        let message = format!("cofferdam: refused: {error}");
        return turned_away(routes, project, StatusCode::PAYLOAD_TOO_LARGE, &message).await;
    }
    tracing::warn!(%error, "a sandbox's git request could not be served");
    plain(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the worker could not run git; the session's operator can see why in the log",
    )
}

/// What the fuzzers reach of this file.
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing {
    /// The words of a refusal in the answer to a push.
    #[must_use]
    pub fn refusal(answer: &[u8]) -> Option<String> {
        let mut report = super::report::Report::default();
        drop(report.piece(&bytes::Bytes::copy_from_slice(answer)));
        drop(report.rest());
        report.refusal()
    }

    /// A compressed request, unless it is too large.
    #[must_use]
    pub fn decompressed(body: &[u8]) -> Option<Vec<u8>> {
        super::request::decompressed(body)
    }
}
