//! The set-up apart from the agent: its secrets are there while its script runs, and nowhere afterwards.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::{LAB, Process, Ran, World, until};
use crate::kit::Daemon;

const SECRET: &str = "npm_0123456789abcdefSECRET+/x";

fn command(world: &World, set_up: &str, task: &serde_json::Value) -> Command {
    let projects = if set_up.contains("projects = ") {
        String::new()
    } else {
        format!("projects = [\"{}/gitlab/\"]\n", world.forge)
    };
    let config = world.config(&format!(
        "[agents.scripted.set_up]\nsecrets = {{ NPM_TOKEN = {{ env = \"TEST_SET_UP_SECRET\" }} }}\n{projects}{set_up}"
    ));
    let mut command = world.command(&config);
    command.args(["exec", "--json"]).arg(world.write_task(task));
    command.env("TEST_SET_UP_SECRET", SECRET);
    command
}

fn exec(world: &World, set_up: &str, task: &serde_json::Value) -> Ran {
    let ran = Ran::of(command(world, set_up, task));
    assert!(!ran.stdout.contains(SECRET), "an event tells the secret");
    assert!(!ran.stderr.contains(SECRET), "the log tells the secret");
    ran
}

fn failed(ran: &Ran) -> &str {
    assert_eq!(
        (ran.exit, ran.reason()),
        (1, "set_up_failed"),
        "{} {}",
        ran.outcome(),
        ran.stderr
    );
    assert!(ran.all("turn_started").is_empty(), "the agent was started");
    ran.outcome()["message"].as_str().unwrap()
}

/// What the engine did with containers of one worker, line by line.
struct Watching {
    _process: Process,
    file: std::path::PathBuf,
}

impl Watching {
    fn start(world: &World) -> Self {
        let file = world.directory.path().join("engine-events");
        // What happens before it listens is told all the same.
        let now = jiff::Timestamp::now().as_second().to_string();
        let child = Command::new("docker")
            .args(["events", "--since", &now])
            .args(["--filter", "type=container", "--filter", "label=dev.cofferdam.worker"])
            .args([
                "--format",
                "{{.Action}} {{.Actor.Attributes.name}} {{index .Actor.Attributes \"dev.cofferdam.worker\"}}",
            ])
            .stdout(std::fs::File::create(&file).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            _process: Process(child),
            file,
        }
    }

    fn of(&self, world: &World, action: &str) -> Vec<(usize, String)> {
        let text = std::fs::read_to_string(&self.file).unwrap();
        let own = format!(" {}-", world.worker);
        let lines = text.lines().enumerate().filter(|(_, line)| line.contains(&own));
        lines
            .filter_map(|(at, line)| {
                Some((
                    at,
                    line.strip_prefix(&format!("{action} "))?.split(' ').next()?.to_owned(),
                ))
            })
            .collect()
    }
}

#[test]
fn a_set_up_works_with_its_secret_and_the_agent_finds_its_work_and_no_secret() {
    let world = World::new();
    let watching = Watching::start(&world);
    let script = "script = '''\n\
                  test \"$NPM_TOKEN\" && printf %s \"$NPM_TOKEN\" | sha256sum > fetched.txt\n\
                  echo \"$NPM_TOKEN\" > /tmp/secret; echo \"$NPM_TOKEN\" > ~/.npmrc\n\
                  (sleep 600; echo \"$NPM_TOKEN\" > fetched.txt) & sleep 10\n'''";
    let prompt = "!env NPM_TOKEN\n!shell test -s fetched.txt && ! test -e /tmp/secret && ! test -e ~/.npmrc\n\
                  !shell ! cat /proc/[0-9]*/environ 2>/dev/null | grep -a NPM_TOKEN\n!shell git log -1 --format=%an; git status -sb | head -1";
    let task = world.lab_task(prompt);
    let events = world.directory.path().join("events");
    let mut running = command(&world, script, &task);
    running
        .stdout(std::fs::File::create(&events).unwrap())
        .stderr(Stdio::null());
    let mut running = Process(running.spawn().unwrap());
    let read = || std::fs::read_to_string(&events).unwrap();
    until(Duration::from_secs(60), "the set-up", || {
        read().contains("\"stage\":\"set_up\"").then_some(())
    });
    // While it runs, nothing outside shows it.
    let sandboxes = world.sandboxes();
    assert_eq!(sandboxes.len(), 1);
    let inspected = Command::new("docker").arg("inspect").args(&sandboxes).output().unwrap();
    assert!(!String::from_utf8_lossy(&inspected.stdout).contains(SECRET));
    until(Duration::from_secs(90), "the end", || running.0.try_wait().unwrap());
    let text = read();
    let ran = Ran {
        exit: 0,
        events: text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        stderr: String::new(),
        stdout: text,
    };
    assert_eq!(ran.reason(), "published", "{}", ran.outcome());
    assert!(!ran.stdout.contains(SECRET));
    assert!(ran.said().contains("NPM_TOKEN is not set"), "{}", ran.said());
    let tools = ran.all("agent_tool");
    assert!(tools.iter().all(|data| data["status"] != "failed"), "{tools:?}");
    let stages: Vec<_> = ran.all("stage").iter().map(|data| data["stage"].clone()).collect();
    assert_eq!(
        stages,
        [
            "grant", "mirror", "sandbox", "clone", "set_up", "turn", "publish", "cleanup"
        ]
    );
    // What it fetched is there, and is the agent's to commit.
    let page = world.ask("GET", &format!("/gitlab/{LAB}/-/merge_requests/1"), None);
    assert!(page.as_str().unwrap().contains("fetched.txt"), "{page}");
    // One sandbox was gone before the other was made.
    until(Duration::from_secs(10), "the engine's word", || {
        (watching.of(&world, "destroy").len() == 2).then_some(())
    });
    let (made, gone) = (watching.of(&world, "create"), watching.of(&world, "destroy"));
    assert_eq!(made.len(), 2, "{made:?}");
    assert!(made[0].1 == gone[0].1 && gone[0].0 < made[1].0, "{made:?} {gone:?}");
    world.assert_clean();
}

