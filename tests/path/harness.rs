//! A world for one test: a test forge of its own, a state directory, a configuration, and the binary under test. Everything is bounded and
//! ends with the test.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::standin::{self, StandIn};

pub(crate) const LAB: &str = "platform/tools/greeter";
pub(crate) const HUB: &str = "acme/website";

/// Sandboxes that tests start at a time: the machine has few processors, and time limits are part of what is tested.
const AT_A_TIME: usize = 3;
static PLACES: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

struct Place;

impl Place {
    fn take() -> Self {
        let mut taken = PLACES.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken >= AT_A_TIME {
            taken = PLACES.1.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        *taken += 1;
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *PLACES.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        PLACES.1.notify_one();
    }
}

/// A child process that ends with the test.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn signal(child: &Child, name: &str) {
    assert!(
        Command::new("kill")
            .args([&format!("-{name}"), &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
}

/// A program of the support package, beside the one under test.
pub(crate) fn support(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_cofferdam")).with_file_name(name);
    assert!(path.exists(), "{} is missing: cargo build --workspace", path.display());
    path
}

/// The static `inside`.
pub(crate) fn inside() -> PathBuf {
    let path = std::env::var_os("COFFERDAM_TEST_INSIDE").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/static/x86_64-unknown-linux-gnu/release/inside"),
        PathBuf::from,
    );
    assert!(path.exists(), "{} is missing: see tests/run.sh", path.display());
    path
}

/// The runtime that the tests are run on; the engine's default when absent.
pub(crate) fn runtime() -> Option<String> {
    std::env::var("COFFERDAM_TEST_RUNTIME")
        .ok()
        .filter(|name| !name.is_empty())
}

pub(crate) struct World {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) forge: String,
    pub(crate) worker: String,
    /// In place of the engine, where there is one.
    pub(crate) cluster: Option<StandIn>,
    _forge: Process,
    _place: Place,
    tokens: BTreeMap<String, String>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_seed(|seed| seed)
    }

    /// A world whose forge is seeded from the demo's seed, changed by the test.
    pub(crate) fn with_seed(change: impl Fn(String) -> String) -> Self {
        Self::lasting(600, change)
    }

