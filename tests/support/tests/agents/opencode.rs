//! A real agent, opencode, in its sandbox image, sealed as a session would be, against the scripted model: it confirms the image, the
//! configuration in `sandbox-images/opencode/` and the scripted model at once. `sandbox-images/opencode/check.sh` prepares and runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::client::Client;
use crate::{statuses, text};

const IMAGE: &str = "OPENCODE_IMAGE";
const MODEL: &str = "SCRIPTED_MODEL";
const KEY: &str = "a-key-for-one-test";

/// The container goes when the test does, however it ends.
struct Container(String);

impl Container {
    fn shell(&self, command: &str) -> String {
        let output = Command::new("docker")
            .args(["exec", &self.0, "sh", "-c", command])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("docker")
            .args(["rm", "-f", &self.0])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// The variables that `sandbox-images/opencode/README.md` names.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("OPENCODE_CONFIG", "/etc/opencode.json"),
    ("MODEL_KEY", KEY),
    ("NO_PROXY", "127.0.0.1,localhost"),
    ("no_proxy", "127.0.0.1,localhost"),
    ("OPENCODE_DISABLE_AUTOUPDATE", "1"),
    ("OPENCODE_DISABLE_MODELS_FETCH", "1"),
    ("OPENCODE_DISABLE_LSP_DOWNLOAD", "1"),
];

fn sealed(container: &Container, image: &str, model: &str) -> Command {
    let configuration = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sandbox-images/opencode/opencode.json");
    let mount = |path: PathBuf, target: &str| format!("{}:{target}:ro", path.canonicalize().unwrap().display());
    let mut command = Command::new("docker");
    command.args([
        "run",
        "--interactive",
        "--rm",
        "--name",
        &container.0,
        "--network",
        "none",
        "--read-only",
    ]);
    command.args([
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--user",
        "1000:1000",
    ]);
    command.args([
        "--memory",
        "2g",
        "--pids-limit",
        "256",
        "--tmpfs",
        "/tmp",
        "--tmpfs",
        "/home/agent:uid=1000",
    ]);
    command.args([
        "--tmpfs",
        "/workspace:uid=1000",
        "--volume",
        &mount(configuration, "/etc/opencode.json"),
    ]);
    command.args(["--volume", &mount(model.into(), "/usr/local/bin/scripted-model")]);
    for (name, value) in ENVIRONMENT {
        command.args(["--env", &format!("{name}={value}")]);
    }
    // The model stands at the gateway's port, on the only network there is: the container's own loopback.
    let script = format!(
        "git init --quiet /workspace/project && mkfifo /tmp/ready \
         && {{ scripted-model --listen 127.0.0.1:8470 --key {KEY} --log /tmp/model.log --max-lifetime 600 >/tmp/ready & }} \
         && read -r _ </tmp/ready && exec opencode acp"
    );
    command.args([image, "sh", "-c", &script]);
    command
}

#[test]
#[ignore = "needs Docker and the opencode image; run by sandbox-images/opencode/check.sh"]
fn opencode_completes_turns_without_any_network() {
    let [image, model] = [IMAGE, MODEL].map(|name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set")));
    let container = Container(format!("cofferdam-opencode-check-{}", std::process::id()));
    let mut client = Client::of(sealed(&container, &image, &model));
    client.open(Some("/workspace/project"), json!([]));

    let command = "printf 'hello\\n' >a.txt && cat a.txt";
    let (updates, answer) = client.prompt(&format!("!say looking\n!shell {command}\n!say finished"));
    assert_eq!(answer["result"]["stopReason"], "end_turn");
    assert!(answer["result"]["usage"]["totalTokens"].as_u64().unwrap() > 0);
    assert_eq!(text(&updates), ["looking", "finished"]);
    // Its title is the tool's name first, so the call is found by what it is.
    assert_eq!(statuses(&updates, "bash").last(), Some(&"completed"));
    assert!(!client.questions("session/request_permission").is_empty());
    assert_eq!(container.shell("cat /workspace/project/a.txt"), "hello\n");

    client.answer_permissions("reject_once");
    let (updates, _) = client.prompt("!shell echo changed >a.txt");
    assert_eq!(statuses(&updates, "bash").last(), Some(&"failed"));
    assert_eq!(container.shell("cat /workspace/project/a.txt"), "hello\n");

    let log = container.shell("cat /tmp/model.log");
    assert!(
        log.contains("\"has_tools\":true") && !log.contains("\"status\":4"),
        "{log}"
    );
    assert!(!log.contains(KEY));
    client.close_input();
    assert!(client.wait_for_exit().0.success());
}
