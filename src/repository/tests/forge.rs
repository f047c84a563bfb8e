//! A forge for the tests: `git http-backend` on loopback, which asks for Basic authorisation, and the room set up to use it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use base64::Engine as _;
use tokio::io::AsyncWriteExt as _;

use crate::grant::{Identity, ProjectGrant, Trailers};
use crate::message::{CommitId, ForgeKind, SessionId};
use crate::repository::{Access, Config, Repositories, RepositoryError, Staging};
use crate::secret::Secret;

pub(super) const TOKEN: &str = "glpat-canary-0123456789";
pub(super) const SESSION: &str = "0190c2f0-7c1e-7000-8000-000000000001";
pub(super) const BRANCH: &str = "cofferdam/fix-00000001";

/// How the forge behaves.
#[derive(Default)]
pub(super) struct Manners {
    /// Requests that had the right credential.
    pub(super) entered: AtomicUsize,
    /// Answer this status instead.
    pub(super) status: Mutex<Option<(u16, String)>>,
    /// What came with the right credential: the user agent, the method and the path's end.
    pub(super) asked: Mutex<Vec<String>>,
    /// Answer this to whoever is not git: status, type, text; the text of a redirect is where it leads.
    pub(super) quick: Mutex<Option<(u16, &'static str, String)>>,
    /// Hold git's authorised POST requests until `release`.
    pub(super) hold: AtomicBool,
    pub(super) held: tokio::sync::Notify,
    pub(super) release: tokio::sync::Notify,
    /// Authorisation headers that arrived.
    pub(super) seen: Mutex<Vec<String>>,
}

pub(super) struct Forge {
    pub(super) directory: tempfile::TempDir,
    pub(super) address: String,
    pub(super) manners: Arc<Manners>,
    pub(super) room: Repositories,
    pub(super) state: PathBuf,
}

impl Forge {
    pub(super) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A forge with one project `team/greeter` that has one commit on `main`.
    pub(super) async fn start_with(adjust: impl FnOnce(&mut Config)) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let manners = Arc::new(Manners::default());
        let root = directory.path().join("forge");
        let address = serve_forge(root.clone(), Arc::clone(&manners)).await;
        let state = directory.path().join("state");
        let mut config = Config {
            state_dir: state.clone(),
            fetch_timeout_s: 30,
            push_timeout_s: 30,
            ..Config::default()
        };
        adjust(&mut config);
        let room = Repositories::open(config, super::internal_command()).await.unwrap();
        let forge = Self {
            directory,
            address,
            manners,
            room,
            state,
        };
        forge.make_project("team/greeter");
        forge
    }

    pub(super) fn make_project(&self, path: &str) -> PathBuf {
        let bare = self.bare(path);
        std::fs::create_dir_all(&bare).unwrap();
        git(&bare, &["init", "-q", "--bare", "-b", "main", "."]);
        git(&bare, &["config", "http.receivepack", "true"]);
        git(&bare, &["config", "receive.advertisePushOptions", "true"]);
        self.upstream_commit(path, "main", "README.md", "Hello\n");
        bare
    }

    pub(super) fn bare(&self, path: &str) -> PathBuf {
        self.directory.path().join("forge").join(format!("{path}.git"))
    }

    /// Somebody else's commit on the forge, with nobody's trailers.
    pub(super) fn upstream_commit(&self, path: &str, branch: &str, file: &str, text: &str) -> CommitId {
        let bare = self.bare(path);
        let tree = tempfile::tempdir().unwrap();
        git(tree.path(), &["clone", "-q", bare.to_str().unwrap(), "."]);
        if git_ok(
            tree.path(),
            &["rev-parse", "-q", "--verify", &format!("origin/{branch}")],
        ) {
            git(tree.path(), &["checkout", "-q", branch]);
        } else {
            git(tree.path(), &["checkout", "-q", "-b", branch]);
        }
        std::fs::write(tree.path().join(file), text).unwrap();
        git(tree.path(), &["add", "."]);
        git(
            tree.path(),
            &[
                "-c",
                "user.name=Eve",
                "-c",
                "user.email=eve@example.org",
                "commit",
                "-q",
                "-m",
                "Upstream work",
            ],
        );
        git(
            tree.path(),
            &["push", "-q", "origin", &format!("HEAD:refs/heads/{branch}")],
        );
        git(tree.path(), &["rev-parse", "HEAD"]).parse().unwrap()
    }

    pub(super) fn head(&self, path: &str, branch: &str) -> Option<CommitId> {
        let bare = self.bare(path);
        let name = format!("refs/heads/{branch}");
        git_ok(&bare, &["rev-parse", "-q", "--verify", &name])
            .then(|| git(&bare, &["rev-parse", &name]).parse().unwrap())
    }

    pub(super) fn project(&self, path: &str) -> ProjectGrant {
        project(&self.address, path)
    }

    pub(super) fn session() -> SessionId {
        SESSION.parse().unwrap()
    }

    /// Refreshes and stages `team/greeter` as project 0.
    pub(super) async fn stage(&self) -> Result<Staging, RepositoryError> {
        let project = self.project("team/greeter");
        let mirrored = self.room.refresh(&project, &access()).await?;
        self.room
            .stage(&mirrored, Self::session(), 0, &project, &trailers())
            .await
    }

