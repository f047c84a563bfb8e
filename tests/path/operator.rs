//! What an operator is told: by `doctor` beside a running worker, by `config check`, by the log, by `seal` and `keygen`; and what is in the README.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Ran, World, until};
use crate::kit::{Daemon, broker};

fn doctor(world: &World, config: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, Vec<Value>) {
    let mut command = world.command(config);
    command
        .env("COFFERDAM_LOG", "error")
        .envs(variables.iter().copied())
        .args(["doctor", "--json"])
        .args(arguments);
    let ran = Ran::of(command);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    (ran.exit, report["findings"].as_array().unwrap().clone())
}

fn finding<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    let found = findings.iter().find(|one| one["check"] == check);
    found.unwrap_or_else(|| panic!("{check} in {findings:?}"))
}

fn problems(findings: &[Value]) -> Vec<&str> {
    let of = findings.iter().filter(|one| one["state"] == "problem");
    of.map(|one| one["check"].as_str().unwrap()).collect()
}

#[test]
fn doctor_looks_at_everything_while_a_worker_runs() {
    let world = World::new();
    let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
    let daemon = Daemon::begin(&world, &broker(), &prefix, "");
    until(Duration::from_secs(30), "readiness", || {
        (daemon.status("/readyz") == 200).then_some(())
    });
    let task = world.write_task(&world.lab_task("!say hi"));
    let hook = world.state_dir().join("hooks/pre-receive");
    let written = || std::fs::metadata(&hook).unwrap().modified().unwrap();
    let before = written();
    let (exit, findings) = doctor(&world, &daemon.config, &["--task", task.to_str().unwrap()], &[]);
    assert_eq!((exit, problems(&findings)), (0, vec![]), "{findings:?}");
    let state = finding(&findings, "state")["found"].as_str().unwrap();
    assert!(state.contains("a worker runs here"), "{state}");
    for check in [
        "git",
        "inside",
        "readers' walls",
        "engine",
        "broker",
        "connection lab",
        "image of agent scripted",
    ] {
        assert_eq!(finding(&findings, check)["state"], "ok", "{check}");
    }
    assert_eq!(written(), before, "doctor changed the state of a running worker");
}

