//! The main job: one session over a GitLab project and a GitHub repository, to a merge request and a pull request.

use serde_json::Value;

use crate::harness::{GREETER, Remote, Task, WEBSITE, World, text};

fn greet_in_german() -> Task {
    Task::new()
        .title("Greet in German")
        .prompt(&[
            "Say hello in German too.",
            "!plan look;write;commit",
            "!write greeter/hallo.sh echo Hallo\\n",
            "!commit greeter Add a German greeting",
            "!write website/hallo.html <p>Hallo</p>\\n",
            "!say ## Changes\\nGerman added\\n\\n## Approach\\nA new file for @ada\\n\\n## Trade-offs\\nNone, closes #1",
        ])
        .greeter()
        .website()
}

/// Every commit that the session made names its people and its session in one block, and nobody else made it.
fn check_commits(remote: &Remote, branch: &str, session: &str, user: &str) -> usize {
    let commits = remote.commits("main", branch);
    for commit in &commits {
        assert_eq!(
            (commit.author.as_str(), commit.committer.as_str()),
            (user, user),
            "{commit:?}"
        );
        let session_line = format!("Cofferdam-Session: {session}");
        let agent_line = "Co-authored-by: Scripted Agent <scripted@agents.example>";
        for wanted in [agent_line, session_line.as_str()] {
            let count = commit.trailers.iter().filter(|line| *line == wanted).count();
            assert_eq!(count, 1, "{wanted} in {commit:?}");
        }
        let people = commit
            .trailers
            .iter()
            .filter(|line| line.starts_with("Co-authored-by:"))
            .count();
        assert_eq!(people, 2, "user and agent: {commit:?}");
        assert!(
            commit
                .trailers
                .iter()
                .any(|line| line.starts_with("Co-authored-by: Ada Example <")),
            "{commit:?}"
        );
        let block = commit.trailers.join("\n");
        assert!(
            commit.message.trim_end().ends_with(&block),
            "one block, at the end: {commit:?}"
        );
    }
    commits.len()
}

fn sections(description: &str) -> Vec<&str> {
    description
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect()
}

#[tokio::test]
async fn one_session_becomes_a_merge_request_and_a_pull_request() {
    let world = World::new().await;
    let before = world.forge().state().await;
    let task = greet_in_german();
    let ran = world.exec(&task).await;
    ran.ended(0, "published");

    let after = world.forge().state().await;
    let lab_user = "Ada Example <7-ada@users.noreply.example.org>";
    let hub_user = "Ada Example <ada@example.org>";
    for (connection, side, path, word, user) in [
        ("lab", "gitlab", GREETER, "merge request", lab_user),
        ("hub", "github", WEBSITE, "pull request", hub_user),
    ] {
        let outcome = ran.project(connection, path);
        let branch = text(outcome, "/branch");
        assert!(branch.starts_with("cofferdam/greet-in-german-"), "{branch}");
        let project = &after[side][path];
        let requests = project["change_requests"].as_array().unwrap();
        let [request] = requests.as_slice() else {
            panic!("one change request, not {requests:?}")
        };
        assert_eq!(text(request, "/state"), "open");
        assert_eq!((text(request, "/source"), text(request, "/target")), (branch, "main"));
        assert_eq!(text(request, "/author"), "ada");
        assert_eq!(request["draft"], false);
        assert_eq!(text(request, "/title"), "Greet in German");
        assert_eq!(text(outcome, "/change_request/word"), word);
        assert_eq!(outcome["change_request"]["number"], request["number"]);

        // What was told, what the forge shows, and what anybody can clone are one commit.
        let remote = world.remote(connection, path);
        let head = remote.head(branch);
        assert_eq!(text(outcome, "/head"), head);
        assert_eq!(text(request, "/head"), head);
        let told = ran.all("branch_published");
        assert!(
            told.iter()
                .any(|one| text(one, "/head") == head && text(one, "/branch") == branch)
        );
        assert_eq!(check_commits(&remote, branch, task.session(), user), 1);

        let description = text(request, "/description");
        let others: Vec<&Value> = ran.outcome()["projects"].as_array().unwrap().iter().collect();
        let other = others.iter().find(|one| text(one, "/project/path") != path).unwrap();
        assert!(
            description.contains(text(other, "/change_request/url")),
            "{description}"
        );
        assert_eq!(
            sections(description),
            [
                "Changes",
                "Approach",
                "Trade-offs",
                "How it was checked",
                "Belongs together with"
            ]
        );
        assert!(
            description.contains(&format!("Cofferdam-Session: {}", task.session())),
            "{description}"
        );
        assert!(description.contains("German added"), "{description}");
        assert!(
            !description.contains("@ada") && !description.contains("closes #1"),
            "{description}"
        );

        // Nothing else moved.
        let mut refs = project["refs"].as_object().unwrap().clone();
        refs.retain(|name, _| !name.starts_with("refs/merge-requests/") && !name.starts_with("refs/pull/"));
        refs.remove(&format!("refs/heads/{branch}")).unwrap();
        let old = before[side][path]["refs"].as_object().unwrap();
        assert_eq!(&refs, old);
    }
    assert_eq!(world.left_behind().await, Vec::<String>::new());
    assert_eq!(world.kept(), Vec::<String>::new());
}

#[tokio::test]
async fn the_events_tell_the_path_in_order() {
    let world = World::new().await;
    let task = greet_in_german();
    let ran = world.exec(&task).await;
    ran.ended(0, "published");

    let stages: Vec<&str> = ran.all("stage").iter().map(|data| text(data, "/stage")).collect();
    assert_eq!(
        stages,
        ["grant", "mirror", "sandbox", "clone", "turn", "publish", "cleanup"]
    );
    let numbers: Vec<u64> = ran
        .events
        .iter()
        .map(|event| event["data"]["seq"].as_u64().unwrap())
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    for event in &ran.events {
        assert_eq!(text(event, "/specversion"), "1.0");
        assert_eq!(text(event, "/subject"), task.session());
        assert_eq!(text(event, "/data/session"), task.session());
        let kind = format!("dev.cofferdam.session.{}", text(event, "/data/event"));
        assert_eq!(text(event, "/type"), kind);
    }
    assert_eq!(text(&ran.events[0], "/data/event"), "claimed");
    assert_eq!(text(ran.events.last().unwrap(), "/data/event"), "finished");
    for (kind, count) in [
        ("connected", 2),
        ("granted", 2),
        ("cloned", 2),
        ("branch_published", 2),
        ("change_request_opened", 2),
    ] {
        assert_eq!(ran.all(kind).len(), count, "{kind}: {}", ran.story());
    }
    assert_eq!(
        ran.other,
        Vec::<String>::new(),
        "with --json there is nothing but events"
    );
    let plan = ran.event("agent_plan");
    assert_eq!(plan["entries"].as_array().unwrap().len(), 3);
}
