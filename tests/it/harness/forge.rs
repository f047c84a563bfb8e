//! The test forge as a process of its own, with its control routes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::text;

/// What the tests need beside the demo's seed.
const MORE: &str = include_str!("seed.toml");

/// A running test forge; ends with this value, and with the tests' process in any case.
pub(crate) struct Forge {
    addresses: Value,
    client: reqwest::Client,
    _child: Child,
}

impl Forge {
    /// Starts a forge with the demo's seed, the tests' own, and more.
    pub(crate) async fn start(directory: &Path, more: &str) -> Self {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/seeds/demo.toml");
        let seed = directory.join("seed.toml");
        let demo = std::fs::read_to_string(demo).unwrap();
        std::fs::write(&seed, format!("{demo}\n{MORE}\n{more}\n")).unwrap();
        let ready = directory.join("forge.json");
        let log = std::fs::File::create(directory.join("forge.log")).unwrap();
        let child = Command::new(program())
            .arg("--seed")
            .arg(seed)
            .arg("--data")
            .arg(directory.join("forge"))
            .arg("--ready-file")
            .arg(&ready)
            .args(["--max-lifetime", "900", "--parent-pid", &std::process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("the test forge starts");
        let end = Instant::now() + Duration::from_secs(30);
        while !ready.exists() {
            let said = std::fs::read_to_string(directory.join("forge.log")).unwrap_or_default();
            assert!(Instant::now() < end, "the test forge did not come up: {said}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let addresses = serde_json::from_str(&std::fs::read_to_string(ready).unwrap()).unwrap();
        // A second installation is an error that means "done already".
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30));
        Self {
            addresses,
            client: client.build().unwrap(),
            _child: child,
        }
    }

    /// The address of the GitLab instance.
    pub(crate) fn gitlab(&self) -> &str {
        text(&self.addresses, "/gitlab")
    }

    /// The address of the GitHub instance.
    pub(crate) fn github(&self) -> &str {
        text(&self.addresses, "/github")
    }

    /// The address of a project for git, without a credential.
    pub(crate) fn git_url(&self, connection: &str, path: &str) -> String {
        let instance = if connection == "lab" {
            self.gitlab()
        } else {
            self.github()
        };
        format!("{}/{path}.git", instance.trim_end_matches('/'))
    }

    /// A project's state: branches, refs, change requests.
    pub(crate) async fn project(&self, connection: &str, path: &str) -> Value {
        let mut state = self.state().await;
        let side = if connection == "lab" { "gitlab" } else { "github" };
        let project = state[side][path].take();
        assert!(project.is_object(), "the forge has no {path}");
        project
    }

    /// Everything that the forge holds.
    pub(crate) async fn state(&self) -> Value {
        let answer = self.client.get(self.url("/_test/state")).send().await.unwrap();
        answer.json().await.unwrap()
    }

    /// The requests that it was sent, with the names of their tokens.
    pub(crate) async fn requests(&self) -> Vec<Value> {
        let answer = self.client.get(self.url("/_test/requests")).send().await.unwrap();
        answer.json().await.unwrap()
    }

    /// Plays a fault on requests that match.
    pub(crate) async fn fault(&self, fault: Value) {
        self.post("/_test/faults", fault).await;
    }

    /// Changes a token by its name in the seed.
    pub(crate) async fn change_token(&self, name: &str, change: Value) {
        self.post(&format!("/_test/tokens/{name}"), change).await;
    }

    /// Somebody else pushes one file; the new head.
    pub(crate) async fn commit(
        &self,
        connection: &str,
        project: &str,
        branch: &str,
        file: &str,
        content: &str,
    ) -> String {
        let forge = if connection == "lab" { "gitlab" } else { "github" };
        let wish =
            json!({"forge": forge, "project": project, "branch": branch, "author": "grace", "files": {file: content}});
        let answer = self.post("/_test/commit", wish).await;
        text(&answer, "/sha").to_owned()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.client.post(self.url(path)).json(&body).send().await.unwrap();
        let status = answer.status();
        let said = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status} {said}");
        serde_json::from_str(&said).unwrap_or(Value::Null)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", text(&self.addresses, "/url").trim_end_matches('/'))
    }
}

/// The forge is a program of another package, so cargo does not name it for us.
fn program() -> PathBuf {
    let given = std::env::var_os("COFFERDAM_TEST_FORGE").map(PathBuf::from);
    let path = given.unwrap_or_else(|| Path::new(env!("CARGO_BIN_EXE_cofferdam")).with_file_name("test-forge"));
    assert!(
        path.exists(),
        "{} is missing. Build it: cargo build -p cofferdam-test-support --bin test-forge",
        path.display()
    );
    path
}