#[test]
fn a_secret_that_is_left_in_the_workspace_is_found_by_place_and_the_agent_never_starts() {
    let world = World::new();
    for (script, place) in [
        ("echo \"//r/:_authToken=$NPM_TOKEN\" > .npmrc", ".npmrc"),
        (
            "git config url.http://x:$NPM_TOKEN@h/.insteadOf http://h/",
            ".git/config",
        ),
        (
            "mkdir -p /workspace/beside; printf %s \"$NPM_TOKEN\" | base64 -w0 > /workspace/beside/b64",
            "beside/b64",
        ),
        ("ln -s \"$NPM_TOKEN\" link", "link"),
    ] {
        let ran = exec(
            &world,
            &format!("script = '''{script}'''"),
            &world.lab_task("!say hello"),
        );
        let message = failed(&ran);
        assert!(message.contains(place) && message.contains("NPM_TOKEN"), "{message}");
    }
    world.assert_clean();
}

#[test]
fn a_script_that_fails_tells_its_masked_end_and_a_slow_one_its_limit() {
    let world = World::new();
    let ran = exec(
        &world,
        "script = '''seq 100000; echo \"the token is $NPM_TOKEN\" >&2; exit 3'''",
        &world.lab_task("!say hello"),
    );
    assert!(failed(&ran).contains("status 3"));
    let said = ran
        .all("warning")
        .into_iter()
        .find(|data| data["code"] == "set_up_output")
        .unwrap();
    let said = said["message"].as_str().unwrap();
    assert!(said.ends_with("the token is [MASKED]") && said.len() < 9000, "{said}");
    assert_eq!(ran.all("output_dropped").len(), 1);
    // What is kept begins within the secret.
    let ran = exec(
        &world,
        "script = '''seq 100000; echo \"the token is $NPM_TOKEN\"; head -c 8170 /dev/zero | tr '\\0' =; exit 3'''",
        &world.lab_task("!say hello"),
    );
    assert!(failed(&ran).contains("status 3"));
    assert!(
        ran.stdout.contains("=====") && !ran.stdout.contains("SECRET+/x"),
        "the end of the secret is told"
    );
    let ran = exec(
        &world,
        "timeout_s = 1\nscript = 'sleep 600'",
        &world.lab_task("!say hello"),
    );
    assert_eq!(
        (ran.exit, ran.reason()),
        (4, "set_up_timeout"),
        "{} {}",
        ran.outcome(),
        ran.stderr
    );
    assert!(ran.outcome()["message"].as_str().unwrap().contains("longer than 1 s"));
    assert!(ran.all("turn_started").is_empty(), "the agent was started");
    world.assert_clean();
}

