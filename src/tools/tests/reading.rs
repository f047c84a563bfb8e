//! What is read from a forge: filters, bounds, marks, diffs, refusals.

use std::sync::Arc;

use serde_json::json;

use super::World;
use super::double::{InGit, change_request, file, issue, note};
use crate::forge::ForgeError;
use crate::forge::inspect::{Discussion, LONGEST_TEXT as FORGE_TEXT};
use crate::message::Right;
use crate::tools::bounds::{LONGEST_TEXT, UNTRUSTED};
use crate::tools::budget::AT_ONCE;

const LAB: &str = "work:a/b";

#[tokio::test]
async fn filters_reach_the_forge_and_the_texts_are_marked_as_a_stranger_s() {
    let mut world = World::with(|world| {
        world.double().change_requests = vec![change_request(3, "Fix\u{202e}it\u{e0041}\u{1b}[31m")];
        world.double().issues = vec![issue(4, "Broken")];
        world.double().next_page = Some(3);
    });
    let found = world
        .call(
            "list_change_requests",
            json!({"project": LAB, "state": "merged", "author": "ada", "source_branch": "fix", "target_branch": "main",
                "text": "words", "page": 2, "per_page": 5}),
        )
        .await;
    assert_eq!(found["items"][0]["title"], "Fixit[31m");
    assert_eq!(found["untrusted_note"], UNTRUSTED);
    assert_eq!((&found["next_page"], &found["truncated"]), (&json!(3), &json!(false)));
    let found = world
        .call(
            "list_issues",
            json!({"project": LAB, "state": "all", "labels": ["bug", ""], "text": ""}),
        )
        .await;
    assert_eq!(found["items"][0]["labels"], json!(["bug"]));
    let asked = world.double.asked();
    for part in [
        "Merged",
        "\"ada\"",
        "\"fix\"",
        "\"main\"",
        "\"words\"",
        "page: 2, per_page: 5",
    ] {
        assert!(asked[0].contains(part), "{part} in {asked:?}");
    }
    assert!(asked[1].contains("All") && asked[1].contains("labels: [\"bug\"]") && asked[1].contains("text: None"));
}

#[tokio::test]
async fn details_tell_all_and_a_long_description_is_read_in_parts() {
    let whole: String = (0..5_000).map(|n| format!("{n} ")).collect();
    let mut world = World::with(|world| world.double().description = whole.clone());
    for tool in ["get_change_request", "get_issue"] {
        let (mut read, mut from) = (String::new(), 0);
        loop {
            let found = world
                .call(tool, json!({"project": LAB, "number": 7, "text_from": from}))
                .await;
            let part = found["item"]["description"].as_str().unwrap();
            read.push_str(part.strip_suffix(" [cut]").unwrap_or(part));
            if found["truncated"] == false {
                break;
            }
            from += LONGEST_TEXT;
            let rest = found["rest"][0].as_str().unwrap();
            assert!(rest.contains(&format!("text_from {from}")), "{rest}");
        }
        assert_eq!(read, whole);
    }
    let found = world
        .call("get_change_request", json!({"project": LAB, "number": 7}))
        .await;
    let item = &found["item"];
    assert_eq!(
        (&item["source_repository"], &item["pipeline"]),
        (&json!("fork"), &json!("success"))
    );
    assert_eq!(
        (&item["merge_status"], &item["source_branch"]),
        (&json!("mergeable"), &json!("fix"))
    );
}

