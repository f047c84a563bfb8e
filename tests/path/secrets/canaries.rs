//! The canary suite: tokens in every way that a task can name them, and a model key, through sessions that succeed, fail, are cancelled and
//! crash; then every place that is left is searched. A new kind of secret is one more line in `Stage::new`.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::hunt::{Canary, Watched, assert_none, assert_none_below, search};
use super::sealed::{identity, seal};
use crate::harness::{HUB, LAB, Process, World, patience, signal, until};
use crate::kit::{Amqp, Daemon, broker, outcome, wait_for};

/// A daemon that logs everything, with canaries for all that it is trusted with.
struct Stage {
    world: World,
    daemon: Daemon,
    amqp: Amqp,
    lab: Canary,
    hub: Canary,
    all: Vec<Canary>,
    recipient: String,
    watched: Watched,
}

/// Asks the model from the sandbox and keeps what it answers, also with its lines joined: what an agent could read is searched with the rest.
/// Fails where no answer came, or one that repeats nothing.
const ASK: &str = "bash -c 'exec 3<>/dev/tcp/127.0.0.1/8470; printf \"POST /model/m/v1/chat/completions HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\
    content-type: application/json\\r\\ncontent-length: %d\\r\\n\\r\\n%s\" ${#1} \"$1\" >&3; cat <&3 >/tmp/answered' sh '{\"model\":\"x\",\"messages\":[]}'; \
    tr -d '[:space:]' </tmp/answered >/tmp/joined; grep -q 'no such key' /tmp/answered && test $(grep -o MASKED /tmp/joined | wc -l) -ge 5";

/// A model endpoint that refuses every key and repeats it, in a header and in every form that it may have in an answer. Its address.
fn echo() -> String {
    use base64::Engine as _;
    use std::io::{BufRead as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut head = std::io::BufReader::new(&stream).lines().map_while(Result::ok);
            let key = head
                .find_map(|line| Some(line.split_once("Bearer ")?.1.to_owned()))
                .unwrap_or_default();
            let hex: String = key.bytes().map(|byte| format!("{byte:02x}")).collect();
            let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{}{key}", "x".repeat(40)));
            let wrapped: Vec<&str> = encoded
                .as_bytes()
                .chunks(76)
                .map(|line| std::str::from_utf8(line).unwrap())
                .collect();
            let body = format!(
                "no such key: {key}\n{}\n{hex}\n{}\n",
                serde_json::json!({"error": {"message": key}}),
                wrapped.join("\n")
            );
            let _ = write!(
                &stream,
                "HTTP/1.1 401 Unauthorized\r\nx-request-id: r-{key}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            // The request's body is taken before the connection ends, so that the answer is not lost with it.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            head.for_each(drop);
        }
    });
    address
}

impl Stage {
    fn new() -> Self {
        Self::with("")
    }

