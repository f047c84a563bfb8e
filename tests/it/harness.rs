//! A world for one test: a state directory, a forge of its own, a configuration, and the `cofferdam` program to run in it.
//!
//! Everything in it ends with the test: processes are killed by their id, containers are removed by the label of this world's worker.

mod commits;
mod forge;
mod run;
mod task;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::{Semaphore, SemaphorePermit};

pub(crate) use commits::{Commit, Remote};
pub(crate) use forge::Forge;
pub(crate) use run::{Ran, Running};
pub(crate) use task::Task;

/// The project on GitLab that most tests work on.
pub(crate) const GREETER: &str = "platform/tools/greeter";
/// The repository on GitHub that most tests work on.
pub(crate) const WEBSITE: &str = "acme/website";
/// The image of the scripted agent.
const IMAGE: &str = "cofferdam/sandbox-scripted:test";
/// No program of a test may run longer.
pub(crate) const LONGEST: Duration = Duration::from_secs(120);
/// So many tests may have a sandbox at a time: the machine is small, and a time limit must mean the program's time.
static SANDBOXES: Semaphore = Semaphore::const_new(4);

/// One test's world.
pub(crate) struct World {
    directory: TempDir,
    worker: String,
    config: toml::Table,
    environment: Vec<(String, String)>,
    forge: Forge,
    _permit: SemaphorePermit<'static>,
}

impl World {
    /// A world with the scripted agent, in both its protocols, and a forge with the seed of the demo and of these tests.
    pub(crate) async fn new() -> Self {
        Self::seeded("").await
    }

    /// The same with more in the forge's seed.
    pub(crate) async fn seeded(more: &str) -> Self {
        let permit = SANDBOXES.acquire().await.unwrap();
        // Short, because the path of a socket is.
        let directory = tempfile::Builder::new().prefix("cd-").tempdir_in("/tmp").unwrap();
        let forge = Forge::start(directory.path(), more).await;
        let worker = format!("it-{}", directory.path().file_name().unwrap().to_string_lossy());
        let config = format!(
            r#"
            worker = "{worker}"
            state_dir = "{state}"
            default_agent = "scripted"
            [sandbox]
            inside = "{inside}"
            [forge]
            allow_http = true
            [session]
            grace_s = 2
            [agents.scripted]
            image = "{IMAGE}"
            command = ["scripted-agent", "acp"]
            co_author = "Scripted Agent <scripted@agents.example>"
            [agents.plain]
            image = "{IMAGE}"
            command = ["scripted-agent", "plain"]
            protocol = "command"
            co_author = "Plain Agent <plain@agents.example>"
            "#,
            state = directory.path().join("s").display(),
            inside = inside().display(),
        );
        let environment = [
            ("COFFERDAM_TOKEN_LAB", "test-gitlab-api"),
            ("COFFERDAM_TOKEN_HUB", "test-github-repo"),
        ];
        Self {
            worker,
            config: config.parse().unwrap(),
            environment: environment.map(|(name, value)| (name.into(), value.into())).to_vec(),
            forge,
            directory,
            _permit: permit,
        }
    }