#[tokio::test]
async fn a_list_that_does_not_fit_says_so_and_can_be_read_to_its_end() {
    let body = "\"quoted\" ".repeat(FORGE_TEXT / 9);
    let thread = |id: &str, count: usize| Discussion {
        id: Some(id.into()),
        kind: "discussion".into(),
        resolved: Some(false),
        notes: (0..count).map(|n| note(&format!("{id}-{n}"), &body)).collect(),
    };
    let mut world = World::with(|world| world.double().discussions = vec![thread("x", 7), thread("y", 30)]);
    let (mut seen, mut skip, mut calls) = (Vec::new(), 0, 0);
    loop {
        let found = world
            .call(
                "list_change_request_discussions",
                json!({"project": LAB, "number": 1, "skip": skip}),
            )
            .await;
        calls += 1;
        let rows = found["items"].as_array().unwrap();
        seen.extend(rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
        assert!(rows.iter().all(|row| row["body"].as_str().unwrap().ends_with("[cut]")));
        assert!(
            rows.iter()
                .all(|row| row["discussion"].is_string() && row["kind"] == "discussion")
        );
        assert_eq!(found["truncated"], true);
        let rest = found["rest"].to_string();
        assert!(rest.contains("text_from"), "{rest}");
        skip += rows.len();
        if !rest.contains(&format!("skip {skip}")) {
            break;
        }
    }
    let expected: Vec<String> = (0..7)
        .map(|n| format!("x-{n}"))
        .chain((0..30).map(|n| format!("y-{n}")))
        .collect();
    assert_eq!(seen, expected);
    assert!(calls > 3, "{calls}");
}

#[tokio::test]
async fn a_row_that_can_never_fit_does_not_stop_the_rest() {
    let mut monster = issue(1, &"t".repeat(3_000));
    monster.labels = vec!["\u{1f980}".repeat(2_000); 100];
    let mut world = World::with(|world| world.double().issues = vec![monster, issue(2, "Small")]);
    let refused = world.refusal("list_issues", json!({"project": LAB})).await;
    assert!(refused.contains("skip 1"), "{refused}");
    let found = world.call("list_issues", json!({"project": LAB, "skip": 1})).await;
    assert_eq!(found["items"][0]["number"], 2);
}

#[tokio::test]
async fn a_diff_comes_from_git_and_shows_what_hides_in_it() {
    let mut world = World::with(|world| {
        world.diffs = Arc::new(InGit(vec![
            file("a\u{202e}b", Some("@@ -1 +1 @@\n-x\r\n+y\u{2066}\n"), None),
            file("picture", None, Some("binary")),
        ]));
    });
    let found = world
        .call("get_change_request_diff", json!({"project": LAB, "number": 1}))
        .await;
    assert_eq!((&found["source"], &found["complete"]), (&json!("git"), &json!(true)));
    assert_eq!(found["items"][0]["diff"], "@@ -1 +1 @@\n-x\r\n+y<U+2066>\n");
    assert_eq!(found["items"][0]["path"], "a<U+202E>b");
    assert_eq!(found["items"][1]["why"], "binary");
    assert_eq!(
        (&found["total_files"], &found["base"]),
        (&json!(2), &json!("a".repeat(40)))
    );
    assert!(found["untrusted_note"].is_string());
    assert_eq!(
        world.double.asked(),
        ["details 1"],
        "the API is not asked for what git has"
    );
}

#[tokio::test]
async fn a_diff_that_is_not_whole_never_looks_whole() {
    let long = format!("@@ -0,0 +1 @@\n{}", "+line\n".repeat(5_000));
    let files = vec![file("long", Some(&long), None), file("b", Some("@@ x @@\n+b\n"), None)];
    let mut world = World::with(|world| world.diffs = Arc::new(InGit(files)));
    let found = world
        .call("get_change_request_diff", json!({"project": LAB, "number": 1}))
        .await;
    assert_eq!((&found["complete"], &found["truncated"]), (&json!(false), &json!(true)));
    assert_eq!(
        (&found["items"][0]["why"], &found["items"][1]["why"]),
        (&json!("cut"), &json!(null))
    );
    let later = world
        .call(
            "get_change_request_diff",
            json!({"project": LAB, "number": 1, "text_from": LONGEST_TEXT}),
        )
        .await;
    assert_eq!(later["items"][1]["why"], "cut", "the part before is not here");
    let paged = world
        .call(
            "get_change_request_diff",
            json!({"project": LAB, "number": 1, "per_page": 1, "page": 2}),
        )
        .await;
    assert_eq!(
        (&paged["items"][0]["path"], &paged["complete"]),
        (&json!("b"), &json!(false))
    );

    // The API, where git has nothing: what it leaves out is not complete, and neither is an empty answer.
    for (files, incomplete, changed, complete) in [
        (vec![file("a", Some("@@ x @@\n+a\n"), None)], false, Some(1), true),
        (vec![file("a", Some("@@ x @@\n+a\n"), None)], true, Some(1), false),
        (vec![file("a", None, Some("too_large"))], false, Some(1), false),
        (vec![file("a", Some(""), None)], false, Some(1), false),
        (vec![], false, None, false),
        (vec![], false, Some(0), true),
    ] {
        let mut world = World::with(|world| {
            let double = world.double();
            (double.diff, double.incomplete, double.changed_files) = (files, incomplete, changed);
        });
        let found = world
            .call("get_change_request_diff", json!({"project": LAB, "number": 1}))
            .await;
        assert_eq!(
            (&found["source"], &found["complete"]),
            (&json!("api"), &json!(complete)),
            "{found}"
        );
    }
}

#[tokio::test]
async fn a_missing_scope_is_named_before_anything_is_asked() {
    let mut world = World::with(|world| {
        for project in &mut world.grant.projects {
            project.capabilities.inspect_change_requests = Right::No;
            project.capabilities.read_issues = Right::GitOnly;
        }
    });
    for (tool, project, scope) in [
        ("get_change_request", LAB, "read_api"),
        ("get_change_request_diff", LAB, "read_api"),
        ("list_change_request_discussions", "hub:a/c", "Pull requests: read"),
        ("get_issue", LAB, "read_api"),
        ("list_issue_comments", "hub:a/c", "Issues: read"),
    ] {
        let refused = world.refusal(tool, json!({"project": project, "number": 1})).await;
        assert!(refused.contains(scope) && refused.contains(project), "{refused}");
    }
    assert!(world.double.asked().is_empty());
}

#[tokio::test]
async fn a_failure_of_the_forge_is_one_bounded_sentence() {
    let detail = format!("a\u{1b}]0;x\u{7}\n{}", "long ".repeat(500));
    let mut world = World::with(|world| {
        world.double().fails = Some(ForgeError::Refused {
            instance: "https://forge.example".into(),
            act: "list issues".into(),
            detail,
        });
    });
    let refused = world.refusal("list_issues", json!({"project": LAB})).await;
    assert!(
        refused.starts_with("https://forge.example refused to list issues"),
        "{refused}"
    );
    assert!(
        refused.chars().count() <= 500 && !refused.contains('\u{1b}') && !refused.contains('\n'),
        "{refused}"
    );
}

#[tokio::test]
async fn an_agent_that_asks_too_much_at_once_is_told_to_wait() {
    let mut world = World::with(|world| world.double().gate = Some(tokio::sync::Semaphore::new(0)));
    let router = world.router();
    let double = Arc::clone(&world.double);
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..AT_ONCE {
        let mut one = World::new();
        one.router = Some(router.clone());
        waiting.spawn(async move { one.call("list_issues", json!({"project": LAB})).await });
    }
    while double.asked().len() < AT_ONCE {
        tokio::task::yield_now().await;
    }
    let refused = world.refusal("list_issues", json!({"project": LAB})).await;
    assert!(refused.contains("wait for one of them"), "{refused}");
    // What asks no forge is always answered.
    world.call("get_session", json!({})).await;
    double.gate.as_ref().unwrap().add_permits(AT_ONCE);
    while let Some(done) = waiting.join_next().await {
        done.unwrap();
    }
    world.call("list_issues", json!({"project": LAB})).await;
}

#[tokio::test]
async fn the_last_of_a_rate_limit_is_kept_for_the_sessions_own_work() {
    let arguments = || json!({"project": LAB});
    let mut world = World::with(|world| world.double().rate_left = Some(9));
    let refused = world.refusal("list_issues", arguments()).await;
    assert!(refused.contains("publishing your work"), "{refused}");
    assert!(world.double.asked().is_empty());
    let mut world = World::with(|world| world.double().rate_left = Some(10));
    world.call("list_issues", arguments()).await;
}
