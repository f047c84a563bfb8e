//! git as an agent uses it in the sandbox: fetch, pull and push work, and what may not be pushed is refused in words that help.

use crate::harness::{LAB, World};

#[test]
fn fetch_pull_and_push_work_and_the_forges_address_leads_to_the_worker() {
    let world = World::new();
    let url = format!("{}/gitlab/{LAB}.git", world.forge);
    let ran = world.exec(&world.lab_task(&format!(
        "!write a.txt b\n!commit . One\n!shell git push 2>&1 && echo PUSHED\n!shell git fetch --prune 2>&1 && git pull 2>&1 && echo PULLED\n\
         !shell git -c protocol.version=0 ls-remote origin && git clone -q {url} /tmp/again && echo CLONED\n\
         !write c.txt d\n!commit . Two\n!shell git push 2>&1 && echo AGAIN && git status -sb\n!say ok"
    )));
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    let tools = ran.all("agent_tool");
    let failed: Vec<_> = tools.iter().filter(|data| data["status"] == "failed").collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert!(ran.all("push_accepted").len() >= 2);
    let head = ran.of_project(LAB)["head"].clone();
    assert_eq!(ran.all("push_accepted").last().unwrap()["head"], head);
}

#[test]
fn what_may_not_be_pushed_is_refused_by_rule_and_the_session_goes_on() {
    let world = World::new();
    let attempts = [
        "git push origin HEAD:refs/heads/main",
        "git push origin HEAD:refs/heads/other",
        "git push origin :refs/heads/main",
        "git tag v1 && git push origin v1",
        "git push origin HEAD HEAD:refs/heads/second",
        "git commit -q --amend -m Rewritten && git push -f origin HEAD",
        "git -c core.hooksPath=/dev/null commit -q --allow-empty -m Bare && git push origin HEAD",
    ];
    let mut prompt = "!write a.txt b\n!commit . One\n!shell git push -q\n".to_owned();
    for attempt in attempts {
        // The next attempt begins where the first push ended.
        prompt.push_str(&format!(
            "!shell ({attempt}) >>/tmp/said 2>&1 && echo WENT >>/tmp/said; git reset -q --hard @{{u}}; true\n"
        ));
    }
    prompt.push_str("!shell cp /tmp/said said.txt\n!say ok");
    let ran = world.exec(&world.lab_task(&prompt));
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    let branch = ran.of_project(LAB)["branch"].as_str().unwrap().to_owned();
    let said = world.ask("GET", &format!("/gitlab/{LAB}/-/merge_requests/1"), None);
    let said = said.as_str().unwrap();
    assert!(!said.contains("WENT"), "a push went through: {said}");
    assert!(
        said.contains("/opt/cofferdam/inside trailers"),
        "the remedy is named: {said}"
    );
    let names: Vec<String> = world.project(LAB)["branches"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(names, [branch, "main".to_owned()]);
    assert!(ran.all("push_refused").len() >= 5, "{:?}", ran.all("push_refused"));
}

#[test]
fn commits_made_past_the_hooks_get_their_trailers_before_they_are_accepted() {
    let world = World::new();
    let ran = world.exec(&world.lab_task(
        "!write a.txt b\n!shell git add -A && git update-ref HEAD $(git commit-tree -p HEAD -m 'By plumbing' $(git write-tree))\n!say ok",
    ));
    assert_eq!(ran.reason(), "published", "{}", ran.stderr);
    let branch = ran.of_project(LAB)["branch"].as_str().unwrap().to_owned();
    let commits = world.commits("/gitlab/platform/tools/greeter.git", "test-gitlab-api", &branch);
    assert_eq!(commits.len(), 1);
    assert!(
        commits[0].contains("By plumbing") && commits[0].contains("Cofferdam-Session:"),
        "{commits:?}"
    );
}

#[test]
fn pitfall_30_a_repositorys_own_hooks_run_in_the_sandbox_only_and_cannot_hold_the_work_back() {
    let world = World::new();
    let marker = world.directory.path().join("hook-ran");
    let prompt = format!(
        "!shell mkdir -p own && for hook in pre-commit commit-msg prepare-commit-msg post-commit pre-push post-checkout pre-receive; do \
         printf '#!/bin/sh\\ntouch {} /tmp/hook-ran\\nexit 1\\n' > own/$hook; chmod +x own/$hook; done; git config core.hooksPath $PWD/own; \
         cp own/* .git/hooks/; echo own >> .git/info/exclude\n!write a.txt b",
        marker.display()
    );
    let ran = world.exec(&world.lab_task(&prompt));
    assert_eq!(ran.reason(), "published", "{} {}", ran.outcome(), ran.stderr);
    let branch = ran.of_project(LAB)["branch"].as_str().unwrap();
    let commits = world.commits(&format!("/gitlab/{LAB}.git"), "test-gitlab-api", branch);
    assert!(
        commits.len() == 1 && commits[0].contains("Cofferdam-Session:"),
        "{commits:?}"
    );
    assert!(!marker.exists(), "a hook of the repository ran on the worker");
}
