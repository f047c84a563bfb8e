//! The main job: two forges, one session, a merge request and a pull request that know each other; and what branches are called.

use serde_json::{Value, json};

use crate::harness::{HUB, LAB, Ran, World};

const PROMPT: &str = "Greet in German too.\n!plan look;write;commit\n!write greeter/hallo.sh echo Hallo\n!commit greeter Add a German greeting\n\
    !write website/hallo.html <p>Hallo</p>\n!commit website Add a German page\n\
    !say ## Changes\\nGerman added\\n## Approach\\nOne new file each\\n## Trade-offs\\nNo plural forms";

/// What the forge, git and the events must agree on after the main job.
pub(crate) fn assert_main_job(world: &World, ran: &Ran, session: &Value) {
    assert_eq!(ran.exit, 0, "{}", ran.stderr);
    assert_eq!(ran.reason(), "published");
    let session = session.as_str().unwrap();
    let mut urls = Vec::new();
    for (path, word) in [(LAB, "merge request"), (HUB, "pull request")] {
        let project = world.project(path);
        let outcome = ran.of_project(path);
        let branch = outcome["branch"].as_str().unwrap();
        assert_eq!(
            project["branches"][branch], outcome["head"],
            "the forge's head is the outcome's"
        );
        let requests = project["change_requests"].as_array().unwrap();
        assert_eq!(requests.len(), 1);
        assert_eq!(
            (&requests[0]["source"], &requests[0]["target"]),
            (&json!(branch), &json!("main"))
        );
        assert_eq!(
            (&requests[0]["state"], &requests[0]["draft"]),
            (&json!("open"), &json!(false))
        );
        assert_eq!(outcome["change_request"]["word"], word);
        urls.push((
            outcome["change_request"]["url"].as_str().unwrap().to_owned(),
            requests[0]["description"].as_str().unwrap().to_owned(),
        ));
        // Nothing but the session's branch is new.
        let names: Vec<&String> = project["refs"].as_object().unwrap().keys().collect();
        let of_ours =
            |name: &&&String| name.ends_with(branch) || name.as_str() == "refs/heads/main" || name.contains("/head");
        assert!(names.iter().all(|name| of_ours(&name)), "{names:?}");
    }
    for (index, (_, description)) in urls.iter().enumerate() {
        for part in [
            "## Changes\n",
            "## Approach\n",
            "## Trade-offs\n",
            "## How it was checked\n",
            session,
            &urls[1 - index].0,
        ] {
            assert!(description.contains(part), "{part:?} in {description}");
        }
    }
    world.assert_clean();
}

#[test]
fn one_session_leaves_a_merge_request_and_a_pull_request_that_link_each_other() {
    let world = World::new();
    let task = world.task(PROMPT);
    let ran = world.exec(&task);
    assert_main_job(&world, &ran, &task["session"]);

    let stages: Vec<&str> = ran
        .all("stage")
        .iter()
        .map(|data| data["stage"].as_str().unwrap())
        .collect();
    assert_eq!(
        stages,
        ["grant", "mirror", "sandbox", "clone", "turn", "publish", "cleanup"]
    );
    let seqs: Vec<u64> = ran
        .events
        .iter()
        .map(|event| event["data"]["seq"].as_u64().unwrap())
        .collect();
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "{seqs:?}");
    for kind in [
        "claimed",
        "connected",
        "granted",
        "cloned",
        "turn_started",
        "agent_plan",
        "agent_tool",
        "agent_message",
        "agent_usage",
        "turn_ended",
        "push_accepted",
        "branch_published",
        "change_request_opened",
        "project_finished",
    ] {
        assert!(!ran.all(kind).is_empty(), "no {kind} event");
    }
    assert_eq!(ran.events.last().unwrap()["type"], "dev.cofferdam.session.finished");
}

#[test]
fn every_commit_names_user_agent_and_session_in_one_block() {
    let world = World::new();
    let task = world.task(PROMPT);
    let ran = world.exec(&task);
    let session = task["session"].as_str().unwrap();
    for (repository, path, token, who) in [
        (
            "/gitlab/platform/tools/greeter.git",
            LAB,
            "test-gitlab-api",
            "Ada Example <7-ada@users.noreply.example.org>",
        ),
        ("/acme/website.git", HUB, "test-github-repo", "Ada Example <"),
    ] {
        let branch = ran.of_project(path)["branch"].as_str().unwrap().to_owned();
        let commits = world.commits(repository, token, &branch);
        assert_eq!(commits.len(), 1, "{commits:?}");
        let lines: Vec<&str> = commits[0].lines().collect();
        assert!(lines[0].starts_with(who) && lines[1].starts_with(who), "{lines:?}");
        let block: Vec<&&str> = lines.iter().rev().take_while(|line| !line.is_empty()).collect();
        assert_eq!(block.len(), 3, "{lines:?}");
        assert_eq!(*block[0], format!("Cofferdam-Session: {session}"));
        assert_eq!(*block[1], "Co-authored-by: Scripted Agent <scripted@agents.example>");
        assert!(block[2].starts_with("Co-authored-by: Ada Example <"), "{block:?}");
    }
}

#[test]
fn pitfall_06_a_branch_never_begins_with_a_digit_and_steps_aside_for_others() {
    let world = World::new();
    world.ask(
        "POST",
        "/_test/commit",
        Some(&json!({"forge": "gitlab", "project": LAB, "branch": "cofferdam", "files": {"x": "y"}})),
    );
    let mut task = world.lab_task("!write a.txt b");
    task["title"] = json!("12 monkeys");
    let ran = world.exec(&task);
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    let branch = ran.of_project(LAB)["branch"].as_str().unwrap();
    assert!(branch.starts_with("cofferdam-12-monkeys-"), "{branch}");
}

#[test]
fn a_second_session_on_warm_mirrors_starts_from_what_the_forge_has_now() {
    let world = World::new();
    assert_eq!(world.exec(&world.lab_task("!write a.txt one")).reason(), "published");
    world.ask(
        "POST",
        "/_test/commit",
        Some(&json!({"forge": "gitlab", "project": LAB, "branch": "main", "files": {"later.txt": "x"}})),
    );
    let ran = world.exec(&world.lab_task("!shell cat later.txt && git log --oneline | wc -l\n!say done"));
    assert_eq!(ran.reason(), "nothing_to_publish", "{}", ran.stderr);
    let main = world.project(LAB)["branches"]["main"].clone();
    assert_eq!(ran.all("cloned")[0]["base"], main);
}

#[test]
fn a_workspace_may_be_a_directory_of_the_workers() {
    let world = World::new();
    let task = world.lab_task("!shell stat -f -c %T . > kind.txt; id -u >> kind.txt\n!write a.txt b");
    let config = world.config("");
    let mut command = world.command(&config);
    command
        .env("COFFERDAM__SANDBOX__WORKSPACE", "directory")
        .args(["exec", "--json"])
        .arg(world.write_task(&task));
    let ran = Ran::of(command);
    assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
    let page = world.ask("GET", &format!("/gitlab/{LAB}/-/merge_requests/1"), None);
    let page = page.as_str().unwrap();
    assert!(page.contains("kind.txt") && !page.contains("tmpfs"), "{page}");
    // What lay in it goes with the session.
    world.assert_clean();
}
