//! What the command line says of itself: completions that shells take, manual pages that their formatter takes, a version with its commit,
//! and the configuration as it counts.

use std::path::Path;
use std::process::Command;

use crate::harness::{Ran, World};

fn cofferdam(words: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cofferdam"));
    command.args(words);
    let ran = Ran::of(command);
    assert_eq!(ran.exit, 0, "{words:?}: {}", ran.stderr);
    ran
}

fn shell(program: &str, words: &[&str]) -> Ran {
    let mut command = Command::new(program);
    command.args(words);
    Ran::of(command)
}

#[test]
fn bash_completes_commands_options_and_values() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("completions.bash");
    std::fs::write(&file, cofferdam(&["completions", "bash"]).stdout).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(shell("bash", &["-n", file]).exit, 0);
    // As the shell calls it when somebody presses the tabulator.
    let completed = |words: &[&str]| {
        let line = words
            .iter()
            .map(|word| format!("'{word}'"))
            .collect::<Vec<_>>()
            .join(" ");
        let script = format!(
            "source {file}; COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _cofferdam cofferdam \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD - 1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let ran = shell("bash", &["-c", &script]);
        assert_eq!(ran.exit, 0, "{}", ran.stderr);
        ran.stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(completed(&["cofferdam", "sub"]), ["submit"]);
    assert_eq!(completed(&["cofferdam", "submit", "--fol"]), ["--follow"]);
    assert_eq!(completed(&["cofferdam", "schema", "as"]), ["asyncapi"]);
    assert_eq!(completed(&["cofferdam", "config", "sh"]), ["show"]);
    assert!(
        !completed(&["cofferdam", ""]).contains(&"internal".to_owned()),
        "not for people"
    );
    // Where the other shells are there, they read theirs.
    for (name, check) in [("zsh", "-n"), ("fish", "--no-execute")] {
        let text = cofferdam(&["completions", name]).stdout;
        assert!(text.contains("submit") && text.contains("follow"), "{name}");
        if Command::new(name).arg("--version").output().is_ok() {
            let file = directory.path().join(name);
            std::fs::write(&file, text).unwrap();
            assert_eq!(shell(name, &[check, file.to_str().unwrap()]).exit, 0, "{name}");
        }
    }
}

#[test]
fn manual_pages_are_there_for_every_command_and_have_no_fault() {
    let directory = tempfile::tempdir().unwrap();
    let into = directory.path().join("man");
    std::fs::create_dir(&into).unwrap();
    cofferdam(&["man", "--directory", into.to_str().unwrap()]);
    let page = cofferdam(&["man"]).stdout;
    assert!(
        page.contains(".TH cofferdam 1") && page.contains("Exit codes"),
        "{page}"
    );
    std::fs::write(into.join("printed.1"), page).unwrap();
    let mut pages: Vec<_> = std::fs::read_dir(&into)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    pages.sort();
    let names: Vec<_> = pages
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    for name in ["cofferdam.1", "cofferdam-submit.1", "cofferdam-config-show.1"] {
        assert!(names.contains(&name.to_owned()), "{names:?}");
    }
    // groff is on every Debian that has `man`.
    if Command::new("groff").arg("--version").output().is_err() {
        println!("groff is not there: the pages were not formatted");
        return;
    }
    let formatted = |path: &Path| shell("groff", &["-ww", "-z", "-man", "-Tutf8", path.to_str().unwrap()]);
    for page in &pages {
        let ran = formatted(page);
        assert!(
            ran.exit == 0 && ran.stderr.is_empty(),
            "{}: {}",
            page.display(),
            ran.stderr
        );
    }
    let broken = directory.path().join("broken.1");
    std::fs::write(&broken, ".TH x 1\n.no-such-macro\n").unwrap();
    assert!(!formatted(&broken).stderr.is_empty(), "groff tells of faults");
}

#[test]
fn the_version_says_what_it_was_built_from() {
    let said = cofferdam(&["--version"]).stdout;
    assert!(
        said.starts_with(concat!("cofferdam ", env!("CARGO_PKG_VERSION"), " (")),
        "{said}"
    );
    // What the build script says in a repository, outside of one, in a repository that is somebody else's, and when it is told.
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    let built = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
        .args(["--edition", "2024", "-o"])
        .arg(&script)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/build.rs"))
        .status()
        .unwrap();
    assert!(built.success());
    let tree = directory.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("Cargo.toml"), "").unwrap();
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command
            .current_dir(&tree)
            .args(["-c", "user.name=A", "-c", "user.email=a@b.example"])
            .args(words);
        Ran::of(command).stdout
    };
    let told = |profile: &str, commit: &str| {
        let mut command = Command::new(&script);
        command
            .current_dir(&tree)
            .env("PROFILE", profile)
            .env("GIT_CEILING_DIRECTORIES", directory.path());
        command.env("COFFERDAM_COMMIT", commit);
        let ran = Ran::of(command);
        let line = ran
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix("cargo::rustc-env=COFFERDAM_BUILT_FROM="));
        line.unwrap().to_owned()
    };
    assert_eq!(told("release", ""), "built outside git");
    git(&["init", "-q"]);
    git(&["commit", "-q", "--allow-empty", "-m", "One"]);
    assert_eq!(
        told("release", ""),
        "built outside git",
        "the package is not in this repository"
    );
    git(&["add", "Cargo.toml"]);
    git(&["commit", "-q", "-m", "Two"]);
    let head = git(&["rev-parse", "HEAD"]);
    assert_eq!(told("release", ""), format!("commit {}", &head[..12]));
    assert_eq!(told("debug", ""), "debug build");
    assert_eq!(told("debug", "0123456789abcdef"), "commit 0123456789ab");
    assert_eq!(told("release", "$(rm -rf /)"), format!("commit {}", &head[..12]));
}

