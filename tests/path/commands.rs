//! `connection check` and `projects`: what a person learns about a token before any task is sent.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{HUB, LAB, Ran, World};

/// Connections of the configuration, as an operator writes them.
fn connections(world: &World) -> String {
    let gitlab = |name: &str| {
        format!(
            "[connections.{}]\nforge = \"gitlab\"\nurl = \"{}/gitlab/api/v4/\"\ncredential = {{ env = \"COFFERDAM_TOKEN_{name}\" }}\n",
            name.to_lowercase(),
            world.forge
        )
    };
    let names = ["LAB", "READ", "WRITE", "USERS", "OLD", "WRONG"];
    let github = format!(
        "[connections.hub]\nforge = \"github\"\nurl = \"{}\"\ncredential = {{ env = \"COFFERDAM_TOKEN_HUB\" }}\n",
        world.forge
    );
    let fine = github
        .replace("connections.hub", "connections.fine")
        .replace("TOKEN_HUB", "TOKEN_FINE");
    names.map(gitlab).concat() + &github + &fine
}

fn world(seed: impl Fn(String) -> String) -> World {
    World::with_seed(seed)
        .token("READ", "test-gitlab-read-api")
        .token("WRITE", "test-gitlab-write-repository")
        .token("USERS", "test-gitlab-read-user")
        .token("OLD", "test-gitlab-expired")
        .token("WRONG", "no-such-token")
        .token("FINE", "test-github-fine-grained")
}

fn run(world: &World, arguments: &[&str]) -> Ran {
    let config = world.config(&connections(world));
    let mut command = world.command(&config);
    command.env("COFFERDAM_LOG", "off").args(arguments);
    Ran::of(command)
}

#[test]
fn a_check_tells_whose_a_token_is_and_each_row_of_what_it_may() {
    let world = world(|seed| seed);
    let checked = |name: &str| {
        let ran = run(&world, &["connection", "check", "--json", name]);
        let line: Value = serde_json::from_str(ran.stdout.trim()).unwrap();
        (ran.exit, line)
    };
    for (name, row) in [
        ("lab", ["yes", "yes", "yes", "yes", "yes", "yes", "yes"]),
        ("read", ["yes", "yes", "no", "no", "yes", "yes", "no"]),
        (
            "write",
            ["git_only", "git_only", "yes", "push_options", "no", "no", "no"],
        ),
        ("users", ["no", "no", "no", "no", "no", "no", "no"]),
        ("hub", ["yes", "yes", "yes", "yes", "yes", "yes", "yes"]),
    ] {
        let (exit, line) = checked(name);
        assert_eq!((exit, &line["ok"]), (0, &Value::Bool(true)), "{line}");
        let keys = [
            "read_projects",
            "clone",
            "push_branches",
            "open_change_requests",
            "inspect_change_requests",
            "read_issues",
            "comment",
        ];
        let found = keys.map(|key| line["checked"]["capabilities"][key].as_str().unwrap().to_owned());
        assert_eq!(found, row, "{name}");
    }
    // Rights that are not in scopes are tried out by reading the first project that is seen; what only writing proves stays open.
    let (_, fine) = checked("fine");
    let may = &fine["checked"]["capabilities"];
    assert_eq!(fine["checked"]["tried_on"], HUB, "{fine}");
    assert_eq!(
        (&may["inspect_change_requests"], &may["read_issues"], &may["clone"]),
        (&json!("yes"), &json!("yes"), &json!("yes")),
        "{fine}"
    );
    let (exit, old) = checked("old");
    assert_eq!(exit, 1);
    assert!(old["message"].as_str().unwrap().contains("expired"), "{old}");
    let (_, wrong) = checked("wrong");
    assert!(
        wrong["message"].as_str().unwrap().contains("does not accept the token"),
        "{wrong}"
    );
    // For people, all at once: a line per row, complaints for the dead ones, and a note where the task must help.
    let ran = run(&world, &["connection", "check"]);
    assert_eq!(ran.exit, 1);
    assert!(
        ran.stdout.contains("open change requests      yes (by push options)"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stdout.contains("the task must name \"user\"") && ran.stderr.contains("old: "),
        "{}",
        ran.stdout
    );
    for secret in ["test-gitlab", "no-such-token"] {
        assert!(!ran.stdout.contains(secret) && !ran.stderr.contains(secret));
    }
    let ran = run(&world, &["connection", "check", "nobody"]);
    assert!(ran.exit == 78 && ran.stderr.contains("lab"), "{}", ran.stderr);
}

#[test]
fn another_product_at_the_address_and_a_wrong_instance_are_told() {
    let world = World::new();
    let check = |url: &str, kind: &str| {
        let more = format!(
            "[connections.x]\nforge = \"{kind}\"\nurl = \"{url}\"\ncredential = {{ env = \"COFFERDAM_TOKEN_LAB\" }}\n"
        );
        let config = world.config(&more);
        let mut command = world.command(&config);
        command.env("COFFERDAM_LOG", "off").args(["connection", "check"]);
        Ran::of(command)
    };
    // The sub-path is missing, the kind is the other one, nobody listens.
    for (url, kind) in [
        (world.forge.clone(), "gitlab"),
        (format!("{}/gitlab", world.forge), "github"),
        ("http://127.0.0.1:9".to_owned(), "gitlab"),
    ] {
        let ran = check(&url, kind);
        assert_eq!(ran.exit, 1, "{url} {kind}: {}", ran.stdout);
        assert!(
            ran.stderr.starts_with("cofferdam: x: ") && ran.stderr.len() > 40,
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn projects_are_listed_searched_and_bounded_on_an_account_of_ten_thousand() {
    let world = world(|seed| {
        seed + "\n[[crowds]]\nforge = \"gitlab\"\ngroup = \"many\"\ncount = 10000\nmembers = [{ user = \"ada\", role = \"developer\" }]\n"
    });
    let ran = run(&world, &["projects", "--connection", "lab", "--search", "greeter"]);
    assert_eq!(ran.exit, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.lines().any(|line| line == format!("{LAB}  main")),
        "{}",
        ran.stdout
    );
    let ran = run(&world, &["projects", "--connection", "lab", "--limit", "150", "--json"]);
    assert_eq!(ran.stdout.lines().count(), 150);
    let ran = run(&world, &["projects", "--connection", "lab"]);
    assert!(ran.stderr.contains("--search"), "{}", ran.stderr);
    let ran = run(&world, &["projects", "--connection", "write"]);
    assert!(
        ran.exit == 1 && ran.stderr.contains("read_api") && ran.stderr.contains("paths"),
        "{}",
        ran.stderr
    );

    // All of them, with the peak of the process's own memory as the kernel counts it.
    let config = world.config(&connections(&world));
    let mut inner = world.command(&config);
    inner.env("COFFERDAM_LOG", "off");
    let mut measured = Command::new("python3");
    measured.args([
        "-c",
        "import resource,subprocess,sys\nout=subprocess.run(sys.argv[1:],stdout=subprocess.PIPE).stdout\n\
         print(len(set(out.splitlines())),resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)",
    ]);
    measured.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        measured.env(name, value.unwrap_or_default());
    }
    measured.args(["projects", "--connection", "lab", "--limit", "20000"]);
    let output = measured.stderr(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (count, kib) = text.trim().split_once(' ').unwrap();
    let (count, kib): (usize, usize) = (count.parse().unwrap(), kib.parse().unwrap());
    assert!((10_001..=10_010).contains(&count), "{count}");
    assert!(kib < 64 * 1024, "{kib} KiB");
    println!("listing {count} projects: {kib} KiB at most");
}
