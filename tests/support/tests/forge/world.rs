//! A running test forge with a client and a git for one test.

use std::path::{Path, PathBuf};

use cofferdam_test_support::forge::{self, Running, Seed};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

pub(crate) const GREETER: &str = "platform/tools/greeter";
pub(crate) const GREETER_KEY: &str = "platform%2Ftools%2Fgreeter";
pub(crate) const WEBSITE: &str = "acme/website";

/// What a command printed and how it ended.
pub(crate) struct Ran {
    pub(crate) ok: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// The same, if it succeeded.
    #[track_caller]
    pub(crate) fn good(self) -> Self {
        assert!(self.ok, "git failed: {}", self.err);
        self
    }

    /// The same, if it failed and said all these things.
    #[track_caller]
    pub(crate) fn bad(self, said: &[&str]) -> Self {
        assert!(!self.ok, "git succeeded: {}", self.err);
        self.said(said)
    }

    #[track_caller]
    pub(crate) fn said(self, said: &[&str]) -> Self {
        for one in said {
            assert!(self.err.contains(one), "{one:?} is missing in: {}", self.err);
        }
        self
    }
}

/// An answer over HTTP.
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map(|value| value.to_str().unwrap())
            .unwrap_or_default()
    }
}

pub(crate) struct World {
    pub(crate) running: Running,
    pub(crate) directory: TempDir,
    pub(crate) client: Client,
}

/// The demo seed with more text at its end.
pub(crate) fn seed(more: &str) -> Seed {
    let demo = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/seeds/demo.toml")).unwrap();
    Seed::parse(&format!("{demo}\n{more}")).unwrap()
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with("").await
    }

    /// Starts with the demo seed and more.
    pub(crate) async fn with(more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let running = forge::start(&seed(more), &directory.path().join("data")).await.unwrap();
        Self {
            running,
            directory,
            client: client().no_proxy().build().unwrap(),
        }
    }

    /// A request to GitLab's REST with a token (empty for none).
    pub(crate) fn gitlab(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        let request = self
            .client
            .request(method, format!("{}/api/v4{path}", self.running.gitlab));
        if token.is_empty() {
            request
        } else {
            request.header("PRIVATE-TOKEN", token)
        }
    }

    /// A request to GitHub's REST with a token (empty for none).
    pub(crate) fn github(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        let request = self
            .client
            .request(method, format!("{}/api/v3{path}", self.running.github));
        if token.is_empty() {
            request
        } else {
            request.bearer_auth(token)
        }
    }

    pub(crate) async fn get_gitlab(&self, path: &str, token: &str) -> Got {
        got(self.gitlab(Method::GET, path, token)).await
    }

    pub(crate) async fn get_github(&self, path: &str, token: &str) -> Got {
        got(self.github(Method::GET, path, token)).await
    }

    pub(crate) async fn post_gitlab(&self, path: &str, token: &str, body: Value) -> Got {
        got(self.gitlab(Method::POST, path, token).json(&body)).await
    }

    pub(crate) async fn post_github(&self, path: &str, token: &str, body: Value) -> Got {
        got(self.github(Method::POST, path, token).json(&body)).await
    }

    /// The control API.
    pub(crate) async fn control(&self, method: Method, path: &str, body: Option<Value>) -> Got {
        let request = self.client.request(method, format!("{}/_test{path}", self.running.url));
        got(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    /// Head of a branch by the forge's own state.
    pub(crate) async fn head(&self, side: &str, project: &str, branch: &str) -> Option<String> {
        let state = self.control(Method::GET, "/state", None).await.body;
        state[side][project]["branches"][branch].as_str().map(ToOwned::to_owned)
    }

    /// A clone address with a token in it: only a test may do that.
    pub(crate) fn url(&self, side: &str, path: &str, token: &str) -> String {
        let base = if side == "gitlab" {
            &self.running.gitlab
        } else {
            &self.running.github
        };
        let login = if token.is_empty() {
            String::new()
        } else {
            format!("oauth2:{token}@")
        };
        format!("{}/{path}.git", base.replacen("http://", &format!("http://{login}"), 1))
    }

    pub(crate) async fn git(&self, within: &Path, arguments: &[&str]) -> Ran {
        let mut command = Command::new("git");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.directory.path());
        command
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C");
        for role in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{role}_NAME"), "Ada Example")
                .env(format!("GIT_{role}_EMAIL"), "ada@example.org");
        }
        if arguments.contains(&"--traced") {
            command.env("GIT_TRACE_PACKET", "1");
        }
        let arguments = arguments.iter().filter(|argument| **argument != "--traced");
        let output = command.args(arguments).current_dir(within).output().await.unwrap();
        Ran {
            ok: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// A clone, on a new branch with one new commit.
    pub(crate) async fn work(&self, side: &str, path: &str, token: &str, branch: &str) -> PathBuf {
        let directory = self.directory.path().join(format!("work-{side}-{branch}"));
        let target = directory.to_string_lossy().into_owned();
        self.git(
            self.directory.path(),
            &["clone", "-q", &self.url(side, path, token), &target],
        )
        .await
        .good();
        self.git(&directory, &["checkout", "-q", "-b", branch]).await.good();
        self.commit(&directory, "change.txt", "a change\n", "Add a change")
            .await;
        directory
    }

    /// One more commit; returns its id.
    pub(crate) async fn commit(&self, directory: &Path, file: &str, content: &str, message: &str) -> String {
        std::fs::write(directory.join(file), content).unwrap();
        self.git(directory, &["add", "."]).await.good();
        self.git(directory, &["commit", "-q", "-m", message]).await.good();
        self.git(directory, &["rev-parse", "HEAD"]).await.good().out
    }

    /// A pushed branch with one commit; returns its head.
    pub(crate) async fn pushed(&self, side: &str, path: &str, token: &str, branch: &str) -> String {
        let work = self.work(side, path, token, branch).await;
        self.git(&work, &["push", "-q", "origin", branch]).await.good();
        self.git(&work, &["rev-parse", "HEAD"]).await.good().out
    }
}

/// Sends a request; a body that is not JSON is returned as a string.
pub(crate) async fn got(request: RequestBuilder) -> Got {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Got { status, headers, body }
}

/// A client to be built. In a build of the whole workspace the product's feature takes the provider away, so one is installed here; a second
/// time changes nothing.
pub(crate) fn client() -> reqwest::ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
}
