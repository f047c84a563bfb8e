//! An agent that nobody here wrote: opencode, in its own image, against the scripted model through the gateway's model route. It is an entry in
//! the configuration and nothing else.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{LAB, Process, World, support, until};

pub(crate) const KEY: &str = "sk-canary-of-the-model-1234";

/// A scripted model on loopback; its log tells what it saw.
pub(crate) struct Model {
    pub(crate) url: String,
    pub(crate) log: std::path::PathBuf,
    _process: Process,
}

impl Model {
    pub(crate) fn start(world: &World) -> Self {
        let (ready, log) = (
            world.directory.path().join("model.json"),
            world.directory.path().join("model.log"),
        );
        let child = Command::new(support("scripted-model"))
            .args([
                "--listen",
                "127.0.0.1:0",
                "--key",
                KEY,
                "--max-lifetime",
                "300",
                "--parent-pid",
                &std::process::id().to_string(),
            ])
            .arg("--ready-file")
            .arg(&ready)
            .arg("--log")
            .arg(&log)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let process = Process(child);
        let text = until(Duration::from_secs(20), "the model", || {
            std::fs::read_to_string(&ready).ok().filter(|text| !text.is_empty())
        });
        Self {
            url: format!("http://{}", text.trim()),
            log,
            _process: process,
        }
    }
}

fn configuration(world: &World, model: &Model) -> String {
    let key = world.directory.path().join("model.key");
    std::fs::write(&key, KEY).unwrap();
    let seeded = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sandbox-images/opencode/opencode.json"),
    )
    .unwrap();
    format!(
        r#"
[models.openai]
url = "{url}"
key_file = "{key}"
[agents.opencode]
image = "cofferdam/sandbox-opencode:1.18.33"
command = ["opencode", "acp"]
model = "openai"
co_author = "opencode <opencode@agents.example>"
[agents.opencode.environment]
OPENCODE_CONFIG = "/home/agent/opencode.json"
MODEL_KEY = "placeholder"
OPENCODE_DISABLE_AUTOUPDATE = "1"
OPENCODE_DISABLE_MODELS_FETCH = "1"
OPENCODE_DISABLE_LSP_DOWNLOAD = "1"
[agents.opencode.files]
"opencode.json" = '''{seeded}'''
"#,
        url = model.url,
        key = key.display(),
    )
}

#[test]
fn opencode_works_commits_and_gets_its_merge_request() {
    let world = World::new();
    let model = Model::start(&world);
    let mut task = world.lab_task(
        "Add a German greeting.\n!shell echo 'echo Hallo' > hallo.sh\n!shell git add -A && git commit -q -m 'Add a German greeting'\n\
         !shell env > env.txt\n!say ## Changes\\nGerman greeting\\n## Approach\\nOne file\\n## Trade-offs\\nNone",
    );
    task["agent"] = json!("opencode");
    let ran = world.exec_with(&configuration(&world, &model), &task);
    assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
    let branch = ran.of_project(LAB)["branch"].as_str().unwrap().to_owned();
    let commits = world.commits("/gitlab/platform/tools/greeter.git", "test-gitlab-api", &branch);
    assert!(
        commits
            .iter()
            .all(|commit| commit.contains("Co-authored-by: opencode <opencode@agents.example>")),
        "{commits:?}"
    );
    assert!(
        commits.iter().any(|commit| commit.contains("Add a German greeting")),
        "{commits:?}"
    );
    assert!(!ran.all("agent_tool").is_empty() && !ran.all("agent_permission").is_empty());
    let page = world.ask("GET", &format!("/gitlab/{LAB}/-/merge_requests/1"), None);
    let page = page.as_str().unwrap();
    assert!(
        page.contains("German greeting") && page.contains("MODEL_KEY=placeholder"),
        "{page}"
    );
    assert!(
        !page.contains(KEY) && !ran.stdout.contains(KEY) && !ran.stderr.contains(KEY),
        "the model's key is out"
    );
    let log = std::fs::read_to_string(&model.log).unwrap();
    let statuses: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["status"].clone())
        .collect();
    assert!(
        statuses.len() >= 3 && statuses.iter().all(|status| *status == 200),
        "{log}"
    );
    world.assert_clean();
}

#[test]
fn a_model_that_keeps_failing_ends_in_the_idle_limit() {
    let world = World::new();
    let model = Model::start(&world);
    let mut task = world.lab_task("Do it.\n!status 500 100000\n!shell true");
    task["agent"] = json!("opencode");
    task["limits"] = json!({"idle_s": 8});
    let ran = world.exec_with(&(configuration(&world, &model) + "[session]\ngrace_s = 2\n"), &task);
    // It retries for more than a minute without a word.
    assert_eq!(ran.reason(), "agent_stalled", "{} {}", ran.outcome(), ran.stderr);
    assert!(ran.of_project(LAB)["change_request"].is_null());
    world.assert_clean();
}

#[test]
fn opencode_goes_on_with_what_it_remembers_itself() {
    let world = World::new().variable(
        "COFFERDAM__AGENTS__OPENCODE__SAVED_STATE",
        r#"[".local/share/opencode"]"#,
    );
    let states = world.directory.path().join("states");
    let model = Model::start(&world);
    let config = configuration(&world, &model) + &format!("[session]\nsaved_states = \"{}\"\n", states.display());
    let mut task = world.lab_task("Say it.\n!say The first thing is a sunflower.");
    task["agent"] = json!("opencode");
    task["idle_timeout_s"] = json!(1);
    let ran = world.exec_with(&config, &task);
    let suspended = ran.all("suspended")[0];
    assert_eq!(
        suspended["resume"]["saved"]["agent"], "opencode",
        "{suspended} {}",
        ran.stderr
    );
    assert_eq!(std::fs::read_dir(&states).unwrap().count(), 1);

    task["resume"] = suspended["resume"].clone();
    task["prompt"] = json!("And now this.\n!say The second thing.");
    task.as_object_mut().unwrap().remove("idle_timeout_s");
    let ran = world.exec_with(&config, &task);
    assert_eq!(ran.reason(), "nothing_to_publish", "{} {}", ran.outcome(), ran.stderr);
    let warned = ran.all("warning");
    assert!(
        warned.iter().all(|data| data["code"] != "state_not_loaded"),
        "{warned:?}"
    );
    // What it repeated while it loaded was said before, and is not said again.
    assert!(
        ran.said().contains("The second thing.") && !ran.said().contains("sunflower"),
        "{}",
        ran.said()
    );
    assert_eq!(std::fs::read_dir(&states).unwrap().count(), 0);
    world.assert_clean();
}