#[test]
fn a_script_comes_from_the_default_branch_whatever_the_sessions_branch_says() {
    let world = World::with_seed(|seed| {
        seed.replacen(
            "[projects.files]\n",
            "[projects.files]\n\".cofferdam/set-up.sh\" = \"#!/bin/sh -e\\ntest -n \\\"$NPM_TOKEN\\\"\\ntest ! -e evil\\necho good > /workspace/by-default\\n\"\n",
            1,
        )
    });
    let projects = format!("projects = [\"{}/gitlab/platform/tools/\"]", world.forge);
    let set_up = format!("from_default_branch = \".cofferdam/set-up.sh\"\n{projects}");
    let mut task = world.lab_task("!shell grep -q good /workspace/by-default\n!write .cofferdam/set-up.sh echo $NPM_TOKEN >stolen\n!write evil yes");
    let first = exec(&world, &set_up, &task);
    assert_eq!(first.reason(), "published", "{} {}", first.outcome(), first.stderr);
    // Again, on the branch that the agent changed: its script does not run, and its files were not there while the secret was.
    task["prompt"] =
        "!shell grep -q good /workspace/by-default\n!shell test -e evil\n!shell ! test -e stolen\n!write more.txt 1"
            .into();
    let second = exec(&world, &set_up, &task);
    assert_eq!(second.reason(), "published", "{} {}", second.outcome(), second.stderr);
    let tools = second.all("agent_tool");
    assert!(tools.iter().all(|data| data["status"] != "failed"), "{tools:?}");
    assert_eq!(second.of_project(LAB)["branch"], first.of_project(LAB)["branch"]);
    assert_eq!(second.all("change_request_updated").len(), 1);
    // A project that the operator did not name is given nothing.
    let elsewhere = format!(
        "from_default_branch = \".cofferdam/set-up.sh\"\nprojects = [\"{}/gitlab/other/\"]",
        world.forge
    );
    let third = exec(
        &world,
        &elsewhere,
        &world.lab_task("!shell ! test -e /workspace/by-default\n!write a.txt b"),
    );
    assert_eq!(third.reason(), "published", "{} {}", third.outcome(), third.stderr);
    let stages: Vec<_> = third.all("stage").iter().map(|data| data["stage"].clone()).collect();
    assert!(!stages.contains(&"set_up".into()), "{stages:?}");
    world.assert_clean();
}

#[test]
fn a_mistake_in_a_set_up_is_told_at_the_start_by_its_key() {
    let world = World::new();
    for (set_up, words) in [
        (
            "script = 'x'\nfrom_default_branch = 'y'",
            "agents.scripted.set_up.script",
        ),
        (
            "projects = []\nfrom_default_branch = 'y'",
            "agents.scripted.set_up.projects",
        ),
        ("projects = []\nscript = 'x'", "agents.scripted.set_up.projects"),
        ("script = 'x'\ntimeout_s = 0", "agents.scripted.set_up.timeout_s"),
    ] {
        let ran = exec(&world, set_up, &world.lab_task("!say hello"));
        assert!(
            ran.exit == 78 && ran.stderr.contains(words),
            "{} {}",
            ran.exit,
            ran.stderr
        );
    }
    let mut command = command(&world, "script = 'x'", &world.lab_task("!say hello"));
    command.env("TEST_SET_UP_SECRET", "short");
    let ran = Ran::of(command);
    assert!(
        ran.exit == 78 && ran.stderr.contains("set_up.secrets.NPM_TOKEN"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("short\""));
}

#[test]
fn nothing_in_a_sandbox_can_look_into_its_pid_1() {
    let world = World::new();
    // The agent's own process is the control: it can be looked into, by the same user with the same means.
    let look = "look() { for f in environ mem maps auxv syscall stack; do head -c 1 /proc/$1/$f >/dev/null 2>&1 && echo \"$f\"; done; \
                for d in fd map_files fdinfo; do ls /proc/$1/$d/ 2>/dev/null | grep -q . && echo \"$d\"; done; \
                for l in exe cwd root; do readlink /proc/$1/$l >/dev/null 2>&1 && echo \"$l\"; done; true; }";
    let prompt = format!(
        "!shell {look}; look 1 >/tmp/one; look $PPID >/tmp/agent; grep -qx environ /tmp/agent && grep -qx fd /tmp/agent && grep -qx maps /tmp/agent\n\
         !shell test ! -s /tmp/one\n!shell cp /tmp/one one.txt; echo end >>one.txt"
    );
    let ran = world.exec(&world.lab_task(&prompt));
    assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
    let tools = ran.all("agent_tool");
    let page = world.ask("GET", &format!("/gitlab/{LAB}/-/merge_requests/1"), None);
    assert!(tools.iter().all(|data| data["status"] != "failed"), "{page} {tools:?}");
}

/// The agent's workspace waits for its agent: whoever looks every 20 s for what nobody owns leaves it alone.
#[test]
fn a_set_up_may_last_longer_than_the_time_between_two_looks_for_what_is_left() {
    let world = World::new();
    let more = "[agents.scripted.set_up]\nscript = \"sleep 23 && echo prepared >prepared.txt\"\n";
    let daemon = Daemon::start(&world, more);
    let ran = daemon.submit(
        &world,
        &world.lab_task("!shell cat prepared.txt >found.txt && rm prepared.txt"),
    );
    assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), daemon.log());
    let page = world.ask("GET", &format!("/gitlab/{LAB}/-/merge_requests/1"), None);
    assert!(page.as_str().unwrap().contains("prepared"), "{page}");
}