    /// With more keys of the section `[session]`.
    fn with(session: &str) -> Self {
        let (lab, hub, key) = (
            Canary::new("GitLab token", "glpat-"),
            Canary::new("GitHub token", "ghx-"),
            // With what JSON, URLs and base64 write otherwise.
            Canary::of("model key", &format!("sk-{}\"/+z", Canary::new("", "").value)),
        );
        let set_up = Canary::new("set-up secret", "npm-");
        let held = [lab.clone(), hub.clone(), key.clone()];
        let all = [&held[..], std::slice::from_ref(&set_up)].concat();
        let world = World::with_seed(|seed| {
            seed.replace("\"test-gitlab-api\"", &format!("{:?}", lab.value))
                .replace("\"test-github-repo\"", &format!("{:?}", hub.value))
        })
        .token("LAB", &lab.value)
        .token("HUB", &hub.value);
        let directory = world.directory.path();
        std::fs::write(directory.join("key"), &key.value).unwrap();
        std::fs::write(directory.join("set-up"), &set_up.value).unwrap();
        std::fs::create_dir(directory.join("tokens")).unwrap();
        for (name, canary) in [("lab", &lab), ("hub", &hub)] {
            std::fs::write(directory.join("tokens").join(name), &canary.value).unwrap();
        }
        let (file, recipient) = identity(&world, "identity");
        let more = format!(
            "model = \"m\"\nset_up = {{ script = 'test -n \"$SECRET\"', secrets = {{ SECRET = {{ file = \"{0}/set-up\" }} }}, projects = [\"{3}/\"] }}\n[models.m]\nurl = \"{2}\"\nkey_file = \"{0}/key\"\n[session]\ngrace_s = 2\n{session}\n\
             [credentials]\ndirectory = \"{0}/tokens\"\nidentities = [\"{1}\"]\nallow_plain = true",
            directory.display(),
            file.display(),
            echo(),
            world.forge,
        );
        // The set-up's script has its secret in its environment: that is where it belongs, and nowhere else.
        let watched = Watched::begin(&world, &held);
        let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
        let daemon = Daemon::begin_logging(&world, &broker(), &prefix, &more, "trace");
        until(Duration::from_secs(30), "readiness", || {
            (daemon.status("/readyz") == 200).then_some(())
        });
        Self {
            world,
            daemon,
            amqp: Amqp::open(),
            lab,
            hub,
            all,
            recipient,
            watched,
        }
    }

    /// A task over both projects, whose credentials are named in that way; its agent searches its sandbox first.
    fn task(&self, way: &str, prompt: &str) -> Value {
        let searching = search(&self.all).replace("SEARCHED;", &format!("SEARCHED; {ASK} || exit 4;"));
        let mut task = self.world.task(&format!("{searching}\n{prompt}"));
        for (name, canary) in [("lab", &self.lab), ("hub", &self.hub)] {
            let url = task["connections"][name]["url"].as_str().unwrap().to_owned();
            task["connections"][name]["credential"] = match way {
                "file" => json!({"file": name}),
                "env" => json!({"env": format!("COFFERDAM_TOKEN_{}", name.to_uppercase())}),
                "plain" => json!({"plain": canary.value}),
                "sealed" => {
                    json!({"sealed": seal(&self.world, &canary.value, &["--to", &self.recipient, "--url", &url])})
                }
                other => panic!("{other}"),
            };
        }
        task
    }

    fn submit(&self, task: &Value) -> (Process, std::path::PathBuf) {
        self.daemon.submit_aside(&self.world, task)
    }

