//! How a session can end when its agent does its work: nothing to publish, some of it, a draft, a branch alone, a bundle.

use serde_json::json;

use crate::harness::{GREETER, Ran, Task, WEBSITE, World, text};

const WRITE: &[&str] = &["!write hallo.sh echo Hallo\\n", "!commit . Add a German greeting"];
const WRITE_BOTH: &[&str] = &[
    "!write greeter/hallo.sh echo Hallo\\n",
    "!write website/hallo.html <p>Hallo</p>\\n",
];

fn branch_of(ran: &Ran, connection: &str, path: &str) -> String {
    text(ran.project(connection, path), "/branch").to_owned()
}

#[tokio::test]
async fn an_agent_that_changes_nothing_has_answered() {
    let world = World::new().await;
    let before = world.forge().state().await;
    let ran = world
        .exec(&Task::new().greeter().prompt(&["!say It prints a greeting."]))
        .await;
    ran.ended(0, "nothing_to_publish");
    assert_eq!(text(ran.outcome(), "/answer"), "It prints a greeting.");
    assert_eq!(world.forge().state().await, before);
    assert_eq!(world.left_behind().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_project_that_was_not_changed_stays_as_it_is() {
    let world = World::new().await;
    let ran = world
        .exec(&Task::new().greeter().website().prompt(&["!write website/a.html a\\n"]))
        .await;
    ran.ended(0, "published");
    assert_eq!(text(ran.project("lab", GREETER), "/reason"), "nothing_to_publish");
    assert_eq!(text(ran.project("hub", WEBSITE), "/reason"), "published");
    let greeter = world.forge().project("lab", GREETER).await;
    assert_eq!(greeter["branches"].as_object().unwrap().len(), 1);
    assert_eq!(greeter["change_requests"], json!([]));
    let website = world.forge().project("hub", WEBSITE).await;
    assert!(
        !text(&website, "/change_requests/0/description").contains("Belongs together"),
        "it has no sister"
    );
}

#[tokio::test]
async fn what_was_left_uncommitted_is_committed_with_the_agents_summary() {
    let world = World::new().await;
    let prompt = [
        "!write hallo.sh echo Hallo\\n",
        "!say ## Changes\\nGreets in German.\\n## Approach\\nx\\n## Trade-offs\\ny",
    ];
    let ran = world
        .exec(&Task::new().greeter().title("Greet in German").prompt(&prompt))
        .await;
    ran.ended(0, "published");
    let branch = branch_of(&ran, "lab", GREETER);
    let remote = world.remote("lab", GREETER);
    assert_eq!(remote.file(&branch, "hallo.sh"), "echo Hallo\n");
    let commits = remote.commits("main", &branch);
    assert!(
        commits[0]
            .message
            .starts_with("Greet in German\n\nGreets in German.\n\nCo-authored-by: "),
        "{commits:?}"
    );
}

#[tokio::test]
async fn what_was_left_uncommitted_is_discarded_where_the_task_asks() {
    let world = World::new().await;
    let prompt = ["!write kept.txt a\\n", "!commit . Keep this", "!write left.txt b\\n"];
    let ran = world
        .exec(&Task::new().greeter().field("uncommitted", "discard").prompt(&prompt))
        .await;
    ran.ended(0, "published");
    let paths = world.remote("lab", GREETER).paths(&branch_of(&ran, "lab", GREETER));
    assert!(
        paths.contains(&"kept.txt".to_owned()) && !paths.contains(&"left.txt".to_owned()),
        "{paths:?}"
    );
}

#[tokio::test]
async fn a_branch_alone_has_no_change_request() {
    let world = World::new().await;
    let ran = world
        .exec(&Task::new().greeter().field("publish", "branch").prompt(WRITE))
        .await;
    ran.ended(0, "published");
    let project = world.forge().project("lab", GREETER).await;
    assert_eq!(
        project["branches"][branch_of(&ran, "lab", GREETER)],
        ran.project("lab", GREETER)["head"]
    );
    assert_eq!(project["change_requests"], json!([]));
}

#[tokio::test]
async fn drafts_are_what_each_forge_calls_a_draft() {
    let world = World::new().await;
    let ran = world
        .exec(
            &Task::new()
                .greeter()
                .website()
                .field("publish", "draft")
                .prompt(WRITE_BOTH),
        )
        .await;
    ran.ended(0, "published");
    for (connection, path) in [("lab", GREETER), ("hub", WEBSITE)] {
        let project = world.forge().project(connection, path).await;
        assert_eq!(project["change_requests"][0]["draft"], true, "{project}");
        assert_eq!(ran.project(connection, path)["change_request"]["draft"], true);
    }
    let greeter = world.forge().project("lab", GREETER).await;
    assert!(
        text(&greeter, "/change_requests/0/title").starts_with("Draft: "),
        "{greeter}"
    );
}

#[tokio::test]
async fn where_a_repository_has_no_drafts_it_is_opened_all_the_same() {
    let world = World::new().await;
    let task = Task::new()
        .project("hub", "acme/legacy")
        .field("publish", "draft")
        .prompt(WRITE);
    let ran = world.exec(&task).await;
    ran.ended(0, "published");
    let project = world.forge().project("hub", "acme/legacy").await;
    assert_eq!(project["change_requests"].as_array().unwrap().len(), 1);
    assert_eq!(
        ran.project("hub", "acme/legacy")["change_request"]["draft"],
        false,
        "what it is, not what was asked"
    );
}

#[tokio::test]
async fn on_request_leaves_a_bundle_that_git_takes() {
    let world = World::new().await;
    let before = world.forge().state().await;
    let ran = world
        .exec(&Task::new().greeter().field("publish", "on_request").prompt(WRITE))
        .await;
    ran.ended(0, "kept");
    assert_eq!(world.forge().state().await, before);
    check_bundle(&world, &ran, GREETER, "hallo.sh");
    assert_eq!(world.left_behind().await, Vec::<String>::new());
}

/// The bundle that the outcome names can be fetched into a clone of the project, and holds the file.
fn check_bundle(world: &World, ran: &Ran, path: &str, file: &str) {
    let outcome = ran.project("lab", path);
    let name = text(outcome, "/kept");
    assert!(
        world.kept().contains(&name.to_owned()),
        "{name:?} of {:?}",
        world.kept()
    );
    let bundle = world.state().join("kept").join(name);
    let bundle = bundle.to_str().unwrap();
    let remote = world.remote("lab", path);
    remote.git(&["bundle", "verify", bundle]);
    remote.git(&["fetch", "--quiet", bundle, text(outcome, "/branch")]);
    assert_eq!(remote.git(&["rev-parse", "FETCH_HEAD"]).trim(), text(outcome, "/head"));
    remote.git(&["show", &format!("FETCH_HEAD:{file}")]);
}

#[tokio::test]
async fn one_project_that_the_forge_refuses_does_not_cost_the_other() {
    let world = World::new().await;
    let task = Task::new().project("lab", "platform/locked").website();
    let ran = world
        .exec(&task.prompt(&["!write locked/a.txt a\\n", "!write website/a.html a\\n"]))
        .await;
    let message = ran.ended(1, "partly_published");
    assert!(message.contains("platform/locked"), "{message}");
    assert_eq!(text(ran.project("hub", WEBSITE), "/reason"), "published");
    let refused = ran.project("lab", "platform/locked");
    assert_eq!(text(refused, "/reason"), "push_rejected");
    assert!(text(refused, "/message").contains("protected"), "{refused}");
    check_bundle(&world, &ran, "platform/locked", "a.txt");
    let website = world.forge().project("hub", WEBSITE).await;
    assert_eq!(website["change_requests"].as_array().unwrap().len(), 1);
    assert_eq!(world.left_behind().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_forge_that_stumbles_gets_one_merge_request_all_the_same() {
    let world = World::new().await;
    let path = "/merge_requests";
    world
        .forge()
        .fault(json!({"match": {"method": "POST", "path_contains": path}, "status": 500, "times": 1}))
        .await;
    // The second answer is lost after the forge has done what was asked.
    world
        .forge()
        .fault(json!({"match": {"method": "POST", "path_contains": path}, "status": 502, "after": true, "times": 1}))
        .await;
    let ran = world.exec(&Task::new().greeter().prompt(WRITE)).await;
    ran.ended(0, "published");
    let project = world.forge().project("lab", GREETER).await;
    assert_eq!(project["change_requests"].as_array().unwrap().len(), 1, "{project}");
}

#[tokio::test]
async fn a_push_whose_answer_is_lost_is_found_on_the_forge() {
    let world = World::new().await;
    let fault = json!({"match": {"method": "POST", "path_contains": "git-receive-pack"}, "status": 502, "after": true, "times": 1});
    world.forge().fault(fault).await;
    let ran = world.exec(&Task::new().greeter().prompt(WRITE)).await;
    ran.ended(0, "published");
    let project = world.forge().project("lab", GREETER).await;
    assert_eq!(
        project["branches"][branch_of(&ran, "lab", GREETER)],
        ran.project("lab", GREETER)["head"]
    );
}

#[tokio::test]
async fn a_session_that_is_sent_again_adopts_its_merge_request() {
    let world = World::new().await;
    let task = Task::new().greeter().title("Greet");
    let first = world.exec(&task.clone().prompt(&["!write one.txt 1\\n"])).await;
    first.ended(0, "published");
    let second = world.exec(&task.prompt(&["!write two.txt 2\\n"])).await;
    second.ended(0, "published");
    assert_eq!(second.all("change_request_updated").len(), 1, "{}", second.story());
    let branch = branch_of(&second, "lab", GREETER);
    assert_eq!(branch, branch_of(&first, "lab", GREETER));
    let project = world.forge().project("lab", GREETER).await;
    assert_eq!(project["change_requests"].as_array().unwrap().len(), 1);
    let paths = world.remote("lab", GREETER).paths(&branch);
    assert!(
        paths.contains(&"one.txt".to_owned()) && paths.contains(&"two.txt".to_owned()),
        "{paths:?}"
    );
}

#[tokio::test]
async fn what_somebody_else_pushed_to_the_branch_is_never_overwritten() {
    let world = World::new().await;
    let task = Task::new()
        .greeter()
        .title("Greet")
        .prompt(&["!write one.txt 1\\n", "!commit . One", "!sleep 2500"]);
    let mut running = world.start(&task);
    let branch = text(&running.until("granted").await, "/branch").to_owned();
    running.until("turn_started").await;
    let theirs = world.forge().commit("lab", GREETER, &branch, "theirs.txt", "x\n").await;
    let ran = running.finish().await;
    ran.ended(1, "branch_moved");
    let project = world.forge().project("lab", GREETER).await;
    assert_eq!(
        text(&project["branches"], &format!("/{}", branch.replace('/', "~1"))),
        theirs
    );
    check_bundle(&world, &ran, GREETER, "one.txt");
    assert_eq!(world.left_behind().await, Vec::<String>::new());
}
