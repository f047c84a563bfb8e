//! Agents that nobody here wrote, each in its own image, through a whole session: against the scripted model, through the gateway's model route. Each
//! is an entry in the configuration and nothing else, and the entry is the very text of its README in `sandbox-images/`: only the model's address and
//! the variable with its key are the test's. `sandbox-images/check.sh NAME` builds an image and runs its test.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{LAB, Ran, World};
use crate::opencode::{KEY, Model};

/// The configuration entry of an agent, as its README gives it to operators.
pub(crate) fn entry(agent: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("sandbox-images/{agent}/README.md"));
    let text = std::fs::read_to_string(&path).unwrap();
    let blocks: Vec<&str> = text.split("```toml\n").skip(1).collect();
    let [block] = blocks[..] else {
        panic!("{} has {} entries", path.display(), blocks.len())
    };
    block.split("```").next().unwrap().to_owned()
}

/// A world with a scripted model in the place of the provider that an agent's entry names.
pub(crate) fn modelled(entry: &str, agent: &str) -> (World, Model) {
    let parsed: toml::Table = toml::from_str(entry).unwrap();
    let endpoint = parsed["agents"][agent]["model"].as_str().unwrap();
    let key_env = parsed["models"][endpoint]["key_env"].as_str().unwrap();
    let world = World::new();
    let model = Model::start(&world);
    let world = world
        .variable(
            &format!("COFFERDAM__MODELS__{}__URL", endpoint.to_uppercase()),
            &model.url,
        )
        .variable(key_env, KEY);
    (world, model)
}

/// What is known of an agent beside its entry.
struct Case {
    agent: &'static str,
    /// How the paths end that it asks.
    api: &'static str,
    /// Whether its model is shown the worker's tools from the beginning.
    has_tools: bool,
    /// Whether it has a tool that writes a file. Where it has none, its shell does.
    writes: bool,
    /// Another model's name, in place of the entry's.
    model: Option<(&'static str, &'static str)>,
}

impl Case {
    fn new(agent: &'static str, api: &'static str) -> Self {
        Self {
            agent,
            api,
            has_tools: true,
            writes: true,
            model: None,
        }
    }
}

/// One session: the agent writes a file with its own tool, commits by its shell, leaves something uncommitted, and asks the worker's tool.
fn drives_a_session(case: &Case) {
    let mut entry = entry(case.agent);
    if let Some((named, other)) = case.model {
        assert!(entry.contains(named), "{entry}");
        entry = entry.replace(named, other);
    }
    let parsed: toml::Table = toml::from_str(&entry).unwrap();
    let agent = &parsed["agents"][case.agent];
    let (world, model) = modelled(&entry, case.agent);
    let mut prompt = "Add a German greeting.\n".to_owned();
    prompt.push_str(if case.writes {
        "!file /workspace/greeter/hallo.sh echo Hallo\n"
    } else {
        "!shell echo 'echo Hallo' > hallo.sh\n"
    });
    if case.has_tools {
        prompt.push_str("!tool get_session {}\n");
    }
    prompt.push_str(
        "!shell git add -A && git commit -q -m 'Add a German greeting'\n!shell env | cut -d= -f1 > names.txt\n\
         !say ## Changes\\nGerman greeting\\n## Approach\\nOne file\\n## Trade-offs\\nNone",
    );
    let mut task = world.lab_task(&prompt);
    task["agent"] = case.agent.into();
    let ran = world.exec_with(&entry, &task);
    let log = std::fs::read_to_string(&model.log).unwrap_or_default();
    assert_eq!(
        ran.reason(),
        "published",
        "{}\n{log}\n{}\n{}",
        ran.outcome(),
        ran.stdout,
        ran.stderr
    );

    let branch = ran.of_project(LAB)["branch"].as_str().unwrap().to_owned();
    let commits = world.commits("/gitlab/platform/tools/greeter.git", "test-gitlab-api", &branch);
    let co_author = format!("Co-authored-by: {}", agent["co_author"].as_str().unwrap());
    assert!(commits.iter().all(|commit| commit.contains(&co_author)), "{commits:?}");
    assert!(
        commits.iter().any(|commit| commit.contains("Add a German greeting")),
        "{commits:?}"
    );
    let page = world.ask("GET", &format!("/gitlab/{LAB}/-/merge_requests/1"), None);
    let page = page.as_str().unwrap();
    assert!(page.contains("hallo.sh") && page.contains("echo Hallo"), "{page}");
    assert!(
        page.contains("One file") && page.contains("COFFERDAM_TRAILERS"),
        "{page}"
    );
    assert!(
        !page.contains(KEY) && !ran.stdout.contains(KEY) && !ran.stderr.contains(KEY),
        "the model's key is out"
    );

    let tools = ran.all("agent_tool");
    assert!(!tools.is_empty(), "{}", ran.stdout);
    let asked: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(asked.iter().all(|line| line["status"] == 200), "{log}");
    let answered = asked.iter().filter(|line| line["usage"].is_array()).collect::<Vec<_>>();
    // A step each, and the last word.
    assert!(answered.len() >= 4 + usize::from(case.has_tools), "{log}");
    assert!(
        answered
            .iter()
            .all(|line| line["path"].as_str().unwrap().ends_with(case.api)),
        "{log}"
    );
    let counted = ran.all("model_usage");
    assert_eq!(
        counted.last().unwrap()["requests"],
        answered.len(),
        "{counted:?}\n{log}"
    );
    world.assert_clean();
}