#[test]
fn the_configuration_is_shown_as_it_counts_without_its_secrets_and_is_one_again() {
    let world = World::new();
    let config = world.config(
        "environment = { API_KEY = \"Opaque7Canary9Tok\", LANG = \"C\" }\n[queue]\nurl = \"amqp://w:Opaque7Canary9Tok@127.0.0.1:1/x\"\n\
         [connections.lab]\nforge = \"gitlab\"\ncredential = { plain = \"Opaque7Canary9Tok\" }\n",
    );
    let show = |words: &[&str], variable: &str| {
        let mut command = world.command(&config);
        command
            .env("COFFERDAM__CONCURRENCY", variable)
            .args(["config", "show"])
            .args(words);
        Ran::of(command)
    };
    let shown = show(&[], "3");
    assert_eq!(shown.exit, 0, "{}", shown.stderr);
    let file = config.display();
    for line in [
        "concurrency = 3  # COFFERDAM__CONCURRENCY".to_owned(),
        "drain_s = 3600  # default".to_owned(),
        format!("default_agent = \"scripted\"  # {file}"),
        format!("sandbox.warm = 0  # {file}"),
        format!("agents.scripted.environment.LANG = \"C\"  # {file}"),
        format!("agents.scripted.environment.API_KEY = \"[MASKED]\"  # {file}"),
        format!("connections.lab.credential = {{ plain = \"[MASKED]\" }}  # {file}"),
        "# queue.url_file is not set".to_owned(),
    ] {
        assert!(
            shown.stdout.lines().any(|one| one == line),
            "{line} in {}",
            shown.stdout
        );
    }
    assert!(!shown.stdout.contains("Canary"), "{}", shown.stdout);
    assert!(shown.stdout.contains("@127.0.0.1:1/x"), "{}", shown.stdout);
    let objects = show(&["--json"], "3");
    assert!(
        objects
            .events
            .iter()
            .any(|key| key["key"] == "concurrency" && key["value"] == 3 && key["from"] == "COFFERDAM__CONCURRENCY")
    );
    assert!(!objects.stdout.contains("Canary"));
    // It is TOML, and the same configuration.
    let again = world.directory.path().join("again.toml");
    std::fs::write(&again, &shown.stdout).unwrap();
    let mut command = world.command(&again);
    command.args(["config", "check"]);
    let checked = Ran::of(command);
    assert_eq!(checked.exit, 0, "{}", checked.stderr);
    // What would not run is not shown, and a slip of a finger is pointed at.
    let bad = show(&[], "none");
    assert!(
        bad.exit == 78 && bad.stderr.contains("concurrency") && bad.stdout.is_empty(),
        "{}",
        bad.stderr
    );
    std::fs::write(&again, "[session]\nturn = 4\nbranhc = \"x\"\n").unwrap();
    let mut command = world.command(&again);
    command.args(["config", "check"]);
    let near = Ran::of(command);
    assert!(
        near.exit == 78
            && near
                .stderr
                .contains("session.branhc: there is no such key; did you mean `branch`?")
            || near
                .stderr
                .contains("session.turn: there is no such key; did you mean `turn_s`?"),
        "{}",
        near.stderr
    );
}
