//! git over HTTP: who may, and git's own `http-backend` for the rest.
//!
//! Never parses a pack. Decides by token, scope and role before git runs; what a push may do to which branch is
//! decided in `push`, when git asks by its hook.

mod gate;
mod report;

use std::net::Ipv4Addr;
use std::process::Stdio;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt as _;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio_util::io::ReaderStream;

use super::Forge;
use super::git::http_backend;
use super::pages;
use super::parameters;
use super::seed::Side;
use super::state::{Caller, Project};
use super::watch::side_of;

/// A report of a push is short; a longer one is not worth holding.
const REPORT_LIMIT: u64 = 16 * 1024 * 1024;

/// git's two services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Upload,
    Receive,
}

/// One request of git, taken apart.
struct Call {
    side: Side,
    path: String,
    service: Service,
    /// `/info/refs` or `/git-…-pack`, as git's own program wants it.
    suffix: &'static str,
}

/// Plain text with a status.
fn plain(status: StatusCode, text: impl Into<String>) -> Response {
    (
        status,
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8")],
        text.into(),
    )
        .into_response()
}

/// Takes a path apart; `None` if git would not ask for it.
fn parse(method: &Method, path: &str, query: Option<&str>) -> Option<Call> {
    let side = side_of(path);
    let within = match side {
        Side::Gitlab => path.strip_prefix("/gitlab/")?,
        Side::Github => path.strip_prefix('/')?,
    };
    let (project, suffix) = ["/info/refs", "/git-upload-pack", "/git-receive-pack"]
        .into_iter()
        .find_map(|suffix| Some((within.strip_suffix(suffix)?, suffix)))?;
    let service = match suffix {
        "/git-upload-pack" => Service::Upload,
        "/git-receive-pack" => Service::Receive,
        _ => match query.and_then(|query| parameters::find(query, "service"))?.as_str() {
            "git-upload-pack" => Service::Upload,
            "git-receive-pack" => Service::Receive,
            _ => return None,
        },
    };
    let wanted = if suffix == "/info/refs" {
        Method::GET
    } else {
        Method::POST
    };
    let project = match side {
        Side::Gitlab => project.strip_suffix(".git")?,
        Side::Github => project.strip_suffix(".git").unwrap_or(project),
    };
    let project = percent_decode_str(project).decode_utf8().ok()?.into_owned();
    (*method == wanted).then_some(Call {
        side,
        path: project,
        service,
        suffix,
    })
}

/// GitLab sends git on to the address that ends in `.git`.
fn without_suffix(request: &Request) -> Option<Response> {
    let project = request
        .uri()
        .path()
        .strip_prefix("/gitlab/")?
        .strip_suffix("/info/refs")?;
    let query = request
        .uri()
        .query()
        .filter(|query| query.starts_with("service=git-"))?;
    if project.ends_with(".git") || *request.method() != Method::GET {
        return None;
    }
    let target = HeaderValue::try_from(format!("/gitlab/{project}.git/info/refs?{query}")).ok()?;
    Some((StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, target)]).into_response())
}

/// Whatever no other route took: git, or nothing.
pub(crate) async fn any(State(forge): State<Forge>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    if *request.method() == Method::HEAD && path.ends_with("/info/refs") {
        return plain(StatusCode::FORBIDDEN, "");
    }
    if *request.method() == Method::GET
        && let Some(page) = pages::merge_request(&forge, &path).await
    {
        return page;
    }
    if let Some(redirect) = without_suffix(&request) {
        return redirect;
    }
    let Some(call) = parse(request.method(), &path, request.uri().query()) else {
        return plain(
            StatusCode::NOT_FOUND,
            "404: nothing here. This is the cofferdam test forge, see / for what it holds.\n",
        );
    };
    match gate::pass(&forge, &call, request.headers()) {
        Ok((project, caller)) => serve(&forge, &call, &project, caller, request).await,
        Err(refusal) => *refusal,
    }
}