    /// The agent looked through its sandbox and found nothing.
    fn assert_searched(events: &std::path::Path) {
        let text = std::fs::read_to_string(events).unwrap();
        let searches: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|event| {
                event["data"]["event"] == "agent_tool" && event["data"]["title"].to_string().contains("SEARCHED")
            })
            .collect();
        let ended = searches
            .last()
            .unwrap_or_else(|| panic!("the agent did not search: {text}"));
        assert_eq!(ended["data"]["status"], "completed", "the agent found a canary");
    }

    fn wait_until_searched(events: &std::path::Path) {
        wait_for(events, "\"status\":\"completed\"");
        Self::assert_searched(events);
    }

    /// Looks through a container's files; says whether they could be had.
    fn hunt_container(&self, sandbox: &str) -> bool {
        let exported = std::process::Command::new("docker")
            .args(["export", sandbox])
            .output()
            .unwrap();
        assert_none(&self.all, "the container's files", &exported.stdout);
        exported.stdout.len() > 100_000
    }

    /// Searches the tickets of sessions, which hold tasks as they came: a token in clear where the operator allows it, and nothing else.
    fn hunt_tickets(&self) -> usize {
        let mut looked = 0;
        for queue in ["tickets", "ticket-checks"] {
            while let Some((body, properties)) = self.amqp.get(&format!("{}.{queue}", self.daemon.prefix)) {
                let mut task: Value = serde_json::from_slice(&body).unwrap();
                for (_, connection) in task["connections"].as_object_mut().unwrap() {
                    connection["credential"].as_object_mut().unwrap().remove("plain");
                }
                assert_none(&self.all, "a ticket", task.to_string().as_bytes());
                assert_none(&self.all, "a ticket's properties", format!("{properties:?}").as_bytes());
                looked += 1;
            }
        }
        looked
    }

    /// Searches everything that is left.
    fn hunt(self, events: &[std::path::PathBuf]) {
        self.hunt_tickets();
        let inspected = self.watched.end();
        assert!(inspected.contains("cofferdam-"), "no sandbox was inspected");
        assert_none(&self.all, "docker inspect", inspected.as_bytes());
        for path in events {
            Self::assert_searched(path);
            assert_none(&self.all, "events", &std::fs::read(path).unwrap());
        }
        let log = self.daemon.log();
        assert!(
            log.contains("\"level\":\"DEBUG\""),
            "the log tells too little to be judged"
        );
        assert_none(&self.all, "the log", log.as_bytes());
        assert_none(&self.all, "the metrics", self.daemon.page("/metrics").as_bytes());
        let dead = format!("{}.dead", self.daemon.prefix);
        while let Some((body, properties)) = self.amqp.get(&dead) {
            assert_none(&self.all, "a dead letter", &body);
            assert_none(
                &self.all,
                "a dead letter's properties",
                format!("{properties:?}").as_bytes(),
            );
        }
        let looked = assert_none_below(&self.all, "state", &self.world.state_dir());
        assert!(looked > 10, "only {looked} files of state were there to be searched");
        // What reached the forge: branches, change requests and their words. Its list of tokens lies beside it.
        let state = self.world.ask("GET", "/_test/state", None);
        for side in ["gitlab", "github"] {
            assert_none(&self.all, "the forge", state[side].to_string().as_bytes());
        }
        assert!(state["gitlab"][LAB].is_object() && state["github"][HUB].is_object());
        assert_none_below(
            &self.all,
            "the forge's repositories",
            &self.world.directory.path().join("forge"),
        );
    }
}

#[test]
fn sessions_that_succeed_leave_no_canary() {
    let stage = Stage::new();
    let mut all = Vec::new();
    for way in ["sealed", "plain", "env", "file"] {
        let task = stage.task(
            way,
            &format!("!write greeter/{way}.txt b\n!write website/{way}.txt b\n!say done"),
        );
        let (_following, events) = stage.submit(&task);
        let outcome = outcome(&events);
        assert_eq!(outcome["reason"], "published", "{way}: {outcome}");
        all.push(events);
    }
    stage.hunt(&all);
}

#[test]
fn sessions_that_fail_or_are_cancelled_leave_no_canary() {
    let stage = Stage::new();
    let mut all = Vec::new();
    // The forge dies after the work: commits are kept as bundles.
    let fault = json!({"match": {"path_contains": "git-receive-pack"}, "status": 503, "times": 1000});
    stage.world.ask("POST", "/_test/faults", Some(&fault));
    let (_one, events) = stage.submit(&stage.task("sealed", "!write greeter/a.txt b\n!write website/a.txt b"));
    let ended = outcome(&events);
    assert_eq!(ended["reason"], "forge_unavailable", "{ended}");
    assert!(ended["projects"][0]["kept"].is_string(), "{ended}");
    all.push(events);
    stage.world.ask("DELETE", "/_test/faults", None);
    // The agent dies.
    let (_two, events) = stage.submit(&stage.task("plain", "!write greeter/b.txt b\n!exit 7"));
    let ended = outcome(&events);
    assert_eq!(ended["reason"], "agent_failed", "{ended}");
    all.push(events);
    // The user ends it, and nothing is published.
    let task = stage.task("plain", "!write greeter/c.txt b\n!hang");
    let (_three, events) = stage.submit(&task);
    Stage::wait_until_searched(&events);
    let end = json!({"version": 1, "id": "c-1", "kind": "end", "publish": false});
    let inbox = format!("{}.session.in", stage.daemon.prefix);
    assert!(
        stage
            .amqp
            .publish(&inbox, task["session"].as_str().unwrap(), end.to_string().as_bytes())
    );
    assert_eq!(outcome(&events)["reason"], "cancelled");
    all.push(events);
    stage.hunt(&all);
}