    /// The same for at most so many seconds, as a quiet machine needs them; by then its forge ends.
    pub(crate) fn lasting(seconds: u32, change: impl Fn(String) -> String) -> Self {
        let place = Place::take();
        let directory = tempfile::Builder::new().prefix("cd-").tempdir_in("/tmp").unwrap();
        let seed = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/seeds/demo.toml"))
            .unwrap();
        std::fs::write(directory.path().join("seed.toml"), change(seed)).unwrap();
        let ready = directory.path().join("ready.json");
        let child = Command::new(support("test-forge"))
            .arg("--seed")
            .arg(directory.path().join("seed.toml"))
            .arg("--data")
            .arg(directory.path().join("forge"))
            .arg("--ready-file")
            .arg(&ready)
            .args(["--max-lifetime", &(seconds * slowness()).to_string()])
            .args(["--parent-pid", &std::process::id().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process(child);
        let text = until(Duration::from_secs(30), "the test forge", || {
            std::fs::read_to_string(&ready).ok()
        });
        let ready: Value = serde_json::from_str(&text).unwrap();
        let worker = directory.path().file_name().unwrap().to_string_lossy().into_owned();
        let world = Self {
            forge: ready["url"].as_str().unwrap().to_owned(),
            worker,
            cluster: None,
            directory,
            _forge: process,
            _place: place,
            tokens: [("LAB", "test-gitlab-api"), ("HUB", "test-github-repo")]
                .map(|(name, value)| (format!("COFFERDAM_TOKEN_{name}"), value.to_owned()))
                .into(),
        };
        if standin::is_backend() {
            // The same system calls as on the engine.
            world
                .variable("COFFERDAM__SANDBOX__KUBERNETES__SECCOMP_PROFILE", "sandbox.json")
                .in_cluster()
        } else {
            world
        }
    }

    /// The same with a cluster in place of the engine. All areas can be run so: `COFFERDAM_TEST_BACKEND=kubernetes`.
    pub(crate) fn in_cluster(mut self) -> Self {
        if self.cluster.is_none() {
            let cluster = StandIn::start(self.directory.path(), 600 * slowness());
            self.tokens.extend(cluster.variables());
            self.cluster = Some(cluster);
        }
        self
    }

    pub(crate) fn token(mut self, name: &str, value: &str) -> Self {
        self.tokens.insert(format!("COFFERDAM_TOKEN_{name}"), value.to_owned());
        self
    }

    /// Another variable of the worker, such as a key of its configuration.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.tokens.insert(name.to_owned(), value.to_owned());
        self
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.directory.path().join("s")
    }

    /// The configuration's text; `more` is appended. Sandboxes run on `COFFERDAM_TEST_RUNTIME`, where that is set.
    pub(crate) fn config(&self, more: &str) -> PathBuf {
        let runtime = runtime().map_or(String::new(), |name| format!("runtime = \"{name}\""));
        let text = format!(
            r#"
worker = "{worker}"
state_dir = "{state}"
default_agent = "scripted"
[sandbox]
inside = "{inside}"
workspace_bytes = 268435456
warm = 0
{runtime}
[forge]
allow_http = true
[agents.scripted]
image = "cofferdam/sandbox-scripted:test"
command = ["scripted-agent", "acp"]
co_author = "Scripted Agent <scripted@agents.example>"
{more}
"#,
            worker = self.worker,
            state = self.state_dir().display(),
            inside = inside().display(),
        );
        let path = self.directory.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The binary with the tokens in its environment.
    pub(crate) fn command(&self, config: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        command
            .arg("--config")
            .arg(config)
            .envs(&self.tokens)
            .env("COFFERDAM_LOG", "debug,lapin=off,hyper_util=off");
        command.stdin(Stdio::null());
        command
    }

    /// A task over both projects.
    pub(crate) fn task(&self, prompt: &str) -> Value {
        json!({
            "version": 1,
            "session": uuid::Uuid::new_v4(),
            "prompt": prompt,
            "projects": [{"connection": "lab", "path": LAB}, {"connection": "hub", "path": HUB}],
            "connections": {
                "lab": {"forge": "gitlab", "url": format!("{}/gitlab", self.forge), "credential": {"env": "COFFERDAM_TOKEN_LAB"}},
                "hub": {"forge": "github", "url": self.forge, "credential": {"env": "COFFERDAM_TOKEN_HUB"}},
            },
        })
    }

    /// A task over the GitLab project alone.
    pub(crate) fn lab_task(&self, prompt: &str) -> Value {
        let mut task = self.task(prompt);
        task["projects"] = json!([{"connection": "lab", "path": LAB}]);
        task
    }

    pub(crate) fn write_task(&self, task: &Value) -> PathBuf {
        let path = self
            .directory
            .path()
            .join(format!("task-{}.json", uuid::Uuid::new_v4()));
        std::fs::write(&path, task.to_string()).unwrap();
        path
    }

    pub(crate) fn exec(&self, task: &Value) -> Ran {
        self.exec_with("", task)
    }

    pub(crate) fn exec_with(&self, more: &str, task: &Value) -> Ran {
        self.exec_file(more, &self.write_task(task))
    }

    pub(crate) fn exec_file(&self, more: &str, task: &Path) -> Ran {
        let config = self.config(more);
        let mut command = self.command(&config);
        command.args(["exec", "--json"]).arg(task);
        Ran::of(command)
    }

    /// Asks the test forge's own control routes, or any other of its addresses.
    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let mut command = Command::new("curl");
        command.args([
            "-sS",
            "--max-time",
            "20",
            "-X",
            method,
            &format!("{}{path}", self.forge),
        ]);
        if let Some(body) = body {
            command.args(["-H", "content-type: application/json", "-d", &body.to_string()]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout)
            .unwrap_or(Value::String(String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// What the forge holds of a project: branches by name, change requests.
    pub(crate) fn project(&self, path: &str) -> Value {
        let state = self.ask("GET", "/_test/state", None);
        let side = if path == HUB || path == "acme/legacy" {
            "github"
        } else {
            "gitlab"
        };
        let project = &state[side][path];
        assert!(project.is_object(), "{path} is not in {state}");
        project.clone()
    }

    /// The whole log of a branch from the forge: author, committer and message of its commits that the base lacks.
    pub(crate) fn commits(&self, repository: &str, token: &str, branch: &str) -> Vec<String> {
        let clone = self.directory.path().join(format!("clone-{}", uuid::Uuid::new_v4()));
        let url = self.forge.replace("http://", &format!("http://oauth2:{token}@")) + repository;
        let output = Command::new("git")
            .args(["clone", "-q", "--branch", branch, &url])
            .arg(&clone)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let log = Command::new("git")
            .arg("-C")
            .arg(&clone)
            .args(["log", "--format=%an <%ae>%n%cn <%ce>%n%B%x00", "origin/main..HEAD"])
            .output()
            .unwrap();
        String::from_utf8(log.stdout)
            .unwrap()
            .split('\0')
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())
            .collect()
    }

    /// The containers of this world's worker, running or not. The worker's label is its name and something of its state directory.
    pub(crate) fn sandboxes(&self) -> Vec<String> {
        if let Some(cluster) = &self.cluster {
            let pods = cluster.pods();
            let names = pods
                .iter()
                .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned());
            return names.collect();
        }
        let output = Command::new("docker")
            .args(["ps", "-a", "--filter", "label=dev.cofferdam.worker"])
            .args(["--format", "{{.ID}} {{.Label \"dev.cofferdam.worker\"}}"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let name = format!("{}-", self.worker);
        let listed = String::from_utf8_lossy(&output.stdout).into_owned();
        let own = listed.lines().filter_map(|line| line.split_once(' '));
        own.filter(|(_, label)| label.starts_with(&name))
            .map(|(id, _)| id.to_owned())
            .collect()
    }

    /// Nothing of this worker is left: no container, no sandbox directory, no session directory.
    pub(crate) fn assert_clean(&self) {
        if let Some(cluster) = &self.cluster {
            cluster.assert_clean();
        }
        assert_eq!(self.sandboxes(), Vec::<String>::new(), "containers are left");
        for directory in ["sandboxes", "sessions"] {
            let entries = std::fs::read_dir(self.state_dir().join(directory))
                .map(Iterator::count)
                .unwrap_or(0);
            assert_eq!(entries, 0, "{directory}/ is not empty");
        }
    }
}

/// What came of a command.
pub(crate) struct Ran {
    pub(crate) exit: i32,
    pub(crate) events: Vec<Value>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = Process(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        let (mut out, mut err) = (child.0.stdout.take().unwrap(), child.0.stderr.take().unwrap());
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            err.read_to_string(&mut text).map(|_| text)
        });
        let reading_out = std::thread::spawn(move || {
            let mut text = String::new();
            out.read_to_string(&mut text).map(|_| text)
        });
        let status = until(patience(150), "the command", || child.0.try_wait().unwrap());
        let stdout = reading_out.join().unwrap().unwrap();
        let stderr = reading.join().unwrap().unwrap();
        let events = stdout
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        Self {
            exit: status.code().unwrap_or(-1),
            events,
            stdout,
            stderr,
        }
    }

    /// The data of all events of a kind.
    pub(crate) fn all(&self, kind: &str) -> Vec<&Value> {
        self.events
            .iter()
            .map(|event| &event["data"])
            .filter(|data| data["event"] == kind)
            .collect()
    }

    pub(crate) fn outcome(&self) -> &Value {
        match self.all("finished").as_slice() {
            [only] => &only["outcome"],
            other => panic!(
                "{} final events; exit {}; stderr: {}",
                other.len(),
                self.exit,
                self.stderr
            ),
        }
    }

    pub(crate) fn reason(&self) -> &str {
        self.outcome()["reason"].as_str().unwrap()
    }

    pub(crate) fn of_project(&self, path: &str) -> &Value {
        let projects = self.outcome()["projects"].as_array().unwrap();
        projects
            .iter()
            .find(|project| project["project"]["path"] == path)
            .unwrap_or_else(|| panic!("{path} in {projects:?}"))
    }

    /// Everything the agent said, joined.
    pub(crate) fn said(&self) -> String {
        self.all("agent_message")
            .iter()
            .map(|data| data["text"].as_str().unwrap())
            .collect()
    }
}

/// How long to wait for what a sandbox does, in seconds as runc needs them. gVisor, where it has only ptrace, takes longer for each program that a
/// script starts.
pub(crate) fn patience(seconds: u64) -> Duration {
    Duration::from_secs(if runtime().is_some() { 3 * seconds } else { seconds })
}

/// By how much longer a condition is waited for on a machine that compiles beside the tests.
pub(crate) fn slowness() -> u32 {
    let told = std::env::var("COFFERDAM_TEST_SLOWNESS").ok();
    told.map_or(1, |told| told.parse().expect("COFFERDAM_TEST_SLOWNESS is a number"))
}

/// Waits for a condition; fails the test when it does not come true in time, as a quiet machine needs it.
pub(crate) fn until<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let limit = limit * slowness();
    let end = Instant::now() + limit;
    loop {
        let looked = Instant::now();
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            Instant::now() < end,
            "{what} did not come true within {} s",
            limit.as_secs()
        );
        // A look may be a whole command: what is waited for needs the processors more.
        std::thread::sleep(
            looked
                .elapsed()
                .clamp(Duration::from_millis(20), Duration::from_millis(250)),
        );
    }
}
