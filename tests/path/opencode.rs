//! The scripted model, and what only one real agent is tried for: opencode at a model that fails, and without leave. That it drives a
//! session is in `real_agents.rs`.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::harness::{LAB, Process, World, support, until};
use crate::real_agents::{entry, modelled};

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
                "600",
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

#[test]
fn opencode_takes_a_refusal() {
    let (world, _model) = modelled(&entry("opencode"), "opencode");
    let world = world.variable("COFFERDAM__AGENTS__OPENCODE__PERMISSIONS", "ask");
    let mut task = world.lab_task("Do it.\n!shell echo changed > refused.txt\n!say Done.");
    task["agent"] = json!("opencode");
    // Nobody answers, and then it is refused.
    let ran = world.exec_with(&(entry("opencode") + "[session]\nanswer_wait_s = 1\n"), &task);
    assert_eq!(ran.reason(), "nothing_to_publish", "{} {}", ran.outcome(), ran.stderr);
    let asked = ran.all("agent_permission");
    assert!(
        !asked.is_empty() && asked.iter().all(|data| data["answer"] != "allow_once"),
        "{asked:?}"
    );
    world.assert_clean();
}

#[test]
fn a_model_that_keeps_failing_ends_in_the_idle_limit() {
    let (world, _model) = modelled(&entry("opencode"), "opencode");
    let mut task = world.lab_task("Do it.\n!status 500 100000\n!shell true");
    task["agent"] = json!("opencode");
    task["limits"] = json!({"idle_s": 8});
    let ran = world.exec_with(&(entry("opencode") + "[session]\ngrace_s = 2\n"), &task);
    // It retries for more than a minute without a word.
    assert_eq!(ran.reason(), "agent_stalled", "{} {}", ran.outcome(), ran.stderr);
    assert!(ran.of_project(LAB)["change_request"].is_null());
    world.assert_clean();
}