#[test]
#[ignore = "long: tests/run.sh --full"]
fn a_worker_that_is_killed_in_a_turn_or_a_push_leaves_no_canary() {
    for moment in ["turn", "push"] {
        let stage = Stage::new();
        // Where the system lets it, a crash would leave a core: the signal that asks for one is the one that is sent.
        let task = if moment == "turn" {
            stage.task("plain", "!write greeter/a.txt b\n!hang")
        } else {
            let slow = json!({"match": {"method": "POST", "path_contains": "git-receive-pack"}, "delay_ms": 240000, "times": 10});
            stage.world.ask("POST", "/_test/faults", Some(&slow));
            stage.task("sealed", "!write greeter/a.txt b\n!write website/a.txt b")
        };
        let (_following, events) = stage.submit(&task);
        Stage::wait_until_searched(&events);
        if moment == "push" {
            wait_for(&events, "\"stage\":\"publish\"");
            until(Duration::from_secs(30), "git on its way to the forge", || {
                let running = std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
                    let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                    let line = String::from_utf8_lossy(&line).into_owned();
                    line.contains("remote-http") && line.contains(&stage.world.forge)
                });
                running.then_some(())
            });
        }
        let [sandbox] = stage.world.sandboxes().try_into().unwrap();
        assert!(stage.hunt_container(&sandbox), "the sandbox was not exported");
        // What was exported may have taken long: the session must still be where it is killed.
        assert!(
            !std::fs::read_to_string(&events)
                .unwrap()
                .contains("\"event\":\"finished\"")
        );
        signal(&stage.daemon.process.0, if moment == "turn" { "KILL" } else { "ABRT" });
        let status = std::process::Command::new("sh")
            .args([
                "-c",
                &format!(
                    "while kill -0 {} 2>/dev/null; do grep -q 'State:.Z' /proc/{0}/status && break; done",
                    stage.daemon.process.0.id()
                ),
            ])
            .status();
        assert!(status.unwrap().success());
        let tickets = until(Duration::from_secs(20), "the ticket of the dead", || {
            Some(stage.hunt_tickets()).filter(|looked| *looked > 0)
        });
        assert_eq!(tickets, 1);
        // Sockets, staging, mirrors and the container are still as the crash left them, unless another test's worker has seen already that the
        // container's owner is dead.
        for sandbox in stage.world.sandboxes() {
            let is_whole = stage.hunt_container(&sandbox);
            assert!(
                is_whole || !stage.world.sandboxes().contains(&sandbox),
                "the sandbox was not exported"
            );
        }
        stage.hunt(&[events]);
    }
}

#[test]
fn a_task_that_is_given_up_leaves_no_canary() {
    let mut stage = Stage::with("most_takeovers = 0");
    let mut task = stage.task("sealed", "!write greeter/a.txt b\n!hang");
    task["connections"]["lab"]["credential"] = json!({"plain": stage.lab.value});
    let (_following, events) = stage.submit(&task);
    Stage::wait_until_searched(&events);
    until(patience(60), "a look at its sandbox", || {
        stage.watched.has_inspected().then_some(())
    });
    signal(&stage.daemon.process.0, "KILL");
    stage.daemon.wait();
    let first = stage.daemon.log();
    stage.daemon = stage.daemon.beside_logging(&stage.world, "second", "trace");
    assert_eq!(outcome(&events)["reason"], "abandoned");
    let dead = format!("{}.dead", stage.daemon.prefix);
    let (letter, properties) = until(Duration::from_secs(20), "the dead letter", || stage.amqp.get(&dead));
    assert_none(&stage.all, "the dead letter", &letter);
    assert_none(&stage.all, "its properties", format!("{properties:?}").as_bytes());
    let kept: Value = serde_json::from_slice(&letter).unwrap();
    let credential = |of: &Value, name: &str| of["connections"][name]["credential"].clone();
    assert_eq!(kept["session"], task["session"]);
    assert_eq!(credential(&kept, "lab"), json!({"plain": "[MASKED]"}));
    // What only a worker can read stays, so that the task can be sent again.
    assert_eq!(credential(&kept, "hub"), credential(&task, "hub"));
    assert_none(&stage.all, "the first log", first.as_bytes());
    stage.hunt(&[events]);
}