#[test]
fn other_users_get_no_way_into_the_state_directory() {
    let world = World::new();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let state = world.state_dir();
    let modes = || (mode(&state), mode(&state.join("worker.lock")));
    assert_eq!(world.exec(&world.lab_task("!say hi")).reason(), "nothing_to_publish");
    assert_eq!(modes(), (0o700, 0o600));
    // As an older version left it; and sandboxes work behind it.
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(state.join("worker.lock"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let ran = world.exec(&world.lab_task("!write a.txt b"));
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    assert_eq!(modes(), (0o700, 0o600));
    // What is somebody else's is left as it is.
    let other = world.directory.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("letter"), "").unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = world.config("");
    let mut command = world.command(&config);
    command.env("COFFERDAM__STATE_DIR", &other);
    command.arg("exec").arg(world.write_task(&world.lab_task("!say hi")));
    let ran = Ran::of(command);
    assert!(ran.exit == 78 && ran.stderr.contains("chmod 700"), "{}", ran.stderr);
    assert_eq!(mode(&other), 0o755);
}

#[test]
fn the_broker_s_client_library_is_silent_at_any_level_unless_it_is_named() {
    let world = World::new();
    let lines = |level: &str| {
        let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
        let daemon = Daemon::begin_logging(&world, &broker(), &prefix, "", level);
        until(Duration::from_secs(30), "readiness", || {
            (daemon.status("/readyz") == 200).then_some(())
        });
        // Its claim looks for a queue that is rightly not there.
        assert_eq!(
            daemon.submit(&world, &world.lab_task("!say hi")).reason(),
            "nothing_to_publish"
        );
        daemon.log().matches("\"target\":\"lapin").count()
    };
    assert_eq!(lines("info"), 0);
    assert!(
        lines("info,lapin=error") > 0,
        "there is no alarm that could be silenced"
    );
}

#[test]
fn doctor_names_the_remedy_of_each_cause_and_goes_on() {
    let world = World::new();
    let prefix = format!("t{}", uuid::Uuid::new_v4().simple());
    let config = world.config(&format!("[queue]\nurl = \"{}\"\nprefix = \"{prefix}\"\n", broker()));
    let task = world.write_task(&world.lab_task("!say hi"));
    let rest = broker().rsplit_once('@').unwrap().1.to_owned();
    let login = format!("amqp://guest:wrong@{rest}");
    for (variable, value, check, remedy, not) in [
        (
            "COFFERDAM__SANDBOX__INSIDE",
            "/nonexistent/inside",
            "inside",
            "sandbox.inside",
            "apt-get",
        ),
        (
            "COFFERDAM__REPOSITORY__GIT",
            "/nonexistent/git",
            "git",
            "apt-get install git",
            "inside",
        ),
        (
            "COFFERDAM__QUEUE__URL",
            login.as_str(),
            "broker",
            "password",
            "start RabbitMQ",
        ),
        (
            "COFFERDAM__QUEUE__URL",
            "amqp://guest:guest@127.0.0.1:9/%2f",
            "broker",
            "start RabbitMQ",
            "password",
        ),
        (
            "COFFERDAM__QUEUE__URL_ENV",
            "NOT_SET_ANYWHERE",
            "broker",
            "queue.url_env",
            "start RabbitMQ",
        ),
        (
            "COFFERDAM__FORGE__CA_FILE",
            "/nonexistent/ca.pem",
            "configuration",
            "named",
            "apt-get",
        ),
    ] {
        let (exit, findings) = doctor(
            &world,
            &config,
            &["--task", task.to_str().unwrap()],
            &[(variable, value)],
        );
        assert_eq!(exit, 69, "{variable}");
        assert!(problems(&findings).contains(&check), "{variable}: {findings:?}");
        let told = finding(&findings, check)["remedy"].as_str().unwrap();
        assert!(told.contains(remedy) && !told.contains(not), "{variable}: {told}");
        assert_eq!(finding(&findings, "engine")["state"], "ok", "{variable}");
        // The forge is asked too, unless what it needs is missing.
        assert!(
            check == "configuration" || finding(&findings, "connection lab")["state"] == "ok",
            "{findings:?}"
        );
    }
}

#[test]
fn files_with_secrets_that_others_may_read_are_told_of() {
    let world = World::new();
    let place = world.directory.path();
    let tokens = place.join("tokens");
    std::fs::create_dir(&tokens).unwrap();
    let files = [
        tokens.join("ada"),
        place.join("key"),
        place.join("url"),
        place.join("npm"),
    ];
    let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    for file in &files {
        std::fs::write(
            file,
            if file.ends_with("url") {
                broker()
            } else {
                "a-secret-of-length".into()
            },
        )
        .unwrap();
    }
    let config = world.config(&format!(
        "set_up = {{ script = \"true\", secrets = {{ NPM = {{ file = \"{0}/npm\" }} }}, projects = [\"http://f.example/\"] }}\n[queue]\nurl_file = \"{0}/url\"\n\
         [credentials]\ndirectory = \"{0}/tokens\"\n[models.m]\nurl = \"http://127.0.0.1:9\"\nkey_file = \"{0}/key\"\n",
        place.display()
    ));
    let warned = || {
        let (_, findings) = doctor(&world, &config, &[], &[]);
        let of = findings.iter().filter(|one| one["check"] == "file modes");
        of.map(|one| one["remedy"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    set(&tokens, 0o755);
    for file in &files {
        set(file, 0o644);
    }
    let told = warned();
    for file in &files {
        assert!(told.contains(&format!("chmod 600 {}", file.display())), "{told:?}");
    }
    let mut check = world.command(&config);
    check.args(["config", "check"]);
    let said = Ran::of(check);
    assert!(
        said.exit == 0 && said.stderr.contains("models.m.key_file"),
        "{}",
        said.stderr
    );
    for file in &files {
        set(file, 0o600);
    }
    assert_eq!(warned(), Vec::<String>::new());
    // A closed directory closes what is in it.
    set(&tokens, 0o700);
    set(&files[0], 0o644);
    assert_eq!(warned(), Vec::<String>::new());
    set(&tokens, 0o777);
    assert!(warned().contains(&format!("chmod 700 {}", tokens.display())));
}

/// The worker's own: its state, and the key that opens what is sealed to it.
#[test]
fn doctor_names_whose_the_state_and_the_sealing_key_are_and_who_else_gets_at_them() {
    let world = World::new();
    let place = world.directory.path().join("keys");
    std::fs::create_dir(&place).unwrap();
    let key = place.join("key");
    let mut keygen = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
    keygen.args(["keygen", "-o"]).arg(&key);
    assert_eq!(Ran::of(keygen).exit, 0);
    let config = world.config(&format!("[credentials]\nidentities = [\"{}\"]\n", key.display()));
    let state = world.state_dir();
    let look = |check: &str| {
        let (_, findings) = doctor(&world, &config, &[], &[]);
        let of = findings.iter().filter(|one| one["check"] == check);
        let words = |one: &Value| format!("{} {} {}", one["state"], one["found"], one["remedy"]);
        of.map(words).collect::<Vec<_>>().join("\n")
    };
    let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let assert_told = |check: &str, level: &str, words: &str| {
        let told = look(check);
        assert!(
            told.contains(&format!("\"{level}\"")) && told.contains(words),
            "{check}: {told}"
        );
    };
    assert_told("sealed credentials", "ok", "age1");
    assert_eq!(look("file modes"), "");
    set(&key, 0o640);
    assert_told("sealed credentials", "problem", "chmod 600");
    set(&key, 0o600);
    set(&place, 0o777);
    assert_told("file modes", "warning", &format!("chmod go-w {}", place.display()));
    // As in /tmp: only owners exchange what lies there.
    set(&place, 0o1777);
    assert_eq!(look("file modes"), "");

    std::fs::create_dir(&state).unwrap();
    set(&state, 0o750);
    assert_told("state", "warning", &format!("chmod 700 {}", state.display()));
    std::fs::write(state.join("letter"), "").unwrap();
    assert_told("state", "problem", "holds what is no worker's");
    set(&state, 0o700);
    assert_told("state", "ok", "no worker runs here");
    // Only root gives things away.
    if nix::unistd::geteuid().is_root() {
        let stranger = Some(nix::unistd::Uid::from_raw(12345));
        nix::unistd::chown(&state, stranger, None).unwrap();
        assert_told("state", "problem", "belongs to user 12345");
        nix::unistd::chown(&key, stranger, None).unwrap();
        assert_told("sealed credentials", "problem", "belongs to another user");
        let url = place.join("url");
        std::fs::write(&url, broker()).unwrap();
        set(&url, 0o600);
        nix::unistd::chown(&url, stranger, None).unwrap();
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, format!("{text}\n[queue]\nurl_file = \"{}\"\n", url.display())).unwrap();
        assert_told("file modes", "warning", "belongs to user 12345");
    }
}

#[test]
fn config_check_finds_what_run_would_not_start_with() {
    let world = World::new();
    let run = |more: &str, command: &[&str]| {
        let config = world.config(more);
        let mut started = world.command(&config);
        started.env("COFFERDAM__ADMIN__LISTEN", "127.0.0.1:0").args(command);
        Ran::of(started)
    };
    assert_eq!(run("", &["config", "check"]).exit, 0);
    let seccomp = world.directory.path().join("seccomp.json");
    std::fs::write(&seccomp, "{}").unwrap();
    for (more, variables, words) in [
        ("[queue]\nurl_env = \"NOT_SET_ANYWHERE\"", None, "NOT_SET_ANYWHERE"),
        ("[queue]\nurl = \"nowhere\"", None, "broker's address"),
        (
            "",
            Some(("COFFERDAM__FORGE__ALLOWED_URLS", "[\"foo bar\"]".to_owned())),
            "foo bar",
        ),
        (
            "",
            Some(("COFFERDAM__FORGE__CA_FILE", "/nonexistent/ca.pem".to_owned())),
            "/nonexistent/ca.pem",
        ),
        (
            "[credentials]\ndirectory = \"/nonexistent/tokens\"",
            None,
            "credentials.directory",
        ),
        (
            "",
            Some(("COFFERDAM__SANDBOX__INSIDE", "/nonexistent/inside".to_owned())),
            "sandbox.inside",
        ),
        (
            "",
            Some(("COFFERDAM__SANDBOX__SECCOMP", seccomp.display().to_string())),
            "sandbox.seccomp",
        ),
    ] {
        let config = world.config(more);
        let mut check = world.command(&config);
        check.envs(variables).args(["config", "check"]);
        let ran = Ran::of(check);
        assert_eq!(ran.exit, 78, "{words}: {}", ran.stdout);
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
}

#[test]
fn a_log_filter_that_is_none_is_reported() {
    let world = World::new();
    let config = world.config("");
    let mut command = world.command(&config);
    command.env("COFFERDAM_LOG", "debug=[what").args(["doctor", "--json"]);
    let ran = Ran::of(command);
    assert!(ran.stderr.contains("COFFERDAM_LOG"), "{}", ran.stderr);
}

fn cofferdam(arguments: &[&str], input: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), input).unwrap();
    command
        .args(arguments)
        .stdin(Stdio::from(std::fs::File::open(file.path()).unwrap()));
    Ran::of(command)
}

#[test]
fn nothing_is_sealed_that_no_worker_would_open() {
    let place = tempfile::tempdir().unwrap();
    let key = place.path().join("key");
    let made = cofferdam(&["keygen", "-o", key.to_str().unwrap()], "");
    let recipient = made.stdout.trim().to_owned();
    let sealed = |more: &[&str]| cofferdam(&[&["seal", "--to", &recipient], more].concat(), "token");
    let future = "2999-01-01T00:00:00Z";
    assert_eq!(
        sealed(&["--url", "https://gitlab.example.org/forge", "--expires", future]).exit,
        0
    );
    for url in ["foo bar ::", "ftp://x", ""] {
        let ran = sealed(&["--url", url]);
        assert!(
            ran.exit == 65 && ran.stdout.is_empty() && ran.stderr.contains("--url"),
            "{url:?}: {}",
            ran.stderr
        );
    }
    let ran = sealed(&["--any-url", "--expires", "2020-01-01T00:00:00Z"]);
    assert!(
        ran.exit == 65 && ran.stdout.is_empty() && ran.stderr.contains("past"),
        "{}",
        ran.stderr
    );
    let ran = cofferdam(&["keygen", "-o", place.path().to_str().unwrap()], "");
    assert!(ran.exit != 0 && ran.stderr.contains("directory"), "{}", ran.stderr);
    let ran = cofferdam(&["keygen", "-o", key.to_str().unwrap()], "");
    assert!(ran.exit != 0 && ran.stderr.contains("overwritten"), "{}", ran.stderr);
}

/// The first block of that kind after these words.
fn block<'a>(text: &'a str, after: &str, kind: &str) -> &'a str {
    let text = &text[text.find(after).unwrap_or_else(|| panic!("{after} in the README"))..];
    let begin = text.find(&format!("```{kind}\n")).unwrap() + kind.len() + 4;
    let text = &text[begin..];
    &text[..text.find("\n```").unwrap()]
}