    /// Sets a key of the configuration, `sandbox.cpus` for example.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<toml::Value>) -> &mut Self {
        let (above, last) = key.rsplit_once('.').unwrap_or(("", key));
        let mut place = &mut self.config;
        for part in above.split('.').filter(|part| !part.is_empty()) {
            let below = place.entry(part).or_insert_with(|| toml::Table::new().into());
            place = below.as_table_mut().unwrap();
        }
        place.insert(last.to_owned(), value.into());
        self
    }

    /// Sets a variable of the worker.
    pub(crate) fn variable(&mut self, name: &str, value: &str) -> &mut Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The forge.
    pub(crate) fn forge(&self) -> &Forge {
        &self.forge
    }

    /// A directory that ends with the test.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The worker's state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    /// The program with this world's configuration and nothing of the tests' own environment.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let file = self.directory.path().join("config.toml");
        std::fs::write(&file, toml::to_string(&self.config).unwrap()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        command
            .arg("--config")
            .arg(file)
            .args(arguments)
            .env_clear()
            .envs(
                std::env::vars().filter(|(name, _)| ["PATH", "HOME", "DOCKER_HOST", "TMPDIR"].contains(&name.as_str())),
            )
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .kill_on_drop(true);
        command
    }

    /// Runs a task to its end with `cofferdam exec`.
    pub(crate) async fn exec(&self, task: &Task) -> Ran {
        self.start(task).finish().await
    }

    /// Starts a task with `cofferdam exec`.
    pub(crate) fn start(&self, task: &Task) -> Running {
        self.start_body(&task.json(self).to_string(), task.session())
    }

    /// Starts whatever is given as a task.
    pub(crate) fn start_body(&self, body: &str, session: &str) -> Running {
        let file = self.task_file(body);
        Running::spawn(self.command(&["exec", "--json", file.to_str().unwrap()]), session)
    }

    /// Writes a task where the program can read it.
    pub(crate) fn task_file(&self, body: &str) -> PathBuf {
        let file = self
            .directory
            .path()
            .join(format!("task-{}.json", uuid::Uuid::new_v4()));
        std::fs::write(&file, body).unwrap();
        file
    }

    /// The containers of this world, running or not.
    pub(crate) async fn containers(&self) -> Vec<String> {
        let label = format!("label=dev.cofferdam.worker={}", self.worker);
        let listed = docker(&["ps", "--all", "--quiet", "--filter", &label]).await;
        listed.lines().map(str::to_owned).collect()
    }

    /// What sessions of this world left behind although they should not: containers, sockets, repositories.
    pub(crate) async fn left_behind(&self) -> Vec<String> {
        let mut left = self.containers().await;
        for place in ["sandboxes", "sessions"] {
            let entries = std::fs::read_dir(self.state().join(place)).into_iter().flatten();
            left.extend(entries.map(|entry| format!("{place}/{}", entry.unwrap().file_name().to_string_lossy())));
        }
        left
    }

    /// Names of the kept bundles.
    pub(crate) fn kept(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.state().join("kept")).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".bundle")).collect();
        names.sort();
        names
    }

    /// A project of the forge, to be read as any user would read it.
    pub(crate) fn remote(&self, connection: &str, path: &str) -> Remote {
        let name = format!("clone-{}", uuid::Uuid::new_v4());
        Remote::clone(&self.forge, connection, path, &self.directory.path().join(name))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Also after a test that failed in the middle of a session.
        let label = format!("label=dev.cofferdam.worker={}", self.worker);
        let listed = std::process::Command::new("docker")
            .args(["ps", "--all", "--quiet", "--filter", &label])
            .output();
        let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        for id in listed.unwrap_or_default().lines() {
            drop(
                std::process::Command::new("docker")
                    .args(["rm", "--force", id])
                    .output(),
            );
        }
    }
}

/// What docker prints.
pub(crate) async fn docker(arguments: &[&str]) -> String {
    let output = Command::new("docker")
        .args(arguments)
        .output()
        .await
        .expect("docker is installed");
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "docker {arguments:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits for a condition, and fails with its name when it does not come.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(std::time::Instant::now() < end, "it did not come: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A text at a place in JSON; the empty text where there is none.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The static `inside`.
fn inside() -> PathBuf {
    let given = std::env::var_os("COFFERDAM_TEST_INSIDE").map(PathBuf::from);
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/static/x86_64-unknown-linux-gnu/release/inside");
    let path = given.unwrap_or(built);
    assert!(
        path.exists(),
        "{} is missing. Build it: RUSTFLAGS=\"-C target-feature=+crt-static\" CARGO_TARGET_DIR=target/static cargo build --release \
         --target x86_64-unknown-linux-gnu -p cofferdam-inside",
        path.display()
    );
    path
}