/// A session that is suspended and goes on: the agent has its own memory of it, from where its entry says that it is.
fn goes_on_with_its_memory(agent: &str) {
    let entry = entry(agent);
    let (world, _model) = modelled(&entry, agent);
    let states = world.directory.path().join("states");
    let config = entry + &format!("[session]\nsaved_states = \"{}\"\n", states.display());
    let mut task = world.lab_task("Say it.\n!say The first thing is a sunflower.");
    task["agent"] = agent.into();
    task["idle_timeout_s"] = json!(1);
    let ran = world.exec_with(&config, &task);
    let [suspended] = ran.all("suspended")[..] else {
        panic!("{} {}", ran.stdout, ran.stderr)
    };
    assert_eq!(
        suspended["resume"]["saved"]["agent"], agent,
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

/// Every entry is a configuration, and names the image that `build.sh` makes.
#[test]
fn entries_are_valid_and_name_the_images_that_are_built() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let overview = std::fs::read_to_string(root.join("sandbox-images/README.md")).unwrap();
    let script = |arguments: &[&str]| {
        let mut command = Command::new(root.join("sandbox-images/build.sh"));
        command.args(arguments).env("KIRO_VERSION", "2.0.0");
        let ran = Ran::of(command);
        assert_eq!(ran.exit, 0, "{}", ran.stderr);
        ran.stdout
    };
    let world = World::new();
    let listed = script(&["list"]);
    let agents: Vec<&str> = listed.lines().chain(["kiro"]).collect();
    assert!(agents.len() > 6, "{agents:?}");
    for agent in agents {
        let entry = entry(agent);
        let parsed: toml::Table = toml::from_str(&entry).unwrap();
        let tag = script(&["tag", agent]);
        assert_eq!(parsed["agents"][agent]["image"].as_str(), Some(tag.trim()));
        assert!(
            agent == "kiro" || overview.contains(tag.trim()),
            "{tag} is not in the overview"
        );
        let mut check = world.command(&world.config(&entry));
        if let Some(models) = parsed.get("models").and_then(toml::Value::as_table) {
            check.envs(models.values().map(|model| (model["key_env"].as_str().unwrap(), "k")));
        }
        let ran = Ran::of({
            check.args(["config", "check"]);
            check
        });
        assert_eq!(ran.exit, 0, "{agent}: {}", ran.stderr);
    }
}

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";

#[test]
fn opencode() {
    drives_a_session(&Case::new("opencode", CHAT));
}

#[test]
fn opencode_goes_on_with_its_memory() {
    goes_on_with_its_memory("opencode");
}

#[test]
#[ignore = "needs its image: sandbox-images/check.sh gemini"]
fn gemini() {
    drives_a_session(&Case::new("gemini", ":streamGenerateContent"));
}

/// It finds the worker's tools by a search of its own.
#[test]
#[ignore = "needs its image: sandbox-images/check.sh codex"]
fn codex() {
    drives_a_session(&Case {
        has_tools: false,
        ..Case::new("codex", RESPONSES)
    });
}

/// A model that it does not know gets other tools.
#[test]
#[ignore = "needs its image: sandbox-images/check.sh codex"]
fn codex_with_a_model_that_it_does_not_know() {
    drives_a_session(&Case {
        writes: false,
        model: Some(("gpt-5.5", "another")),
        ..Case::new("codex", RESPONSES)
    });
}

#[test]
#[ignore = "needs its image: sandbox-images/check.sh claude"]
fn claude() {
    drives_a_session(&Case::new("claude", "/v1/messages"));
}

/// It finds the worker's tools by a search of its own.
#[test]
#[ignore = "needs its image: sandbox-images/check.sh qwen"]
fn qwen() {
    drives_a_session(&Case {
        has_tools: false,
        ..Case::new("qwen", CHAT)
    });
}

#[test]
#[ignore = "needs its image: sandbox-images/check.sh copilot"]
fn copilot() {
    drives_a_session(&Case::new("copilot", CHAT));
}

#[test]
#[ignore = "needs its image: sandbox-images/check.sh codex"]
fn codex_goes_on_with_its_memory() {
    goes_on_with_its_memory("codex");
}

#[test]
#[ignore = "needs its image: sandbox-images/check.sh claude"]
fn claude_goes_on_with_its_memory() {
    goes_on_with_its_memory("claude");
}

#[test]
#[ignore = "needs its image: sandbox-images/check.sh qwen"]
fn qwen_goes_on_with_its_memory() {
    goes_on_with_its_memory("qwen");
}

#[test]
#[ignore = "needs its image: sandbox-images/check.sh copilot"]
fn copilot_goes_on_with_its_memory() {
    goes_on_with_its_memory("copilot");
}
