//! Forges as they are: what an agent reads and answers there, own certificates, renames, submodules, LFS, and how little is asked.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::{HUB, LAB, World};
use crate::kit::TlsFront;

/// A merge request and what was said about it, there before the session.
const REVIEWED: &str = r#"
[[change_requests]]
forge = "gitlab"
project = "platform/tools/greeter"
title = "Say hello twice"
description = "Because once is not enough."
author = "ada"
source = "twice"
[change_requests.files]
"hello.txt" = "hello\nhello\n"
"#;

fn seeded() -> World {
    World::with_seed(|seed| seed + REVIEWED)
}

#[test]
fn an_agent_reads_merge_requests_and_issues_and_answers_where_the_task_lets_it() {
    let world = seeded();
    let mut task = world.lab_task(
        "!tool list_change_requests {}\n!tool get_change_request {\"number\":2}\n!tool get_change_request_diff {\"number\":2}\n\
         !tool list_issues {}\n!tool get_issue {\"number\":1}\n!tool list_issue_comments {\"number\":1}\n\
         !tool comment_on_issue {\"number\":1,\"body\":\"On it, @grace. Closes #1\"}",
    );
    let number = world.project(LAB)["change_requests"][0]["number"].clone();
    task["prompt"] = json!(
        task["prompt"]
            .as_str()
            .unwrap()
            .replace("\"number\":2", &format!("\"number\":{number}"))
    );
    let refused = world.exec(&task).said();
    for words in [
        "Say hello twice",
        "Because once is not enough.",
        "+hello",
        "\\\"source\\\":\\\"git\\\"",
        "Greet in the language of the reader",
        "$LANG",
        "untrusted_note",
    ] {
        assert!(
            refused.contains(words) || refused.contains(&words.replace('\\', "")),
            "{words} in {refused}"
        );
    }
    // Without the task's leave nobody is spoken to.
    assert!(refused.contains("comment"), "{refused}");
    let comments = |world: &World| {
        let page = world.ask(
            "GET",
            &format!(
                "/gitlab/api/v4/projects/{}/issues/1/notes?private_token=test-gitlab-api",
                LAB.replace('/', "%2F")
            ),
            None,
        );
        page.as_array()
            .unwrap()
            .iter()
            .map(|note| note["body"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(comments(&world).len(), 1);

    task["session"] = json!(uuid::Uuid::new_v4());
    task["comment"] = json!(true);
    let ran = world.exec(&task);
    let told = ran.all("commented");
    assert_eq!((told.len(), &told[0]["number"]), (1, &json!(1)), "{}", ran.said());
    let said = comments(&world);
    let own = said.iter().find(|body| body.contains("On it")).unwrap();
    assert!(
        own.ends_with("_Written by a coding agent in a cofferdam session._"),
        "{own}"
    );
    assert!(
        !own.contains("@grace") && !own.contains("Closes #1"),
        "it pings and closes nothing: {own}"
    );
}

#[test]
fn with_write_repository_alone_the_reading_tools_say_which_scope_is_missing() {
    let world = seeded().token("LAB", "test-gitlab-write-repository");
    let mut task = world.lab_task("!tool list_change_requests {}\n!tool list_issues {}");
    task["user"] = json!({"name": "Ada Example", "email": "7-ada@users.noreply.example.org"});
    let said = world.exec(&task).said();
    assert_eq!(said.matches("read_api").count(), 2, "{said}");
}

#[test]
fn pitfall_17_an_own_authority_is_trusted_by_api_and_git_and_without_it_nothing_is() {
    let world = World::new();
    let front = TlsFront::new(&world.forge);
    let mut task = world.lab_task("!write a.txt b");
    task["connections"]["lab"]["url"] = json!(format!("{}/gitlab", front.url));
    let ran = world.exec(&task);
    assert_ne!(ran.exit, 0);
    let message = ran.outcome()["message"].as_str().unwrap();
    assert!(message.contains("certificate") && message.contains("ca"), "{message}");
    task["connections"]["lab"]["ca"] = json!(front.authority);
    let ran = world.exec(&task);
    assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
    assert_eq!(world.project(LAB)["change_requests"].as_array().unwrap().len(), 1);
    // The operator's own, for every instance.
    let file = world.directory.path().join("authority.pem");
    std::fs::write(&file, &front.authority).unwrap();
    task["session"] = json!(uuid::Uuid::new_v4());
    task["connections"]["lab"].as_object_mut().unwrap().remove("ca");
    let config = world.config("");
    let mut command = world.command(&config);
    command
        .env("COFFERDAM__FORGE__CA_FILE", &file)
        .args(["exec", "--json"])
        .arg(world.write_task(&task));
    let ran = crate::harness::Ran::of(command);
    assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
}

#[test]
fn pitfall_28_a_project_that_keeps_files_in_lfs_is_refused_before_any_work() {
    let world = World::new();
    let commit = json!({"forge": "gitlab", "project": LAB, "branch": "main", "files": {"art/.gitattributes": "*.psd filter=lfs diff=lfs merge=lfs -text\n"}});
    world.ask("POST", "/_test/commit", Some(&commit));
    let ran = world.exec(&world.lab_task("!write a.txt b"));
    assert_eq!(
        (ran.exit, ran.reason()),
        (1, "project_unsupported"),
        "{}",
        ran.outcome()
    );
    assert!(
        ran.outcome()["message"]
            .as_str()
            .unwrap()
            .contains("art/.gitattributes"),
        "{}",
        ran.outcome()
    );
    assert!(ran.all("turn_started").is_empty());
    world.assert_clean();
}

#[test]
fn submodules_that_are_projects_of_the_session_are_checked_out_and_others_are_named() {
    let world = World::new();
    let site = HUB.rsplit('/').next().unwrap();
    let lab = LAB.rsplit('/').next().unwrap();
    let add = format!(
        "!shell cd {lab} && git submodule --quiet add {}/{HUB}.git site && git commit -q -m 'Add the site' && git push -q\n!shell ls {lab}/site",
        world.forge
    );
    let ran = world.exec(&world.task(&add));
    assert_eq!(
        ran.of_project(LAB)["reason"],
        "published",
        "{} {}",
        ran.outcome(),
        ran.stderr
    );
    let branch = ran.of_project(LAB)["branch"].clone();

    let mut task = world.task(&format!("!shell cat {lab}/site/* > {lab}/seen.txt; cmp {lab}/site/index.html {site}/index.html && echo same >> {lab}/seen.txt"));
    task["projects"][0]["base"] = branch.clone();
    let ran = world.exec(&task);
    assert_eq!(ran.of_project(LAB)["reason"], "published", "{}", ran.outcome());
    let commits = world.commits(
        &format!("/gitlab/{LAB}.git"),
        "test-gitlab-api",
        ran.of_project(LAB)["branch"].as_str().unwrap(),
    );
    assert!(!commits.is_empty());
    assert!(
        ran.all("warning")
            .iter()
            .all(|data| data["code"] != "submodule_left_out"),
        "{:?}",
        ran.all("warning")
    );

    let mut task = world.lab_task("!say hi");
    task["projects"][0]["base"] = branch;
    let ran = world.exec(&task);
    let warnings = ran.all("warning");
    let left: Vec<_> = warnings
        .iter()
        .filter(|data| data["code"] == "submodule_left_out")
        .collect();
    assert_eq!(left.len(), 1, "{warnings:?}");
    assert!(left[0]["message"].as_str().unwrap().contains("site"));
}

#[test]
fn a_renamed_project_is_followed_to_its_new_name() {
    let world = World::with_seed(|seed| {
        let line = format!("path = \"{LAB}\"\n");
        let seed = seed.replace(&line, &format!("{line}moved_from = [\"platform/old/greeter\"]\n"));
        let line = format!("path = \"{HUB}\"\n");
        seed.replace(&line, &format!("{line}moved_from = [\"acme/old-website\"]\n"))
    });
    let mut task = world.task("!write greeter/a.txt b\n!write website/a.txt b\n!write old-website/a.txt b");
    task["projects"][0]["path"] = json!("platform/old/greeter");
    task["projects"][1]["path"] = json!("acme/old-website");
    let ran = world.exec(&task);
    assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
    for path in [LAB, HUB] {
        assert_eq!(world.project(path)["change_requests"].as_array().unwrap().len(), 1);
    }
}

/// What the forge was asked between two moments: its API, and git.
fn asked(world: &World) -> (Vec<String>, Vec<String>) {
    let seen = world.ask("GET", "/_test/requests", None);
    let lines = seen.as_array().unwrap().iter().map(|one| {
        format!(
            "{} {} {}",
            one["status"],
            one["method"].as_str().unwrap(),
            one["path"].as_str().unwrap()
        )
    });
    let ours = lines.filter(|line| !line.contains("/_test/"));
    ours.partition(|line| !line.contains(".git/"))
}

#[test]
fn pitfall_31_nothing_is_asked_in_vain_and_no_push_is_tried_out() {
    let world = World::new();
    let task = |world: &World| {
        let mut task = world.task("!say hi");
        task["publish"] = json!("on_request");
        task
    };
    assert_eq!(world.exec(&task(&world)).reason(), "nothing_to_publish");
    world.ask("DELETE", "/_test/requests", None);
    assert_eq!(world.exec(&task(&world)).reason(), "nothing_to_publish");
    let (api, git) = asked(&world);
    println!("API: {api:#?}\ngit: {git:#?}");
    // Two projects on two forges: at most 3 calls each, and one talk of git with each, which fetches nothing.
    assert!(api.len() <= 6, "{api:#?}");
    let talks = git.iter().filter(|line| line.starts_with("200 POST")).count();
    assert_eq!(talks, 2, "{git:#?}");
    assert!(git.iter().all(|line| !line.contains("receive-pack")), "{git:#?}");
    assert_eq!(
        git.iter().collect::<BTreeSet<_>>().len(),
        git.len(),
        "nothing is asked twice: {git:#?}"
    );
}
