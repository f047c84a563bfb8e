//! A project's own image: `devcontainer.json` of the default branch chooses among what the operator lists, where the operator lets it, and nothing
//! else in the file counts.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::harness::{HUB, LAB, Ran, World};
use crate::instructions::{open_world, pushed, pushed_to, written};
use crate::kit::Daemon;

const USUAL: &str = "cofferdam/sandbox-base:12";
const OWN: &str = "cofferdam/sandbox-devcontainer:test";
/// What somebody does to a project.
type Change = Box<dyn Fn(&Path)>;

const PLACE: &str = ".devcontainer/devcontainer.json";

/// The project's image: the usual one with a file in it.
fn built() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let context = tempfile::tempdir().unwrap();
        std::fs::write(context.path().join("whose"), "of-the-project\n").unwrap();
        let dockerfile = format!("FROM {USUAL}\nCOPY whose /etc/whose\n");
        std::fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
        let output = Command::new("docker")
            .args(["build", "--quiet", "--network", "none", "--tag", OWN])
            .arg(context.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
}

/// An agent that says in whose image it is, and leaves a file of that name in its work.
fn agent(keys: &str) -> String {
    format!(
        "[agents.asked]\nimage = \"{USUAL}\"\nprotocol = \"command\"\nco_author = \"A <a@b.example>\"\n\
         command = [\"sh\", \"-c\", \"cat /etc/whose 2>/dev/null || echo of-the-agent\"]\n{keys}"
    )
}

fn run(world: &World, keys: &str, images: &[&str], task: &Value) -> Ran {
    let config = world.config(&agent(keys));
    let mut command = world.command(&config);
    command.env("COFFERDAM__SANDBOX__IMAGES", json!(images).to_string());
    command.args(["exec", "--json"]).arg(world.write_task(task));
    Ran::of(command)
}

fn task(world: &World) -> Value {
    let mut task = world.lab_task("Whose are you?");
    task["agent"] = json!("asked");
    task
}

/// Whose image it was, and the warnings.
fn whose(ran: &Ran) -> (String, String) {
    assert_eq!(ran.reason(), "nothing_to_publish", "{} {}", ran.outcome(), ran.stderr);
    let unused = ran
        .all("warning")
        .into_iter()
        .filter(|data| data["code"] == "devcontainer_unused");
    let told: Vec<_> = unused
        .map(|data| data["message"].as_str().unwrap().to_owned())
        .collect();
    (ran.said().trim().to_owned(), told.join("\n"))
}

fn named(root: &Path, image: &str) {
    let text = format!(
        "// For editors, too.\n{{\n  \"image\": \"{image}\", /* ours */\n  \"runArgs\": [\"--privileged\"],\n  \
         \"initializeCommand\": \"touch /workspace/obeyed\",\n}}\n"
    );
    written(root, PLACE, text);
}

#[test]
fn a_project_chooses_its_image_where_it_may_and_nothing_else() {
    built();
    let world = open_world();
    pushed(&world, |root| named(root, OWN));
    let on = "devcontainer = true";
    let ran = run(&world, on, &[USUAL, OWN], &task(&world));
    assert_eq!(whose(&ran), ("of-the-project".to_owned(), String::new()));
    assert!(
        ran.stderr.contains("the image that the project names"),
        "{}",
        ran.stderr
    );
    // Off unless somebody says otherwise.
    let ran = run(&world, "", &[USUAL, OWN], &task(&world));
    assert_eq!(whose(&ran), ("of-the-agent".to_owned(), String::new()));
    // The operator's list decides.
    let ran = run(&world, on, &[USUAL], &task(&world));
    let (said, told) = whose(&ran);
    assert_eq!(said, "of-the-agent");
    for words in [LAB, PLACE, OWN, "sandbox.images", USUAL] {
        assert!(told.contains(words), "{words} in {told}");
    }
    // What is allowed and cannot be had ends the session: another image would build something else.
    pushed(&world, |root| named(root, "cofferdam/no-such-image:1"));
    let ran = run(&world, on, &["cofferdam/*"], &task(&world));
    assert_eq!(ran.reason(), "image_missing", "{}", ran.outcome());
    let message = ran.outcome()["message"].as_str().unwrap();
    assert!(message.contains(PLACE) && message.contains(LAB), "{message}");
    world.assert_clean();
}

#[test]
fn a_file_that_names_no_image_is_told_and_the_usual_one_is_used() {
    let world = open_world();
    let link = |root: &Path| {
        std::fs::remove_dir_all(root.join(".devcontainer")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join(".devcontainer.json")).unwrap();
    };
    let text = |content: String| move |root: &Path| written(root, PLACE, &content);
    let cases: [(Change, &str); 6] = [
        (
            Box::new(text("{\"build\": {\"dockerfile\": \"Dockerfile\"}}".into())),
            "built or composed",
        ),
        (Box::new(text("{\"name\": \"greeter\"}".into())), "names no `image`"),
        (
            Box::new(text("{\"image\": \"${localEnv:IMAGE}\"}".into())),
            "no variables",
        ),
        (Box::new(text("{\n\"image\": [\"a\"]}".into())), "line 2"),
        (
            Box::new(text(format!("{{\"image\": \"{OWN}\"}}{}", " ".repeat(70_000)))),
            "larger than 65536 bytes",
        ),
        (Box::new(link), "no plain file"),
    ];
    for (change, words) in cases {
        pushed(&world, change);
        let ran = run(&world, "devcontainer = true", &["cofferdam/*"], &task(&world));
        let (said, told) = whose(&ran);
        assert_eq!(said, "of-the-agent", "{words}");
        assert!(told.contains(words) && told.contains(USUAL), "{words} in {told}");
    }
    world.assert_clean();
}