#[test]
fn what_is_dead_lettered_holds_no_token() {
    let stage = Stage::new();
    let mut unknown = stage.task("plain", "!say hi");
    unknown["projekts"] = json!([]);
    let token = &stage.lab.value;
    let mut misplaced = stage.task("file", "!say hi");
    misplaced["connections"]["lab"]["credential"] = json!(token);
    let mut as_name = stage.task("file", "!say hi");
    as_name["connections"]["lab"]["credential"] = json!({ token.as_str(): 1 });
    let mut events = stage.amqp.listen(&format!("{}.events", stage.daemon.prefix));
    let (tasks, dead) = (
        format!("{}.tasks", stage.daemon.prefix),
        format!("{}.dead", stage.daemon.prefix),
    );
    for body in [
        unknown.to_string(),
        misplaced.to_string(),
        as_name.to_string(),
        format!("{{\"connections\": {{\"lab\": {{\"credential\": {{\"plain\": \"{token}\"}}}}}}, oops"),
        // In no place at all, but of a known shape.
        format!("{{\"version\": 1, \"prompt\": \"use {token}abcdef\" nonsense"),
        format!("{{\"version\": \"{token}\"}}"),
    ] {
        assert!(stage.amqp.publish("", &tasks, body.as_bytes()));
        let (found, properties) = until(Duration::from_secs(20), "a dead letter", || stage.amqp.get(&dead));
        assert_none(&stage.all, "a dead letter", &found);
        let shown = String::from_utf8_lossy(&found);
        assert!(shown.contains("[MASKED]") || shown.contains("not_kept"), "{shown}");
        assert_none(&stage.all, "its properties", format!("{properties:?}").as_bytes());
        assert_none(&stage.all, "the event", &stage.amqp.next(&mut events).data);
    }
    assert_none(&stage.all, "the log", stage.daemon.log().as_bytes());
}

/// The search is proven on a canary that lies open.
#[test]
fn the_hunt_finds_what_is_there() {
    let canary = Canary::new("control", "glpat-");
    let world = World::new();
    let mut task = world.lab_task(&format!("{}\n!say hi", search(std::slice::from_ref(&canary))));
    let encoded = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(format!("oauth2:{}", canary.value))
    };
    for left in [&canary.value, &encoded, &canary.value.replace('-', "%2D")] {
        task["session"] = json!(uuid::Uuid::new_v4());
        task["environment"] = json!({"LEFT_HERE": left});
        let ran = world.exec(&task);
        let tools = ran.all("agent_tool");
        assert_eq!(tools.last().unwrap()["status"], "failed", "{left} was not found");
        // The same judge on bytes, and on what git packed.
        assert!(canary.stands_in(format!("xx{left}xx").as_bytes()).is_some(), "{left}");
    }
    let state = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        assert!(
            std::process::Command::new("git")
                .arg("-C")
                .arg(state.path())
                .args(arguments)
                .status()
                .unwrap()
                .success()
        );
    };
    run(&["init", "-q", "--bare", "mirror.git"]);
    let mut hash = std::process::Command::new("git")
        .arg("-C")
        .arg(state.path().join("mirror.git"))
        .args(["hash-object", "-w", "--stdin"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut hash.stdin.take().unwrap(), encoded.as_bytes()).unwrap();
    assert!(hash.wait().unwrap().success());
    let found = std::panic::catch_unwind(|| assert_none_below(std::slice::from_ref(&canary), "here", state.path()));
    assert!(found.is_err(), "an object of a repository was not searched");
    std::fs::set_permissions(state.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
}