#[test]
fn the_configuration_in_the_readme_is_good_as_it_stands() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let example = std::fs::read_to_string(root.join("deploy/config.example.toml")).unwrap();
    let world = World::new();
    let etc = world.directory.path().join("etc");
    std::fs::create_dir_all(etc.join("tokens")).unwrap();
    assert_eq!(
        cofferdam(&["keygen", "-o", etc.join("key").to_str().unwrap()], "").exit,
        0
    );
    let snippet = block(&readme, "**Configure.**", "toml");
    assert!(!snippet.contains("# files"), "what is commented out does not work");
    for (name, text) in [("readme", snippet), ("example", example.as_str())] {
        let file = world.directory.path().join(format!("{name}.toml"));
        std::fs::write(&file, text.replace("/etc/cofferdam", etc.to_str().unwrap())).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
        command
            .env(
                "COFFERDAM_AMQP_URL",
                "amqp://cofferdam:password@127.0.0.1:5672/cofferdam",
            )
            .env("COFFERDAM_MODEL_KEY", "key")
            .env("COFFERDAM__SANDBOX__INSIDE", crate::harness::inside())
            .arg("--config")
            .arg(file)
            .args(["config", "check"]);
        let ran = Ran::of(command);
        assert_eq!(ran.exit, 0, "{name}: {}", ran.stderr);
    }
    // The agent's own file is JSON, and where its variable says.
    let parsed: toml::Table = snippet.parse().unwrap();
    let agent = &parsed["agents"]["opencode"];
    let home = agent["environment"]["OPENCODE_CONFIG"]
        .as_str()
        .unwrap()
        .strip_prefix("/home/agent/")
        .unwrap();
    let seeded: Value = serde_json::from_str(agent["files"][home].as_str().unwrap()).unwrap();
    assert_eq!(seeded["enabled_providers"], json!(["gateway"]));
}