async fn serve(forge: &Forge, call: &Call, project: &Project, caller: Option<Caller>, request: Request) -> Response {
    let pushing = call.service == Service::Receive && call.suffix != "/info/refs";
    let ticket = match (&caller, pushing) {
        (Some(caller), true) => Some(forge.0.pushes.begin(project.id, caller.clone(), &call.path)),
        (Some(_) | None, _) => None,
    };
    let (parts, body) = request.into_parts();
    let mut command = backend(call, project, &parts.headers);
    command
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default());
    command.env(
        "REMOTE_USER",
        caller
            .as_ref()
            .map_or("anonymous", |caller| caller.user.username.as_str()),
    );
    if let Some(ticket) = &ticket {
        command
            .env("FORGE_PUSH", ticket)
            .env("FORGE_PORT", forge.address().port().to_string());
        command.env("FORGE_HOST", forge.address().ip().to_string());
    }
    let answer = match command.spawn() {
        Ok(child) => answer(child, body, pushing).await,
        Err(source) => Err(source),
    };
    let reason = ticket.and_then(|ticket| forge.0.pushes.end(&ticket));
    match (answer, reason) {
        (Ok(answer), Some(reason)) => report::with_reason(answer, &reason).await,
        (Ok(answer), None) => answer,
        (Err(source), _) => plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("git http-backend: {source}\n"),
        ),
    }
}

fn backend(call: &Call, project: &Project, headers: &HeaderMap) -> tokio::process::Command {
    let mut command = http_backend();
    let directory = project.repository.directory();
    command.env("GIT_PROJECT_ROOT", directory).env("PATH_INFO", call.suffix);
    command
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_ADDR", Ipv4Addr::LOCALHOST.to_string());
    for (name, variable) in [
        ("content-type", "CONTENT_TYPE"),
        ("content-length", "CONTENT_LENGTH"),
        ("content-encoding", "HTTP_CONTENT_ENCODING"),
        ("git-protocol", "GIT_PROTOCOL"),
    ] {
        if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) {
            command.env(variable, value);
        }
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

async fn answer(mut child: Child, body: Body, whole: bool) -> std::io::Result<Response> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
        return Err(std::io::Error::other("no pipes"));
    };
    // git may answer while it still reads; it may also stop reading early, which is no fault of ours.
    let feed = tokio::spawn(feed(stdin, body));
    let mut stdout = BufReader::new(stdout);
    let mut response = head(&mut stdout).await?;
    if whole {
        let mut bytes = Vec::new();
        stdout.take(REPORT_LIMIT).read_to_end(&mut bytes).await?;
        child.wait().await?;
        *response.body_mut() = Body::from(bytes);
    } else {
        // The child lives as long as its output is read: a client that goes away takes it along.
        let keep = (child, feed);
        *response.body_mut() = Body::from_stream(ReaderStream::new(stdout).inspect(move |_| {
            let _ = &keep;
        }));
    }
    Ok(response)
}

async fn feed(mut stdin: ChildStdin, body: Body) -> Result<(), axum::BoxError> {
    let mut body = body.into_data_stream();
    while let Some(chunk) = body.next().await {
        let chunk: Bytes = chunk?;
        stdin.write_all(&chunk).await?;
    }
    stdin.shutdown().await?;
    Ok(())
}

/// The head of a CGI answer.
async fn head(stdout: &mut BufReader<ChildStdout>) -> std::io::Result<Response> {
    let mut response = Response::new(Body::empty());
    loop {
        let mut line = String::new();
        if stdout.read_line(&mut line).await? == 0 {
            return Err(std::io::Error::other("no answer"));
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(response);
        }
        let Some((name, value)) = line.split_once(':') else {
            return Err(std::io::Error::other("malformed answer"));
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().and_then(|code| code.parse::<u16>().ok());
            *response.status_mut() = code
                .and_then(|code| StatusCode::from_u16(code).ok())
                .unwrap_or_default();
        } else if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
}