#[test]
fn of_several_projects_the_first_that_names_an_allowed_one_decides() {
    built();
    let world = World::with_seed(|seed| {
        seed.replace("push = \"maintainer\" }", "push = \"developer\" }")
            .replace("[{ branch = \"main\", push = \"no_one\" }]", "[]")
    });
    let website = |image: &str| {
        pushed_to(&world, "x-access-token:test-github-repo", "/acme/website.git", |root| {
            written(root, ".devcontainer.json", format!("{{\"image\": \"{image}\"}}"));
        });
    };
    let asked = || {
        let mut task = world.task("Whose are you?");
        task["agent"] = json!("asked");
        let ran = run(&world, "devcontainer = true", &[USUAL, OWN], &task);
        whose(&ran)
    };
    // The first says nothing.
    website(OWN);
    assert_eq!(asked(), ("of-the-project".to_owned(), String::new()));
    // Both say the same.
    pushed(&world, |root| named(root, OWN));
    assert_eq!(asked(), ("of-the-project".to_owned(), String::new()));
    // They differ.
    website(USUAL);
    let (said, told) = asked();
    assert_eq!(said, "of-the-project");
    assert!(
        told.contains(HUB) && told.contains("an earlier project") && told.contains(OWN),
        "{told}"
    );
    // The first may not have what it names.
    pushed(&world, |root| named(root, "evil/image:1"));
    website(OWN);
    let (said, told) = asked();
    assert_eq!(said, "of-the-project");
    assert!(
        told.contains(LAB) && told.contains("evil/image:1") && told.contains("sandbox.images"),
        "{told}"
    );
    world.assert_clean();
}

#[test]
fn what_an_agent_pushed_chooses_no_image() {
    built();
    let world = open_world();
    let keys = "devcontainer = true\n[agents.writer]\ndevcontainer = true\nprotocol = \"command\"\nco_author = \"W <w@b.example>\"\n\
                image = \"cofferdam/sandbox-base:12\"\ncommand = [\"sh\", \"-c\", '''printf '{\"image\": \"cofferdam/sandbox-devcontainer:test\"}' \
                >.devcontainer.json; git add -A; git commit -qm First''']\n";
    let mut first = task(&world);
    first["agent"] = json!("writer");
    let ran = run(&world, keys, &["cofferdam/*"], &first);
    assert_eq!(ran.reason(), "published", "{}", ran.outcome());
    let mut then = task(&world);
    then["session"] = first["session"].clone();
    then["resume"] = json!({"attempt": 1, "turns": 1});
    let ran = run(&world, keys, &["cofferdam/*"], &then);
    assert!(ran.stdout.contains("\"attempt\":2"), "{}", ran.stdout);
    assert_eq!(ran.said().trim(), "of-the-agent", "{}", ran.stdout);
    world.assert_clean();
}

#[test]
fn a_set_up_works_with_the_tools_of_the_projects_image() {
    built();
    let world = open_world();
    pushed(&world, |root| named(root, OWN));
    let keys = "devcontainer = true\n[agents.asked.set_up]\nscript = \"cp /etc/whose fetched\"\n";
    let ran = run(&world, keys, &[USUAL, OWN], &task(&world));
    assert_eq!(ran.reason(), "published", "{}", ran.outcome());
    assert_eq!(ran.said().trim(), "of-the-project", "{}", ran.stderr);
    let page = world.ask("GET", &format!("/gitlab/{LAB}/-/merge_requests/1"), None);
    assert!(page.as_str().unwrap().contains("of-the-project"), "{page}");
    world.assert_clean();
}

/// A worker that keeps sandboxes ready has some of the usual image; a project that names another gets its own.
#[test]
fn a_running_worker_with_ready_sandboxes_gives_a_project_its_own() {
    built();
    let world = open_world();
    pushed(&world, |root| named(root, OWN));
    let daemon = Daemon::start_in(
        &world,
        &agent("devcontainer = true\n"),
        &[
            ("COFFERDAM__SANDBOX__IMAGES", "[\"cofferdam/*\"]"),
            ("COFFERDAM__SANDBOX__WARM", "1"),
        ],
    );
    // The second may find one of its kind ready.
    for _ in 0..2 {
        let ran = daemon.submit(&world, &task(&world));
        assert_eq!(whose(&ran), ("of-the-project".to_owned(), String::new()));
    }
}