    /// What was asked since the last time.
    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.manners.asked.lock().unwrap())
    }

    /// The only mirror there is.
    pub(super) fn mirror(&self) -> PathBuf {
        let mut mirrors: Vec<_> = std::fs::read_dir(self.state.join("mirrors"))
            .unwrap()
            .map(|entry| entry.unwrap().path().join("mirror.git"))
            .collect();
        assert_eq!(mirrors.len(), 1);
        mirrors.remove(0)
    }
}

pub(super) fn project(address: &str, path: &str) -> ProjectGrant {
    ProjectGrant {
        key: serde_json::from_value(serde_json::json!({"connection": "work", "path": path})).unwrap(),
        forge: ForgeKind::Gitlab,
        connection: "work".parse().unwrap(),
        id: path.to_owned(),
        instance: address.to_owned(),
        clone_url: format!("{address}/{path}.git"),
        web_url: format!("{address}/{path}"),
        base: "main".parse().unwrap(),
        default_branch: "main".parse().unwrap(),
        branch: BRANCH.parse().unwrap(),
        directory: "greeter".into(),
        identity: ada(),
        capabilities: crate::message::Capabilities::UNPROVEN,
    }
}

pub(super) fn ada() -> Identity {
    Identity {
        name: "Ada Example".into(),
        email: "ada@example.org".into(),
    }
}

pub(super) fn trailers() -> Trailers {
    let agent = Identity {
        name: "agent".into(),
        email: "agent@agents.invalid".into(),
    };
    Trailers::new(&ada(), &agent, Forge::session())
}

pub(super) fn access() -> Access {
    access_with(TOKEN)
}

pub(super) fn access_with(token: &str) -> Access {
    Access {
        token: Secret::new(token),
        basic_user: "oauth2".into(),
        account: "ada".into(),
        ca_file: None,
    }
}

/// Runs git as a person would, in a directory, without this machine's settings; the output without its last line break.
pub(super) fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = git_command(directory, arguments).output().unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

pub(super) fn git_ok(directory: &Path, arguments: &[&str]) -> bool {
    git_command(directory, arguments).output().unwrap().status.success()
}

pub(super) fn git_command(directory: &Path, arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new("git");
    command
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0");
    command
}

async fn serve_forge(root: PathBuf, manners: Arc<Manners>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(answer).with_state((root, manners));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn plain(status: u16, headers: &[(&str, &str)], text: &str) -> Response {
    let mut response = Response::builder().status(status).header("Content-Type", "text/plain");
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(Body::from(text.to_owned())).unwrap()
}

async fn answer(State((root, manners)): State<(PathBuf, Arc<Manners>)>, request: Request) -> Response {
    let wanted = base64::engine::general_purpose::STANDARD.encode(format!("oauth2:{TOKEN}"));
    let headers = request.headers().clone();
    let header = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let authorization = header("authorization");
    if !authorization.is_empty() {
        manners.seen.lock().unwrap().push(authorization.clone());
    }
    if let Some((status, text)) = manners.status.lock().unwrap().clone() {
        let location = if (300..400).contains(&status) {
            text.clone()
        } else {
            String::new()
        };
        return plain(status, &[("Location", &location)], &text);
    }
    if authorization != format!("Basic {wanted}") {
        return plain(
            401,
            &[("WWW-Authenticate", "Basic realm=\"Forge\"")],
            "HTTP Basic: Access denied.",
        );
    }
    manners.entered.fetch_add(1, Ordering::SeqCst);
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let agent = header("user-agent").split('/').next().unwrap_or_default().to_owned();
    let end = path.rsplit('/').next().unwrap_or_default();
    manners.asked.lock().unwrap().push(format!("{agent} {method} {end}"));
    if agent != "git"
        && let Some((status, kind, text)) = manners.quick.lock().unwrap().clone()
    {
        let location: &[_] = if (300..400).contains(&status) {
            &[("Location", text.as_str())]
        } else {
            &[]
        };
        let mut response = plain(status, location, &text);
        response.headers_mut().insert("Content-Type", kind.parse().unwrap());
        return response;
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let (kind, protocol, encoding) = (
        header("content-type"),
        header("git-protocol"),
        header("content-encoding"),
    );
    if agent == "git" && method == "POST" && manners.hold.load(Ordering::SeqCst) {
        manners.held.notify_one();
        let _ = tokio::time::timeout(Duration::from_secs(30), manners.release.notified()).await;
    }
    let body = axum::body::to_bytes(request.into_body(), 1 << 30).await.unwrap();
    let mut child = tokio::process::Command::new("git")
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", "/nonexistent")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REMOTE_USER", "ada")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", kind)
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", encoding)
        .env("GIT_PROTOCOL", protocol)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    tokio::spawn(async move {
        let _ = stdin.write_all(&body).await;
    });
    let output = child.wait_with_output().await.unwrap().stdout;
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(0);
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let Some((name, value)) = line.split_once(": ") else {
            continue;
        };
        response = if name == "Status" {
            response.status(value[..3].parse::<u16>().unwrap())
        } else {
            response.header(name, value)
        };
    }
    response.body(Body::from(output[end + 4..].to_vec())).unwrap()
}
